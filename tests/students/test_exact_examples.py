"""Screening and shares, count by count."""

from __future__ import annotations

from fractions import Fraction

import pytest
from test_examples import DEMONSTRATIONS, FORMS, PROBLEMS, demonstration

from fractionate.students.examples import (
    NO_DECOMPOSITION,
    VARIANTS,
    Recipe,
    Screening,
    build_examples,
    needs_screening,
    needs_solutions,
    nested_share,
    screen,
)
from fractionate.types import Decomposition, Example, Message


def test_every_variant_is_made_as_the_paper_says() -> None:
    assert dict(VARIANTS) == {
        "D-T": Recipe("decomposer", False, True, True, "teacher"),
        "D-R": Recipe("decomposer", True, True, True, "teacher"),
        "E-T": Recipe("solver", False, True, True, "teacher"),
        "E-A": Recipe("solver", False, True, True, "gold"),
        "E-T-direct": Recipe("solver", False, True, False, "teacher"),
        "E-A-direct": Recipe("solver", False, True, False, "gold"),
        "S-T": Recipe("solver", False, False, True, "teacher"),
        "S-A": Recipe("solver", False, False, True, "gold"),
        "S-T-direct": Recipe("solver", False, False, False, "teacher"),
        "S-A-direct": Recipe("solver", False, False, False, "gold"),
    }
    solved = [name for name in VARIANTS if needs_solutions([name])]
    assert solved == ["D-R", "E-T", "E-A", "E-T-direct", "S-T", "S-A", "S-T-direct"]
    assert [name for name in VARIANTS if needs_screening([name])] == ["D-R"]
    assert needs_solutions(["D-T", "E-T"])
    assert needs_screening(["D-T", "D-R"])
    assert not needs_solutions([])


def test_screening_counts_the_questions_kept_after_each_sample() -> None:
    found = screen(DEMONSTRATIONS, 3)
    assert (found.questions, found.kept_after) == (4, (1, 2, 2))
    assert [(one.problem_id, one.sample) for one in found.kept] == [("a", 0), ("b", 1)]
    assert found.summary() == (
        "kept 1 of 4 (25%) after 1 sample, 2 of 4 (50%) after 2 samples, 2 of 4 (50%) after 3 samples"
    )
    assert screen([], 2).summary() == "nothing to screen"
    assert Screening(3, (), (0,)).summary() == "kept 0 of 3 (0%) after 1 sample"
    unread = demonstration("a", 0, True, decomposition=Decomposition((), "unparsed", "x"))
    assert screen([unread, demonstration("a", 1, True)], 2).kept_after == (0, 1)


def test_what_is_left_out_is_counted_by_reason() -> None:
    of_all = [
        demonstration("a", 0, True),
        demonstration("b", 0, True, cut_off=("decomposer",)),
        demonstration("c", 0, True, cut_off=("solver",)),
        demonstration("d", 0, True, prediction=None),
        demonstration("elsewhere", 0, True),
    ]

    def left_out(variant: str, screened=of_all[:1]):  # type: ignore[no-untyped-def]
        examples, reasons = build_examples(variant, PROBLEMS, FORMS, of_all, screened)
        return [one.problem_id for one in examples], dict(reasons)

    cut = "the teacher's reply was cut off: raise its max_tokens"
    assert left_out("D-T") == (["a", "c", "d"], {cut: 1})
    assert left_out("D-R") == (["a"], {"did not pass the screen": 3})
    assert left_out("D-R", of_all[:1] + of_all[2:]) == (["a", "c", "d"], {"did not pass the screen": 1})
    assert left_out("D-R", of_all) == (["a", "c", "d"], {cut: 1})
    assert left_out("E-T") == (["a", "b"], {cut: 1, "the teacher stated no answer": 1})
    assert left_out("E-A") == (["a", "b", "d"], {cut: 1})
    assert left_out("E-T-direct") == (["a", "b", "c"], {"the teacher stated no answer": 1})
    assert left_out("E-A-direct") == (["a", "b", "c", "d"], {})


def test_a_target_is_the_rationale_and_the_answer() -> None:
    def target(variant: str, **changes: object) -> str:
        one = demonstration("a", 0, False, **changes)
        (example,), _ = build_examples(variant, PROBLEMS, FORMS, [one], [one])
        return example.target

    assert target("E-T") == "1. this\n2. that\nThe answer is: wrong"
    assert target("E-A") == "1. this\n2. that\nThe answer is: gold"
    assert target("E-T-direct") == target("E-T", output="The answer is: wrong") == "The answer is: wrong"
    assert target("D-T", decomposition=Decomposition((), "ok", "raw")) == NO_DECOMPOSITION
    prompts = [
        build_examples(variant, PROBLEMS, FORMS, [demonstration("a", 0, True)], [])[0][0].messages[-1].content
        for variant in ("E-T", "S-T")
    ]
    assert ["Which one?" in prompt for prompt in prompts] == [True, False]


EXAMPLES = [Example((Message("user", str(n)),), "t", f"q{n}") for n in range(10)]


@pytest.mark.parametrize(
    ("share", "count"),
    [(Fraction(1, 4), 3), (Fraction(1, 2), 5), (Fraction(1), 10), (Fraction(1, 100), 1), (Fraction(0), 0)],
)
def test_a_share_is_rounded_up_and_kept_in_order(share: Fraction, count: int) -> None:
    taken = nested_share(EXAMPLES, share, 0)
    assert len(taken) == count
    assert taken == [one for one in EXAMPLES if one in taken]


def test_a_larger_share_holds_every_smaller_one_whatever_else_there_is() -> None:
    small, large = (nested_share(EXAMPLES, Fraction(part, 10), 3) for part in (3, 6))
    assert {one.problem_id for one in small} < {one.problem_id for one in large}
    assert nested_share(EXAMPLES, Fraction(3, 10), 4) != small, "another seed takes others"
    assert [one.problem_id for one in small] == ["q4", "q8", "q9"]
