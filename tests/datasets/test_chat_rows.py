"""Rows of chat messages as questions: the last user message, the turns before it, the reply as the answer."""

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
    assert first.history == (("system", "Be brief."), ("user", "I have 3 crates."), ("assistant", "Noted."))
    assert first.context == ""
    assert (first.answers, second.answers) == ((("24",),), (("25",),))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": []}, "the question is the last message by the user"),
        ({"messages": [said("assistant", "24")]}, "the question is the last message by the user"),
        ({"messages": "hello"}, "a list of messages is wanted, not a string"),
        ({"messages": [{"role": "user"}]}, 'a message has a "role" and a "content"'),
        ({"messages": [said("user", "How many?")]}, "no column answers"),
        ({"messages": [said("tool", "12"), said("user", "How many?")]}, "a role is .* not 'tool': leave such"),
        ({"messages": [said("user", "\ud800"), said("user", "How many?")]}, "messages: a broken .u escape"),
    ],
)
def test_what_is_no_question_is_refused_by_line(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        datasets.load(written(tmp_path, row))
    assert "chats.jsonl:1" in str(refused.value)


def test_rows_cut_out_of_one_chat_are_one_group(tmp_path: Path) -> None:
    """Their answers stand or fall together: counted apart, they would make the intervals too narrow."""
    crates = [said("user", "I have 3 crates of 12. How many?"), said("assistant", "36"), said("user", "And on 2?")]
    rows = (crates[:2], crates, [*crates, said("assistant", "72"), said("user", "On 4?")], [said("user", "Which day?")])
    problems = datasets.load(written(tmp_path, *({"messages": row, "answer": "1"} for row in rows)))
    assert [one.cluster for one in problems] == ["chat 1", "chat 1", "chat 1", "chat 4"]
    rows = ({"messages": row, "answer": "1", "conversation_id": f"c{n}"} for n, row in enumerate(rows))
    assert [one.cluster for one in datasets.load(written(tmp_path, *rows))] == ["c0", "c1", "c2", "c3"]


def test_turns_that_init_wrote_down_are_read_back_and_a_text_of_that_name_is_the_users_own(tmp_path: Path) -> None:
    turns = [said("user", "I have 3 crates."), said("assistant", "Noted.")]
    first, second = datasets.load(
        written(
            tmp_path,
            {"question": "How many?", "answer": "3", "history": turns},
            {"question": "When?", "answer": "1066", "history": "English"},
        )
    )
    assert first.history == (("user", "I have 3 crates."), ("assistant", "Noted."))
    assert second.history == ()


def test_a_question_of_its_own_wins(tmp_path: Path) -> None:
    (problem,) = datasets.load(
        written(tmp_path, {"question": "Which?", "answer": "this", "messages": [said("user", "no")]})
    )
    assert (problem.question, problem.context) == ("Which?", "")
