"""A log by its path: which kind it is, which part of it is meant, what it is called."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from fractionate.analysis.pricing import Pricing
from fractionate.analysis.systems import System
from fractionate.config import PriceConfig
from fractionate.datasets.scoring import file_rows
from fractionate.errors import UsageError
from fractionate.logs.choices import Choices
from fractionate.logs.inspect_ai import is_inspect_json, read_eval, read_eval_json
from fractionate.logs.lm_eval import is_sample, read_samples, sample_files
from fractionate.logs.own import read_cell
from fractionate.logs.tables import read_table
from fractionate.logs.traffic import is_traffic, read_record
from fractionate.run.attempts import is_measured
from fractionate.run.folder import RunFolder


def read_systems(
    texts: Sequence[str], choices: Choices, prices: Mapping[str, PriceConfig] | None = None
) -> list[System]:
    """Read logs, each `[NAME=]PATH[:CELL]`; without a name a system is called by the end of its path, told apart.

    Raises UsageError for a path that is no log, with the fix.
    """
    parts = [_parts(text) for text in texts]
    tails = _tails([path for _, path, _ in parts])
    one_run = len({path for _, path, _ in parts}) == 1
    return [
        _read(path, cell, name or (f"{tail}:{cell}" if cell and not one_run else cell or tail), choices, prices or {})
        for (name, path, cell), tail in zip(parts, tails, strict=True)
    ]


def _parts(text: str) -> tuple[str, Path, str]:
    """Return name, path and cell of `[NAME=]PATH[:CELL]`. What exists wins over what the signs in it may mean."""
    name, equals, rest = text.partition("=")
    if not equals or Path(text).exists() or "/" in name:
        name, rest = "", text
    if not rest:
        raise UsageError(f"{text!r} names no log: write [NAME=]PATH, a log or a run's folder")
    if Path(rest).exists():
        return name, Path(rest), ""
    cuts = [place for place, letter in enumerate(rest) if letter == ":" and Path(rest[:place]).exists()]
    if not cuts:
        raise UsageError(f"{rest} does not exist: name a log, or a run's folder")
    return name, Path(rest[: cuts[-1]]), rest[cuts[-1] + 1 :]


def _tails(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that tell them apart, without what kind of file it is where that is enough."""
    bare = [path.with_suffix("") if path.is_file() else path for path in paths]
    if len(set(bare)) == len(set(paths)):
        paths = bare
    for length in range(1, max(len(path.parts) for path in paths)):
        tails = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(tails)) == len(set(paths)):
            return tails
    return [str(path) for path in paths]


def _read(path: Path, cell: str, name: str, choices: Choices, prices: Mapping[str, PriceConfig]) -> System:
    if path.is_dir() and is_measured(RunFolder(path)):
        return read_cell(path, cell, name, choices, prices)
    if path.is_dir():
        found = sample_files(path)
        if not found:
            raise UsageError(f"{path} holds neither attempts.jsonl nor samples_*.jsonl: name a log in it")
        return replace(read_samples(found, name, choices), pricing=Pricing(prices))
    if path.suffix.lower() == ".eval":
        system = read_eval(path, name, choices)
    else:
        system = _of_rows(path, cell, name, choices, prices)
    if system.source in ("fractionate", "traffic"):
        return system
    if cell:
        raise UsageError(f"{path} is no run of fractionate, so it has no cell {cell!r}: leave that out")
    return replace(system, pricing=Pricing(prices))


def _of_rows(path: Path, cell: str, name: str, choices: Choices, prices: Mapping[str, PriceConfig]) -> System:
    if path.suffix.lower() == ".json" and is_inspect_json(table := _json(path)):
        return read_eval_json(table, path, name, choices)
    rows = file_rows(path)
    first = next(rows, None)
    if first is not None and {"components", "solver_usage"} <= first.values.keys():
        return read_cell(path, cell, name, choices, prices)
    if first is not None and is_traffic(first.values):
        return replace(read_record(path, cell, name, choices), pricing=Pricing(prices))
    if first is not None and is_sample(first.values):
        return read_samples([path], name, choices)
    return read_table(list(chain([first] if first else [], rows)), path, name, choices)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None  # what is wrong with the file is said by the reader of rows
