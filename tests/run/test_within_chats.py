"""A run on rows of chat messages: models are asked within the chat; what is stored and replayed holds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fractionate.config import parse_config
from fractionate.errors import UsageError
from fractionate.run.attempts import read_measured
from fractionate.run.progress import Progress
from fractionate.run.run import Run
from fractionate.run.stages import run_everything
from servers.chat_server import ChatServer
from servers.threaded import in_thread

TURNS = [
    {"role": "system", "content": "Count crates."},
    {"role": "user", "content": "A pallet holds 12."},
    {"role": "assistant", "content": "Noted."},
]
ASKED = {"role": "user", "content": "How many on 2?"}
OTHERS = [{"role": "user", "content": "A pallet holds 20."}, {"role": "assistant", "content": "Noted."}]


class Counting(ChatServer):
    """Multiplies the number that was said first by the one that is asked about."""

    async def reply(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
        said = next(one["content"] for one in body["messages"] if one["role"] == "user")
        pallet = int(said.removesuffix(".").rpartition(" ")[2])
        decomposes = "subquestion" in body["messages"][0]["content"] and "Subquestions:" not in question
        text = "1. How many on 1?\n2. How many on 2?" if decomposes else f"The answer is: {2 * pallet}"
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}
        return web.json_response({"choices": [choice], "usage": usage})


def measured(folder: Path, model: str, strategies: tuple[str, ...] = ("single", "static")) -> Run:
    rows = [{"messages": [*TURNS, ASKED], "answer": "24"}, {"messages": [*OTHERS, ASKED], "answer": "40"}]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "data": {"test": f"jsonl:{folder / 'chats.jsonl'}", "answer": "number"},
        "models": {"teacher": model, "decomposers": ["none", "teacher"]},
        "run": {"variants": [], "strategies": list(strategies)},
    }
    with Run(parse_config(config), folder / "run", folder, Progress(quiet=True)) as run:
        run_everything(run)
    return run


def test_the_same_words_in_two_chats_are_two_questions_each_asked_within_its_own(tmp_path: Path) -> None:
    server = Counting()
    with in_thread(server):
        run = measured(tmp_path, server.name)
        asked = len(server.bodies)
        measured(tmp_path, server.name)
    assert len(server.bodies) == asked == 6, "two questions: single, a decomposition, static; then all is stored"
    for body in server.bodies:
        system, *rest = body["messages"]
        assert system["role"] == "system"
        assert rest[:-1] in ([*TURNS[1:]], OTHERS)
        assert system["content"].endswith("Count crates.") == (rest[:-1] == TURNS[1:])
        assert rest[-1]["content"].startswith("Question: How many on 2?")
    for cell in read_measured(run.folder):
        assert [one.score.exact_match for one in cell.attempts] == [1.0, 1.0]
        histories = [[text for _, text in one.problem.history] for one in cell.attempts]
        assert histories == [["Count crates.", "A pallet holds 12.", "Noted."], ["A pallet holds 20.", "Noted."]]
    assert "A pallet holds 20." in (tmp_path / "run" / "report.html").read_text()


def recorded(folder: Path, *rows: dict[str, Any]) -> str:
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"recorded:{folder / 'log.jsonl'}"


def test_recorded_rows_name_their_question_by_the_chat(tmp_path: Path) -> None:
    log = recorded(
        tmp_path,
        {"messages": [*OTHERS, ASKED], "strategy": "single", "output": "The answer is: 40"},
        {"messages": [*TURNS, ASKED], "strategy": "single", "output": "The answer is: 24"},
    )
    (cell,) = read_measured(measured(tmp_path, log, ("single",)).folder)
    assert [one.score.exact_match for one in cell.attempts] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (({"messages": [*TURNS, ASKED], "output": "24"},), "no solver output for chats-1"),
        (({"id": "chats-1", "messages": [*TURNS, ASKED], "output": "24"},), "id chats-1 is another question"),
        (({"messages": TURNS, "output": "24"},), "log.jsonl:1: messages: they end with the user's question"),
        (({"messages": [{"role": "user"}], "output": "24"},), 'log.jsonl:1: messages: a message has a "role"'),
    ],
)
def test_a_recorded_row_of_another_chat_is_no_reply(
    rows: tuple[dict[str, Any], ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        measured(tmp_path, recorded(tmp_path, *rows), ("single",))
