"""Several systems side by side: the same figures as two cells get, Holm over pairs, ties, margins, dollars."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractionate.analysis.comparison import compare_systems, tied
from fractionate.analysis.statistics import holm, paired_difference, score_interval
from fractionate.analysis.systems import Answered, System
from fractionate.types import Usage


def system(name: str, outcomes: list[float], groups: list[str] | None = None, **more) -> System:
    answers = [
        Answered(f"q{n}", value, group=groups[n] if groups else "", usd=more.get("usd"))
        for n, value in enumerate(outcomes)
    ]
    return System(name, tuple(answers))


def drawn(seed: int, share: float, n: int = 120) -> list[float]:
    draw = random.Random(seed)
    return [float(draw.random() < share) for _ in range(n)]


def test_a_pair_gets_the_figures_of_a_paired_difference_by_passage() -> None:
    a, b = drawn(1, 0.7), drawn(2, 0.5)
    groups = [f"p{n // 4}" for n in range(len(a))]
    found = compare_systems([system("a", a, groups), system("b", b)])
    wanted = paired_difference(a, b, groups=groups)
    (pair,) = found.pairs
    assert (pair.difference, pair.ci_low, pair.ci_high, pair.p_value) == wanted[:4]
    assert (found.n, found.clusters) == (120, 30)
    alone = compare_systems([system("a", a), system("b", b)]).pairs[0]
    assert alone.test == "exact McNemar"
    assert alone.ci_low != pair.ci_low, "passages count"


def test_holm_covers_all_pairs() -> None:
    found = compare_systems([system(str(n), drawn(n, share)) for n, share in enumerate((0.9, 0.75, 0.6, 0.58))])
    assert len(found.pairs) == 6
    assert [pair.p_adjusted for pair in found.pairs] == holm([pair.p_value for pair in found.pairs])
    assert any(pair.p_value < 0.05 <= pair.p_adjusted for pair in found.pairs) or found.ties
    assert [pair.different for pair in found.pairs] == [pair.p_adjusted < 0.05 for pair in found.pairs]
    assert [pair.needed is None for pair in found.pairs] == [pair.different for pair in found.pairs]


@given(st.integers(2, 7), st.data())
def test_ties_are_the_largest_groups_without_a_pair_that_is_told_apart(count: int, data: st.DataObject) -> None:
    names = [f"s{n}" for n in range(count)]
    pairs = list(combinations(names, 2))
    different = data.draw(st.lists(st.sampled_from(pairs), unique=True))
    alike = [
        set(some)
        for size in range(1, count + 1)
        for some in combinations(names, size)
        if not any(pair in different for pair in combinations(some, 2))
    ]
    largest = {frozenset(group) for group in alike if not any(group < other for other in alike)}
    found = tied(names, different)
    assert {frozenset(group) for group in found} == largest
    assert len(found) == len(largest)


@pytest.mark.parametrize("margin", [0.02, 0.05, 0.1, 0.2])
def test_of_two_systems_not_worse_by_a_margin_is_what_the_interval_says(margin: float) -> None:
    for seed in range(8):
        a, b = drawn(seed, 0.6), drawn(seed + 100, 0.6)
        b = [x if seed % 2 and n % 3 else y for n, (x, y) in enumerate(zip(a, b, strict=True))]
        (pair,) = compare_systems([system("a", a), system("b", b)], margin=margin).pairs
        low, high = score_interval([x - y for x, y in zip(a, b, strict=True)], -1, 1)
        assert pair.a_not_worse == (low > -margin)
        assert pair.b_not_worse == (high < margin)
        assert (pair.a_not_worse_p < 0.5) == (pair.difference > -margin)


def test_claims_of_several_pairs_share_their_error() -> None:
    systems = [system(str(n), drawn(n, 0.6, 400)) for n in range(4)]
    alone = compare_systems(systems[:2], margin=0.1).pairs[0]
    among = compare_systems(systems, margin=0.1).pairs[0]
    assert among.a_not_worse_p >= alone.a_not_worse_p
    assert compare_systems(systems).pairs[0].a_not_worse is None


def test_the_order_of_the_systems_only_turns_signs() -> None:
    a, b = system("a", drawn(1, 0.7)), system("b", drawn(2, 0.6))
    (one,), (other,) = (compare_systems(pair, margin=0.05).pairs for pair in ([a, b], [b, a]))
    assert one.difference == pytest.approx(-other.difference)
    assert one.ci_low == pytest.approx(-other.ci_high)
    assert one.p_value == pytest.approx(other.p_value)
    assert (one.a_not_worse_p, one.b_not_worse_p) == pytest.approx((other.b_not_worse_p, other.a_not_worse_p))


def test_dollars_are_compared_where_both_are_known() -> None:
    a, b = system("a", [1, 0, 1, 1], usd=0.5), system("b", [1, 1, 1, 1], usd=0.2)
    (pair,) = compare_systems([a, b]).pairs
    assert pair.usd == pytest.approx(0.3)
    assert (pair.usd_low, pair.usd_high) == pytest.approx((0.3, 0.3))
    unknown = compare_systems([a, system("c", [1, 0, 0, 1])])
    assert unknown.pairs[0].usd is None
    assert [one.usd for one in unknown.systems] == [0.5, None]


def test_tokens_without_a_price_are_no_dollars() -> None:
    one = System("a", (Answered("q", 1.0, usage={"m": Usage(calls=1, input_tokens=10, output_tokens=4)}),))
    assert one.tokens(["q"]) == (10, 4)
    assert one.usd(["q"]) is None


def test_where_hypotheses_exclude_each_other_fewer_share_the_error() -> None:
    p_values = [0.01, 0.9, 0.02, 0.8]
    assert holm(p_values) == [0.04, 1.0, 0.06, 1.0]
    assert holm(p_values, most_true=2) == pytest.approx([0.02, 1.0, 0.04, 1.0])
