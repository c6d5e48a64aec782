"""Logs of evaluation harnesses: inspect_ai (`.eval`, `.json`) and lm-evaluation-harness (`--log_samples`).

inspect_ai (https://inspect.aisi.org.uk) writes `.eval`, a ZIP file of JSON, or the same as one `.json` file. From
0.3.2xx on, `.eval` is compressed with Zstandard, which needs Python 3.14 or the package backports.zstd (the extra
`logs`). Epochs are several answers to one question. Formats: `EvalLog` and `EvalSample` of schema version 2, as 0.3.100
and 0.3.285 write them. A file of a few megabytes may unpack to gigabytes, so what it unpacks to is bounded.

lm-evaluation-harness writes a folder with one `samples_TASK_DATE.jsonl` per task. A line is a question under one
filter, with a value per metric. Questions match by task and `doc_id`; `doc_hash` tells whether they are the same.
Format: as 0.4.13 writes it; older ones lack some fields. There is no usage in it.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from fractionate.analysis.systems import Answered, System
from fractionate.errors import UsageError, missing_extra
from fractionate.logs.choices import MOST_DOLLARS, MOST_TOKENS, Choices, amount_of, digest, named, only, readable
from fractionate.rows import Row, read_rows, shown
from fractionate.types import Usage

ZSTANDARD = 93
"""The compression method's number in a ZIP file."""
LARGEST_ENTRY = 64 * 2**20
"""Bytes that one sample may unpack to; the objects that Python makes of JSON take some ten to thirty times as much."""
LARGEST_LOG = 2**30
"""Bytes that all samples may unpack to, or `MOST_RATIO` times the file where that is more."""
MOST_RATIO = 100
"""Text of models compresses 3 to 30 times."""
INVALID = "[invalid]"
"""What the regular expression filters of lm-evaluation-harness give where they find no answer."""

_SAMPLES = re.compile(r"samples_(?P<task>.+?)(?:_(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+))?")
_FIELDS = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash",
    "target_hash",
}  # fmt: skip


def is_inspect_json(table: Any) -> bool:
    """Return whether the content of a .json file is an inspect_ai log."""
    return isinstance(table, dict) and isinstance(table.get("eval"), dict) and "status" in table


def read_eval(path: Path, name: str, choices: Choices) -> System:
    """Read a `.eval` file. Raises UsageError where it is none, is cut off, or its compression cannot be read here."""
    with readable(str(path), "inspect_ai log"), _opened(path) as archive:
        files = set(archive.namelist())
        _refuse_large(archive, path)
        header = next((file for file in ("header.json", "_journal/start.json") if file in files), "")
        if not header:
            raise UsageError(f"{path} is a ZIP file, but no inspect_ai log: it has no header.json")
        samples = (
            (f"{path}, {file}", _json(archive, file, path)) for file in sorted(files) if file.startswith("samples/")
        )
        return _inspected(_json(archive, header, path), samples, path, name, choices)


def read_eval_json(table: Mapping[str, Any], path: Path, name: str, choices: Choices) -> System:
    """Read the content of a `.json` log."""
    with readable(str(path), "inspect_ai log"):
        samples = enumerate(table.get("samples") or (), 1)
        return _inspected(table, ((f"{path}, sample {n}", sample) for n, sample in samples), path, name, choices)


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


def _refuse_large(archive: zipfile.ZipFile, path: Path) -> None:
    """Raise UsageError where a file says that it unpacks to more than any log of its size does."""
    total = sum(one.file_size for one in archive.infolist())
    if total > max(LARGEST_LOG, MOST_RATIO * path.stat().st_size):
        raise UsageError(
            f"{path} unpacks to {total / 2**30:,.1f} GiB, {total / path.stat().st_size:,.0f} times its size: it is no "
            "log of model outputs; read it with inspect_ai itself and name a smaller one"
        )


def _json(archive: zipfile.ZipFile, file: str, path: Path) -> Any:
    # What the directory of the file says of an entry's size need not be true: the reading itself is bounded.
    with archive.open(file) as entry:
        content = entry.read(LARGEST_ENTRY + 1)
    if len(content) > LARGEST_ENTRY:
        raise UsageError(f"{path}: {file} unpacks to more than {LARGEST_ENTRY >> 20} MiB: it is no sample of a log")
    return json.loads(content)


