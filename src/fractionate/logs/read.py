"""A log by its path: which kind it is, which part of it is meant, what it is called."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from fractionate.analysis.pricing import Pricing
from fractionate.analysis.systems import System
from fractionate.config import PriceConfig
from fractionate.datasets.scoring import file_rows
from fractionate.errors import UsageError
from fractionate.logs.choices import Choices, readable
from fractionate.logs.harnesses import (
    eval_files,
    is_inspect_json,
    is_sample,
    read_eval,
    read_eval_json,
    read_samples,
    sample_files,
)
from fractionate.logs.own import read_cell
from fractionate.logs.tables import read_table
from fractionate.logs.traffic import is_traffic, read_record
from fractionate.run.attempts import is_measured
from fractionate.run.folder import RunFolder


def read_systems(
    texts: Sequence[str], choices: Choices, prices: Mapping[str, PriceConfig] | None = None
) -> list[System]:
    """Read logs, each `[NAME=]PATH[:CELL | #FIELD]`; a system without a name is called by the end of its path, unique.

    Raises UsageError for a path that is no log, with the fix.
    """
    parts = [part for text in texts for part in _of_folder(_parts(text))]
    tails = _tails([part.path for part in parts])
    one_file = len({part.path for part in parts}) == 1
    systems = []
    for part, tail in zip(parts, tails, strict=True):
        inner = part.cell or part.column
        name = part.name or (inner if one_file and inner else f"{tail}:{inner}" if inner else tail)
        with readable(str(part.path), "log"):
            systems.append(_read(part, name, choices, prices or {}))
    return systems


def named_paths(texts: Sequence[str]) -> list[tuple[str, Path]]:
    """Return the names and paths of logs that are files of rows, each `[NAME=]PATH`. Raises UsageError for others."""
    parts = [_parts(text) for text in texts]
    wrong = [text for text, part in zip(texts, parts, strict=True) if part.cell or part.column or part.path.is_dir()]
    if wrong:
        raise UsageError(f"{wrong[0]}: a judge compares the outputs of two files of rows")
    return [
        (part.name or tail, part.path) for part, tail in zip(parts, _tails([one.path for one in parts]), strict=True)
    ]


class _Part(NamedTuple):
    """What `[NAME=]PATH[:CELL | #FIELD]` names."""

    name: str
    path: Path
    cell: str = ""
    column: str = ""


def _parts(text: str) -> _Part:
    """Return what a log's text names. What exists wins over what the signs in it may mean."""
    name, equals, rest = text.partition("=")
    if not equals or Path(text).exists() or "/" in name:
        name, rest = "", text
    if not rest:
        raise UsageError(f"{text!r} names no log: write [NAME=]PATH, a log or a run's folder")
    if Path(rest).exists():
        return _Part(name, Path(rest))
    cuts = [place for place, letter in enumerate(rest) if letter in ":#" and Path(rest[:place]).exists()]
    if not cuts:
        raise UsageError(f"{rest} does not exist: name a log, or a run's folder")
    path, sign, inner = Path(rest[: cuts[-1]]), rest[cuts[-1]], rest[cuts[-1] + 1 :]
    return _Part(name, path, cell=inner) if sign == ":" else _Part(name, path, column=inner)


def _of_folder(part: _Part) -> list[_Part]:
    """Return a part for each log of inspect_ai in a folder of such logs; the part itself for anything else."""
    logs = eval_files(part.path) if part.path.is_dir() else []
    if not logs or is_measured(RunFolder(part.path)) or sample_files(part.path):
        return [part]
    if len(logs) > 1 and part.name:
        named = ", ".join(log.name for log in logs[:3])
        raise UsageError(f"{part.path} holds {len(logs)} logs ({named}, …), so not all can be {part.name}: name one")
    return [part._replace(path=log) for log in logs]


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


def _read(part: _Part, name: str, choices: Choices, prices: Mapping[str, PriceConfig]) -> System:
    path, cell = part.path, part.cell
    if path.is_dir() and is_measured(RunFolder(path)):
        return read_cell(path, cell, name, choices, prices)
    if path.is_dir():
        found = sample_files(path)
        if not found:
            raise UsageError(f"{path} holds neither attempts.jsonl, samples_*.jsonl nor *.eval: name a log in it")
        return replace(read_samples(found, name, choices), pricing=Pricing(prices))
    is_eval = path.suffix.lower() == ".eval"
    system = read_eval(path, name, choices) if is_eval else _of_rows(part, name, choices, prices)
    if system.source == "fractionate":
        return system
    if cell and system.source != "traffic":
        raise UsageError(f"{path} is no run of fractionate, so it has no cell {cell!r}: leave that out")
    if part.column and system.source != "rows":
        raise UsageError(f"{path} is no table, so it has no field {part.column!r}: leave #{part.column} out")
    return replace(system, pricing=Pricing(prices))


def _of_rows(part: _Part, name: str, choices: Choices, prices: Mapping[str, PriceConfig]) -> System:
    path, table = part.path, choices.name_fields or bool(part.column)
    if not table and path.suffix.lower() == ".json" and is_inspect_json(content := _json(path)):
        return read_eval_json(content, path, name, choices)
    rows = file_rows(path)
    first = next(rows, None)
    if first is not None and not table:
        if {"components", "solver_usage"} <= first.values.keys():
            return read_cell(path, part.cell, name, choices, prices)
        if is_traffic(first.values):
            return read_record(path, part.cell, name, choices)
        if is_sample(first.values):
            return read_samples([path], name, choices)
    return read_table(list(chain([first] if first else [], rows)), path, name, choices, part.column)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None  # what is wrong with the file is said by the reader of rows
