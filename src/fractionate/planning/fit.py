"""Fit a law to training runs: coefficients, intervals, the error on held-out runs, and what stays unidentified."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractionate.errors import UsageError
from fractionate.files import write_text
from fractionate.planning.coefficients import CONFIDENCE, SETS, CoefficientSet, Range
from fractionate.planning.laws import DistillationLaw, SupervisedLaw, as_dict
from fractionate.planning.minimise import Curve, DistillationCurve, SupervisedCurve
from fractionate.planning.protocol import (
    FOLDS,
    LARGEST_SHARE,
    PUBLISHED_C1,
    Fitted,
    Journal,
    Options,
    digest,
    fit_curve,
    held_out_errors,
)
from fractionate.planning.runs import (
    DISTILLATION,
    SUPERVISED,
    DistillationRuns,
    SupervisedRuns,
    require_distillation,
    require_supervised,
)

Array = NDArray[np.float64]

DRAWS_KEPT = 256
"""Resamples that a saved fit carries, so that recipes can vary the coefficients together."""
_FORMAT = 1
"""Increased by every change of the fit that makes stored blocks of older versions wrong."""


@dataclass(frozen=True)
class Fit:
    """A fitted law. Errors are relative: predicted over measured loss, minus 1."""

    law: str
    coefficients: Mapping[str, float]
    intervals: Mapping[str, Range]
    """90 % percentile intervals over resamples of the runs; empty without resamples."""
    rms_relative_error: float
    """Error on the fitted runs."""
    held_out_rms: float
    """Error in five-fold cross-validation."""
    largest_rms: float
    """Error on the fifth of runs with the largest size × tokens, predicted from the others."""
    points: int
    set: CoefficientSet
    predicted: Array = field(repr=False)
    """Losses (runs,) that the law gives."""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the fit for JSON; `coefficients.load_coefficients` makes the coefficients from it again."""
        return {
            "law": self.law,
            "coefficients": dict(self.coefficients),
            "intervals": {name: list(interval) for name, interval in self.intervals.items()},
            "confidence": CONFIDENCE,
            "rms_relative_error": self.rms_relative_error,
            "held_out": {"folds": FOLDS, "rms_relative_error": self.held_out_rms},
            "largest": {"share": LARGEST_SHARE, "rms_relative_error": self.largest_rms},
            "points": self.points,
            "supervised": as_dict(self.set.supervised),
            "supervised_intervals": {name: list(given) for name, given in self.set.supervised_intervals.items()},
            "ranges": {name: list(given) for name, given in self.set.ranges.items()},
            "notes": list(self.notes),
        }

    def write(self, path: Path) -> None:
        """Write the fit as JSON with some of its resamples. Raises FractionateError where that fails."""
        draws = {"supervised": self.set.supervised_draws, "distillation": self.set.distillation_draws}
        kept = {name: table.tolist() for name, table in draws.items() if table is not None}
        write_text(json.dumps(self.as_dict() | {"draws": kept}) + "\n", path)


def fit_supervised(runs: SupervisedRuns, options: Options | None = None, state: Path | None = None) -> Fit:
    """Fit L(N, D). Raises UsageError where the runs cannot identify it.

    `state` is a file that stores finished blocks, so that the same call resumes; it is removed at the end.
    """
    options = options or Options()
    require_supervised(runs)
    curve = SupervisedCurve(*(np.log(one) for one in (runs.params, runs.tokens, runs.loss)))
    fitted, errors, largest, journal = _fitted(curve, options, state)
    laws = [curve.law(theta) for theta in fitted.resampled]
    law = curve.law(fitted.theta)
    found = CoefficientSet(
        "fitted",
        f"{len(runs)} supervised runs",
        law,
        supervised_intervals=_intervals(laws),
        ranges=_ranges(runs),
        supervised_draws=_table(laws),
    )
    predicted = np.asarray(law.loss(runs.params, runs.tokens))
    journal.discard()
    return Fit(
        SUPERVISED,
        as_dict(law),
        found.supervised_intervals,
        _rms(predicted / runs.loss - 1),
        _rms(errors),
        _rms(largest),
        len(runs),
        found,
        predicted,
        tuple(_notes_of_terms()),
    )


