"""Names of the matrix: what they stand for, who is trained, which cells follow, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from fractionate.config import Config, parse_config
from fractionate.errors import UsageError
from fractionate.pipeline.roster import check_names, model_of, pairs_to_measure, students_to_train

STUDENT = "local:HuggingFaceTB/SmolLM2-135M-Instruct"


def config(**sections: Any) -> Config:
    table: dict[str, Any] = {"data": {"train": "atlas#train", "test": "atlas"}, "models": {"teacher": "echo:0.9"}}
    return parse_config({**table, **sections})


def cells(of: Config, there: tuple[str, ...] = ()) -> list[str]:
    pairs, _ = pairs_to_measure(of, there.__contains__)
    return [f"{pair.strategy}/{pair.decomposer}/{pair.solver}" for pair in pairs]


def test_roles_stand_for_the_models_the_config_names() -> None:
    named = config(models={"teacher": "echo:0.9", "solver": "echo:0.5"})
    assert [model_of(named, role) for role in ("teacher", "solver", "student")] == ["echo:0.9", "echo:0.5", STUDENT]
    assert named.models.solvers == ["solver"], "naming a solver measures with it"
    assert model_of(config(), "solver") == "echo:0.9", "without one the teacher solves"
    assert config().models.solvers == ["teacher"]


def test_every_student_of_ones_own_naming_is_trained_and_measured_in_its_role() -> None:
    own = config(
        run={"variants": [], "strategies": ["static"]},
        students={"mine": {"variant": "D-T"}, "yours": {"variant": "E-A-direct", "seed": 3}},
    )
    assert students_to_train(own) == ["mine", "yours"]
    assert cells(own) == [
        "single/none/teacher", "single/none/yours",
        "static/teacher/teacher", "static/teacher/yours", "static/mine/teacher", "static/mine/yours",
    ]  # fmt: skip


def test_pairs_are_the_only_cells_and_name_their_players_themselves() -> None:
    few = config(
        run={
            "variants": ["D-R"],
            "pairs": [["none", "student"], ["D-R", "teacher"]],
            "strategies": ["single", "static"],
        }
    )
    assert cells(few) == ["single/none/student", "static/D-R/teacher"]
    assert students_to_train(few) == ["D-R"]


def test_a_variant_that_is_not_trained_here_plays_only_if_it_is_there_already() -> None:
    untrained = config(
        run={"variants": [], "strategies": ["static"]},
        models={"teacher": "echo:0.9", "decomposers": ["teacher", "D-R"]},
    )
    assert cells(untrained) == ["static/teacher/teacher"]
    assert pairs_to_measure(untrained, lambda _: False)[1] == ["D-R"]
    assert cells(untrained, ("D-R",)) == ["static/teacher/teacher", "static/D-R/teacher"]


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"students": {"teacher": {"variant": "D-R"}}}, "students.teacher: this name has a meaning"),
        ({"students": {"a/b": {"variant": "D-R"}}}, "it takes letters, figures"),
        ({"students": {"mine": {"variant": "D-R", "base": "echo:"}}}, "students.mine.base is 'echo:'"),
        ({"students": {"x": {"variant": "D-R"}}, "decomposers": {"x": {}}}, "a student has this name too"),
        ({"decomposers": {"three": {"model": "nobody"}}}, "decomposers.three.model: 'nobody'"),
        ({"run": {"pairs": [["mine", "teacher"]]}}, "run.pairs: 'mine' is neither one of none, gold, teacher"),
        ({"run": {"pairs": [["teacher", "none"]]}}, "run.pairs: 'none' is neither one of teacher"),
        (
            {"models": {"teacher": "echo:", "solver": "echo:0.5", "solvers": ["teacher"]}},
            "models.solver is named, but nothing is measured with it",
        ),
        ({"models": {"teacher": "echo:", "solver": "opnai:x"}}, "unknown model 'opnai:x'"),
    ],
)
def test_a_name_that_means_nothing_or_two_things_is_refused(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        check_names(config(**sections))
    assert said in str(error.value)


def test_a_role_without_a_model_names_the_key_to_set() -> None:
    with pytest.raises(UsageError, match=r"models\.teacher is missing"):
        model_of(config(models={}), "teacher")
