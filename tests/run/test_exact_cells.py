"""The cells of a run one by one: who is asked what and how often, and what each of it adds to the bill."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from measured import cell_of, component_of, config_of

from fractionate import datasets, strategies
from fractionate.calls.stages import Work
from fractionate.config import ModelOptions, parse_config
from fractionate.errors import UsageError
from fractionate.models.echo import EchoModel
from fractionate.report.run_cost import (
    CHANCES,
    CURVE,
    DEMONSTRATIONS,
    EVALUATION,
    SCREENING,
    TRAINING,
    RunCost,
    Trained,
)
from fractionate.run.cells import (
    Decomposed,
    Pair,
    TestSet,
    _decomposed,
    _plain,
    _sample,
    _scored,
    decompose_once,
    discard,
    measure,
    plan_pairs,
    samplers,
)
from fractionate.run.folder import RunFolder
from fractionate.run.spending import add_spending, read_spending
from fractionate.strategies.base import Sampler, Settings, Solution
from fractionate.students.demonstrate import Demonstration
from fractionate.types import Cell, Completion, Component, Decomposition, Problem, ToolUse, Usage

GOLD = ("Who?", "Where?", "When is #1?")
PROBLEMS = [
    Problem(f"q{n}", f"How many of {n}?", ((str(n),),), dataset="gsm8k", index=n, subquestions=GOLD) for n in range(3)
]
SINGLE, STATIC, DYNAMIC = (strategies.get(name) for name in ("single", "static", "dynamic"))
NONE, TEACHER, REFERENCE = component_of("none"), component_of("teacher"), component_of("gold")
SOLVER, OTHER = Component("teacher", "teacher", "solver", "m"), Component("other", "model", "solver", "n")


def a_test_set(**changes: Any) -> TestSet:
    whole = {"settings": Settings(cap=2), "repeats": 1, **changes}
    dataset = datasets.get("gsm8k")
    return TestSet("gsm8k#test", "gsm8k", "test", PROBLEMS, dataset, "exact_match", **whole)


def test_single_stages_are_paired_with_none_and_the_others_with_every_other_decomposer() -> None:
    planned = plan_pairs([SINGLE, STATIC], SINGLE, [NONE, TEACHER, REFERENCE], [SOLVER, OTHER])
    assert [(one.strategy.name, one.decomposer.name, one.solver.name) for one in planned] == [
        ("single", "none", "teacher"), ("single", "none", "other"), ("static", "teacher", "teacher"),
        ("static", "teacher", "other"), ("static", "gold", "teacher"), ("static", "gold", "other"),
    ]  # fmt: skip
    assert [one.strategy for one in plan_pairs([STATIC], SINGLE, [NONE, TEACHER], [SOLVER])] == [SINGLE, STATIC]
    assert [one.strategy for one in plan_pairs([STATIC], SINGLE, [TEACHER], [SOLVER])] == [STATIC]
    assert [one.decomposer for one in plan_pairs([SINGLE], SINGLE, [TEACHER], [SOLVER])] == [NONE]
    assert len(plan_pairs([STATIC], SINGLE, [TEACHER, TEACHER], [SOLVER])) == 1


def test_every_question_is_asked_as_often_as_it_is_answered() -> None:
    asked = list(a_test_set(repeats=2).asked())
    assert [(problem.id, repeat) for problem, repeat in asked] == [(f"q{n}", k) for n in range(3) for k in range(2)]
    own = Settings(cap=9)
    test = a_test_set(own_settings={"teacher": own})
    assert test.settings_of(TEACHER) == own
    assert test.settings_of(NONE) == Settings(cap=2)


class Model(EchoModel):
    """A model whose samples are as many as a test says."""

    def __init__(self, held: int | None, replays: bool = False) -> None:
        super().__init__("echo:", ModelOptions())
        self.held = held
        self.replays = replays

    def samples(self, problem: Problem, role: Any = "decomposer") -> int | None:
        return self.held


@pytest.mark.parametrize(
    ("held", "replays", "temperature", "samples"),
    [(3, True, 0.0, [0, 1, 2, 0]), (1, True, 0.0, [0, 0, 0, 0]), (0, True, 0.0, [0, 1, 2, 3]),
     (None, True, 0.0, [0, 1, 2, 3]), (None, False, 0.0, [0, 0, 0, 0]), (None, False, 0.5, [0, 1, 2, 3])],
)  # fmt: skip
def test_recorded_samples_take_turns_and_a_sure_model_is_asked_once(
    held: int | None, replays: bool, temperature: float, samples: list[int]
) -> None:
    sampler = Sampler(Model(held, replays), temperature)
    assert [_sample(sampler, PROBLEMS[0], repeat) for repeat in range(4)] == samples


def works(pairs: Sequence[Pair], test: TestSet) -> list[tuple[str, int, int]]:
    """Return the label of every piece of work, its count and how many coroutines it has."""
    found = []

    def drive(stage: Iterator[Any]) -> None:
        value = None
        try:
            while True:
                work: Work = stage.send(value)  # type: ignore[attr-defined]
                factories = list(work.factories)
                found.append((work.label.partition(": ")[2], work.count, len(factories)))
                value = [(Decomposition(("a?",), "ok", "1. a?"), None)] * len(factories)
        except StopIteration:
            return

    sampler = Sampler(EchoModel("echo:", ModelOptions()))
    for stage in measure([test], pairs, lambda component: sampler, discard):
        drive(stage)
    return found


def test_a_decomposer_is_asked_once_for_all_solvers_and_a_dynamic_cell_asks_itself() -> None:
    pairs = plan_pairs([SINGLE, STATIC, DYNAMIC], SINGLE, [NONE, TEACHER, REFERENCE], [SOLVER, OTHER])
    found = works(
        [one for one in pairs if not (one.strategy is DYNAMIC and one.decomposer is REFERENCE)], a_test_set(repeats=2)
    )
    assert found == [
        (label, 6, 6)
        for label in (
            "single, none → teacher", "single, none → other", "teacher decomposes 3 questions",
            "static, teacher → teacher", "static, teacher → other", "static, gold → teacher", "static, gold → other",
            "dynamic, teacher → teacher", "dynamic, teacher → other",
        )
    ]  # fmt: skip


def test_who_is_asked_needs_a_sampler() -> None:
    sampler = Sampler(EchoModel("echo:", ModelOptions()))
    for decomposer, asked in ((NONE, False), (REFERENCE, False), (TEACHER, True)):
        assert samplers(Pair(STATIC, decomposer, SOLVER), lambda one: sampler) == (sampler, sampler if asked else None)


def reference_of(problem: Problem, cap: int | None) -> Decomposed:
    coroutine = decompose_once(a_test_set(settings=Settings(cap=cap)), REFERENCE, None, problem, 0)
    with pytest.raises(StopIteration) as end:
        next(coroutine)  # type: ignore[call-overload]
    return end.value.value  # type: ignore[no-any-return]


def test_a_reference_decomposition_is_cut_at_the_cap_and_costs_nothing() -> None:
    lines = "1. Who?\n2. Where?\n3. When is #1?"
    assert reference_of(PROBLEMS[0], 2) == (Decomposition(GOLD[:2], "ok", lines, 1), None)
    assert (
        reference_of(PROBLEMS[0], None) == reference_of(PROBLEMS[0], 3) == (Decomposition(GOLD, "ok", lines, 0), None)
    )
    with pytest.raises(UsageError, match="no reference decomposition"):
        next(decompose_once(a_test_set(), REFERENCE, None, replace(PROBLEMS[0], subquestions=()), 0))  # type: ignore[call-overload]


def test_a_decomposition_with_tools_is_the_same_after_a_file_held_it() -> None:
    used = (ToolUse("wiki", 2, 1, 30, 0.5), ToolUse("sql", 1))
    completion = Completion("1. a?", "length", Usage(1, 5, 1, 2, 1, 0.5, 1), 3.0, "hm", "none", tools=used)
    one = Decomposition(("a?",), "ok", "1. a?", 2), completion
    assert _decomposed(_plain(one)) == one


def test_an_attempt_counts_the_calls_of_both_roles() -> None:
    said = [
        ("solver", Completion("x", "stop", Usage(1, 7, 0, 1), 1.0)),
        ("decomposer", Completion("y", "length", Usage(1, 2, 0, 1), 0.5)),
        ("solver", Completion("", "error", Usage(3), 0.25, error="503: busy")),
    ]
    solution = Solution("The answer is: 5", list(said), fell_back=True)
    attempt = _scored(PROBLEMS[0], solution, None, datasets.get("gsm8k"), None)
    assert (attempt.latency_s, attempt.failures, attempt.cut_off) == (1.75, ("length", "503: busy"), ("decomposer",))
    assert (attempt.decomposer_usage, attempt.solver_usage) == (Usage(1, 2, 0, 1), Usage(4, 7, 0, 1))
    assert (attempt.score.exact_match, attempt.prediction, attempt.fell_back) == (0.0, ("5",), True)
    assert len(solution.calls) == 3, "the calls of a solution stay its own"


U1, U2, U3 = Usage(1, 10, 0, 1), Usage(1, 20, 0, 2), Usage(1, 40, 0, 4)


def test_what_several_runs_took_adds_up() -> None:
    a = RunCost({EVALUATION: {"m": U1}, SCREENING: {"m": U2}}, {"D-R": [Trained("b", 3, 1.0)]}, {TRAINING: "x"})
    b = RunCost(
        {EVALUATION: {"m": U2, "n": U3}}, {"D-R": [Trained("b", 4, 2.0)], "E-A": [Trained("b", 5, 3.0)]}, {CURVE: "y"}
    )
    both = add_spending([a, b])
    assert both.usage == {EVALUATION: {"m": U1 + U2, "n": U3}, SCREENING: {"m": U2}}
    assert both.trained == {"D-R": [Trained("b", 3, 1.0), Trained("b", 4, 2.0)], "E-A": [Trained("b", 5, 3.0)]}
    assert both.missing == {TRAINING: "x", CURVE: "y"}
    assert add_spending([]) == RunCost({}, {}, {})


def spending_of(path: Path, cells: Sequence[Cell], rows: Sequence[Demonstration] = (), **sections: Any) -> RunCost:
    models = {"teacher": "openai:t", "screen_solver": "openai:s"}
    config = parse_config({"data": {"train": "atlas#train", "test": "atlas"}, "models": models, **sections})
    folder = RunFolder(path)
    if rows:
        folder.demonstrations.write_text("".join(json.dumps(one.as_row(PROBLEMS[0])) + "\n" for one in rows))
    return read_spending(folder, config, cells)


def sampled(sample: int, solved: bool = True, **changes: Any) -> Demonstration:
    usage = {"decomposer_usage": U1, "solver_usage": U2, **changes}
    return Demonstration("q0", sample, Decomposition(("a?",), "ok", "1. a?"), solved=solved, **usage)


def test_the_teachers_first_samples_its_solutions_and_further_samples_are_apart(tmp_path: Path) -> None:
    rows = [sampled(0), sampled(0, solved=False), sampled(1), sampled(2, solved=False)]
    found = spending_of(tmp_path, [], rows, run={"variants": ["D-R"]})
    assert found.usage == {
        DEMONSTRATIONS: {"openai:t": U1 + U1},
        SCREENING: {"openai:s": U2},
        CHANCES: {"openai:t": U1 + U1, "openai:s": U2},
    }
    assert found.missing == {}
    assert spending_of(tmp_path, [], run={"variants": []}) == RunCost({}, {}, {}), "without students no samples"


@pytest.mark.parametrize("unknown", ["decomposer_usage", "solver_usage"])
def test_usage_that_is_not_known_is_missing(tmp_path: Path, unknown: str) -> None:
    found = spending_of(tmp_path, [], [sampled(0, **{unknown: None})], run={"variants": ["D-R"]})
    assert list(found.missing) == [DEMONSTRATIONS]
    assert "does not say it" in found.missing[DEMONSTRATIONS]


def test_demonstrations_that_are_not_there_are_missing(tmp_path: Path) -> None:
    assert "is not there" in spending_of(tmp_path, [], run={"variants": ["D-R"]}).missing[DEMONSTRATIONS]


def measured(strategy: str, decomposer: Any = "teacher", solver: Any = "teacher", **more: Any) -> Cell:
    cell = cell_of([1.0], strategy, decomposer, solver, **more)
    cell = replace(cell, decomposer=replace(cell.decomposer, model="d"), solver=replace(cell.solver, model="s"))
    return replace(cell, attempts=tuple(replace(one, decomposer_usage=U1, solver_usage=U2) for one in cell.attempts))


def test_a_decomposers_subquestions_are_paid_once_for_its_two_stage_cells(tmp_path: Path) -> None:
    def evaluated(*cells: Cell) -> dict[str, Usage]:
        return dict(spending_of(tmp_path, cells, run={"variants": []}).usage[EVALUATION])

    assert evaluated(measured("static")) == {"d": U1, "s": U2}
    assert evaluated(measured("static"), measured("stepwise")) == {"d": U1, "s": U2 + U2}
    assert evaluated(measured("static"), measured("static", dataset="gsm8k"))["d"] == U1 + U1
    assert evaluated(measured("static"), measured("static", split="dev"))["d"] == U1 + U1
    assert evaluated(measured("static"), measured("dynamic"))["d"] == U1 + U1, "a dynamic cell asks itself"
    assert evaluated(measured("dynamic"), measured("static"))["d"] == U1 + U1
    assert evaluated(measured("dynamic"), measured("dynamic"))["d"] == U1 + U1


def test_a_share_of_a_student_is_the_learning_curves(tmp_path: Path) -> None:
    quarter = replace(component_of("D-R"), share=0.25)
    found = spending_of(tmp_path, [measured("static"), measured("static", quarter)], run={"variants": []})
    assert found.usage == {EVALUATION: {"d": U1, "s": U2}, CURVE: {"d": U1, "s": U2}}
    solver = replace(component_of("E-A", "solver"), share=0.5)
    assert list(spending_of(tmp_path, [measured("static", "teacher", solver)], run={"variants": []}).usage) == [CURVE]
    elsewhere = Component("away", "distilled", "decomposer", "x")
    missing = spending_of(tmp_path, [measured("static", elsewhere)], run={"variants": []}).missing
    assert missing == {TRAINING: "away: trained elsewhere, so what that took is not known"}


@pytest.mark.parametrize(
    ("record", "trained"),
    [({}, (0, None, 0)), ({"examples": 9, "seconds": 1800.0, "parameters": 5}, (9, 0.5, 5)),
     ({"examples": 9, "seconds": 3600.0}, (9, 1.0, 0)), ({"examples": 9}, (0, None, 0)),
     ({"seconds": 9.0}, (0, None, 0))],
)  # fmt: skip
def test_a_training_takes_the_hours_that_its_record_says(
    tmp_path: Path, record: dict[str, Any], trained: tuple[Any, ...]
) -> None:
    folder = tmp_path / "students" / "D-R"
    folder.mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps(record))
    found = spending_of(tmp_path, [], [sampled(0)], run={"variants": ["D-R"]}).trained
    examples, hours, parameters = trained
    assert found == {"D-R": [Trained(config_of().models.student, examples, hours, parameters, 1.0)]}
