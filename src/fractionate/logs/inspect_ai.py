"""Logs of inspect_ai (https://inspect.aisi.org.uk): `.eval`, a ZIP file of JSON, and the same as one `.json` file.

Read with the standard library. From 0.3.2xx on, `.eval` is compressed with Zstandard, which needs Python 3.14 or the
package backports.zstd (the extra `logs`). Epochs are several answers to one question. Formats: inspect_ai's
`EvalLog` and `EvalSample` of schema version 2, as 0.3.100 and 0.3.285 write them.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from fractionate.analysis.systems import Answered, System
from fractionate.errors import UsageError, missing_extra
from fractionate.logs.choices import Choices, named, only, outcome_of
from fractionate.types import Usage

ZSTANDARD = 93
"""The compression method's number in a ZIP file."""


def is_inspect_json(table: Any) -> bool:
    """Return whether the content of a .json file is an inspect_ai log."""
    return isinstance(table, dict) and isinstance(table.get("eval"), dict) and "status" in table


def read_eval(path: Path, name: str, choices: Choices) -> System:
    """Read a `.eval` file. Raises UsageError where it is none, is cut off, or its compression cannot be read here."""
    try:
        with _opened(path) as archive:
            files = set(archive.namelist())
            header = _json(
                archive, next((file for file in ("header.json", "_journal/start.json") if file in files), "")
            )
            samples = (_json(archive, file) for file in sorted(files) if file.startswith("samples/"))
            return _system(header, samples, path, name, choices)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no inspect_ai log that can be read: {' '.join(str(error).split())}") from None


def read_eval_json(table: Mapping[str, Any], path: Path, name: str, choices: Choices) -> System:
    """Read the content of a `.json` log."""
    return _system(table, iter(table.get("samples") or ()), path, name, choices)


def _opened(path: Path) -> zipfile.ZipFile:
    with zipfile.ZipFile(path) as archive:
        if not any(one.compress_type == ZSTANDARD for one in archive.infolist()) or hasattr(zipfile, "ZIP_ZSTANDARD"):
            return zipfile.ZipFile(path)
    try:
        from backports.zstd import zipfile as newer
    except ImportError:
        raise missing_extra(
            "backports.zstd", "logs", f"reading {path.name}, which is compressed with Zstandard, before Python 3.14"
        ) from None
    opened: Any = newer.ZipFile(path)  # it stands in for the standard one, and is installed or not
    return cast(zipfile.ZipFile, opened)


def _json(archive: zipfile.ZipFile, file: str) -> Any:
    if not file:
        raise UsageError(f"{archive.filename} is a ZIP file, but no inspect_ai log: it has no header.json")
    return json.loads(archive.read(file))


def _system(
    header: Mapping[str, Any], samples: Iterator[Mapping[str, Any]], path: Path, name: str, choices: Choices
) -> System:
    try:
        answers = [_answered(sample, path, choices) for sample in samples]
        status = header.get("status", "started")
    except (AttributeError, TypeError, KeyError) as error:
        raise UsageError(f"{path} is no inspect_ai log of a known form ({type(error).__name__}: {error})") from None
    notes = []
    if status != "success":
        notes.append(f"the log's status is {status!r}: it may not hold every question")
    models = list(dict.fromkeys(model for one in answers for model in one.usage))
    if len(models) > 1:
        notes.append(f"its usage is of all models that the log names, a grader too: {named(models)}")
    return System(name, tuple(answers), "inspect_ai", tuple(notes))


def _answered(sample: Mapping[str, Any], path: Path, choices: Choices) -> Answered:
    where = f"{path}, sample {sample['id']}"
    metadata = {"input": sample.get("input"), **(sample.get("metadata") or {})}
    output: Mapping[str, Any] = sample.get("output") or {}
    # A solver that calls models of its own (fractionate.inspect does) states their usage with its output alone.
    own = {output.get("model", ""): output["usage"]} if output.get("usage") else {}
    usage: Mapping[str, Mapping[str, Any]] = sample.get("model_usage") or own
    costs: list[Any] = [one.get("total_cost") for one in usage.values()]
    return Answered(
        question_id=choices.id_of(metadata, where) if choices.id and choices.id != "id" else str(sample["id"]),
        outcome=None if sample.get("invalidation") else _outcome(sample.get("scores") or {}, choices, where),
        group=choices.group_of(metadata, where),
        question=json.dumps(sample.get("input"), sort_keys=True),
        usage={model: _usage(one) for model, one in usage.items()},
        usd=sum(costs) if costs and None not in costs else None,
        repeat=str(sample.get("epoch", 1)),
    )


def _outcome(scores: Mapping[str, Mapping[str, Any]], choices: Choices, where: str) -> float | None:
    if not scores:
        return None
    scorer = only(scores, choices.scorer, "scorer", "--scorer", where)
    value = scores[scorer]["value"]
    where = f"{where}: the score of {scorer!r}"
    if isinstance(value, Mapping):
        value = value[only(value, choices.metric, "value", "--metric", where)]
    return outcome_of(value, where)


def _usage(one: Mapping[str, Any]) -> Usage:
    cached = one.get("input_tokens_cache_read") or 0
    return Usage(
        calls=1,
        input_tokens=one["input_tokens"] + cached + (one.get("input_tokens_cache_write") or 0),
        cached_input_tokens=cached,
        output_tokens=one["output_tokens"],
        reasoning_tokens=one.get("reasoning_tokens") or 0,
    )
