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
    """Read the runs of a file (JSONL, JSON, CSV, TSV, Parquet) by its columns; others are left alone.

    `law` says which columns count where a file has both. Raises UsageError naming the file, the line and the value.
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
