"""A run with instructions of the user's own: what models are asked, what the store and the report say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fractionate.config import load_config, parse_config
from fractionate.errors import UsageError
from fractionate.prompts import instruction
from fractionate.run.progress import Progress
from fractionate.run.run import Run
from fractionate.run.stages import run_everything
from servers.chat_server import ChatServer
from servers.threaded import in_thread

PROMPTS = """
[prompts]
decompose = "file:decompose.txt"
solve_single = "Say the number. It costs $$5. End with: The answer is: $form"
[prompts.forms]
number = "<digits>"
[[prompts.examples]]
question = "What is 1 + 1, doubled?"
subquestions = ["What is 1 + 1?", "What is #1 doubled?"]
solution = "1 + 1 = 2, doubled 4. The answer is: 4"
answer = "4"
"""


class Listening(ChatServer):
    """Answers everything alike and keeps the system messages, by the last line of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.systems: list[str] = []

    async def reply(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
        self.systems.append(body["messages"][0]["content"])
        text = "1. What is two?" if "Cut it up" in self.systems[-1] else "The answer is: 4"
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}
        return web.json_response({"choices": [choice], "usage": usage})


def measured(folder: Path, model: str, prompts: str) -> Mapping[str, Any]:
    (folder / "test.jsonl").write_text('{"question": "What is two and two?", "answer": "4"}\n')
    (folder / "decompose.txt").write_text("Cut it up$limit.\n")
    (folder / "run.toml").write_text(
        f"""
[data]
test = "jsonl:test.jsonl"
answer = "number"
[models]
teacher = "{model}"
decomposers = ["none", "teacher"]
[run]
variants = []
strategies = ["single", "static"]
[prices."{model}"]
input_per_million = 1.0
output_per_million = 2.0
{prompts}"""
    )
    with Run(load_config(folder / "run.toml"), folder / "run", folder, Progress(quiet=True)) as run:
        return run_everything(run)


def test_models_are_asked_with_the_user_s_own_instructions_and_examples(tmp_path: Path) -> None:
    server = Listening()
    with in_thread(server):
        results = measured(tmp_path, server.name, PROMPTS)
        decompose, single, static = (
            next(one for one in server.systems if one.startswith(start))
            for start in ("Cut it up", "Say the number", instruction("solve-static")[:20])
        )
        before = len(server.systems)
        assert measured(tmp_path, server.name, PROMPTS)["cells"] == results["cells"]
        assert len(server.systems) == before, "the same instructions are the same stored calls"
        measured(tmp_path, server.name, PROMPTS.replace("Say the number.", "Say one number."))
        assert len(server.systems) == before + 1, "another instruction is another call, and only that one"
    example = "Here is one worked example.\n\nQuestion: What is 1 + 1, doubled?"
    assert decompose == f"Cut it up, at most 3 of them.\n\n{example}\n1. What is 1 + 1?\n2. What is #1 doubled?"
    assert single == f"Say the number. It costs $5. End with: The answer is: <digits>\n\n{example}\nThe answer is: 4"
    assert "The answer is: <digits>" in static
    assert static.endswith("2. What is #1 doubled?\n\n1 + 1 = 2, doubled 4. The answer is: 4")
    assert results["prompts"]["decompose"] == "Cut it up$limit."
    assert results["examples"] == ["What is 1 + 1, doubled?"]
    assert "Own instructions" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_without_own_instructions_says_nothing_of_them(tmp_path: Path) -> None:
    server = Listening()
    with in_thread(server):
        results = measured(tmp_path, server.name, "")
    assert "prompts" not in results
    assert "Own instructions" not in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ({"decompose": "Cut $form"}, r"'prompts.decompose': \$form in it means nothing here \(only \$limit is filled"),
        ({"solve_step": "It costs $5"}, "'prompts.solve_step': a lone \\$ in it means nothing"),
        ({"decompos": "x"}, "unknown key 'prompts.decompos': did you mean 'prompts.decompose'"),
        ({"solve_static": "file:nowhere.txt"}, "prompts.solve_static: .*nowhere.txt cannot be read"),
        ({"forms": {"numbr": "x"}}, "prompts.forms.numbr"),
        ({"examples": [{"quest": "x"}]}, "prompts.examples.0.quest"),
    ],
)
def test_what_is_wrong_with_instructions_is_one_line(prompts: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said) as error:
        parse_config({"data": {"test": "atlas#test@0-7"}, "prompts": prompts}, base=tmp_path)
    assert "\n" not in str(error.value)


def test_examples_may_be_lines_of_a_file(tmp_path: Path) -> None:
    rows = [{"question": f"How many, {n}?", "subquestions": ["Which?"], "answer": str(n)} for n in range(3)]
    (tmp_path / "shots.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = {"data": {"test": "atlas#test@0-7"}, "prompts": {"examples": "file:shots.jsonl"}}
    assert [one.answer for one in parse_config(table, base=tmp_path).prompts.examples] == ["0", "1", "2"]
