"""`max_tokens` in a config applies to every call of a run, above or below the strategy's own limit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fractionate.cli import main
from servers.chat_server import ChatServer

STRATEGIES = ["single", "single-cot", "static", "stepwise", "dynamic"]


@pytest.mark.parametrize("limit", [8, 4096])
def test_every_call_of_a_run_takes_the_model_s_own_limit(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    for name in ("train", "test"):
        rows = [{"question": f"What is {name} {n}?", "answer": "9"} for n in range(2)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.toml").write_text(
        '[data]\ntrain = "jsonl:train.jsonl"\ntest = "jsonl:test.jsonl"\n'
        f'[models]\nteacher = "{server.name}"\ndecomposers = ["none", "teacher", "gold-free"]\n'
        f'[models.options."{server.name}"]\nmax_tokens = {limit}\n'
        "[decomposers.gold-free]\ncap = 1\n"
        f'[run]\nvariants = ["D-R"]\nstrategies = {json.dumps(STRATEGIES)}\n'
    )
    monkeypatch.chdir(tmp_path)
    assert main(["demonstrate", "run.toml", "--quiet"]) == 0
    demonstrated = len(server.bodies)
    assert demonstrated >= 4, "the teacher decomposes and solves"
    assert main(["run", "run.toml", "--quiet", "--set", "run.variants=[]"]) == 0
    assert len(server.bodies) > demonstrated + 2 * len(STRATEGIES)
    assert {body["max_tokens"] for body in server.bodies} == {limit}
