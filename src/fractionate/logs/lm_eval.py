"""What lm-evaluation-harness writes with `--log_samples`: a folder with one `samples_TASK_DATE.jsonl` per task.

A line is a question under one filter, with a value per metric. Questions match by task and `doc_id`, and `doc_hash`
tells whether they are the same ones. Format: as 0.4.13 writes it; older ones lack some fields. There is no usage in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fractionate.analysis.systems import Answered, System
from fractionate.errors import UsageError
from fractionate.logs.choices import Choices, named, only, outcome_of
from fractionate.rows import Row, read_rows

_NAME = re.compile(r"samples_(?P<task>.+?)(?:_(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+))?")
_FIELDS = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash",
    "target_hash",
}  # fmt: skip


def is_sample(values: Mapping[str, Any]) -> bool:
    """Return whether a row is one of lm-evaluation-harness."""
    return {"doc_id", "doc", "resps"} <= values.keys()


def sample_files(folder: Path) -> list[Path]:
    """Return the sample files in a folder and those below it."""
    return sorted(folder.rglob("samples_*.jsonl"))


def read_samples(paths: Sequence[Path], name: str, choices: Choices) -> System:
    """Read the newest file of each task, or of the one that was chosen. Raises UsageError as the rows demand."""
    newest, notes = _newest(paths)
    if choices.task:
        newest = {choices.task: newest[only(newest, choices.task, "task", "--task", named(map(str, paths)))]}
    answers = [answer for task, path in newest.items() for answer in _answers(task, path, choices)]
    if len(newest) > 1:
        notes.append(f"{len(newest)} tasks, each question counts one: {named(newest)}")
    return System(name, tuple(answers), "lm-evaluation-harness", tuple(notes))


def _newest(paths: Sequence[Path]) -> tuple[dict[str, Path], list[str]]:
    folders = {path.parent for path in paths}
    if len(folders) > 1:
        raise UsageError(f"samples of several models: name one of the folders {named(map(str, sorted(folders)))}")
    found: dict[str, list[Path]] = {}
    for path in sorted(paths):
        match = _NAME.fullmatch(path.stem)
        found.setdefault(match["task"] if match else path.stem, []).append(path)
    notes = [f"{len(of)} runs of {task}, of which {of[-1].name} is read" for task, of in found.items() if len(of) > 1]
    return {task: of[-1] for task, of in found.items()}, notes


def _answers(task: str, path: Path, choices: Choices) -> list[Answered]:
    rows = list(read_rows(path))
    if not rows:
        raise UsageError(f"{path} is empty: there is nothing to compare")
    wrong = next((row for row in rows if not is_sample(row.values) or not isinstance(row.values["doc"], dict)), None)
    if wrong:
        raise wrong.error("no sample of lm-evaluation-harness (with doc_id, doc and resps)")
    chosen = only((str(row.values.get("filter", "")) for row in rows), choices.filter, "filter", "--filter", str(path))
    rows = [row for row in rows if str(row.values.get("filter", "")) == chosen]
    metric = only(_metrics(rows[0]), choices.metric, "metric", "--metric", str(path))
    return [_answered(task, row, metric, choices) for row in rows]


def _metrics(row: Row) -> list[str]:
    listed = row.values.get("metrics")
    return listed if isinstance(listed, list) else [name for name in row.values if name not in _FIELDS]


def _answered(task: str, row: Row, metric: str, choices: Choices) -> Answered:
    doc = row.values["doc"]
    own = f"{task}/{row.values['doc_id']}"
    return Answered(
        question_id=own if choices.id in ("", "doc_id") else choices.id_of({**row.values, **doc}, row.where),
        outcome=outcome_of(row.value(metric) if row.has(metric) else None, f"{row.where}: {metric!r}"),
        group=choices.group_of(doc, row.where),
        question=str(row.values.get("doc_hash", "")),
    )
