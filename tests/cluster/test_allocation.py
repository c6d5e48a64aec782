"""A run's limits and budget in allocations: together they never exceed the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fractionate.calls.budget import Budget, Reservation
from fractionate.calls.store import Amount, MemoryStore, Store
from fractionate.cluster.allocation import LEAST_REQUESTS, LEAST_TOKENS, Allocator, most_shards, quotas
from fractionate.config import BudgetConfig, LimitsConfig
from fractionate.types import ROLES, Role

DOLLARS = st.none() | st.floats(0.01, 5.0)


@given(
    st.integers(1, 500),
    st.none() | st.floats(1.0, 10_000.0),
    st.none() | st.floats(1.0, 10_000_000.0),
    st.integers(1, 100),
)
def test_quotas_are_the_limits_in_parts_that_one_can_work_with(
    concurrency: int, requests: float | None, tokens: float | None, wanted: int
) -> None:
    limits = LimitsConfig(concurrency=concurrency, requests_per_minute=requests, tokens_per_minute=tokens)
    count = min(wanted, most_shards(limits))
    parts = quotas(limits, count)
    assert sum(part.concurrency for part in parts) == concurrency
    assert min(part.concurrency for part in parts) >= 1
    for name, least in (("requests_per_minute", LEAST_REQUESTS), ("tokens_per_minute", LEAST_TOKENS)):
        whole = getattr(limits, name)
        if whole is not None:
            assert sum(getattr(part, name) for part in parts) == pytest.approx(whole)
            assert count == 1 or all(getattr(part, name) >= least for part in parts)


@settings(deadline=None)
@given(
    usd=DOLLARS,
    decomposer_usd=DOLLARS,
    solver_usd=DOLLARS,
    tokens=st.none() | st.integers(1, 100_000),
    shards=st.lists(
        st.tuples(st.sampled_from(ROLES), st.floats(0.0, 0.5), st.integers(0, 2_000), st.booleans()), max_size=40
    ),
)
@example(  # the parts of two roles add up to a little less than the call that is wanted
    usd=4.619025627496966,
    decomposer_usd=None,
    solver_usd=1.5,
    tokens=None,
    shards=[
        ("decomposer", 0.05784171238510062, 0, False),
        *[("decomposer", 0.5, 0, False)] * 2,
        ("solver", 0.4718941203248923, 0, True),
        *[("decomposer", 0.5, 0, False)] * 2,
        ("decomposer", 0.442, 0, False),
    ],
)
def test_allocations_never_pass_a_cap_whatever_comes_back(
    usd: float | None,
    decomposer_usd: float | None,
    solver_usd: float | None,
    tokens: int | None,
    shards: list[tuple[Role, float, int, bool]],
) -> None:
    """Each shard spends all that it may, on the role that it wants most; every other one dies and returns nothing."""
    caps = BudgetConfig(usd=usd, decomposer_usd=decomposer_usd, solver_usd=solver_usd, tokens=tokens)
    with MemoryStore() as store:
        budget = Budget(caps, None, store, "r")
        allocator = Allocator(budget, store, slots=2)
        for role, dollars, count, dies in shards:
            wanted = Reservation(role, dollars, count)
            before = budget.free(role), budget.free()
            allocation = allocator.allocate(10, wanted)
            if allocation is None:
                assert dollars > before[0].usd or count > before[0].tokens or dollars > before[1].usd
                continue
            allowed = [allocation.caps.usd, getattr(allocation.caps, f"{role}_usd")]
            given_usd = min((cap for cap in allowed if cap is not None), default=0.0)
            assert all(cap is None or cap >= dollars - 1e-9 for cap in allowed)
            assert allocation.caps.tokens is None or allocation.caps.tokens >= count
            if budget.active:
                budget.spent_from(allocation.holder, {role: Amount(given_usd, allocation.caps.tokens or 0)})
                if not dies:
                    budget.return_allocation(allocation.holder, {})
            _check(budget, caps)


def _check(budget: Budget, caps: BudgetConfig) -> None:
    """All that is spent or held is within every cap."""
    held = budget.held
    if caps.usd is not None:
        assert budget.total_usd() + sum(held[role].usd for role in ROLES) <= caps.usd + 1e-9
    for role in ROLES:
        cap = getattr(caps, f"{role}_usd")
        if cap is not None:
            assert budget.total_usd(role) + held[role].usd <= cap + 1e-9
    if caps.tokens is not None:
        assert budget.total_tokens() + sum(held[role].tokens for role in ROLES) <= caps.tokens
    assert all(held[role].usd >= -1e-9 and held[role].tokens >= 0 for role in ROLES)


def test_an_allocation_that_was_too_small_is_doubled(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store:
        budget = Budget(BudgetConfig(tokens=1_000_000), None, store, "r")
        allocator = Allocator(budget, store, slots=1)
        wanted = Reservation("solver", 0.0, 100)
        first = allocator.allocate(10, wanted)
        allocator.raise_estimate()
        second = allocator.allocate(10, wanted)
    assert first is not None
    assert second is not None
    assert (first.caps.tokens, second.caps.tokens) == (1_000, 2_000)


def test_what_is_lost_stays_counted_and_the_rest_comes_back(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store:
        budget = Budget(BudgetConfig(usd=10.0), None, store, "r")
        allocation = Allocator(budget, store, slots=1).allocate(4, Reservation("solver", 1.0, 0))
        assert allocation is not None
        assert budget.free().usd == pytest.approx(6.0)
        budget.spent_from(allocation.holder, {"solver": Amount(2.0, 0)})
        assert budget.free().usd == pytest.approx(6.0)
        budget.return_allocation(allocation.holder, {"solver": Amount(0.5, 0)})
        assert budget.free().usd == pytest.approx(7.5)
        store.merge(b"", ("r", budget.holds_to_write()))
        resumed = Budget(BudgetConfig(usd=10.0), None, store, "r")
        assert resumed.free().usd == pytest.approx(9.5), "the store knows of the lost calls; the spent ones are rows"
