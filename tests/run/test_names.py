"""Names of the matrix: their meaning, trained students, resulting cells, and refused names."""

from __future__ import annotations

from typing import Any

import pytest

from fractionate.config import Config, parse_config
from fractionate.errors import UsageError
from fractionate.run.names import Names
from fractionate.types import Component

STUDENT = "local:HuggingFaceTB/SmolLM2-135M-Instruct"


def config(**sections: Any) -> Config:
    table: dict[str, Any] = {"data": {"train": "atlas#train", "test": "atlas"}, "models": {"teacher": "echo:0.9"}}
    return parse_config({**table, **sections})


def cells(of: Config, there: tuple[str, ...] = ()) -> list[str]:
    names = Names(of)
    pairs, _ = names.pairs({*there, *(student.name for student in names.students)}.__contains__)
    return [f"{pair.strategy.name}/{pair.decomposer.name}/{pair.solver.name}" for pair in pairs]


def trained(of: Config) -> list[str]:
    return [student.name for student in Names(of).students]


def test_roles_stand_for_the_models_the_config_names() -> None:
    named = config(models={"teacher": "echo:0.9", "solver": "echo:0.5"})
    roles = ("teacher", "solver", "student")
    assert [Names(named).component(role, "solver").model for role in roles] == ["echo:0.9", "echo:0.5", STUDENT]
    assert named.models.solvers == ["solver"], "naming a solver measures with it"
    assert Names(config()).component("solver", "solver").model == "echo:0.9", "without one the teacher solves"
    assert config().models.solvers == ["teacher"]


def test_every_student_of_ones_own_naming_is_trained_and_measured_in_its_role() -> None:
    own = config(
        run={"variants": [], "strategies": ["static"]},
        students={"mine": {"variant": "D-T"}, "yours": {"variant": "E-A-direct", "seed": 3}},
    )
    assert trained(own) == ["mine", "yours"]
    assert cells(own) == [f"single/none/{solver}" for solver in ("teacher", "student", "yours")] + [
        f"static/{decomposer}/{solver}"
        for decomposer in ("teacher", "student", "mine")
        for solver in ("teacher", "student", "yours")
    ]


def test_the_untrained_base_of_what_is_trained_takes_part_unless_the_user_chose_who_does() -> None:
    def names(models: dict[str, object], variants: list[str]) -> tuple[list[str], list[str]]:
        of = Names(config(models={"teacher": "echo:0.9", **models}, run={"variants": variants}))
        return [one.name for one in of.decomposers], [one.name for one in of.solvers]

    assert names({}, []) == (["none", "teacher"], ["teacher"])
    assert names({}, ["D-R"]) == (["none", "teacher", "student", "D-R"], ["teacher"])
    assert names({}, ["E-A"]) == (["none", "teacher"], ["teacher", "student", "E-A"])
    assert names({"decomposers": ["teacher"]}, ["D-R"]) == (["teacher", "D-R"], ["teacher"])
    assert names({"solvers": ["teacher"]}, ["E-A"]) == (["none", "teacher"], ["teacher", "E-A"])
    assert names({"teacher": STUDENT}, ["D-R"])[0] == ["none", "teacher", "D-R"], "the teacher is the base already"


def test_pairs_are_the_only_cells_and_name_their_players_themselves() -> None:
    few = config(
        run={
            "variants": ["D-R"],
            "pairs": [["none", "student"], ["D-R", "teacher"]],
            "strategies": ["single", "static"],
        }
    )
    assert cells(few) == ["single/none/student", "static/D-R/teacher"]
    assert trained(few) == ["D-R"]


