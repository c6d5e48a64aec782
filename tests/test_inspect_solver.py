"""A measured pair as a solver of inspect_ai, in its real evaluations."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("inspect_ai", reason="the 'inspect' extra is not installed")

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.scorer import includes

from echo_run import PAIR, measured_echo_run
from fractionate.api import read_system
from fractionate.inspect import pair_solver


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was measured."""
    home = tmp_path_factory.mktemp("inspected")
    rows = [{"question": f"What is number {n}?", "answer": f"it {n}", "context": f"It is {n}."} for n in range(4)]
    return measured_echo_run(home, rows)


def evaluated(folder: Path, logs: Path, pair: str = PAIR, **more: object) -> EvalLog:
    """Evaluate three samples, one of which fails its score."""
    samples = [
        Sample(
            input=f"What is number {n}?", target="1" if n < 2 else "nowhere", id=n, metadata={"context": f"It is {n}."}
        )
        for n in (1, 11, 3)
    ]
    task = Task(dataset=samples, solver=pair_solver(str(folder), pair, **more), scorer=includes())
    (log,) = eval(task, model="none/none", log_dir=str(logs), display="none")
    return log


def test_samples_are_answered_with_their_steps_usage_and_dollars_by_role(folder: Path, tmp_path: Path) -> None:
    log = evaluated(folder, tmp_path)
    assert log.status == "success", log.error
    assert log.samples
    assert len(log.samples) == 3
    for sample in log.samples:
        told = sample.metadata["fractionate"]
        assert told["pair"] == PAIR
        assert told["subquestions"]
        assert told["unlike"] == []
        decomposed, solved = told["usage"]["decomposer"], told["usage"]["solver"]
        assert (decomposed["calls"], solved["calls"]) == (1, 1)
        usage = sample.output.usage
        assert usage
        assert usage.total_tokens == sum(
            one[kind] for one in (decomposed, solved) for kind in ("input_tokens", "output_tokens")
        )
        assert usage.total_cost == pytest.approx((usage.input_tokens + 2 * usage.output_tokens) / 1e6)
        assert told["usd"]["total"] == usage.total_cost
        assert sample.messages[-1].text == sample.output.completion
        assert told["measured"]["n"] == 4


def test_fractionate_reads_the_log_with_tokens_and_dollars(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("backports.zstd", reason="the 'logs' extra is not installed")
    log = evaluated(folder, tmp_path)
    system = read_system(log.location)
    assert len(system.answers) == 3
    for answer, sample in zip(system.answers, log.samples or (), strict=True):
        assert list(answer.usage) == [PAIR]
        assert sample.output.usage
        assert answer.usage[PAIR].output_tokens == sample.output.usage.output_tokens
        assert answer.usd == pytest.approx(sample.output.usage.total_cost)


def test_evaluations_one_after_another_ask_the_same_pair(folder: Path, tmp_path: Path) -> None:
    first, second = (evaluated(folder, tmp_path / name, "fractionate/single") for name in ("a", "b"))
    assert first.status == second.status == "success"
    assert first.samples
    assert second.samples
    assert [one.output.completion for one in first.samples] == [one.output.completion for one in second.samples]
    assert first.samples[0].metadata["fractionate"]["subquestions"] == []


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("fractionate/nope", "no model 'fractionate/nope'"),
        ("fractionate/static:none+echo:", "no model"),
        ("fractionate/single:none+echo:x", "no model"),
    ],
)
def test_a_pair_that_cannot_be_asked_is_the_sample_s_error(pair: str, says: str, folder: Path, tmp_path: Path) -> None:
    log = evaluated(folder, tmp_path, pair)
    assert log.status == "error"
    assert log.error
    assert says in log.error.message
