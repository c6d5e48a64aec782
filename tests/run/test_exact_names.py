"""The matrix of names case by case: which cells there are, which student each share belongs to, what is refused."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from fractionate.config import Config, parse_config
from fractionate.errors import UsageError
from fractionate.run.names import Names, Student
from fractionate.types import Component

STUDENT = "local:HuggingFaceTB/SmolLM2-135M-Instruct"
TOOLS = {"look": {"kind": "search", "documents": "d.jsonl"}}


def names(**sections: Any) -> Names:
    return Names(config(**sections))


def config(**sections: Any) -> Config:
    table: dict[str, Any] = {"data": {"train": "atlas#train", "test": "atlas"}, "models": {"teacher": "echo:0.9"}}
    return parse_config({**table, **sections})


def cells(of: Names, is_there: Any = lambda name: True) -> list[str]:
    return [f"{pair.strategy.name}/{pair.decomposer.name}/{pair.solver.name}" for pair in of.pairs(is_there)[0]]


def test_a_student_has_the_configs_settings_unless_its_own() -> None:
    of = names(
        run={"variants": ["D-R"], "seed": 7},
        train={"max_examples": 55},
        students={"mine": {"variant": "E-A", "seed": 0, "max_examples": 9, "base": "local:b", "train": "gsm8k#train"},
                  "other": {"variant": "D-T"}},
        curve={"shares": ["1/4"], "students": ["mine"]},
    )  # fmt: skip
    assert of.student("D-R") == Student("D-R", "D-R", STUDENT, (), 55, 7)
    assert of.student("mine") == Student("mine", "E-A", "local:b", ("gsm8k#train",), 9, 0)
    assert of.student("other").seed == 7
    quarter = of.student("mine@1/4")
    assert quarter == Student("mine@1/4", "E-A", "local:b", ("gsm8k#train",), 9, 0, Fraction(1, 4))
    assert (quarter.whole, quarter.role, of.student("D-R").role) == ("mine", "solver", "decomposer")
    assert of.variants == ["D-R", "E-A", "D-T"]
    part = of.component("mine@1/4", "solver")
    assert (part.share, part.kind, part.trained_for, part.model) == (0.25, "student", "solver", "local:b")
    assert of.component("D-R", "decomposer").share == 1


def test_a_run_trains_its_variants_those_its_matrix_names_and_its_own() -> None:
    models = {"teacher": "echo:0.9", "decomposers": ["none", "D-T"], "solvers": ["teacher", "E-A"]}
    of = names(run={"variants": ["D-R"]}, models=models)
    assert [one.name for one in of.students] == ["D-R", "D-T", "E-A"]
    assert [one.name for one in names(run={"variants": []}, models=models).students] == []
    pairs = names(run={"variants": ["D-R"], "pairs": [["D-T", "teacher"]], "strategies": ["static"]})
    assert [one.name for one in pairs.students] == ["D-R", "D-T"]
    assert cells(pairs) == ["static/D-T/teacher"]


def test_a_share_is_measured_in_the_plainest_cell_of_its_whole() -> None:
    of = names(
        run={"variants": ["D-R", "E-A"], "strategies": ["single", "stepwise", "static"]},
        models={"teacher": "echo:0.9", "decomposers": ["none", "teacher", "D-R"], "solvers": ["E-A", "teacher"]},
        curve={"shares": ["1/2"]},
    )
    assert cells(of)[-2:] == ["static/D-R@1/2/teacher", "static/teacher/E-A@1/2"]
    pairs, left_out = of.pairs(lambda name: "@" not in name)
    assert len(pairs) == len(of.pairs(lambda name: True)[0]) - 2
    assert [one.name for one in left_out] == ["D-R@1/2", "E-A@1/2"]


def test_the_plainest_cell_is_of_the_verdicts_strategy_and_solver() -> None:
    models = {"teacher": "echo:0.9", "solver": "echo:0.5", "decomposers": ["teacher", "D-R"],
              "solvers": ["teacher", "solver"]}  # fmt: skip
    curve = {"shares": ["1/2"]}
    run = {"variants": ["D-R"], "strategies": ["stepwise", "static"]}
    assert cells(names(run=run, models=models, curve=curve))[-1] == "static/D-R@1/2/teacher"
    judged = names(run=run, models=models, curve=curve, verdict={"strategy": "stepwise", "solver": "solver"})
    assert cells(judged)[-1] == "stepwise/D-R@1/2/solver"
    only = names(run={**run, "strategies": ["stepwise"]}, models=models, curve=curve)
    assert cells(only)[-1] == "stepwise/D-R@1/2/teacher"


def test_a_share_of_a_single_stage_student_is_measured_alone() -> None:
    of = names(run={"variants": ["S-A"], "strategies": ["single", "static"]}, curve={"shares": ["1/2"]})
    assert cells(of)[-1] == "single/none/S-A@1/2"


def test_a_solver_with_tools_is_measured_alone_as_its_control() -> None:
    models = {"teacher": "echo:0.9", "decomposers": ["teacher"], "solvers": ["teacher", "echo:0.5[look]"]}
    of = names(run={"variants": [], "strategies": ["static"]}, models=models, tools=TOOLS)
    assert cells(of) == ["static/teacher/teacher", "static/teacher/echo:0.5[look]", "single/none/echo:0.5[look]"]
    models["decomposers"] = ["none", "teacher"]
    both = names(run={"variants": [], "strategies": ["single", "static"]}, models=models, tools=TOOLS)
    assert cells(both).count("single/none/echo:0.5[look]") == 1


def test_a_role_with_tools_is_its_model_with_tools() -> None:
    models = {"teacher": "echo:0.9", "solver": "echo:0.5", "solvers": ["solver[look]", "solver"]}
    of = names(run={"variants": []}, models=models, tools=TOOLS)
    found = of.component("solver[look]", "solver")
    assert (found.kind, found.model) == ("model", "echo:0.5[look]")
    with pytest.raises(UsageError, match="a student that the run trains uses no tools"):
        names(run={"variants": ["E-A"]}, models={**models, "solvers": ["solver", "E-A[look]"]}, tools=TOOLS)


def test_a_student_from_elsewhere_plays_in_its_role_and_its_base_beside_it() -> None:
    decomposer = {"name": "recorded:d.jsonl", "base": "recorded:b.jsonl", "role": "decomposer"}
    either = {"name": "recorded:s.jsonl", "base": "recorded:c.jsonl"}
    models = {"teacher": "echo:0.9", "distilled": [decomposer, either]}
    of = names(models=models, run={"variants": []})
    assert [one.name for one in of.decomposers] == ["none", "teacher", "recorded:d.jsonl", "recorded:b.jsonl"]
    assert [one.name for one in of.solvers] == ["teacher"], "without a role it plays where it is listed"
    listed = names(models={**models, "solvers": ["teacher", "recorded:s.jsonl"]}, run={"variants": []})
    assert [one.name for one in listed.solvers] == ["teacher", "recorded:s.jsonl", "recorded:c.jsonl"]
    assert listed.component("recorded:s.jsonl", "solver").base == "recorded:c.jsonl"


def test_none_and_gold_are_no_model() -> None:
    of = names()
    assert [of.component(name, "decomposer") for name in ("none", "gold")] == [
        Component("none", "none", "decomposer"),
        Component("gold", "gold", "decomposer"),
    ]
    assert of.teacher.kind == "teacher"
    assert of.screen_solver == of.component("teacher", "solver")
    screened = names(models={"teacher": "echo:0.9", "screen_solver": "echo:0.3"})
    assert screened.screen_solver.model == "echo:0.3"


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"run": {"strategies": []}}, "run.strategies is empty"),
        ({"models": {"teacher": "echo:", "solvers": []}}, "models.solvers is empty"),
        ({"models": {"teacher": "echo:", "decomposers": []}}, "models.decomposers is empty"),
        ({"decomposers": {"gold": {}}}, "decomposers.gold: this name has a meaning"),
        ({"decomposers": {"D-R": {}}}, "decomposers.D-R: this name has a meaning"),
        ({"students": {"none": {"variant": "D-R"}}}, "students.none: this name has a meaning"),
        ({"models": {"teacher": "nobody"}}, "'nobody'"),
        ({"models": {"teacher": "echo:", "screen_solver": "nobody"}}, "'nobody'"),
        ({"models": {"teacher": "echo:", "student": "echo:"}}, "models.student is 'echo:': only local: models"),
        ({"data": {"train": "atlas#train", "test": "atlas", "dev": "atlas#dev", "dev_share": 0.1}}, "keep one of them"),
        ({"train": {"method": "full", "search": {"lora_rank": [8, 16]}}}, 'train.method = "full" trains every weight'),
        ({"train": {"search": {"lora_rank": [8, 16]}}}, "nothing to choose by"),
        ({"models": {"teacher": "echo:", "solvers": ["teacher[look]"]}}, "look"),
        ({"run": {"variants": ["D-R"], "pairs": [["D-R@1/4", "teacher"]]}}, "run.pairs: 'D-R@1/4'"),
    ],
)
def test_a_config_that_cannot_be_resolved_names_its_key(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        names(**sections)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "sections",
    [
        {"models": {"teacher": "echo:", "student": "echo:"}, "run": {"variants": []}},
        {"data": {"train": "atlas#train", "test": "atlas", "dev_share": 0.1},
         "train": {"search": {"lora_rank": [8, 16]}}},
        {"data": {"train": "atlas#train", "test": "atlas", "dev": "atlas#dev"},
         "train": {"search": {"lora_rank": [8, 16]}}},
        {"train": {"method": "full"}},
        {"models": {"teacher": "echo:", "solver": "echo:0.5"}, "verdict": {"solver": "solver"}},
        {"models": {"teacher": "echo:", "options": {"D-R": {"temperature": 0.5}}}},
    ],
)  # fmt: skip
def test_a_config_that_can_be_resolved_is(sections: dict[str, Any]) -> None:
    names(**sections)