def fit_distillation(
    runs: DistillationRuns,
    supervised: Fit | CoefficientSet = SETS["paper-corrected"],
    options: Options | None = None,
    state: Path | None = None,
) -> Fit:
    """Fit L_S(N_S, D_S, L_T) with the supervised law frozen inside, as the paper does. Raises UsageError as above."""
    options = options or Options()
    given = supervised.set if isinstance(supervised, Fit) else supervised
    _require_above_floor(runs, given)
    alone = np.asarray(given.supervised.loss(runs.params, runs.tokens))
    require_distillation(runs, alone)
    arrays = (runs.params, runs.tokens, runs.teacher_loss, alone, runs.loss)
    curve = DistillationCurve(*(np.log(one) for one in arrays))
    fitted, errors, largest, journal = _fitted(curve, options, state)
    laws = [curve.law(theta) for theta in fitted.resampled]
    law = curve.law(fitted.theta)
    found = CoefficientSet(
        "fitted",
        f"{len(runs)} distillation runs over the supervised law of {given.name}",
        given.supervised,
        law,
        given.supervised_intervals,
        _intervals(laws),
        _ranges(runs),
        given.supervised_draws,
        _table(laws),
    )
    predicted = np.asarray(law.loss(runs.params, runs.tokens, runs.teacher_loss, alone))
    journal.discard()
    return Fit(
        DISTILLATION,
        as_dict(law),
        found.distillation_intervals,
        _rms(predicted / runs.loss - 1),
        _rms(errors),
        _rms(largest),
        len(runs),
        found,
        predicted,
        tuple(_notes_of_gap(runs, given, fitted, isinstance(supervised, Fit))),
    )


def _fitted(curve: Curve, options: Options, state: Path | None) -> tuple[Fitted, Array, Array, Journal]:
    key = digest(_FORMAT, curve.names, curve.stacked(), options.resamples, options.whole_grid, options.seed)
    journal = Journal(state, key)
    fitted = fit_curve(curve, options, journal)
    size = np.asarray(curve.log_params + curve.log_tokens, np.float64)
    return fitted, *held_out_errors(curve, fitted, size, options), journal


def _require_above_floor(runs: DistillationRuns, given: CoefficientSet) -> None:
    floor = float(given.supervised.e)
    for name, losses in (("l_t", runs.teacher_loss), ("l_s", runs.loss)):
        if losses.min() <= floor:
            raise UsageError(
                f"{name} = {losses.min():g} (run {int(np.argmin(losses)) + 1}) is below the entropy floor E = "
                f"{floor:g} of the supervised law of {given.name}: fit that law to your own supervised runs too "
                f"(--supervised FILE)"
            )


def _intervals(laws: list[SupervisedLaw] | list[DistillationLaw]) -> dict[str, Range]:
    if not laws:
        return {}
    rows = [as_dict(law) for law in laws]
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    bounds = {name: np.quantile([row[name] for row in rows], tails) for name in rows[0]}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}


def _table(laws: list[SupervisedLaw] | list[DistillationLaw]) -> Array | None:
    """Return the coefficients of some resamples, (draws, coefficients)."""
    if not laws:
        return None
    kept = laws[:: max(1, len(laws) // DRAWS_KEPT)][:DRAWS_KEPT]
    return np.array([[value for name, value in as_dict(law).items() if name != "K"] for law in kept])


def _ranges(runs: SupervisedRuns | DistillationRuns) -> dict[str, Range]:
    spans = {"params": runs.params, "tokens": runs.tokens}
    if isinstance(runs, DistillationRuns):
        spans["teacher_loss"] = runs.teacher_loss
    return {name: (float(values.min()), float(values.max())) for name, values in spans.items()}


def _rms(errors: Array) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))


def _notes_of_terms() -> list[str]:
    return [
        "A, B, the exponents and gamma trade off against each other: trust the losses they predict, not each alone",
        "intervals take runs as independent",
    ]


def _notes_of_gap(runs: DistillationRuns, given: CoefficientSet, fitted: Fitted, own: bool) -> list[str]:
    notes = _notes_of_terms()
    if fitted.free[-1]:
        notes.append("c1 was fitted too, because these runs identify it")
    else:
        notes.append(
            f"these runs do not identify c1, which stays at {PUBLISHED_C1}; d1 follows from K and f1, which they do"
        )
    if not own:
        notes.append(
            f"the supervised law inside is that of {given.name}, not of your runs: give supervised runs with "
            f"--supervised where your text, tokenizer or architecture differ"
        )
    below = int(np.sum(runs.loss <= runs.teacher_loss))
    if below:
        notes.append(f"{below} of {len(runs)} students are no worse than their teacher, which the law cannot express")
    return notes
