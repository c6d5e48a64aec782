"""Training runs to fit a law to: read from a file, checked row by row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractionate.errors import UsageError
from fractionate.rows import Row, kind_of, read_rows

Array = NDArray[np.float64]

SUPERVISED = "supervised"
DISTILLATION = "distillation"
_COLUMNS = {SUPERVISED: ("n", "d", "l"), DISTILLATION: ("n_s", "d_s", "l_t", "l_s")}
_MEANING = (
    "n_s, d_s, l_t, l_s (the student's parameters and tokens, the teacher's loss, the student's loss) or n, d, l "
    "(parameters, tokens, loss of a supervised run)"
)


@dataclass(frozen=True)
class SupervisedRuns:
    """Supervised runs, each array of shape (runs,): non-embedding parameters, tokens, loss in nats per token."""

    params: Array
    tokens: Array
    loss: Array

    def __len__(self) -> int:
        return len(self.loss)


@dataclass(frozen=True)
class DistillationRuns:
    """Distillation runs, each array of shape (runs,): the student's size and tokens, the teacher's loss, its own."""

    params: Array
    tokens: Array
    teacher_loss: Array
    loss: Array

    def __len__(self) -> int:
        return len(self.loss)


Runs = SupervisedRuns | DistillationRuns


def read_runs(path: Path, law: str | None = None) -> Runs:
    """Read the runs of a file (JSONL, JSON, CSV, TSV, Parquet) by its columns; other columns are ignored.

    `law` selects the columns where a file has both. Raises UsageError naming the file, the line and the value.
    """
    columns: tuple[str, ...] = ()
    rows: list[tuple[float, ...]] = []
    for row in read_rows(path):
        fields = {str(name).strip().lower(): value for name, value in row.values.items()}
        if not columns:
            columns = _columns(path, fields, law)
        rows.append(tuple(_number(row, name, fields) for name in columns))
    if not rows:
        raise UsageError(f"{path} has no runs: it needs rows with {_MEANING}")
    table = [np.array(column) for column in zip(*rows, strict=True)]
    return SupervisedRuns(*table) if len(columns) == 3 else DistillationRuns(*table)


def _columns(path: Path, fields: dict[str, Any], law: str | None) -> tuple[str, ...]:
    for name in (law,) if law else (DISTILLATION, SUPERVISED):
        if all(column in fields for column in _COLUMNS[name]):
            return _COLUMNS[name]
    wanted = ", ".join(_COLUMNS[law]) if law else _MEANING
    raise UsageError(f"{path} has the columns {', '.join(fields) or 'none'}: it needs {wanted}")


def _number(row: Row, name: str, fields: dict[str, Any]) -> float:
    value = fields.get(name)
    if value is None or value == "":
        raise row.error(f"{name} is missing")
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        said = repr(value) if isinstance(value, str) else kind_of(value)
        raise row.error(f"{name} must be a number, not {said}")
    if number <= 0:
        raise row.error(f"{name} must be above 0, not {number:g}")
    return number


LEAST_RUNS = {SupervisedRuns: 8, DistillationRuns: 11}
"""Two more than the coefficients that are free: 6, and 8 (9 where c1 is)."""
_LEVELS = 3
_SPAN = 3.0
"""Sizes and tokens must differ by this factor at least."""
_OWN_WAY = 0.2
"""How far (standard deviation of a logarithm) sizes and tokens must vary apart from each other."""
_TEACHER_SPAN = 1.05
_WEAK, _WEAK_RUNS = 0.9, 2
"""A teacher shows the capacity gap from this share of the student's supervised loss on; the runs it takes."""


def require_supervised(runs: SupervisedRuns) -> None:
    """Raise UsageError, saying which runs to add, where they cannot tell E, A, B and the exponents."""
    _require(_lacking_count(runs) or _lacking_spread(runs))


