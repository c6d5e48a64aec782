"""Coefficients by name, with their intervals and the ranges that they were fitted on.

**The erratum.** Table 6 of arXiv 2502.08606v2 prints B′ = 24181 for the distillation law. With it the law misses the
paper's own measured losses by 1.6 % (root mean square over 354 points read off its Figure 1, at most 5.9 %, and 0.9 %
too low on average), while the paper claims about 1 % or less. With B′ = 1.970e6, which is 24181 · 1000^β′, the error
is 0.38 % (at most 1.4 %): B′ was evidently fitted to tokens counted in thousands. Two of the paper's statements
agree: distilling a 500M model to a loss of 2.4 takes about 3/4 of supervised compute (0.77 with 1.970e6), and a 10B
model to 2.2 about 1/2 (0.45). No erratum has been published. `paper-corrected` is the default, `paper-printed` is
kept, and tests/planning/test_erratum.py repeats the comparison on published points.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fractionate.errors import UsageError
from fractionate.planning.laws import DistillationLaw, SupervisedLaw, as_dict

Range: TypeAlias = tuple[float, float]
Law = TypeVar("Law", SupervisedLaw, DistillationLaw)

CONFIDENCE = 0.90
"""The confidence of every interval of a coefficient here, as in the paper."""
_Z = 1.6448536269514722
"""90 % of a normal variable lies within this many standard deviations."""


@dataclass(frozen=True)
class CoefficientSet:
    """A supervised law, usually with a distillation law, and the uncertainty of their coefficients."""

    name: str
    source: str
    supervised: SupervisedLaw
    distillation: DistillationLaw | None = None
    supervised_intervals: Mapping[str, Range] = field(default_factory=dict)
    """90 % intervals of the supervised coefficients, by the names of `laws.as_dict`."""
    distillation_intervals: Mapping[str, Range] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """The ranges of the fitted runs: "params", "tokens", "teacher_loss"."""
    supervised_draws: NDArray[np.float64] | None = None
    """Coefficients of resamples (rows; columns as in `laws.as_dict`): their joint uncertainty, if known."""
    distillation_draws: NDArray[np.float64] | None = None

    @property
    def distilled(self) -> DistillationLaw:
        """The distillation law. Raises UsageError where the set has none."""
        if self.distillation is None:
            raise UsageError(f"the coefficients {self.name!r} are of a supervised law only: use {DEFAULT!r}")
        return self.distillation

    def outside(self, **given: ArrayLike) -> list[str]:
        """Return a sentence for each of params=, tokens=, teacher_loss= that has a value outside the fitted range."""
        sentences = []
        for name, values in given.items():
            low, high = self.ranges.get(name, (-np.inf, np.inf))
            array = np.asarray(values, np.float64)
            # Published limits are rounded to few digits, so a value on the limit counts as inside.
            beyond = array[(array < low * (1 - 1e-6)) | (array > high * (1 + 1e-6))]
            if beyond.size:
                what, unit = _NAMED[name]
                sentences.append(
                    f"{what} {beyond.flat[0]:.4g} lies outside {low:.4g} to {high:.4g}{unit}, the range of {self.name}"
                )
        return sentences

    def drawn(self, count: int, seed: int = 0) -> CoefficientSet:
        """Return the set with `count` draws of every coefficient, as arrays of shape (count, 1, 1).

        Resamples are drawn jointly if the set has them. Published sets have intervals only: each coefficient is then
        drawn independently, from a normal with the interval's two half-widths, which overstates the joint
        uncertainty.
        """
        generator = np.random.default_rng([seed, 0x6C6177])
        supervised = _drawn(self.supervised, self.supervised_intervals, self.supervised_draws, count, generator)
        distillation = self.distillation and _drawn(
            self.distillation, self.distillation_intervals, self.distillation_draws, count, generator
        )
        return replace(self, supervised=supervised, distillation=distillation)

    def row(self, number: int) -> CoefficientSet:
        """Return one draw of a drawn set, its coefficients as arrays of one."""

        def one(law: Law) -> Law:
            return type(law)(*(getattr(law, each.name)[number : number + 1] for each in fields(law)))

        return replace(self, supervised=one(self.supervised), distillation=self.distillation and one(self.distillation))

    @property
    def has_uncertainty(self) -> bool:
        """Whether the uncertainty of the coefficients is known."""
        draws = self.supervised_draws is not None or self.distillation_draws is not None
        return draws or bool(self.supervised_intervals or self.distillation_intervals)


_NAMED = {
    "params": ("the number of parameters", ""),
    "tokens": ("the number of tokens", ""),
    "teacher_loss": ("the teacher's loss", " nats per token"),
}


def _drawn(
    law: Law,
    intervals: Mapping[str, Range],
    draws: NDArray[np.float64] | None,
    count: int,
    generator: np.random.Generator,
) -> Law:
    names = [name for name in as_dict(law) if name != "K"]
    if draws is not None:
        columns = draws[generator.integers(0, len(draws), count)].T
    else:
        columns = np.array([_spread(as_dict(law)[name], intervals.get(name), count, generator) for name in names])
    return type(law)(*(column[:, None, None] for column in columns))


def _spread(value: float, interval: Range | None, count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    normal = generator.standard_normal(count)
    if interval is None:
        return np.full(count, value)
    low, high = interval
    drawn = value + np.where(normal < 0, value - low, high - value) / _Z * normal
    return np.maximum(drawn, value * 1e-3)


_SUPERVISED = SupervisedLaw(1.220, 3355.0, 18186.0, 0.408, 0.431, 0.452)
_SUPERVISED_INTERVALS = {
    "E": (1.190, 1.247),
    "A": (3346.0, 3360.0),
    "B": (18157.0, 18236.0),
    "alpha": (0.405, 0.411),
    "beta": (0.428, 0.433),
    "gamma": (0.442, 0.461),
}
_PRINTED = DistillationLaw(2243.0, 24181.0, 0.321, 0.637, 0.764, 2.549, 522.6, 0.090, 1.315)
_PRINTED_INTERVALS = {
    "A": (2227.0, 2255.0),
    "B": (24084.0, 24266.0),
    "alpha": (0.319, 0.324),
    "beta": (0.634, 0.640),
    "gamma": (0.732, 0.788),
    "c0": (2.425, 2.615),
    "f1": (0.088, 0.093),
    "d1": (1.302, 1.327),
}
_CORRECTED_B = 1.970e6
_IN_THOUSANDS = _CORRECTED_B / 24181.0
_RANGES = {"params": (1.43e8, 1.261e10), "tokens": (3.7e9, 5.12e11), "teacher_loss": (1.8953, 2.7545)}
_HOFFMANN_RANGES = {"params": (7e7, 1.6e10), "tokens": (5e9, 5e11)}

SETS: dict[str, CoefficientSet] = {
    one.name: one
    for one in (
        CoefficientSet(
            "paper-corrected",
            "arXiv 2502.08606v2, Tables 5 and 6, with B' in tokens and not in thousands of them (see the erratum)",
            _SUPERVISED,
            replace(_PRINTED, b=_CORRECTED_B),
            _SUPERVISED_INTERVALS,
            _PRINTED_INTERVALS | {"B": (24084.0 * _IN_THOUSANDS, 24266.0 * _IN_THOUSANDS)},
            _RANGES,
        ),
        CoefficientSet(
            "paper-printed",
            "arXiv 2502.08606v2, Tables 5 and 6, as printed",
            _SUPERVISED,
            _PRINTED,
            _SUPERVISED_INTERVALS,
            _PRINTED_INTERVALS,
            _RANGES,
        ),
        CoefficientSet(
            "chinchilla",
            "Hoffmann et al., arXiv 2203.15556, approach 3",
            SupervisedLaw(1.69, 406.4, 410.7, 0.34, 0.28),
            ranges=_HOFFMANN_RANGES,
        ),
        CoefficientSet(
            "chinchilla-refit",
            "Besiroglu et al., arXiv 2404.10102, refitted to points read off Hoffmann's figure",
            SupervisedLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658),
            ranges=_HOFFMANN_RANGES,
        ),
    )
}
DEFAULT = "paper-corrected"


def named(name: str) -> CoefficientSet:
    """Return the coefficients of that name. Raises UsageError naming the nearest, or all."""
    if name in SETS:
        return SETS[name]
    nearest = difflib.get_close_matches(name, SETS, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"use {', '.join(SETS)}, or a file from 'plan fit --out'"
    raise UsageError(f"there are no coefficients {name!r}: {hint}")


def load_coefficients(name: str) -> CoefficientSet:
    """Return a set by its name, or from a file that `plan fit` wrote. Raises UsageError where it is neither."""
    path = Path(name)
    if path.suffix.lower() != ".json":
        return named(name)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return _from_record(record, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} holds no fitted law ({error}): write one with 'plan fit FILE --out {path}'") from None


def _from_record(record: dict[str, Any], path: Path) -> CoefficientSet:
    distilled = record["law"] == "distillation"
    supervised = _law(SupervisedLaw, record["supervised"])
    intervals = _pairs(record["intervals"])
    draws = {name: np.array(table, float) for name, table in record.get("draws", {}).items()}
    return CoefficientSet(
        str(path),
        f"fitted to {record['points']} runs",
        supervised,
        _law(DistillationLaw, record["coefficients"]) if distilled else None,
        _pairs(record["supervised_intervals"]),
        intervals if distilled else {},
        _pairs(record["ranges"]),
        draws.get("supervised"),
        draws.get("distillation"),
    )


def _law(kind: type[Any], values: dict[str, float]) -> Any:
    return kind(**{_FIELDS.get(name, name): float(value) for name, value in values.items() if name != "K"})


def _pairs(values: dict[str, list[float]]) -> dict[str, Range]:
    return {name: (float(low), float(high)) for name, (low, high) in values.items()}


_FIELDS = {"E": "e", "A": "a", "B": "b"}
"""The fields of a law by the names that tables and files use."""
