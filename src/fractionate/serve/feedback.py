"""`POST /v1/feedback`: an answer is marked right, wrong or with the right answer, by who asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fractionate.datasets.jsonl import read_answers
from fractionate.serve.chat import read_json
from fractionate.serve.refusals import Refusal, bad
from fractionate.types import Answer

MOST_ANSWERS = 100
MOST_LETTERS = 10_000
_FIELDS = ("id", "right", "answer")


@dataclass(frozen=True, slots=True)
class Mark:
    """What was said of an answer: right or wrong, or (`right` is None) which answers are the right ones."""

    id: str
    right: bool | None
    answers: tuple[Answer, ...] = ()


def read_mark(body: bytes) -> Mark:
    """Read a request's body. Raises Refusal (400) naming the field that is wrong."""
    table = read_json(body)
    unknown = next((name for name in table if name not in _FIELDS), None)
    if unknown is not None:
        shown = ascii(unknown[:60])
        raise bad(f"unknown field {shown}: id, and right or answer", shown[1:-1], "unknown_parameter")
    id = table.get("id")
    if not isinstance(id, str) or not id or len(id) > 100:
        raise bad("id must be that of an answer, such as chatcmpl-…", "id")
    right, given = table.get("right"), table.get("answer")
    if (right is None) == (given is None):
        raise bad("say either right (true or false) or answer (the right one)", "right" if given is None else "answer")
    if given is not None:
        return Mark(id, None, _answers(given))
    if not isinstance(right, bool):
        raise bad("right must be true or false", "right")
    return Mark(id, right)


def _answers(given: Any) -> tuple[Answer, ...]:
    try:
        answers = read_answers(given)
    except ValueError as error:
        raise bad(f"answer must be the right answer, or a list of them: {error}", "answer") from None
    if len(answers) > MOST_ANSWERS or sum(len(span) for answer in answers for span in answer) > MOST_LETTERS:
        raise bad(f"answer may hold {MOST_ANSWERS} answers of {MOST_LETTERS:,} letters together at most", "answer")
    return answers


def unknown_answer(id: str, most: int) -> Refusal:
    """Return the refusal of a mark for an answer that is not there, or is not the asker's."""
    said = (
        f"no answer {id!a} of yours is recorded: marks are for answers asked for with the same key, recorded by "
        f"this server and among its latest {most:,}"
    )
    return Refusal(404, said, code="answer_not_found", param="id")


def no_record() -> Refusal:
    """Return the refusal of a mark where nothing is recorded."""
    return Refusal(409, "this server keeps no record: start it with --record FILE", code="no_record")


def marked(mark: Mark, right: bool) -> Mapping[str, Any]:
    """Return the reply to a mark."""
    return {"object": "feedback", "id": mark.id, "right": right}
