"""Logs in which one reply holds subquestions and answers, rewritten as recorded rows (`fractionate import`).

A reply is cut at the lines where a pattern's markers stand: before a subquestion, before its answer (where the log
marks it) and before the final answer. What a log holds beside its replies is left behind, its usage too: the tokens of
one call cannot be divided between the decomposer and the solver, so they are counted with a tokenizer.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fractionate.errors import UsageError
from fractionate.files import write_text
from fractionate.models._recorded_rows import FIELDS, sound
from fractionate.rows import Row, read_rows, shown

IDENTITY = ("id", "index", "question", "sample")


@dataclass(frozen=True)
class Pattern:
    """Regular expressions of the markers, each of which matches at the beginning of a line.

    `answer` is "" where nothing marks an answer: it then begins on the line after its subquestion. Case is ignored.
    """

    question: str
    final: str
    answer: str = ""


PATTERNS = {
    # Zhou et al., arXiv 2205.10625, as one call: "Q1. …", the answer on the next line, "Final Answer: …".
    "ltm": Pattern(r"Q(?:uestion)? ?\d+ ?[.:)]", r"Final answer ?:"),
    # "Q1: … A1: …", "Subquestion 2: … Answer 2: …", with or without numbers.
    "qa": Pattern(
        r"(?:sub-?question|question|Q) ?\d* ?[.:)]",
        r"(?:final answer ?:|(?:so,? |therefore,? )?the (?:final )?answer is\b)",
        r"(?:sub-?answer|answer|A) ?\d* ?[.:)]",
    ),
    # Press et al., arXiv 2210.03350: "Follow up: … Intermediate answer: … So the final answer is: …".
    "self-ask": Pattern(r"Follow[- ]?up(?: question)? ?:", r"So,? the final answer is\b", r"Intermediate answer ?:"),
}


@dataclass(frozen=True)
class Split:
    """A reply in parts: one answer a subquestion, and the text that states the final answer."""

    subquestions: tuple[str, ...]
    answers: tuple[str, ...]
    final: str


@dataclass
class Imported:
    """What was made of a log: rows read, replies split, and why others were kept whole (reason → first rows)."""

    rows: int = 0
    split: int = 0
    whole: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)


def import_log(
    path: Path,
    out: Path,
    *,
    pattern: Pattern | None,
    strategies: Sequence[str],
    output_field: str = "",
) -> Imported:
    """Write recorded rows from a log, one for each of `strategies`, streaming. Without a pattern replies stay whole.

    A reply that cannot be split is kept whole, without subquestions: its question falls back to single stage. Raises
    UsageError naming the row for a fault in it, and where no reply of the log could be split.
    """
    report = Imported()
    # Nothing stands at `out` before the last line is made, so a fault half-way leaves no half of a recording.
    write_text(_lines(path, pattern, strategies, output_field, report), out)
    return report


def _lines(
    path: Path, pattern: Pattern | None, strategies: Sequence[str], output_field: str, report: Imported
) -> Iterator[str]:
    for row in read_rows(path):
        for made in _rows(row, pattern, strategies, output_field, report):
            yield json.dumps(made, ensure_ascii=False) + "\n"
    if not report.rows:
        raise UsageError(f"{path} holds no rows")
    if pattern is not None and not report.split:
        reason, where = next(iter(report.examples.items()))
        raise UsageError(
            f"no reply of {path} could be split ({where}: {reason}): name another --pattern "
            f"({', '.join(PATTERNS)}), or give --question, --answer and --final"
        )


def split_reply(text: str, pattern: Pattern) -> Split | str:
    """Return the parts of a reply, or why it has none, in words."""
    markers = _markers(text, pattern)
    questions = [number for number, (kind, _, _) in enumerate(markers) if kind == "question"]
    finals = [number for number, (kind, _, _) in enumerate(markers) if kind == "final" and questions[:1] < [number]]
    if not questions:
        return "no subquestion"
    if not finals:
        return "no final answer"
    asked: list[str] = []
    answered: list[str] = []
    for number in range(questions[0], finals[0]):
        kind, _, end = markers[number]
        # What follows belongs to this marker up to the next one. After the final answer, a model may invent a further
        # problem: its markers are not looked at.
        rest = text[end : markers[number + 1][1]].strip()
        if kind == "answer":
            if len(answered) == len(asked):
                return "an answer without a subquestion"
            answered.append(rest)
            continue
        if len(answered) < len(asked):
            return "a subquestion without an answer"
        question, _, below = rest.partition("\n")
        asked.append(" ".join((rest if pattern.answer else question).split()))
        if not pattern.answer:
            answered.append(below.strip())
    if len(answered) < len(asked) or not all(answered) or not all(asked):
        return "a subquestion without an answer"
    following = markers[finals[0] + 1][1] if finals[0] + 1 < len(markers) else len(text)
    return Split(tuple(asked), tuple(answered), _final(text, markers[finals[0]], following))


def _markers(text: str, pattern: Pattern) -> list[tuple[str, int, int]]:
    """Return every marker as (kind, begin, end), in order; of two at one place the final answer's counts first."""
    found: dict[int, tuple[str, int, int]] = {}
    for kind in ("answer", "question", "final"):
        marker = getattr(pattern, kind)
        if marker:
            expression = re.compile(rf"^[ \t]*(?:\*\*)?(?:{marker})(?:\*\*)?[ \t]*", re.MULTILINE | re.IGNORECASE)
            found.update({match.start(): (kind, *match.span()) for match in expression.finditer(text)})
    return [found[begin] for begin in sorted(found)]


def _final(text: str, marker: tuple[str, int, int], following: int) -> str:
    """Return the final answer's text. A question that is repeated on the marker's line is left out."""
    _, begin, end = marker
    first, _, below = text[end:following].strip().partition("\n")
    if first.rstrip().endswith("?") and below.strip():
        return below.strip()
    return text[begin:following].strip()


def _rows(
    row: Row, pattern: Pattern | None, strategies: Sequence[str], output_field: str, report: Imported
) -> Iterator[dict[str, Any]]:
    names = (output_field,) if output_field else FIELDS["output"]
    if not any(name in row.values for name in names):
        raise row.error(f"no {names[0]!r}: name the field of the reply by --output-field")
    reply = next((row.values[name] for name in names if row.values.get(name) is not None), "")
    if not isinstance(reply, str):
        raise row.error(f"{names[0]!r} must be text, not {shown(reply)}")
    reply = sound(reply)
    identity = {
        name: value
        for name in IDENTITY
        for value in [next((row.values[one] for one in FIELDS[name] if row.values.get(one) is not None), None)]
        if value is not None
    }
    report.rows += 1
    split = split_reply(reply, pattern) if pattern else None
    if isinstance(split, str):
        report.whole[split] += 1
        report.examples.setdefault(split, row.where)
    report.split += isinstance(split, Split)
    for strategy in strategies:
        made = {**identity, "strategy": strategy}
        if not isinstance(split, Split):
            yield {**made, **({"decomposition": None} if pattern else {}), "output": reply}
        elif strategy == "stepwise":
            yield {**made, "decomposition": split.subquestions, "steps": split.answers, "output": split.final}
        else:
            lines = [f"{number}. {answer}" for number, answer in enumerate(split.answers, 1)]
            yield {**made, "decomposition": split.subquestions, "output": "\n".join([*lines, split.final])}
