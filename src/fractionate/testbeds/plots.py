"""Pictures of training curves beside the Bayes ceilings."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

Curve = Sequence[tuple[float, float]]
"""(samples, accuracy) along a run."""


def plot_run(folder: Path, ceilings: Mapping[str, Fraction]) -> Path | None:
    """Draw a run's validation curve into its `curve.png`; return None where there is no curve or no matplotlib."""
    curve = read_curve(folder)
    if not curve or importlib.util.find_spec("matplotlib") is None:
        return None
    plot_curves({"validation": [curve]}, ceilings, folder / "curve.png")
    return folder / "curve.png"


def read_curve(folder: Path) -> Curve:
    """Return a run's validation curve."""
    path = folder / "curve.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [(float(row["samples"]), float(row["validation_accuracy"])) for row in csv.DictReader(file)]


def plot_curves(named: Mapping[str, Sequence[Curve]], ceilings: Mapping[str, Fraction], path: Path) -> None:
    """Draw curves, one colour per name and one line per run, over the ceilings, and write a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=110, layout="constrained")
    for place, (name, curves) in enumerate(named.items()):
        for number, curve in enumerate(curves):
            samples, accuracies = zip(*curve, strict=True)
            axes.plot(samples, accuracies, color=f"C{place}", lw=1.5, label=name if number == 0 else None)
    lowest = min(accuracy for curves in named.values() for curve in curves for _, accuracy in curve)
    for name, value in ceilings.items():
        if float(value) >= lowest - 0.05:
            axes.axhline(float(value), color="0.6", lw=0.7, ls=":")
            axes.annotate(name, (1.01, float(value)), xycoords=("axes fraction", "data"), fontsize=7, va="center")
    axes.set(xlabel="training samples", ylabel="validation accuracy", ylim=(max(0.0, lowest - 0.05), 1.01))
    axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)
