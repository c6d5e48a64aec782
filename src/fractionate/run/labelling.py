"""Labels by people on a run's outputs: what there is to label, and the cells of a report with their labels."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fractionate.analysis.corrections import with_gold
from fractionate.config import Config
from fractionate.errors import FractionateError, UsageError
from fractionate.files import utf8
from fractionate.rows import read_rows
from fractionate.run.folder import RunFolder
from fractionate.scoring.labels import Labels, Measured, measure, one_output_each, read_labels
from fractionate.statistics.prediction_powered import LEAST_GOLD
from fractionate.types import Cell, Problem

LABELS = "labels.jsonl"
"""The file of labels in a run's folder, which a report takes where `judge.labels` names no other."""


def labels_path(folder: RunFolder, config: Config) -> Path | None:
    """Return the file of labels of a run, None where it has none. Raises UsageError where the config names no file."""
    if not config.judge.labels:
        own = Path(folder.path, LABELS)
        return own if own.is_file() else None
    named = Path(config.judge.labels).expanduser()
    for found in (Path(folder.source()).parent / named, named):
        if found.is_file():
            return found
    raise UsageError(f"judge.labels: {config.judge.labels} does not exist: name a file of labels, or leave it out")


def with_labels(cells: Sequence[Cell], folder: RunFolder, config: Config) -> tuple[list[Cell], Measured | None]:
    """Return cells with the labels of a run, those that a judge scored, and what the labels say of the judge."""
    path = labels_path(folder, config) if any(cell.judge for cell in cells) else None
    if path is None:
        return list(cells), None
    labels = read_labels(path, config.judge.scale)
    found = measured(add_labels(cells, labels, least=1), config.verdict.confidence)
    return add_labels(cells, labels), found


def add_labels(cells: Sequence[Cell], labels: Labels, least: int = LEAST_GOLD) -> list[Cell]:
    """Add labels to judged cells that have at least so many: fewer correct nothing.

    Raises UsageError where none of the labels is about an output of these cells.
    """
    said: dict[str, list[str]] = {}
    for cell in cells:
        for question in range(len(cell.columns) if cell.judge else 0):
            attempts = cell.outputs_at(question)
            said.setdefault(attempts[0].problem.id, []).extend(one.output for one in attempts)
    alone = one_output_each(said)
    found, count = [], 0
    for cell in cells:
        gold = _labels_of(cell, labels, alone) if cell.judge else ()
        labelled = sum(label == label for label in gold)
        count += labelled
        found.append(with_gold(cell, gold) if labelled >= least else cell)
    if not count:
        raise UsageError(
            f"{labels.path}: none of its {len(labels)} labels is about an output of this run: 'id' and 'output' must "
            "be those of attempts.jsonl"
        )
    return found


def _labels_of(cell: Cell, labels: Labels, alone: set[str]) -> tuple[float, ...]:
    """Return a label a question: the mean over its repeats, NaN unless every one of them has a label."""
    found = []
    for question in range(len(cell.columns)):
        each = [
            labels.of(one.problem.id, one.output, only_output=one.problem.id in alone)
            for one in cell.outputs_at(question)
        ]
        found.append(math.fsum(each) / len(each) if all(one == one for one in each) else math.nan)
    return tuple(found)


def measured(cells: Sequence[Cell], confidence: float = 0.95) -> Measured | None:
    """Measure the judge over all labelled outputs of all cells; a question's outputs count as one unit."""
    import numpy as np

    labelled = [(cell, cell.columns.gold(cell.metric)) for cell in cells if cell.judge]
    judged = [cell for cell, gold in labelled if gold is not None]
    if not judged:
        return None
    gold = np.concatenate([gold for _, gold in labelled if gold is not None])
    scores = np.concatenate([cell.columns.column(cell.metric) for cell in judged])
    units = np.concatenate([cell.columns.clusters for cell in judged]).tolist()
    found = measure(gold, scores, units, confidence)
    return found[0] if found else None


@dataclass(frozen=True, slots=True)
class ToLabel:
    """One output that a person is asked about. Nothing says which system wrote it, or what the judge found."""

    problem: Problem
    output: str

    def row(self, label: Any) -> dict[str, Any]:
        """Return the row of a file of labels; None for an output that was skipped."""
        return {"id": self.problem.id, "output": self.output, "label": label}


def to_label(cells: Sequence[Cell], file: Path, seed: int = 0) -> Iterator[ToLabel]:
    """Yield the outputs of cells that the file has no row of: whole questions in an order drawn by the seed.

    Whole questions, so that differences between the cells can be corrected; drawn, so that at any time those labelled
    are a random sample of all.
    """
    seen = {(row.values.get("id"), row.values.get("output")) for row in read_rows(file)} if file.is_file() else set()
    by_question: dict[str, dict[str, Problem]] = {}
    for cell in cells:
        for place in range(len(cell.columns)):
            for one in cell.outputs_at(place):
                if one.output.strip():
                    by_question.setdefault(one.problem.id, {}).setdefault(one.output, one.problem)
    for question in sorted(by_question, key=lambda name: _drawn(seed, name)):
        for output in sorted(by_question[question], key=lambda text: _drawn(seed, text)):
            if (question, output) not in seen:
                yield ToLabel(by_question[question][output], output)


def _drawn(seed: int, text: str) -> bytes:
    return hashlib.sha256(utf8(f"{seed} {text}")).digest()


def append_label(file: Path, row: Mapping[str, Any]) -> None:
    """Append one row to a file of labels, at once: nothing that a person said is lost."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8", errors="backslashreplace") as out:
            out.write(json.dumps(row) + "\n")  # ASCII: an output may hold lone surrogates, which no UTF-8 can
    except OSError as error:
        raise FractionateError(f"{file} cannot be written: {error.strerror or error}") from None


def worth_labelling(cells: Sequence[Cell], named: Sequence[str], names: Sequence[str]) -> list[Cell]:
    """Return the judged cells that are named, or all of them. Raises UsageError for an unknown one, or none judged."""
    found = dict(zip(names, cells, strict=True))
    unknown = [name for name in named if name not in found]
    if unknown:
        raise UsageError(f"there is no cell {unknown[0]!r}: there are {', '.join(found)}")
    chosen = [cell for name, cell in found.items() if (not named or name in named) and (named or cell.judge)]
    if not chosen:
        raise UsageError('no cell was scored by a judge (data.scorer = "judge"): name cells with --cell to label them')
    return chosen
