"""Files that `serve` and `traffic:` read, truncated, edited or damaged: they are read, or refused in one line."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attack_size import TIMES
from mutation import ODD, OF_ROWS, mutate, odd_value_anywhere

from fractionate.analysis.systems import System
from fractionate.cli import main
from fractionate.datasets.traffic import is_traffic, learnable, problem_of, read_exchanges
from fractionate.errors import FractionateError, UsageError
from fractionate.logs.choices import Choices
from fractionate.logs.read import read_systems
from fractionate.serve.admission import Keys
from fractionate.serve.gateway import Gateway
from fractionate.serve.openapi import document

CONFIG = """
[data]
test = "jsonl:test.jsonl"
[models]
teacher = "echo:"
solvers = ["teacher"]
decomposers = ["none", "teacher"]
[run]
strategies = ["single", "static"]
variants = []
"""
MUTATIONS = [*OF_ROWS, *[odd_value_anywhere] * 8]
USAGE = {"calls": 1, "input_tokens": 5, "cached_input_tokens": 0, "output_tokens": 5, "reasoning_tokens": 0}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    (folder / "test.jsonl").write_text('{"question": "How far is it to 7?", "answer": "7"}\n')
    (folder / "fractionate.toml").write_text(CONFIG)
    assert main(["run", str(folder / "fractionate.toml"), "--out", str(folder / "run"), "--quiet"]) == 0
    return folder / "run"


def answer(id: str, pair: str = "fractionate/static:teacher+teacher") -> dict[str, Any]:
    part = {"name": "teacher", "kind": "teacher", "model": "echo:"}
    decomposition = {"subquestions": ["How far?"], "status": "ok", "dropped": 0, "raw": "1. How far?"}
    reply = {"output": "The answer is: 7", "answer": ["7"], "decomposition": decomposition, "sub_answers": ["7"]}
    reply |= {"finish_reason": "stop", "cut_off": [], "degraded": False}
    answering = {"pair": pair, "strategy": "static", "decomposer": part, "solver": part, "replies": [reply]}
    answering |= {"usage": {"decomposer": USAGE, "solver": USAGE}, "latency_s": 0.5}
    answering |= {"usd": {"decomposer": 0.1, "solver": 0.1, "total": 0.2}}
    asked = {"id": id, "time": 1.0, "question": f"How far is {id}?", "context": "", "dataset": "gsm8k", "scorer": ""}
    return {**asked, **answering, "measured": True, "deviations": [], "degraded": False, "ownership_token": "x"}


def record() -> list[dict[str, Any]]:
    """Return rows of a record: two answers, one with a shadow, both with feedback."""
    first, second = answer("a"), answer("b")
    names = ("pair", "strategy", "decomposer", "solver", "replies", "usage", "usd", "latency_s")
    shadow = {"shadow": "a", **{name: first[name] for name in names}, "pair": "fractionate/single:none+teacher"}
    feedback = [{"feedback": "a", "time": 2.0, "right": True}, {"feedback": "b", "right": False, "answers": [["8"]]}]
    return [first, second, {**shadow, "same": True}, *feedback]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["results.json", "config.json", "run.json"])
def test_a_mutated_run_is_served_or_refused(good: Path, tmp_path: Path, name: str) -> None:
    served = 0
    for number in range(60 * TIMES):
        draw = random.Random(f"{name} {number}")
        folder = tmp_path / str(number)
        shutil.copytree(good, folder)
        how = mutate(folder / name, MUTATIONS, draw)
        try:
            gateway = Gateway(folder, Keys(""))
        except FractionateError as error:
            one_line(error, how)
            continue
        served += 1
        json.dumps([gateway.catalog.listing(), document(gateway)], allow_nan=False).encode()
        asyncio.run(gateway.close())
    assert served


def one_line(error: FractionateError, how: str) -> None:
    assert "\n" not in str(error), how
    assert len(str(error).encode()) < 2 * len(max(map(str, ODD), key=len)), how


def uses(path: Path) -> Iterator[object]:
    """Yield what the readers of a record make of a file."""
    kept, left_out = learnable(read_exchanges(path))
    yield left_out
    yield [problem_of(one, at) for at, one in enumerate(kept)]
    for system in read_systems([f"{path}:static:teacher+teacher", f"{path}:single:none+teacher"], Choices()):
        assert isinstance(system, System)
        yield sum(one.usd or 0.0 for one in system.answers), [one.question.encode() for one in system.answers]


def test_a_mutated_record_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "traffic.jsonl"
    read = 0
    for number in range(400 * TIMES):
        draw = random.Random(number)
        write(path, record())
        how = mutate(path, MUTATIONS, draw)
        try:
            list(uses(path))
            read += 1
        except UsageError as error:
            one_line(error, how)
    assert 0 < read < 400 * TIMES


@pytest.mark.parametrize(
    ("number", "change", "named"),
    [
        (0, {"latency_s": 10**400}, "latency_s"),
        (0, {"latency_s": "nan"}, "latency_s"),
        (0, {"question": 7}, "question"),
        (0, {"question": "half \ud83d"}, "surrogate"),
        (0, {"usd": {"total": 1e400}}, "usd.total"),
        (0, {"usage": {"solver": {**USAGE, "input_tokens": 10**400}}}, "usage.solver"),
        (0, {"replies": []}, "no replies"),
        (0, {"deviations": "system"}, "deviations"),
        (1, {"decomposer": {"name": "x"}}, "decomposer.kind"),
        (2, {"shadow": {"id": "a"}}, "shadow"),
        (3, {"feedback": {"id": "a"}}, "feedback"),
        (3, {"right": "yes"}, "right"),
        (4, {"answers": "8"}, "answers"),
    ],
)
def test_a_faulty_line_is_named_with_its_field(tmp_path: Path, number: int, change: dict[str, Any], named: str) -> None:
    rows = record()
    rows[number] |= change
    with pytest.raises(UsageError) as error:
        read_exchanges(write(tmp_path / "traffic.jsonl", rows))
    assert f"traffic.jsonl:{number + 1}: " in str(error.value)
    assert named in str(error.value)


def test_records_made_by_an_earlier_release_are_read(tmp_path: Path) -> None:
    rows = record()
    rows[0]["unlike"], rows[0]["seal"] = ["system"], rows[0].pop("ownership_token")
    del rows[0]["deviations"]
    assert read_exchanges(write(tmp_path / "traffic.jsonl", rows))[0].deviations == ("system",)


def test_only_a_record_is_taken_for_one() -> None:
    assert all(is_traffic(row) for row in record())
    for other in (
        {"feedback": {"rating": 5}, "output": "7", "answer": "7"},
        {"feedback": "good", "output": "7", "answer": "7"},
        {"feedback": "good", "right": True, "score": 1},
        {"pair": "x", "replies": 3, "latency_s": 1.0, "id": "a"},
        {"pair": "x", "replies": [], "latency_s": 1.0},
    ):
        assert not is_traffic(other)


def test_a_log_with_a_feedback_field_is_compared_as_a_table(tmp_path: Path) -> None:
    rows = [{"id": str(n), "feedback": {"rating": n}, "score": n % 2, "question": f"q{n}"} for n in range(4)]
    write(tmp_path / "log.jsonl", rows)
    (system,) = read_systems([str(tmp_path / "log.jsonl")], Choices())
    assert [one.outcome for one in system.answers] == [0.0, 1.0, 0.0, 1.0]