def require_distillation(runs: DistillationRuns, supervised_loss: Array) -> None:
    """Raise the same for a distillation law; `supervised_loss` (runs,) is what each student reaches alone."""
    _require(
        _lacking_count(runs) or _lacking_spread(runs) or _lacking_teachers(runs) or _lacking_gap(runs, supervised_loss)
    )


def _require(lacking: str) -> None:
    if lacking:
        raise UsageError(f"these runs cannot tell the law: {lacking}")


def _lacking_count(runs: Runs) -> str:
    least = LEAST_RUNS[type(runs)]
    if len(runs) >= least:
        return ""
    return f"{len(runs)} runs are fewer than {least}; add {least - len(runs)} or more of other sizes and tokens"


def _lacking_spread(runs: Runs) -> str:
    for name, values in (("size", runs.params), ("number of tokens", runs.tokens)):
        levels = np.unique(values)
        if len(levels) < _LEVELS or levels[-1] / levels[0] < _SPAN:
            middle = float(np.sqrt(levels[0] * levels[-1]))
            return (
                f"{len(levels)} {name}{'s' if len(levels) > 1 else ''} from {levels[0]:.3g} to {levels[-1]:.3g} "
                f"({_LEVELS} that span a factor of {_SPAN:g} are the least); add runs at {middle / 3:.2g} and at "
                f"{middle * 3:.2g}, with everything else as in the runs there are"
            )
    log_n, log_d = np.log(runs.params), np.log(runs.tokens)
    if _apart(log_d, [log_n]) < _OWN_WAY or _apart(log_n, [log_d]) < _OWN_WAY:
        ratio = float(np.exp(np.median(log_d - log_n)))
        at = float(np.sort(runs.params)[len(runs) // 2])
        tokens = float(np.exp(np.interp(np.log(at), *_sorted(log_n, log_d))))
        return (
            f"sizes and tokens go up together (about {ratio:.3g} tokens per parameter), so that their terms cannot be "
            f"told apart; add runs of one size with fewer and more tokens, such as {at:.3g} parameters with "
            f"{tokens / 4:.2g} and {tokens * 4:.2g} tokens"
        )
    return ""


def _lacking_teachers(runs: DistillationRuns) -> str:
    levels = np.unique(runs.teacher_loss)
    if len(levels) >= _LEVELS and levels[-1] / levels[0] >= _TEACHER_SPAN:
        log_t = np.log(runs.teacher_loss)
        if _apart(log_t, [np.log(runs.params), np.log(runs.tokens)]) >= 0.01:
            return ""
        return "a student's size and tokens decide which teacher it has; add runs of one student with several teachers"
    return (
        f"{len(levels)} teacher loss{'es' if len(levels) > 1 else ''} from {levels[0]:.4g} to {levels[-1]:.4g} "
        f"({_LEVELS} that differ by {_TEACHER_SPAN - 1:.0%} are the least); add runs of the same students with a "
        f"better and a worse teacher"
    )


def _lacking_gap(runs: DistillationRuns, supervised_loss: Array) -> str:
    share = runs.teacher_loss / supervised_loss
    if int(np.sum(share >= _WEAK)) >= _WEAK_RUNS:
        return ""
    nearest = int(np.argmax(share))
    return (
        f"no two runs have a teacher near or above the student's own supervised loss (the nearest: L_T "
        f"{runs.teacher_loss[nearest]:.4g} for a student that reaches {supervised_loss[nearest]:.4g} alone), so that K "
        f"and f1, the capacity gap, stay unknown; add runs of weak teachers and large students, with L_T from "
        f"{supervised_loss[nearest] * 0.95:.3g} to {supervised_loss[nearest] * 1.1:.3g}"
    )


def _apart(values: Array, others: list[Array]) -> float:
    """Return the standard deviation of what a linear function of the others leaves of the values."""
    design = np.column_stack([np.ones(len(values)), *others])
    left = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return float(np.sqrt(np.mean(left**2)))


def _sorted(x: Array, y: Array) -> tuple[Array, Array]:
    order = np.argsort(x, kind="stable")
    return x[order], y[order]
