"""Rows of chat messages as questions: the last user message, its history as the passage, the reply as the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fractionate import datasets
from fractionate.errors import UsageError


def written(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"jsonl:{path}"


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_a_chat_is_a_question_with_its_history_and_the_reply_as_answer(tmp_path: Path) -> None:
    turns = [said("system", "Be brief."), said("user", "I have 3 crates."), said("assistant", "Noted.")]
    asked = [*turns, said("user", [{"type": "text", "text": "How many on 2 pallets?"}])]
    first, second = datasets.load(
        written(tmp_path, {"messages": [*asked, said("assistant", "24")]}, {"messages": asked, "answer": "25"})
    )
    assert first.question == second.question == "How many on 2 pallets?"
    assert first.context == "Instructions: Be brief.\nUser: I have 3 crates.\nAssistant: Noted."
    assert (first.answers, second.answers) == ((("24",),), (("25",),))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": []}, "the question is the last message by the user"),
        ({"messages": [said("assistant", "24")]}, "the question is the last message by the user"),
        ({"messages": "hello"}, "a list of messages is wanted, not a string"),
        ({"messages": [{"role": "user"}]}, 'a message has a "role" and a "content"'),
        ({"messages": [said("user", "How many?")]}, "no column answers"),
    ],
)
def test_what_is_no_question_is_refused_by_line(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        datasets.load(written(tmp_path, row))
    assert "chats.jsonl:1" in str(refused.value)


def test_a_question_of_its_own_wins(tmp_path: Path) -> None:
    (problem,) = datasets.load(
        written(tmp_path, {"question": "Which?", "answer": "this", "messages": [said("user", "no")]})
    )
    assert (problem.question, problem.context) == ("Which?", "")
