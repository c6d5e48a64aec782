"""Drawings of the scaling law as SVG or PNG, by the file's suffix. Needs the extra `plots` (matplotlib)."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fractionate.errors import UsageError, missing_extra
from fractionate.files import write_bytes
from fractionate.planning.coefficients import CoefficientSet
from fractionate.planning.fit import Fit
from fractionate.planning.flops import TRAINING_PASSES
from fractionate.planning.predict import best_teacher_loss
from fractionate.planning.recipes import LEAST, MOST, Setting, losses_with, solve, supervised

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

SUFFIXES = (".svg", ".png")
_BLUE, _ORANGE, _GREY = "#1f5fa8", "#c4590a", "#6b6b6b"
_DASHES = ("-", "--", "-.", ":")


def check_path(path: Path) -> None:
    """Raise UsageError where a plot cannot be written to that file. Called before the work, not after it."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"a plot is written as {' or '.join(SUFFIXES)}, not as {path.suffix or path.name}: change --plot"
        )
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path.absolute().parent} is no folder: make it first, or change --plot")
    _figure(1)


def save(figure: Figure, path: Path, title: str) -> None:
    """Write a figure to a file. Raises FractionateError where that fails."""
    import matplotlib

    buffer = io.BytesIO()
    metadata = {"Title": title, "Date": None} if path.suffix.lower() == ".svg" else {"Title": title}
    # Text stays text, so that an SVG can be searched and read aloud; and the same plan gives the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fractionate"}):
        figure.savefig(buffer, format=path.suffix.lower()[1:], dpi=150, metadata=metadata)
    write_bytes(buffer.getvalue(), path)


def capacity_gap(params: float, tokens: float, teacher_loss: float | None, coefficients: CoefficientSet) -> Figure:
    """Draw the student's loss against the teacher's: the U of the capacity gap."""
    law, own = coefficients.distilled, float(coefficients.supervised.loss(params, tokens))
    floor = float(coefficients.supervised.e)
    teachers = np.linspace(floor + 0.02 * (own - floor), own * 1.12, 300)
    losses = np.asarray(law.loss(params, tokens, teachers, own))
    figure, (axes,) = _figure(1)
    axes.plot(teachers, losses, color=_BLUE, label="student, distilled")
    axes.axhline(own, color=_GREY, linestyle="--", label="the same student, supervised")
    axes.plot(teachers, teachers, color=_GREY, linestyle=":", label="equal to its teacher")
    low, high = coefficients.ranges.get("teacher_loss", (-math.inf, math.inf))
    if math.isfinite(low):
        axes.axvspan(low, high, color=_GREY, alpha=0.12, linewidth=0, label="fitted range")
    best = float(best_teacher_loss(params, tokens, coefficients))
    axes.plot(best, float(law.loss(params, tokens, best, own)), "o", color=_BLUE, label=f"best teacher, {best:.3f}")
    if teacher_loss is not None:
        given = float(law.loss(params, tokens, teacher_loss, own))
        axes.plot(teacher_loss, given, "s", color=_ORANGE, label=f"this teacher, {teacher_loss:.3f} → {given:.3f}")
    axes.set_xlim(teachers[0], teachers[-1])
    spread = max(float(losses.max()), own) - float(losses.min())
    axes.set_ylim(float(losses.min()) - 0.15 * spread, max(float(losses.max()), own) + 0.15 * spread)
    _finish(axes, "teacher's loss (nats per token)", "student's loss (nats per token)")
    return figure


def recipes(settings: Sequence[Setting]) -> Figure:
    """Draw IsoFLOP curves, the loss by the teacher's size at one budget, and the crossover, by budget."""
    figure, axes = _figure(2)
    for number, setting in enumerate(settings):
        style: dict[str, Any] = {
            "color": _BLUE,
            "linestyle": _DASHES[number % len(_DASHES)],
            "label": setting.scenario.name,
        }
        sizes, losses = _isoflop(setting)
        axes[0].plot(sizes, _finite(losses), **style)
        budgets = np.geomspace(setting.compute / 1e4, setting.compute * 1e4, 121)
        above = solve(setting, budgets, rough=True).loss - supervised(setting, budgets)[0]
        axes[1].plot(budgets, _finite(above), **style)
    axes[1].axhline(0, color=_ORANGE, label="supervised")
    axes[1].axvline(settings[0].compute, color=_GREY, linewidth=0.8)
    for one in axes:
        one.set_xscale("log")
    _finish(axes[0], "teacher's size (parameters)", "student's loss (nats per token)")
    _finish(axes[1], "compute (FLOPs)", "student's loss, less supervised (nats per token)")
    axes[0].set_title(f"at {settings[0].compute:.2g} FLOPs", fontsize=10)
    axes[1].set_title(f"a student of {settings[0].student_params:.2g} parameters", fontsize=10)
    return figure


def _isoflop(setting: Setting) -> tuple[Array, Array]:
    """Return sizes of teachers and the student's loss with each, with the best number of teacher tokens."""
    sizes = np.geomspace(max(LEAST, setting.student_params / 100), setting.student_params * 1000, 121)
    own = TRAINING_PASSES * setting.architecture.forward(sizes) / setting.students
    most = np.where(setting.scenario.pretraining, 0.999 * (setting.compute - setting.serving) / own, MOST)
    tokens = np.geomspace(np.full(len(sizes), LEAST), np.maximum(most, 2 * LEAST), 201)
    return sizes, losses_with(setting, sizes, tokens).min(axis=0)


def fit(found: Fit, measured: Array, teacher_loss: Array | None) -> Figure:
    """Draw predicted against measured losses, and the relative errors, by the teacher's loss where there is one."""
    figure, axes = _figure(2)
    errors = 100 * (found.predicted / measured - 1)
    axes[0].plot(measured, found.predicted, "o", color=_BLUE, markersize=4)
    ends = [float(measured.min()), float(measured.max())]
    axes[0].plot(ends, ends, color=_GREY, linestyle="--")
    axes[1].plot(measured if teacher_loss is None else teacher_loss, errors, "o", color=_BLUE, markersize=4)
    axes[1].axhline(0, color=_GREY, linestyle="--")
    _finish(axes[0], "measured loss (nats per token)", "predicted loss", legend=False)
    name = "measured" if teacher_loss is None else "teacher's"
    _finish(axes[1], f"{name} loss (nats per token)", "predicted over measured (%)", legend=False)
    return figure


def _finite(values: Array) -> Array:
    return np.where(np.isfinite(values), values, np.nan)


def _figure(panels: int) -> tuple[Figure, list[Axes]]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "plots", "a plot") from error
    # A figure without pyplot: no window, no global state, no backend to choose.
    figure = Figure(figsize=(6.4 * panels, 4.4), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, panels)))


def _finish(axes: Axes, x: str, y: str, *, legend: bool = True) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color=_GREY, alpha=0.2, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(frameon=False, fontsize=8)