def _inspected(
    header: Mapping[str, Any], samples: Iterator[tuple[str, Any]], path: Path, name: str, choices: Choices
) -> System:
    answers = []
    for where, sample in samples:
        with readable(where, "sample of inspect_ai"):
            answers.append(_of_sample(sample, path, choices))
    status = header.get("status", "started")
    error = header.get("error")
    cause = f" ({shown(error['message'])})" if isinstance(error, dict) and error.get("message") else ""
    if status != "success" and not answers:
        raise UsageError(f"{path}: the log's status is {status!r}{cause} and it holds no sample: run the task again")
    notes = []
    if status != "success":
        notes.append(f"the log's status is {status!r}{cause}: it may not hold every question")
    models = list(dict.fromkeys(model for one in answers for model in one.usage))
    if len(models) > 1:
        notes.append(f"its usage is of all models that the log names, a grader too: {named(models)}")
    return System(name, tuple(answers), "inspect_ai", tuple(notes))


def _of_sample(sample: Mapping[str, Any], path: Path, choices: Choices) -> Answered:
    where = f"{path}, sample {sample['id']}"
    metadata = {"input": sample.get("input"), **(sample.get("metadata") or {})}
    output: Mapping[str, Any] = sample.get("output") or {}
    # A solver that calls models of its own (fractionate.inspect does) states their usage with its output alone.
    own = {output.get("model", ""): output["usage"]} if output.get("usage") else {}
    usage: Mapping[str, Mapping[str, Any]] = sample.get("model_usage") or own
    costs: list[Any] = [one.get("total_cost") for one in usage.values()]
    stated = bool(costs) and None not in costs
    return Answered(
        question_id=choices.id_of(metadata, where) if choices.id and choices.id != "id" else str(sample["id"]),
        outcome=None if sample.get("invalidation") else _inspect_outcome(sample.get("scores") or {}, choices, where),
        group=choices.group_of(metadata, where),
        question=digest(json.dumps(sample.get("input"), sort_keys=True)),
        usage={str(model): _usage(one, where) for model, one in usage.items()},
        usd=sum(amount_of(cost, MOST_DOLLARS, f"{where}: total_cost") for cost in costs) if stated else None,
        repeat=str(sample.get("epoch", 1)),
    )


def _inspect_outcome(scores: Mapping[str, Mapping[str, Any]], choices: Choices, where: str) -> float | None:
    if not scores:
        return None
    scorer = only(scores, choices.scoring.scorer, "scorer", "--scorer", where)
    value = scores[scorer]["value"]
    where = f"{where}: the score of {scorer!r}"
    if isinstance(value, Mapping):
        value = value[only(value, choices.metric, "value", "--metric", where)]
    return choices.outcome_of(value, where)


def _usage(one: Mapping[str, Any], where: str) -> Usage:
    def tokens(name: str) -> int:
        return round(amount_of(one.get(name) or 0, MOST_TOKENS, f"{where}: {name}"))

    cached = tokens("input_tokens_cache_read")
    return Usage(
        calls=1,
        input_tokens=tokens("input_tokens") + cached + tokens("input_tokens_cache_write"),
        cached_input_tokens=cached,
        output_tokens=tokens("output_tokens"),
        reasoning_tokens=tokens("reasoning_tokens"),
    )


def eval_files(folder: Path) -> list[Path]:
    """Return the logs of inspect_ai in a folder, oldest first: their names begin with their time."""
    return sorted(folder.glob("*.eval"))


def is_sample(values: Mapping[str, Any]) -> bool:
    """Return whether a row is one of lm-evaluation-harness."""
    return {"doc_id", "doc", "resps"} <= values.keys()


def sample_files(folder: Path) -> list[Path]:
    """Return the sample files of lm-evaluation-harness in a folder and those below it."""
    return sorted(folder.rglob("samples_*.jsonl"))


