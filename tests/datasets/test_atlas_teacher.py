"""The recorded teacher: flawed at the stated rate, honest about where a flaw leads, and replayable."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fractionate.config import ModelOptions
from fractionate.datasets.atlas import generate, sub_answers
from fractionate.datasets.atlas.passage import read_passage
from fractionate.datasets.atlas.program import execute
from fractionate.datasets.atlas.teacher import FLAWS, demonstrate, solution, write_recording
from fractionate.errors import UsageError
from fractionate.models.recorded import RecordedModel
from fractionate.types import Message, Origin, Problem, Request

PROBLEMS = list(generate("train"))
problems = st.sampled_from(PROBLEMS)


def share_within(share: float, rate: float, n: int) -> bool:
    """Whether an observed share is within four standard errors of a rate."""
    return abs(share - rate) <= 4 * math.sqrt(rate * (1 - rate) / n)


def reaches_gold(problem: Problem, subquestions: tuple[str, ...]) -> bool:
    return (execute(subquestions, read_passage(problem.context))[-1],) in problem.answers


def recorded(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
def test_the_share_of_flawed_samples_is_near_the_rate(rate):
    flawed = [bool(demonstrate(p, k, flaw_rate=rate).flaw) for p in PROBLEMS for k in range(2)]
    assert share_within(sum(flawed) / len(flawed), rate, len(flawed))


def test_samples_are_flawed_independently_of_each_other():
    both = [all(demonstrate(p, k, flaw_rate=0.4).flaw for k in range(2)) for p in PROBLEMS]
    assert share_within(sum(both) / len(both), 0.16, len(both))
    first = [demonstrate(p, 0, flaw_rate=1.0).subquestions for p in PROBLEMS]
    second = [demonstrate(p, 1, flaw_rate=1.0).subquestions for p in PROBLEMS]
    assert sum(a != b for a, b in zip(first, second, strict=True)) > len(PROBLEMS) / 2


@settings(deadline=None)
@given(problems, st.integers(0, 5), st.integers(0, 1000))
def test_a_good_sample_is_the_reference_and_a_flawed_one_is_not(problem, sample, seed):
    good = demonstrate(problem, sample, flaw_rate=0.0, seed=seed)
    assert (good.subquestions, good.flaw) == (problem.subquestions, "")
    flawed = demonstrate(problem, sample, flaw_rate=1.0, seed=seed)
    assert flawed.flaw in FLAWS
    assert flawed.subquestions != problem.subquestions
    assert 1 <= len(flawed.subquestions) <= 3
    assert len(set(flawed.subquestions)) == len(flawed.subquestions)


def test_references_in_a_flawed_sample_still_point_to_earlier_answers():
    for problem in PROBLEMS:
        for number, subquestion in enumerate(demonstrate(problem, 0, flaw_rate=1.0).subquestions, start=1):
            assert all(int(reference) < number for reference in re.findall(r"#(\d)", subquestion)), problem


def test_an_idle_subquestion_before_the_last_does_no_harm_and_as_the_last_misleads():
    flawed = [(p, demonstrate(p, 0, flaw_rate=1.0)) for p in PROBLEMS]
    distracted = [(p, each.subquestions) for p, each in flawed if each.flaw == "distracting"]
    assert len(distracted) > 50
    for problem, subquestions in distracted:
        assert reaches_gold(problem, subquestions) == (not subquestions[-1].startswith("How many people does"))


@settings(deadline=None)
@given(problems, st.integers(0, 5))
def test_a_solution_ends_in_what_following_the_decomposition_gives(problem, sample):
    subquestions = demonstrate(problem, sample, flaw_rate=0.7).subquestions
    lines = solution(problem, subquestions).splitlines()
    assert len(lines) == len(subquestions) + 1
    assert [line.split(". ")[0] for line in lines[:-1]] == [str(n) for n in range(1, len(lines))]
    assert lines[-1] == f"The answer is: {execute(subquestions, read_passage(problem.context))[-1]}"


def test_following_the_reference_always_gives_the_answer():
    for problem in PROBLEMS[:400]:
        assert solution(problem, problem.subquestions).endswith(f"The answer is: {problem.answers[0][0]}")
        assert sub_answers(problem)[-1] == problem.answers[0][0]


def test_every_flaw_occurs_and_screening_catches_most_but_not_all():
    caught: dict[str, list[bool]] = defaultdict(list)
    for problem in PROBLEMS:
        flawed = demonstrate(problem, 0, flaw_rate=1.0)
        caught[flawed.flaw].append(not reaches_gold(problem, flawed.subquestions))
    assert set(caught) == set(FLAWS)
    everything = [each for group in caught.values() for each in group]
    assert 0.6 <= sum(everything) / len(everything) <= 0.75
    assert sum(caught["swapped-relation"]) / len(caught["swapped-relation"]) > 0.9


def test_screening_leaves_a_purer_set_than_it_found():
    kept = found = kept_flawed = found_flawed = 0
    for problem in PROBLEMS:
        demonstration = demonstrate(problem, 0)
        found, found_flawed = found + 1, found_flawed + bool(demonstration.flaw)
        if reaches_gold(problem, demonstration.subquestions):
            kept, kept_flawed = kept + 1, kept_flawed + bool(demonstration.flaw)
    assert kept_flawed / kept < 0.5 * found_flawed / found


# ---------------------------------------------------------------------- the file


@pytest.fixture
def path(tmp_path):
    write_recording(tmp_path / "teacher.jsonl", PROBLEMS[:200])
    return tmp_path / "teacher.jsonl"


def test_the_file_holds_every_role_and_sample(path):
    rows = recorded(path)
    for problem in PROBLEMS[:200]:
        mine = [row for row in rows if row["id"] == problem.id]
        for sample in range(2):
            (decomposer,) = [r for r in mine if r["role"] == "decomposer" and r["sample"] == sample]
            solvers = {r["decomposition"]: r for r in mine if r["role"] == "solver" and r["sample"] == sample}
            assert {"", decomposer["output"]} <= set(solvers)
            assert solvers[decomposer["output"]]["flaw"] == decomposer["flaw"]
            assert decomposer["question"] == problem.question


def test_the_file_is_the_same_every_time_and_another_seed_is_another_file(path, tmp_path):
    write_recording(tmp_path / "again.jsonl", PROBLEMS[:200])
    write_recording(tmp_path / "other.jsonl", PROBLEMS[:200], seed=1)
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()
    assert (tmp_path / "other.jsonl").read_bytes() != path.read_bytes()


def test_a_problems_rows_do_not_depend_on_the_others(path, tmp_path):
    write_recording(tmp_path / "one.jsonl", [PROBLEMS[57]])
    mine = [row for row in recorded(path) if row["id"] == PROBLEMS[57].id]
    assert recorded(tmp_path / "one.jsonl") == mine


def test_direct_answers_err_at_the_stated_rate(tmp_path):
    write_recording(tmp_path / "teacher.jsonl", PROBLEMS, samples=1, direct_error_rate=0.3)
    gold = {problem.id: problem.answers[0][0] for problem in PROBLEMS}
    direct = [r for r in recorded(tmp_path / "teacher.jsonl") if r["role"] == "solver" and not r["decomposition"]]
    wrong = [row["output"] != f"The answer is: {gold[row['id']]}" for row in direct]
    assert share_within(sum(wrong) / len(wrong), 0.3, len(wrong))
    assert wrong == [row["flaw"] == "direct-error" for row in direct]


def test_the_recorded_model_replays_it(path):
    model = RecordedModel(f"recorded:{path}", ModelOptions())

    def reply(role, problem, sample, decomposition=""):
        origin = Origin(problem, decomposition=decomposition)
        request = Request((Message("user", problem.question),), role, sample=sample, origin=origin)
        return asyncio.run(model.complete(request)).text

    for problem in PROBLEMS[:40]:
        assert model.samples(problem) == 2
        for sample in range(2):
            demonstration = demonstrate(problem, sample)
            assert reply("decomposer", problem, sample) == demonstration.text
            followed = reply("solver", problem, sample, demonstration.text)
            assert followed == solution(problem, demonstration.subquestions)
            assert reply("solver", problem, sample).startswith("The answer is: ")


@pytest.mark.parametrize("rates", [{"flaw_rate": 1.5}, {"flaw_rate": -0.1}, {"direct_error_rate": 2.0}])
def test_a_rate_outside_zero_to_one_is_refused(tmp_path, rates):
    with pytest.raises(UsageError, match="between 0 and 1"):
        write_recording(tmp_path / "teacher.jsonl", [], **rates)


def test_a_problem_from_elsewhere_is_refused(tmp_path):
    other = Problem("p", "How many eggs?", (("2",),))
    with pytest.raises(UsageError, match="knows atlas problems only"):
        write_recording(tmp_path / "teacher.jsonl", [other])
