"""Repeats against a real server, recordings and local weights: k calls a question, one independent unit."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from measured import cell_of

from fractionate.analysis.matrix import pool_cells
from fractionate.averages import MeanAttempts
from fractionate.calls.store import Store
from fractionate.cli import main
from fractionate.run.attempt_rows import read_jsonl
from fractionate.statistics import mean_interval
from fractionate.types import Attempt, Problem, Score, Usage
from servers.chat_server import ChatServer
from servers.threaded import in_thread

ANSWERS = ["The answer is: 4", "The answer is: 5", "The answer is: 4", "No idea, sorry.", "The answer is: 4"]


class Wavering(ChatServer):
    """Answers a prompt otherwise every time that it is asked: right three times of five."""

    def __init__(self) -> None:
        super().__init__()
        self.times: Counter[str] = Counter()

    async def reply(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
        decomposing = "subquestion" in body["messages"][0]["content"] and "Subquestions:" not in question
        text = "1. What is four?" if decomposing else None
        prompt = json.dumps(body["messages"])
        text = text or ANSWERS[self.times[prompt] % len(ANSWERS)]
        self.times[prompt] += 1
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}
        return web.json_response({"choices": [choice], "usage": usage})


@pytest.fixture
def wavering() -> Iterator[Wavering]:
    with in_thread(Wavering()) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path / "test.jsonl", [{"id": f"q{n}", "question": f"What is 4 of {n}?", "answer": "4"} for n in range(6)])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def configure(folder: Path, model: str, strategies: list[str], run: str = "", more: str = "") -> None:
    (folder / "run.toml").write_text(
        '[data]\ntest = "jsonl:test.jsonl"\nscorer = "gsm8k"\n'
        f'[models]\nteacher = "{model}"\ndecomposers = ["none", "teacher"]\n'
        f'[run]\nvariants = []\nstrategies = {json.dumps(strategies)}\nout = "out"\n{run}\n{more}\n'
    )


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out/results.json").read_text())
    return found


def test_every_question_is_answered_k_times_and_counts_once(
    wavering: Wavering, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(folder, wavering.name, ["single", "static"], "repeats = 5\ntemperature = 0.7")
    assert main(["run", "run.toml", "--dry-run", "--json", "--quiet"]) == 0
    plan = json.loads(capsys.readouterr().out)
    forecast = sum(entry["stage"]["calls"] for entry in plan["stages"])
    assert main(["run", "run.toml", "--quiet"]) == 0
    assert len(wavering.bodies) == forecast == 6 * 5 * 3, "single, decomposing, solving"
    assert {body["temperature"] for body in wavering.bodies} == {0.7}
    before = results(folder)
    for cell in before["cells"]:
        assert (cell["n"], cell["repeats"], cell["outputs"], cell["value"]) == (6, 5, 30, pytest.approx(0.6))
        assert (cell["ci_low"], cell["ci_high"]) == pytest.approx(tuple(mean_interval([0.6] * 6, 0.95)))
        assert (cell["unextracted"], cell["unextracted_share"]) == (6, pytest.approx(0.2))
        assert cell["usage"]["solver"]["calls"] == 6, "of answering once"
    assert all(row["n"] == 6 for row in before["comparisons"])
    assert "| 6 × 5 |" in (folder / "out/report.md").read_text()
    rows = [json.loads(line) for line in (folder / "out/attempts.jsonl").read_text().splitlines()]
    assert [(row["id"], row["repeat"]) for row in rows[:6]] == [*(("q0", repeat) for repeat in range(5)), ("q1", 0)]
    assert main(["run", "run.toml", "--quiet"]) == 0
    assert len(wavering.bodies) == forecast, "the same run asks nothing again"
    assert main(["report", "out", "--quiet"]) == 0
    assert results(folder)["cells"] == before["cells"]
    (cell, _) = read_jsonl(folder / "out/attempts.jsonl")
    assert [len(cell.outputs_at(question)) for question in range(len(cell.attempts))] == [5] * 6


def test_one_answer_a_question_is_stored_under_the_key_it_always_had(wavering: Wavering, folder: Path) -> None:
    configure(folder, wavering.name, ["single"])
    assert main(["run", "run.toml", "--quiet"]) == 0
    (body, *_) = wavering.bodies
    messages = [[message["role"], message["content"]] for message in body["messages"]]
    with Store(folder / "calls.sqlite") as store:
        (identity,) = {call.identity for call in store.calls()}
        text = json.dumps([identity, messages, 64, 0.0, [], None, 0], ensure_ascii=False, separators=(",", ":"))
        assert store.get(hashlib.sha256(text.encode()).hexdigest()) is not None
    sent = len(wavering.bodies)
    assert main(["run", "run.toml", "--quiet", "--set", "run.repeats=2", "--set", "run.temperature=0.5"]) == 0
    assert len(wavering.bodies) == sent + 12


@pytest.mark.parametrize(
    ("strategies", "run", "said"),
    [
        (["single"], "repeats = 2", "set run.temperature"),
        (["self-consistency"], "sample_temperature = 0", "set run.sample_temperature above 0"),
    ],
)
def test_repeats_of_one_and_the_same_answer_are_refused_before_anything_is_sent(
    wavering: Wavering, folder: Path, capsys: pytest.CaptureFixture[str], strategies: list[str], run: str, said: str
) -> None:
    configure(folder, wavering.name, strategies, run)
    assert main(["run", "run.toml", "--quiet"]) == 2
    assert said in capsys.readouterr().err
    assert not wavering.bodies


def test_a_decomposer_at_temperature_0_is_asked_once_a_question(wavering: Wavering, folder: Path) -> None:
    """A solver's own temperature makes its repeats differ; the decomposer would say the same every time."""
    more = f'[models.options."{wavering.base_url}#other"]\ntemperature = 0.4'
    configure(folder, wavering.name, ["static"], "repeats = 3", more)
    solver = f'models.solvers=["{wavering.base_url}#other"]'
    assert main(["run", "run.toml", "--quiet", "--set", solver, "--set", 'models.decomposers=["teacher"]']) == 0
    assert len(wavering.bodies) == 6 + 6 * 3
    assert any("share one decomposition" in note for note in results(folder)["notes"])