def test_a_variant_that_is_not_trained_here_plays_only_if_it_is_there_already() -> None:
    untrained = config(
        run={"variants": [], "strategies": ["static"]},
        models={"teacher": "echo:0.9", "decomposers": ["teacher", "D-R"]},
    )
    assert cells(untrained) == ["static/teacher/teacher"]
    assert [one.name for one in Names(untrained).pairs(lambda _: False)[1]] == ["D-R"]
    assert cells(untrained, ("D-R",)) == ["static/teacher/teacher", "static/D-R/teacher"]


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"students": {"teacher": {"variant": "D-R"}}}, "students.teacher: this name has a meaning"),
        ({"students": {"a/b": {"variant": "D-R"}}}, "it takes only letters"),
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
        ({"run": {"strategies": ["statik"]}}, "unknown strategy 'statik': did you mean 'static'?"),
        (
            {"verdict": {"strategy": "stepwise"}},
            "verdict.strategy is 'stepwise', which is no two-stage strategy of this",
        ),
        ({"verdict": {"strategy": "single"}}, "verdict.strategy is 'single'"),
        (
            {"run": {"strategies": ["single"]}, "verdict": {"strategy": "static"}},
            "no two-stage strategy of this run (none: name one in run.strategies)",
        ),
        ({"verdict": {"solver": "nobody"}}, "verdict.solver: 'nobody'"),
    ],
)
def test_a_name_that_means_nothing_or_two_things_is_refused(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        Names(config(**sections))
    assert said in str(error.value)


def test_a_name_is_resolved_to_what_everything_after_reads() -> None:
    of = Names(
        config(
            models={"teacher": "echo:0.9", "solver": "echo:0.5", "student": STUDENT},
            decomposers={"three": {"cap": 3}, "small": {"model": "student"}},
            students={"mine": {"variant": "E-A", "train": "atlas#train?bridge", "base": "local:other"}},
        )
    )
    kinds = {name: of.component(name, "decomposer").kind for name in ("none", "gold", "teacher", "three", "small")}
    assert kinds == {"none": "none", "gold": "gold", "teacher": "teacher", "three": "teacher", "small": "base"}
    assert of.component("echo:0.9", "solver").kind == "teacher", "the teacher under its model's name"
    assert of.component(STUDENT, "solver").kind == "base", "the untrained base under its model's name"
    assert of.component("solver", "solver") == Component("solver", "solver", "solver", "echo:0.5")
    assert of.component("echo:0.1", "solver").kind == "model"
    mine = of.component("mine", "solver")
    assert (mine.kind, mine.model, mine.variant, mine.trained_for) == ("student", "local:other", "E-A", "solver")
    assert mine.learnt_from == ("atlas#train?bridge",)
    assert of.component("D-R", "decomposer").learnt_from == ("atlas#train",), "without data of its own all of it"


def test_a_role_without_a_model_names_the_key_to_set() -> None:
    with pytest.raises(UsageError, match=r"models\.teacher is missing"):
        _ = Names(config(models={"solvers": ["echo:"], "decomposers": ["none"]})).teacher


def test_a_learning_curve_names_shares_of_students_that_are_trained() -> None:
    curve = {"shares": ["1/4", "1/2"]}
    both = config(run={"variants": ["D-R", "D-T"]}, curve=curve)
    assert trained(both)[-4:] == ["D-R@1/4", "D-R@1/2", "D-T@1/4", "D-T@1/2"], "without curve.students, of each"
    one = config(run={"variants": ["D-R", "D-T"]}, curve={**curve, "students": ["D-T", "D-T"]})
    assert trained(one)[-2:] == ["D-T@1/4", "D-T@1/2"]
    assert "D-R@1/4" not in trained(one)
    with pytest.raises(UsageError, match="needs a student to train"):
        Names(config(run={"variants": []}, curve=curve))
    with pytest.raises(UsageError, match=r"curve\.students: 'E-A' is no student that this run trains \(D-R\)"):
        Names(config(run={"variants": ["D-R"]}, curve={**curve, "students": ["E-A"]}))


def test_a_student_from_elsewhere_joins_the_matrix_in_its_role_with_its_untrained_base() -> None:
    entry = {"name": "recorded:student.jsonl", "base": "recorded:untrained.jsonl", "role": "decomposer"}
    of = Names(config(models={"teacher": "echo:0.9", "distilled": [entry]}, run={"variants": []}))
    assert [one.name for one in of.decomposers] == ["none", "teacher", "recorded:student.jsonl", entry["base"]]
    student, base = of.decomposers[2:]
    assert (student.kind, student.trained_for, student.base) == ("distilled", "decomposer", entry["base"])
    assert (base.kind, base.trained_for) == ("model", "")
    assert [one.name for one in of.solvers] == ["teacher"]
    assert of.component("recorded:student.jsonl", "solver").kind == "model", "it was trained for another role"


def test_a_plain_name_of_a_student_from_elsewhere_stays_valid_and_is_stored_as_it_was() -> None:
    plain = config(models={"teacher": "echo:0.9", "decomposers": ["teacher", "recorded:s.jsonl"],
                           "distilled": ["recorded:s.jsonl"]}, run={"variants": []})  # fmt: skip
    assert [one.name for one in Names(plain).decomposers] == ["teacher", "recorded:s.jsonl"]
    assert Names(plain).decomposers[1].trained_for == "decomposer"
    assert plain.model_dump(mode="json")["models"]["distilled"] == ["recorded:s.jsonl"]
    assert parse_config(plain.model_dump(mode="json")) == plain


def test_a_misspelt_key_of_a_student_from_elsewhere_is_named() -> None:
    with pytest.raises(UsageError, match=r"unknown key 'models.distilled.0.bass': did you mean 'models.distilled.0.b"):
        config(models={"teacher": "echo:0.9", "distilled": [{"name": "recorded:s.jsonl", "bass": "recorded:b.jsonl"}]})
