"""From traffic to a student trained on it, as in docs/guide/traffic.md: the real commands and client."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from fractionate.cli import main

CONFIG = """
data = {{train = {train}, test = "jsonl:test.jsonl", answer = "text"}}
run = {{variants = ["D-R"], strategies = ["single", "static"]}}
train = {{batch_size = 4, lora_rank = 2}}
[models]
teacher = "echo:1"
student = "{tiny}"
decomposers = ["none", "teacher", "student", "D-R"{more}]
options."{tiny}".max_tokens = 4
{tables}
"""
BEFORE = """
distilled = ["{old}"]
options."{old}".max_tokens = 4
[decomposers.before]
model = "{old}"
"""


@contextmanager
def serving(run: Path, *options: str) -> Iterator[str]:
    """Let `fractionate serve` answer while the block runs; it ends by SIGTERM."""
    command = [sys.executable, "-m", "fractionate", "serve", str(run), "--port", "0", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        said = server.stdout.readline()
        assert "/v1" in said, server.communicate()[1]
        yield said.partition(" at ")[2].partition(" ")[0]
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=60)
        assert (server.returncode, errors) == (0, "")
    finally:
        server.kill()


def mark(client: openai.OpenAI, id: str, **said: Any) -> bool:
    reply: Any = client.post("/feedback", body={"id": id, **said}, cast_to=object)
    return bool(reply["right"])


def ask(client: openai.OpenAI, model: str, question: str, *before: Any) -> Any:
    return client.chat.completions.create(model=model, messages=[*before, {"role": "user", "content": question}])


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Path:
    pytest.importorskip("trl")
    for name, first, count in (("train", 0, 8), ("test", 100, 6)):
        made = [{"question": f"What is number {first + n}?", "answer": str(first + n)} for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    config = CONFIG.format(train='"jsonl:train.jsonl"', tiny=f"local:{tiny_model}", more="", tables="")
    (tmp_path / "one.toml").write_text(config)
    return tmp_path


def test_from_traffic_to_a_retrained_and_measured_student(project: Path, tiny_model: Path, capsys: Any) -> None:
    one, two, record = project / "one", project / "two", project / "traffic.jsonl"
    assert main(["run", str(project / "one.toml"), "--out", str(one), "--quiet"]) == 0

    # It is asked 30 questions, and its users say how it did.
    pair, student = "fractionate/static:teacher+teacher", "fractionate/static:D-R+teacher"
    with serving(one, "--record", str(record), "--shadow", student, "--shadow-share", "1") as url:
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        ids = [ask(client, pair, f"Which day follows day {n}?").id for n in range(28)]
        ids.append(ask(client, pair, "Which day follows day 0?").id)
        ids.append(ask(client, pair, "And day 5?", {"role": "system", "content": "Count in weeks."}).id)
        assert all(mark(client, id, right=True) for id in ids[:18])
        assert not any(mark(client, id, answer=[f"the {n}th"]) for n, id in enumerate(ids[18:24]))
        assert not any(mark(client, id, right=False) for id in ids[24:26])
        assert all(mark(client, id, right=True) for id in ids[28:])
        until = time.monotonic() + 60
        while "fractionate_shadow_total{" not in (metrics := read(f"{url[:-3]}/metrics")):
            assert time.monotonic() < until, metrics
            time.sleep(0.05)
    kinds = ["shadow" if "shadow" in row else "feedback" if "feedback" in row else "answer" for row in rows(record)]
    assert (kinds.count("answer"), kinds.count("feedback")) == (30, 28)
    assert {row["pair"] for row in rows(record) if "shadow" in row} == {student}

    # A student learns from it, and is measured beside the one of before.
    old = f"local:{tiny_model}@{one / 'students' / 'D-R'}"
    tables = BEFORE.format(old=old)
    train = '["jsonl:train.jsonl", "traffic:traffic.jsonl"]'
    config = CONFIG.format(train=train, tiny=f"local:{tiny_model}", more=', "before"', tables=tables)
    (project / "two.toml").write_text(config)
    assert main(["run", str(project / "two.toml"), "--out", str(two), "--quiet"]) == 0
    demonstrations = rows(two / "demonstrations.jsonl")
    recorded = [row for row in demonstrations if row["answered_by"]]
    assert [row["id"] for row in recorded] == ids[:18]
    assert {row["answered_by"] for row in recorded} == {pair}
    assert {row["exact_match"] for row in recorded} == {1.0}
    by_teacher = [row["id"] for row in demonstrations if not row["answered_by"]]
    assert by_teacher[8:] == ids[18:24], "the teacher shows how to reach the answers that were given"
    learnt = {row["problem_id"] for row in rows(two / "students" / "D-R" / "examples.jsonl")}
    assert set(ids[:24]) < learnt
    assert len(learnt) == 32
    record_of = json.loads((two / "students" / "D-R" / "training.json").read_text())
    assert record_of["learnt_from"] == {
        "data": ["jsonl:train.jsonl", "traffic:traffic.jsonl"],
        "examples_by_teacher": 14,
        "examples_by_traffic": 18,
        "of_these_by_students": 0,
    }
    results = json.loads((two / "results.json").read_text())
    said = "\n".join(results["notes"])
    assert "of 30 answered requests 24 are learnt from (18 right, 6 with the right answer given)" in said
    for left_out in (
        "1 asked before",
        "1 asked within a conversation",
        "2 wrong by feedback that gave no right answer",
        "2 without feedback",
    ):
        assert left_out in said
    assert "learnt from 32 examples, 18 of them recorded answers" in said
    cells = {(cell["strategy"], cell["decomposer"]): cell for cell in results["cells"]}
    assert cells["static", "D-R"]["n"] == cells["static", "before"]["n"] == 6
    # What is recorded is not asked for again: the same teacher, without it, would have been asked 24 questions more.
    asked = [row for row in demonstrations if row["decomposer_usage"]["calls"]]
    assert len(asked) == 14

    # And it answers.
    with serving(two) as url:
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        assert ask(client, student, "What is number 7?").fractionate["measured"] is True
        assert "fractionate/static:before+teacher" in {model.id for model in client.models.list()}


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as reply:
        return str(reply.read().decode())
