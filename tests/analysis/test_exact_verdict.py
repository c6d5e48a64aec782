"""The rule's shares of error to the digit, and the verdict's choices at their edges."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from measured import TEACHER, cell_of, component_of, config_of

from fractionate.analysis.findings import Cost, NetValue
from fractionate.analysis.matrix import Matrix
from fractionate.analysis.pricing import Pricing
from fractionate.analysis.rule import FAMILIES, GROWTH, Rule, Standing, question_points
from fractionate.analysis.verdict import (
    _beyond,
    _front,
    _in_order,
    _levels,
    _nothing_works,
    _part,
    _recommended,
    candidates_of,
    judge,
)
from fractionate.statistics import anytime_confidence, bonferroni_confidence, interim_confidence, spent_at
from fractionate.types import Component, Usage


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [(0.0, 1.0, "yes"), (0.1, 0.2, "yes"), (-0.1, 0.0, "undecided"), (-0.2, -1e-9, "no"), (-1.0, 1.0, "undecided")],
)
def test_an_interval_is_beyond_0_from_0_on(low: float, high: float, answer: str) -> None:
    assert _beyond(low, high) == answer


def test_the_families_of_looks_share_the_whole_error() -> None:
    shares = [Standing(family).share for family in range(1, 2000)]
    assert shares[:4] == pytest.approx([0.9, 0.05, 0.1 / 6, 0.1 / 12])
    assert sum(shares) == pytest.approx(1.0, abs=1e-4)
    assert (FAMILIES, GROWTH) == (0.1, 0.1)


def test_a_look_has_what_its_family_and_the_looks_before_it_leave() -> None:
    reserve = 0.1 / 0.9
    plain = Rule()
    assert plain.confidence_at("x", 100) == pytest.approx(interim_confidence(1 - 0.05 * 0.9, [100], None, reserve))
    assert Rule(sealed=True).confidence_at("x", 100) == 0.95
    assert Rule(sealed=True).error_spent("x", 100) == 1.0
    later = {"x": Standing(2, (50, 200, 100))}
    rule = Rule(standings=later, questions=300)
    of_family = 1 - 0.05 * 0.05
    assert rule.confidence_at("x", 200) == pytest.approx(interim_confidence(of_family, [50, 100, 200], 300, reserve))
    assert rule.confidence_at("y", 200) == pytest.approx(interim_confidence(1 - 0.05 * 0.9, [200], 300, reserve))
    assert rule.error_spent("x", 200) == pytest.approx(0.9 + 0.05 * spent_at(200, 300, reserve, 0.025 * 0.05))
    unplanned = Rule(standings=later)
    assert unplanned.error_spent("x", 200) == pytest.approx(0.9 + 0.05 * spent_at(200, 50, reserve, 0.025 * 0.05))
    assert plain.error_spent("x", 100) == pytest.approx(0.9 * (1 - reserve))
    assert plain.confidence_at("x", 0) == plain.confidence_at("x", 1)


def test_intervals_for_any_number_of_looks_are_tuned_to_the_plan() -> None:
    rule = Rule(looks="any", questions=300, standings={"x": Standing(2)})
    assert rule.confidence_at("y", 200) == pytest.approx(anytime_confidence(1 - 0.05 * 0.9, 200, 300))
    assert Rule(looks="any").confidence_at("y", 200) == pytest.approx(anytime_confidence(1 - 0.05 * 0.9, 200, 200))
    assert (rule.error_spent("y", 200), rule.error_spent("x", 200)) == (pytest.approx(0.9), pytest.approx(0.95))


def test_a_rule_says_what_the_config_says() -> None:
    verdict = {"margin": 3.0, "confidence": 0.9, "strategy": "static", "solver": "teacher", "usd_per_correct": 0.5,
               "questions": 700, "runs": 3, "seeds": "worst", "candidates": "in order"}  # fmt: skip
    data = {"test": "atlas", "sealed": True}
    rule = Rule.of(config_of(verdict=verdict, data=data), {"x": Standing(2)})
    assert rule == Rule(3.0, 0.9, "static", "teacher", 0.5, {"x": Standing(2)}, {}, 700, "", True, 3, "worst", True)
    assert Rule.of(config_of()) == Rule()
    assert [Rule(runs=runs).has_all_runs(cell_of([1.0])) for runs in (1, 2)] == [True, False]


@pytest.mark.parametrize(
    ("points", "said"), [(0.0, ""), (0.05, "write 5"), (-0.02, "write -2"), (0.1, ""), (2.0, ""), (0.099, "write 9.9")]
)
def test_a_margin_that_looks_like_a_share_is_questioned(points: float, said: str) -> None:
    assert said in question_points(points)
    assert bool(question_points(points)) == bool(said)


def finding(name: str, passes: str, usd: float | None, difference: float = 0.0, net: float | None = None) -> Any:
    contrast = SimpleNamespace(names=(name, "reference"), difference=difference)
    worth = None if net is None else NetValue("yes", net)
    return SimpleNamespace(passes=passes, cost=Cost(usd, 1.0), contrast=contrast, net=worth, held_by="")


def name_of(found: Any) -> str | None:
    return found and found.contrast.names[0]


def test_the_cheapest_that_passes_is_recommended_or_the_one_of_most_net_value() -> None:
    a, b = finding("a", "yes", 0.2, 0.1, 0.5), finding("b", "yes", 0.1, 0.0, 0.7)
    cheap = finding("c", "no", 0.01, 0.5, 9.0)
    assert name_of(_recommended([a, b, cheap], Rule())) == "b"
    assert name_of(_recommended([b, a, cheap], Rule(usd_per_correct=1.0))) == "b"
    assert name_of(_recommended([finding("a", "yes", 0.1, 0.2), b], Rule())) == "a", "of equal cost the better one"
    assert name_of(_recommended([finding("z", "yes", 0.1), b], Rule())) == "b", "then by name"
    assert _recommended([cheap], Rule()) is None
    assert _recommended([cheap], Rule(usd_per_correct=1.0)) is None
    assert name_of(_recommended([finding("n", "yes", None), b], Rule())) == "n"


def test_in_order_the_dearest_is_tested_first_and_one_that_fails_holds_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import fractionate.analysis.verdict as module

    monkeypatch.setattr(module, "replace", lambda one, **changes: SimpleNamespace(**{**vars(one), **changes}))

    def judged(*several: Any) -> list[tuple[str, str, str]]:
        return [(one.contrast.names[0], one.passes, one.held_by) for one in _in_order(several)]

    cheap, middle, dear = finding("c", "yes", 0.1), finding("m", "undecided", 0.2), finding("d", "yes", 0.3)
    assert judged(cheap, dear) == [("c", "yes", ""), ("d", "yes", "")]
    assert judged(cheap, middle, dear) == [("c", "undecided", "m"), ("m", "undecided", ""), ("d", "yes", "")]
    assert judged(finding("c", "no", 0.1), middle) == [("c", "no", "m"), ("m", "undecided", "")]
    unknown = finding("u", "no", None)
    assert judged(unknown, cheap) == [("u", "no", ""), ("c", "yes", "")], "an unknown cost counts as none"


def student(name: str, role: str) -> Component:
    return component_of(name, role)  # type: ignore[arg-type]


def test_a_cell_has_distilled_the_part_in_which_it_differs() -> None:
    reference = cell_of([1.0] * 4)
    parts = {
        ("static", "D-R", "teacher"): "decomposer",
        ("static", "teacher", "E-A"): "solver",
        ("static", "D-R", "E-A"): "both",
        ("static", "teacher", "teacher"): None,
        ("stepwise", "D-R", "teacher"): None,
        ("static", "D-R", "student"): None,
        ("static", "student", "E-A"): None,
        ("single", "none", "S-A"): "solver",
        ("single", "none", "E-A"): None,
        ("single", "none", "teacher"): None,
    }
    cells = {key: cell_of([1.0] * 4, *key) for key in parts}
    assert {key: _part(cell, reference) for key, cell in cells.items()} == parts
    empty = replace(cells["static", "D-R", "teacher"], attempts=())
    matrix = Matrix("atlas", (reference, empty, cells["static", "D-R", "E-A"]))
    assert [part for part, _ in candidates_of(matrix, reference)] == ["both"]


def test_candidates_share_the_error_evenly_in_dollars_and_by_their_correlation_in_outcome() -> None:
    reference = cell_of([1.0, 0.0] * 20)
    a, b = cell_of([1.0] * 40, decomposer="D-R"), cell_of([1.0, 1.0, 0.0, 0.0] * 10, decomposer="D-T")
    even = bonferroni_confidence(0.95, 2)
    (outcome, cost), other = _levels(0.95, reference, [a, b])
    assert (cost, other) == (even, (outcome, even))
    assert 0.95 <= outcome < even
    assert _levels(0.95, reference, [a]) == [(0.95, 0.95)]
    elsewhere = replace(b, attempts=b.attempts[:39])
    assert _levels(0.95, reference, [a, elsewhere]) == [(even, even)] * 2, "other questions"


def test_the_front_are_the_cells_that_none_beats_in_both() -> None:
    def costing(right: int, tokens: int, solver: str) -> Any:
        cell = cell_of(
            [1.0] * right + [0.0] * (10 - right), "single", "none", Component(solver, "model", "solver", TEACHER)
        )
        used = Usage(1, 0, 0, tokens)
        return replace(cell, attempts=tuple(replace(one, solver_usage=used) for one in cell.attempts))

    cells = [costing(5, 10, "a"), costing(5, 20, "b"), costing(7, 20, "c"), costing(6, 30, "d"), costing(9, 40, "e")]
    matrix = Matrix("atlas", (*cells, replace(cells[4], attempts=())))
    front = _front(matrix, Pricing(config_of().prices))
    assert front == [matrix.name(cells[at]) for at in (0, 2, 4)]
    unpriced = replace(cells[0], solver=Component("x", "model", "solver", "openai:no-such-model-1"))
    assert _front(Matrix("atlas", (unpriced,)), Pricing(config_of().prices)) == []


@pytest.mark.parametrize(("right", "superior"), [(0, "no"), (20, "undecided"), (40, "yes")])
def test_a_candidate_is_superior_where_its_whole_interval_is_above_0(right: int, superior: str) -> None:
    reference = cell_of([1.0, 0.0] * 20)
    student = cell_of([1.0] * right + [0.0] * (40 - right), decomposer="D-R")
    (found,) = judge(Matrix("atlas", (reference, student)), Pricing(config_of().prices), Rule()).findings
    assert found.superior == superior


def test_nothing_works_where_no_cell_is_right_once() -> None:
    wrong, right = cell_of([0.0] * 4), cell_of([0.0, 0.0, 1.0, 0.0], "single", "none")
    assert _nothing_works(Matrix("atlas", (wrong, wrong)))
    assert not _nothing_works(Matrix("atlas", (wrong, right)))
