"""What n questions can show before they are asked: the forecast agrees with the rule that judges them later."""

from __future__ import annotations

import pytest

from fractionate.analysis.showable import DISCORDANCE, showable
from fractionate.statistics import planned_sample_size


def test_sixty_questions_are_too_few_for_two_points_and_the_line_says_which_number_is_enough():
    found = showable("gsm8k", 60, 60, 2.0)
    assert not found.suffices
    assert found.line() == (
        "with 60 questions of gsm8k a loss of less than 16 points cannot be excluded; 2 points take about 2,970"
    )
    enough = showable("gsm8k", found.needed, found.needed, 2.0)
    assert enough.suffices
    assert "can exclude a loss of 2 points" in enough.line()


@pytest.mark.parametrize("n", [20, 60, 300, 3000])
@pytest.mark.parametrize("candidates", [1, 4])
def test_the_least_margin_is_the_least_that_the_plan_of_the_rule_reaches(n, candidates):
    least = showable("a", n, n, 2.0, candidates=candidates).least_margin
    assert least is not None

    def takes(points):
        return planned_sample_size(points / 100, DISCORDANCE, candidates=candidates).questions

    assert takes(least) <= n < takes(least - 0.5)


def test_passages_and_candidates_make_the_same_questions_show_less():
    alone = showable("a", 400, 400, 2.0)
    assert alone.least_margin < showable("a", 400, 40, 2.0).least_margin
    assert alone.least_margin < showable("a", 400, 400, 2.0, candidates=5).least_margin


@pytest.mark.parametrize("n", [0, 1, 3])
def test_next_to_no_questions_exclude_nothing(n):
    found = showable("a", n, n, 2.0)
    assert found.least_margin is None
    assert "too few to exclude any loss" in found.line()
