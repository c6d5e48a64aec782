"""Training examples of each variant: the paper's table, row by row."""

import pytest

from fractionate.config import DECOMPOSER_VARIANTS, SOLVER_VARIANTS
from fractionate.rows import Row
from fractionate.strategies.decompose import parse_decomposition
from fractionate.strategies.prompting import single_messages
from fractionate.students.demonstrate import Demonstration
from fractionate.students.examples import VARIANTS, build_examples, needs_screening, needs_solutions, screen
from fractionate.types import Decomposition, Problem, Score

PROBLEMS = {
    name: Problem(name, f"Question {name}?", (("gold",), ("other",)), context="The passage.", dataset="d")
    for name in ("a", "b", "c", "d")
}
FORMS = {"d": "text"}
SUBQUESTIONS = ("Which one?", "What of #1?")


def demonstration(name: str, sample: int, right: bool, **changes: object) -> Demonstration:
    answer = "gold" if right else "wrong"
    whole = {
        "decomposition": Decomposition(SUBQUESTIONS, "ok", "raw"),
        "output": f"1. this\n2. that\nThe answer is: {answer}",
        "prediction": (answer,),
        "score": Score(float(right), float(right)),
        "solved": True,
    }
    return Demonstration(name, sample, **{**whole, **changes})  # type: ignore[arg-type]


DEMONSTRATIONS = [
    demonstration("a", 0, True),
    demonstration("b", 0, False),
    demonstration("b", 1, True),
    demonstration("c", 0, False),
    demonstration("c", 1, False),
    demonstration("d", 0, False, prediction=None, output="1. this\nno idea"),
    demonstration("d", 1, False, decomposition=Decomposition((), "unparsed", "chatter")),
]


def build(variant: str, **options: bool):  # type: ignore[no-untyped-def]
    screened = screen(DEMONSTRATIONS, 2).kept
    return build_examples(variant, PROBLEMS, FORMS, DEMONSTRATIONS, screened, **options)  # type: ignore[arg-type]


def test_every_variant_of_the_config_has_a_recipe() -> None:
    assert set(VARIANTS) == {*DECOMPOSER_VARIANTS, *SOLVER_VARIANTS}
    for name in DECOMPOSER_VARIANTS:
        assert VARIANTS[name].role == "decomposer"


def test_a_single_stage_student_learns_the_prompt_that_asks_it() -> None:
    example = build("S-A")[0][0]
    problem = PROBLEMS[example.problem_id]
    assert example.messages == single_messages(problem, "student", "text", chain_of_thought=False)


def test_d_t_takes_every_first_demonstration() -> None:
    examples, left_out = build("D-T")
    assert [one.problem_id for one in examples] == ["a", "b", "c", "d"]
    assert not left_out
    assert examples[0].target == "1. Which one?\n2. What of #1?"


def test_d_r_takes_one_correct_demonstration_a_question() -> None:
    examples, left_out = build("D-R")
    assert [one.problem_id for one in examples] == ["a", "b"]
    assert left_out == {"did not pass the screen": 2}


def test_a_student_is_asked_in_the_short_form() -> None:
    (message,) = build("D-T")[0][0].messages
    assert message.content == "The passage.\n\nQuestion a?"
    (message,) = build("D-T", with_context=False)[0][0].messages
    assert message.content == "Question a?"


TARGETS = {
    "E-T": "1. this\n2. that\nThe answer is: wrong",
    "E-A": "1. this\n2. that\nThe answer is: gold",
    "E-T-direct": "The answer is: wrong",
    "E-A-direct": "The answer is: gold",
    "S-T": "1. this\n2. that\nThe answer is: wrong",
    "S-A": "1. this\n2. that\nThe answer is: gold",
    "S-T-direct": "The answer is: wrong",
    "S-A-direct": "The answer is: gold",
}


@pytest.mark.parametrize("variant", SOLVER_VARIANTS)
def test_solver_variants_differ_by_target_and_by_what_they_see(variant: str) -> None:
    examples, _ = build(variant)
    second = next(one for one in examples if one.problem_id == "b")
    assert second.target == TARGETS[variant]
    sees = "Which one?" in second.messages[0].content
    assert sees == variant.startswith("E-")
    assert second.messages[0].content.startswith("The passage.")


def test_a_teacher_without_answer_teaches_no_answer_of_its_own() -> None:
    examples, left_out = build("E-T")
    assert "d" not in [one.problem_id for one in examples]
    assert left_out == {"the teacher stated no answer": 1}
    assert "d" in [one.problem_id for one in build("E-A")[0]]


def test_what_the_teacher_left_whole_is_learnt_as_such() -> None:
    whole = demonstration("a", 0, True, decomposition=parse_decomposition("No decomposition"))
    (example,), _ = build_examples("D-R", PROBLEMS, FORMS, [whole], [whole])  # type: ignore[arg-type]
    assert example.target == "No decomposition"


def test_unparsed_demonstrations_teach_nothing_and_are_counted() -> None:
    unread = demonstration("a", 0, True, decomposition=Decomposition((), "unparsed", "chatter"))
    for variant in ("D-T", "E-A"):
        examples, left_out = build_examples(variant, PROBLEMS, FORMS, [unread], [])  # type: ignore[arg-type]
        assert (examples, left_out) == ([], {"no subquestions could be read": 1})


def test_the_teacher_solves_only_where_its_solutions_are_learnt_from_or_screened_by() -> None:
    without = {"D-T", "E-A-direct", "S-A-direct"}
    assert {name for name in VARIANTS if not needs_solutions([name])} == without
    assert needs_solutions(["D-T", "D-R"])
    assert {name for name in VARIANTS if needs_screening([name])} == {"D-R"}


def test_what_was_screened_is_what_is_learnt_from() -> None:
    chosen = [one for one in DEMONSTRATIONS if one.correct][:1]
    examples, _ = build_examples("D-R", PROBLEMS, FORMS, DEMONSTRATIONS, chosen)  # type: ignore[arg-type]
    assert [one.problem_id for one in examples] == [chosen[0].problem_id]


def test_screening_counts_what_each_chance_brought() -> None:
    screening = screen(DEMONSTRATIONS, 2)
    assert screening.questions == 4
    assert screening.kept_after == (1, 2)
    assert "1 of 4" in screening.summary()


def test_demonstrations_survive_their_file() -> None:
    for one in DEMONSTRATIONS:
        assert Demonstration.from_row(Row(one.as_row(PROBLEMS[one.problem_id]), "here")) == one


def test_half_a_reply_is_no_target_and_is_counted() -> None:
    rows = [
        demonstration("a", 0, True, cut_off=("decomposer",)),
        demonstration("b", 0, True, cut_off=("solver",)),
        demonstration("c", 0, True),
    ]

    def learnt(variant: str) -> tuple[list[str], int]:
        examples, left_out = build_examples(variant, PROBLEMS, FORMS, rows, rows)
        return [one.problem_id for one in examples], left_out["the teacher's reply was cut off: raise its max_tokens"]

    assert learnt("D-R") == learnt("D-T") == (["b", "c"], 1)
    assert learnt("E-A") == learnt("E-T") == (["a", "c"], 1)
    assert learnt("E-A-direct") == (["a", "b", "c"], 0), "its target is the answer alone"
    again = Demonstration.from_row(Row(rows[0].as_row(PROBLEMS["a"]), "here"))
    assert again.cut_off == ("decomposer",)
