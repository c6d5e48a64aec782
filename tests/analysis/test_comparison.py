"""Several systems compared: the same figures as for two cells, Holm over pairs, ties, margins, dollars."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fractionate
from fractionate.analysis.comparison import compare_systems, tied
from fractionate.analysis.systems import Answered, System
from fractionate.errors import UsageError
from fractionate.report.comparison import comparison_text
from fractionate.statistics import holm, paired_difference, score_interval
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
    assert (pair.difference, pair.ci_low, pair.ci_high, pair.p_value) == pytest.approx(wanted[:4])
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


@pytest.mark.parametrize("margin", [2, 5, 10, 20])
def test_of_two_systems_not_worse_by_a_margin_is_what_the_interval_says(margin: float) -> None:
    for seed in range(8):
        a, b = drawn(seed, 0.6), drawn(seed + 100, 0.6)
        b = [x if seed % 2 and n % 3 else y for n, (x, y) in enumerate(zip(a, b, strict=True))]
        (pair,) = compare_systems([system("a", a), system("b", b)], margin=margin).pairs
        low, high = score_interval([x - y for x, y in zip(a, b, strict=True)], -1, 1)
        assert pair.a_not_worse == (low > -margin / 100)
        assert pair.b_not_worse == (high < margin / 100)
        assert (pair.a_not_worse_p < 0.5) == (pair.difference > -margin / 100)


def test_claims_of_several_pairs_share_their_error() -> None:
    systems = [system(str(n), drawn(n, 0.6, 400)) for n in range(4)]
    alone = compare_systems(systems[:2], margin=10).pairs[0]
    among = compare_systems(systems, margin=10).pairs[0]
    assert among.a_not_worse_p >= alone.a_not_worse_p
    assert compare_systems(systems).pairs[0].a_not_worse is None


def test_the_order_of_the_systems_only_turns_signs() -> None:
    a, b = system("a", drawn(1, 0.7)), system("b", drawn(2, 0.6))
    (one,), (other,) = (compare_systems(pair, margin=5).pairs for pair in ([a, b], [b, a]))
    assert one.difference == pytest.approx(-other.difference)
    assert one.ci_low == pytest.approx(-other.ci_high)
    assert one.p_value == pytest.approx(other.p_value)
    assert (one.a_not_worse_p, one.b_not_worse_p) == pytest.approx((other.b_not_worse_p, other.a_not_worse_p))


OUTCOMES = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=30)


@settings(deadline=None)
@given(OUTCOMES, st.integers(1, 5), st.sampled_from(["a", "b", "both", "parts", "none"]))
def test_comparing_the_other_way_round_is_the_mirror_image(
    outcomes: list[tuple[float, float]], size: int, grouped: str
) -> None:
    groups = [f"p{n // size}" for n in range(len(outcomes))]
    half = [group if n % 2 else "" for n, group in enumerate(groups)]
    of_a = {"a": groups, "both": groups, "parts": half}.get(grouped)
    of_b = {"b": groups, "both": groups, "parts": groups}.get(grouped)
    a = system("a", [x for x, _ in outcomes], of_a)
    b = system("b", [y for _, y in outcomes], of_b)
    one, other = fractionate.compare(a, b), fractionate.compare(b, a)
    assert one.clusters == other.clusters == (len(outcomes) if grouped == "none" else len(set(groups)))
    assert (one.difference, one.ci_low, one.ci_high) == pytest.approx(
        (-other.difference, -other.ci_high, -other.ci_low), abs=1e-9
    )
    assert one.p_value == pytest.approx(other.p_value)
    assert (one.a, one.b, one.test, one.only_a) == (other.b, other.a, other.test, other.only_b)


def test_groups_that_contradict_each_other_are_refused() -> None:
    a, b = system("a", [1, 0], ["x", "x"]), system("b", [1, 0], ["x", "y"])
    for pair in ((a, b), (b, a)):
        with pytest.raises(UsageError, match="put the question 'q1' in different groups: check --group-field"):
            fractionate.compare(*pair)


def test_a_margin_that_looks_like_a_share_is_questioned() -> None:
    a, b = system("a", drawn(1, 0.7)), system("b", drawn(2, 0.6))
    with pytest.warns(UserWarning, match=r"margin=0.02: .*percentage points.*write 2$"):
        compare_systems([a, b], margin=0.02)


def parsed(name: str, marks: str) -> System:
    """A system's answers: "1" right, "0" wrong, "x" unparsed and right when read leniently, "." unparsed and wrong."""
    answers = [
        Answered(f"q{n}", float(one == "1"), unparsed=one in "x.", lenient=float(one in "1x"))
        for n, one in enumerate(marks)
    ]
    return System(name, tuple(answers))


def test_unparsed_outputs_are_shown_and_what_they_make_of_a_difference() -> None:
    a, b = parsed("a", "1" * 80 + "0" * 20), parsed("b", "1" * 76 + "x" * 14 + "0" * 10)
    found = compare_systems([a, b])
    assert [one.unparsed for one in found.systems] == [0.0, 0.14]
    assert [one.lenient for one in found.systems] == [0.8, 0.9]
    (pair,) = found.pairs
    assert pair.difference == pytest.approx(0.04)
    assert pair.parsed is not None
    assert (pair.parsed.n, pair.parsed.difference) == (86, pytest.approx(0.0))
    assert pair.lenient is not None
    assert pair.lenient.difference == pytest.approx(-0.1)
    assert pair.format_may_explain
    text = comparison_text(found)
    assert "differ by 14.0 pp, more than their outcomes (4.0 pp): format may explain the difference" in text
    assert "under the lenient reading is −10.0 pp" in text
    same = compare_systems([a, parsed("b", "1" * 60 + "0" * 38 + "x" * 2)])
    assert not same.pairs[0].format_may_explain
    assert "format may explain" not in comparison_text(same)
    unknown = compare_systems([system("a", [1, 0]), b])
    assert (unknown.pairs[0].parsed, unknown.pairs[0].lenient, unknown.systems[0].unparsed) == (None, None, None)


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