def test_a_cap_holds_over_repeats(wavering: Wavering, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prices = f'[prices."{wavering.name}"]\ninput_per_million = 100.0\noutput_per_million = 100.0'
    configure(folder, wavering.name, ["single"], "repeats = 5\ntemperature = 0.7", prices)
    each = 105 * 100e-6
    assert main(["run", "run.toml", "--quiet", "--set", f"budget.usd={12 * each}"]) == 1
    assert "nothing has been sent" in capsys.readouterr().err
    assert not wavering.bodies
    limits = ["--set", f"budget.usd={15 * each}", "--set", "limits.concurrency=1"]
    assert main(["evaluate", "run.toml", "--quiet", *limits]) == 1
    assert 6 < len(wavering.bodies) <= 15


def test_a_recording_is_asked_for_no_more_than_it_holds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usage = {"input_tokens": 1, "output_tokens": 1}
    solved = [
        {"id": f"q{n}", "output": f"The answer is: {4 + sample}", "sample": sample, **usage}
        for n in range(6)
        for sample in range(2)
    ]
    write(folder / "solver.jsonl", solved)
    configure(folder, "recorded:solver.jsonl", ["single"], "repeats = 3")
    assert main(["run", "run.toml", "--quiet"]) == 2
    assert "holds 2 answer(s) per question, and run.repeats and run.votes take 3" in capsys.readouterr().err
    assert main(["run", "run.toml", "--quiet", "--set", "run.repeats=2"]) == 0
    (cell,) = results(folder)["cells"]
    assert (cell["value"], cell["outputs"]) == (0.5, 12)
    assert main(["run", "run.toml", "--quiet", "--set", "run.repeats=1", "--set", "run.votes=2",
                 "--set", 'run.strategies=["self-consistency"]']) == 0  # fmt: skip
    (cell,) = results(folder)["cells"]
    assert (cell["value"], cell["usage"]["solver"]["calls"]) == (1.0, 12), "a tie goes to the answer first reached"


def test_recorded_decompositions_take_turns(wavering: Wavering, folder: Path) -> None:
    rows = [
        {"id": f"q{n}", "decomposition": f"1. What is {sample}?", "sample": sample, "input_tokens": 1}
        for n in range(6)
        for sample in range(2)
    ]
    write(folder / "teacher.jsonl", rows)
    configure(folder, "recorded:teacher.jsonl", ["static"], "repeats = 3\ntemperature = 0.7")
    solver = f'models.solvers=["{wavering.name}"]'
    assert main(["run", "run.toml", "--quiet", "--set", solver, "--set", 'models.decomposers=["teacher"]']) == 0
    found = [json.loads(line)["subquestions"] for line in (folder / "out/attempts.jsonl").read_text().splitlines()[:3]]
    assert found == [["What is 0?"], ["What is 1?"], ["What is 0?"]]
    assert any("3 repeats take turns" in note for note in results(folder)["notes"])


def test_self_consistency_pays_for_all_its_votes(wavering: Wavering, folder: Path) -> None:
    configure(folder, wavering.name, ["self-consistency", "single-cot"], "votes = 5")
    assert main(["run", "run.toml", "--quiet"]) == 0
    cells = {cell["strategy"]: cell for cell in results(folder)["cells"]}
    voted, once = cells["self-consistency"], cells["single-cot"]
    assert voted["value"] == 1.0, "three of five votes are right"
    assert voted["usage"]["solver"] == {
        **once["usage"]["solver"],
        "calls": 30,
        "input_tokens": 3000,
        "output_tokens": 150,
    }
    assert len(wavering.bodies) == 6 * 5 + 6
    assert voted["latency_p50_s"] < 5 * max(once["latency_p95_s"], 0.5), "votes are asked for side by side"


def test_local_weights_answer_repeats_and_votes(folder: Path, tiny_model: Path) -> None:
    name = f"local:{tiny_model}"
    more = f'[models.options."{name}"]\nmax_tokens = 4\ndevice = "cpu"'
    configure(folder, name, ["single", "self-consistency"], "repeats = 2\nvotes = 2\ntemperature = 1.0", more)
    assert main(["run", "run.toml", "--quiet"]) == 0
    assert {cell["strategy"]: cell["outputs"] for cell in results(folder)["cells"]} == {
        "single": 12, "self-consistency": 12,
    }  # fmt: skip
    rows = [json.loads(line) for line in (folder / "out/attempts.jsonl").read_text().splitlines()]
    single = [row["output"] for row in rows if row["strategy"] == "single"]
    assert any(first != second for first, second in zip(single[::2], single[1::2], strict=True))


def attempt(exact: float, tokens: int = 10, lenient: bool = True) -> Attempt:
    score = Score(exact, exact)
    return Attempt(
        Problem("q", "Why?", (("x",),)),
        ("x",) if exact else None,
        score,
        str(exact),
        solver_usage=Usage(1, tokens, 0, tokens),
        latency_s=tokens / 10,
        lenient=Score(1.0, 1.0) if lenient else None,
    )


def test_the_mean_of_several_attempts() -> None:
    parts = [attempt(1.0, 10), attempt(0.0, 11), attempt(0.0, 13)]
    means = MeanAttempts.of_repeats(parts, 3)
    (mean,) = means
    assert mean.score.exact_match == pytest.approx(statistics.mean([1, 0, 0]))
    assert mean.solver_usage == Usage(1, 11, 0, 11)
    assert mean.latency_s == pytest.approx(statistics.mean([1.0, 1.1, 1.3]))
    assert (mean.prediction, mean.output, mean.lenient) == (None, "0.0", Score(1.0, 1.0))
    assert replace(cell_of([]), attempts=means).outputs_at(0) == parts
    (mean,) = MeanAttempts.of_repeats([*parts, attempt(1.0, lenient=False)], 4)
    assert mean.lenient is None
    assert MeanAttempts.of_repeats(parts, 1) is parts


def test_runs_with_another_number_of_repeats_are_pooled_as_means_of_means() -> None:
    twice, once = [attempt(1.0, 10), attempt(0.0, 11)], [replace(attempt(0.0, 13), output="last")]
    runs = {"a": [replace(cell_of([]), attempts=MeanAttempts.of_repeats(twice, 2))], "b": [cell_of([])]}
    runs["b"] = [replace(runs["b"][0], attempts=once)]
    ((pooled,), _) = pool_cells(runs)
    assert [one.output for one in pooled.outputs_at(0)] == ["1.0", "0.0", "last"]
    assert pooled.values() == [0.25]
    assert pooled.columns.column("solver_output_tokens").tolist() == [12]  # 10.5 rounds to even, then 11.5 does
    assert (pooled.columns.repeats, pooled.columns.seeds) == (2, 2)
    assert [run.score("exact_match").tolist() for run in pooled.columns.runs] == [[0.5], [0.0]]


def test_some_of_pooled_questions_still_know_their_runs_and_repeats() -> None:
    right = [[1.0, 0.0, 1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]]
    runs = {
        name: [replace(cell_of([]), attempts=MeanAttempts.of_repeats([attempt(one, 10 + n) for one in of_run], 2))]
        for n, (name, of_run) in enumerate(zip("ab", right, strict=True))
    }
    ((pooled,), _) = pool_cells(runs)
    some = replace(pooled, attempts=pooled.attempts[1:])
    assert [list(some.attempts), some.outputs_at(0)] == [list(pooled.attempts)[1:], pooled.outputs_at(1)]
    assert (some.columns.seeds, some.columns.repeats, len(some.columns.outputs)) == (2, 2, 8)
    assert [run.score("exact_match").tolist() for run in some.columns.runs] == [[0.5, 1.0], [0.5, 0.0]]
    assert [run.column("solver_output_tokens").tolist() for run in some.columns.runs] == [[10, 10], [11, 11]]
    assert list(pooled.attempts[3:]) == []


def test_asking_the_same_again_makes_no_interval_narrower() -> None:
    once = [attempt(float(n % 3 == 0)) for n in range(30)]
    folded = MeanAttempts.of_repeats([one for one in once for _ in range(5)], 5)
    values = [one.score.exact_match for one in folded]
    assert tuple(mean_interval(values)) == tuple(mean_interval([one.score.exact_match for one in once]))
