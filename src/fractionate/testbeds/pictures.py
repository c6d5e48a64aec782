"""Pictures of samples and of single symbols, to look at."""

from __future__ import annotations

import csv
import importlib.util
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fractionate.errors import FractionateError, UsageError, missing_extra
from fractionate.testbeds.allpairs.generator import AllPairs

_GAP = 4
_SHADE = 96
_SCALE = 3
Sheet = np.ndarray[Any, np.dtype[Any]]


def sample_sheet(source: Any, path: Path, start: int, count: int) -> None:
    """Write a PNG of samples: true ones in the upper half, false ones in the lower, as in the paper's survey.

    Each half has ⌈count / 2⌉ samples of its label, the first from sample `start` on.
    """
    if count < 2:
        raise UsageError(f"a survey needs 2 samples or more, not {count}")
    wanted = -(-count // 2)
    found: dict[int, list[Sheet]] = {0: [], 1: []}
    while min(map(len, found.values())) < wanted:
        batch = source.take(start, 64)
        start += 64
        for image, label in zip(batch.images, batch.labels, strict=True):
            found[int(label)].append(image * (255 if image.max() <= 1 else 1))
    columns = min(wanted, 6)
    halves = [_grid(found[label][:wanted], columns) for label in (1, 0)]
    line = np.full((_GAP, halves[0].shape[1]), 255, np.uint8)
    _save(np.concatenate([halves[0], line, halves[1]]), path, 2)


def symbol_sheet(source: Any, path: Path, start: int, count: int) -> None:
    """Write a PNG with a row for each class: `count` drawings of All-Pairs' symbols, or the pentominoes' 8 patterns."""
    if isinstance(source, AllPairs):
        _save(_grid([tile for row in symbol_patches(source, start, count) for tile in row], count), path, _SCALE)
        return
    from fractionate.testbeds.pentomino.generator import VARIANTS, patterns

    _save(_grid(list(patterns() * 255), VARIANTS), path, 4)


def symbol_patches(source: AllPairs, start: int, count: int) -> Sheet:
    """Return drawings of each of the 18 symbols alone, (18, count, 18, 18) of uint8; those below 18 px are padded."""
    from fractionate.testbeds.allpairs.generator import Painter
    from fractionate.testbeds.allpairs.symbols import NAMES
    from fractionate.testbeds.arrays import arrays_for
    from fractionate.testbeds.draws import child, root

    xp = arrays_for(None)
    painter = Painter(xp, source.side)
    total = len(NAMES) * count
    keys = child(np.full(total, root(source.seed, "symbols")), np.arange(start, start + total))
    patches, _ = painter.draw(keys, np.repeat(np.arange(len(NAMES)), count), painter.sizes(keys))
    return np.asarray(patches).reshape(len(NAMES), count, *patches.shape[1:])


def _grid(tiles: list[Sheet], columns: int) -> Sheet:
    height, width = tiles[0].shape
    rows = math.ceil(len(tiles) / columns)
    sheet = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP), _SHADE, np.uint8)
    for place, tile in enumerate(tiles):
        top, left = _GAP + place // columns * (height + _GAP), _GAP + place % columns * (width + _GAP)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def _save(sheet: Sheet, path: Path, scale: int) -> None:
    if importlib.util.find_spec("PIL") is None:
        raise missing_extra("pillow", "testbeds", "drawing a survey")
    from PIL import Image

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.kron(sheet, np.ones((scale, scale), np.uint8))).save(path, "PNG")
    except OSError as error:
        raise FractionateError(f"{path} cannot be written: {error.strerror or error}") from None


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