def read_samples(paths: Sequence[Path], name: str, choices: Choices) -> System:
    """Read the newest file of each task, or of the one that was chosen. Raises UsageError as the rows demand."""
    newest, notes = _newest(paths)
    if choices.task:
        newest = {choices.task: newest[only(newest, choices.task, "task", "--task", named(map(str, paths)))]}
    answers: list[Answered] = []
    misfits = []
    for task, path in newest.items():
        of_task, misfit = _of_task(task, path, choices)
        answers += of_task
        misfits += [misfit] if misfit else []
    if len(newest) > 1:
        notes.append(f"{len(newest)} tasks, each question counts one: {named(newest)}")
    return System(name, tuple(answers), "lm-evaluation-harness", tuple(notes), misfit="; ".join(misfits))


def _newest(paths: Sequence[Path]) -> tuple[dict[str, Path], list[str]]:
    folders = {path.parent for path in paths}
    if len(folders) > 1:
        raise UsageError(f"samples of several models: name one of the folders {named(map(str, sorted(folders)))}")
    found: dict[str, list[Path]] = {}
    for path in sorted(paths):
        match = _SAMPLES.fullmatch(path.stem)
        found.setdefault(match["task"] if match else path.stem, []).append(path)
    notes = [f"{len(of)} runs of {task}, of which {of[-1].name} is read" for task, of in found.items() if len(of) > 1]
    return {task: of[-1] for task, of in found.items()}, notes


def _of_task(task: str, path: Path, choices: Choices) -> tuple[list[Answered], str]:
    """Return the answers of one task's file, and whether its filter does not fit."""
    everything = list(read_rows(path))
    if not everything:
        raise UsageError(f"{path} is empty: there is nothing to compare")
    for row in everything:
        if not is_sample(row.values) or not isinstance(row.values["doc"], dict):
            raise row.error("no sample of lm-evaluation-harness (with doc_id, doc and resps)")
    by_filter: dict[str, list[Row]] = {}
    for row in everything:
        by_filter.setdefault(str(row.values.get("filter", "")), []).append(row)
    chosen = only(by_filter, choices.filter, "filter", "--filter", str(path))
    rows = by_filter[chosen]
    metric = only(_metrics(rows[0]), choices.metric, "metric", "--metric", str(path))
    answers = []
    for row in rows:
        with readable(row.where, "sample of lm-evaluation-harness"):
            answers.append(_of_row(task, row, chosen, metric, choices))
    return answers, _misfit(by_filter, chosen)


def _metrics(row: Row) -> list[str]:
    listed = row.values.get("metrics")
    return list(map(str, listed)) if isinstance(listed, list) else [name for name in row.values if name not in _FIELDS]


def _of_row(task: str, row: Row, chosen: str, metric: str, choices: Choices) -> Answered:
    doc = row.values["doc"]
    own = f"{task}/{row.values['doc_id']}"
    return Answered(
        question_id=own if choices.id in ("", "doc_id") else choices.id_of({**row.values, **doc}, row.where),
        outcome=choices.outcome_of(row.value(metric) if row.has(metric) else None, f"{row.where}: {metric!r}"),
        group=choices.group_of(doc, row.where),
        question=digest(str(row.values.get("doc_hash", ""))),
        unparsed=_is_unparsed(row, chosen),
    )


def _is_unparsed(row: Row, chosen: str) -> bool | None:
    """Return whether a filter found no answer; None where it looks for none (likelihoods, the filter "none")."""
    found = row.values.get("filtered_resps")
    while isinstance(found, list) and found:
        found = found[0]
    return found == INVALID if isinstance(found, str) and chosen not in ("", "none") else None


def _misfit(by_filter: Mapping[str, Sequence[Row]], chosen: str) -> str:
    parsed = {name: sum(_is_unparsed(row, name) is False for row in rows) for name, rows in by_filter.items()}
    n = len(by_filter[chosen])
    unparsed = sum(_is_unparsed(row, chosen) is True for row in by_filter[chosen])
    if 2 * unparsed <= n:
        return ""
    best = max(parsed, key=lambda name: parsed[name])
    better = f"; --filter {best} parses {parsed[best]}" if parsed[best] > n - unparsed else "; no other filter does"
    return f"the filter {chosen} does not fit: {unparsed} of {n} unparsed{better}"
