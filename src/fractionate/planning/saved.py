"""Fitted coefficients as a file, and coefficients by name or by file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fractionate.errors import UsageError
from fractionate.files import write_text
from fractionate.planning.coefficients import CoefficientSet, Range, named
from fractionate.planning.fit import Fit
from fractionate.planning.laws import DistillationLaw, SupervisedLaw
from fractionate.planning.runs import DISTILLATION


def write(fit: Fit, path: Path) -> None:
    """Write a fit as JSON, with some of its resamples. Raises FractionateError where that fails."""
    draws = {
        "supervised": fit.set.supervised_draws,
        "distillation": fit.set.distillation_draws,
    }
    kept = {name: table.tolist() for name, table in draws.items() if table is not None}
    write_text(json.dumps(fit.as_dict() | {"draws": kept}) + "\n", path)


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
    distilled = record["law"] == DISTILLATION
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
