"""The budget's sums to the cent: by role, over restarts, in batches and allocations; when a ledger stops sending."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from helpers import FlatPricing, ask

from fractionate.calls.budget import Budget, BudgetReached, Reservation, taken_from
from fractionate.calls.ledger import FRUITLESS, Health, Ledger
from fractionate.calls.store import Amount, Spent, Store, StoredCall
from fractionate.config import BudgetConfig, LimitsConfig
from fractionate.errors import FractionateError, UsageError
from fractionate.models.base import SingleModel
from fractionate.models.faults import PermanentFault, TransientFault
from fractionate.types import Completion, Request, Usage

PRICE = 0.001


class Priced(SingleModel):
    """A paid model whose dearest call takes 30 tokens of input and 10 of output."""

    paid = True
    name = identity = "openai:paid"

    def most_usage(self, request: Request) -> Usage:
        return Usage(1, 30, 0, 10)

    async def complete(self, request: Request) -> Completion:
        raise NotImplementedError


class CachedPricing:
    """Dollars per token of fresh input, cached input and output."""

    def __init__(self, fresh: float, cached: float, output: float) -> None:
        self.rates = fresh, cached, output

    def usd(self, model_name: str, usage: Usage) -> float:
        fresh, cached, output = self.rates
        left = usage.input_tokens - usage.cached_input_tokens
        return left * fresh + usage.cached_input_tokens * cached + usage.output_tokens * output


def budget_of(store: Store, **caps: Any) -> Budget:
    return Budget(BudgetConfig(**caps), FlatPricing(PRICE), store, "r")


def test_a_budget_is_kept_where_any_cap_is_named_and_dollars_only_where_one_is_in_dollars(store: Store) -> None:
    for caps, active, dollars in (
        ({}, False, False),
        ({"tokens": 0}, True, False),
        ({"usd": 0.0}, True, True),
        ({"decomposer_usd": 1.0}, True, True),
        ({"solver_usd": 1.0}, True, True),
    ):
        budget = budget_of(store, **caps)
        assert (budget.active, budget.needs_dollars) == (active, dollars)


@pytest.mark.parametrize(("cached", "usd"), [(0.5, 30 * 1.0 + 10 * 3.0), (2.0, 30 * 2.0 + 10 * 3.0)])
def test_the_dearest_call_has_all_of_its_input_cached_or_none(store: Store, cached: float, usd: float) -> None:
    budget = Budget(BudgetConfig(usd=1e9), CachedPricing(1.0, cached, 3.0), store, "r")
    assert budget.dearest(Priced(), ask("q")) == Reservation("solver", usd, 40)


def test_what_was_spent_before_counts_once_by_role_and_as_often_as_it_was_spent(store: Store) -> None:
    calls = [
        StoredCall(f"a{n}", "openai:paid", "i", "r", ask(f"q{n}"), Completion("x", usage=Usage(1, 20, 0, 5)))
        for n in range(3)
    ]
    calls.append(
        StoredCall("b0", "openai:paid", "i", "r", ask("d", role="decomposer"), Completion("x", usage=Usage(1, 7, 0, 2)))
    )
    calls.append(StoredCall("c0", "echo:", "i", "r", ask("e"), Completion("x", usage=Usage(1, 99, 0, 9)), paid=False))
    calls.append(StoredCall("d0", "openai:paid", "i", "s", ask("o"), Completion("x", usage=Usage(1, 100, 0, 0))))
    store.put_many(calls, holds=("r", {"gone": {"solver": Amount(0.5, 40), "decomposer": Amount(0.25, 8)}}))
    store.put_many([], holds=("s", {"other": {"solver": Amount(1.0, 3)}}))
    mine = budget_of(store, usd=9.0, tokens=10_000, scope="run")
    assert mine.total_tokens() == 3 * 25 + 9 + 40 + 8
    assert mine.total_usd("solver") == pytest.approx(3 * 25 * PRICE + 0.5)
    assert mine.total_usd("decomposer") == pytest.approx(9 * PRICE + 0.25)
    assert mine.total_usd() == pytest.approx(84 * PRICE + 0.75)
    everybody = budget_of(store, usd=9.0, tokens=10_000)
    assert everybody.total_tokens() == 3 * 25 + 9 + 40 + 8 + 100 + 3
    assert everybody.total_usd() == pytest.approx(184 * PRICE + 1.75)
    assert everybody.price_all([Spent("openai:paid", "solver", Usage(1, 20, 0, 5), 3)]) == (pytest.approx(0.075), 75)
    tokens_only = budget_of(store, tokens=10_000)
    assert tokens_only.total_usd() == pytest.approx(1.75), "reservations in dollars are what they were"
    assert tokens_only.price_all([Spent("openai:paid", "solver", Usage(1, 20, 0, 5), 3)]) == (0.0, 75)


def test_another_runs_model_without_a_price_names_the_scope(store: Store) -> None:
    call = StoredCall("a", "openai:free", "i", "s", ask("q"), Completion("x", usage=Usage(1, 1, 0, 1)))
    store.put_many([call])
    pricing = FlatPricing(PRICE, "openai:free")
    with pytest.raises(UsageError, match=r'budget\.scope = "run"'):
        Budget(BudgetConfig(usd=1.0), pricing, store, "r")
    Budget(BudgetConfig(usd=1.0, scope="run"), pricing, store, "r")
    Budget(BudgetConfig(tokens=100), pricing, store, "r")
    with pytest.raises(UsageError, match="no price is known for openai:free"):
        Budget(BudgetConfig(usd=1.0), pricing, store, "s")
    with pytest.raises(UsageError, match="no price is known"):
        Budget(BudgetConfig(usd=1.0), None, store, "s")


def test_each_cap_is_checked_for_its_own_role_and_named(store: Store) -> None:
    async def main() -> None:
        for caps, role, name in (
            ({"usd": 0.1}, "solver", "usd"),
            ({"solver_usd": 0.1, "usd": 9.0}, "solver", "solver_usd"),
            ({"decomposer_usd": 0.1}, "decomposer", "decomposer_usd"),
            ({"tokens": 100, "usd": 9.0}, "solver", "tokens"),
        ):
            budget = budget_of(store, **caps)
            held = [await budget.reserve(Priced(), ask("q", role=role)) for _ in range(2)]
            waiting = asyncio.create_task(budget.reserve(Priced(), ask("q", role=role)))
            await asyncio.sleep(0)
            assert not waiting.done(), "calls in flight may leave room"
            budget.keep_unconfirmed(held[0])
            await asyncio.sleep(0)
            assert not waiting.done()
            budget.keep_unconfirmed(held[1])
            with pytest.raises(BudgetReached, match=rf"budget\.{name} is reached") as reached:
                await waiting
            assert reached.value.wanted == Reservation(role, pytest.approx(0.04 if budget.needs_dollars else 0), 40)
            said = (
                "80 of 100 tokens are used and the next call may take 40" if name == "tokens" else "$0.0800 of $0.1000"
            )
            assert said in str(reached.value)

    asyncio.run(main())


def test_room_that_comes_back_goes_to_waiting_calls_in_order(store: Store) -> None:
    async def main() -> None:
        budget = budget_of(store, tokens=80)
        first, second = [await budget.reserve(Priced(), ask("q")) for _ in range(2)]
        waiting = [asyncio.create_task(budget.reserve(Priced(), ask("q"))) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        budget.charge(first, "m", Usage(1, 1, 0, 1))
        await asyncio.sleep(0)
        assert [task.done() for task in waiting] == [True, False, False], "2 + 40 + 40 are more than 80"
        budget.release(second)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [task.done() for task in waiting] == [True, True, False]
        budget.charge(waiting[1].result(), "m", Usage(1, 10, 0, 5))
        assert (await waiting[2]).tokens == 40
        assert budget.free() == (float("inf"), 80 - 17 - 40)
        budget.release(waiting[2].result())
        assert budget.free() == (float("inf"), 63)
        assert budget.free("solver") == (float("inf"), 63)

    asyncio.run(main())


def test_a_call_that_is_cancelled_as_it_gets_its_place_gives_it_back(store: Store) -> None:
    async def main() -> None:
        budget = budget_of(store, tokens=40)
        first = await budget.reserve(Priced(), ask("q"))
        waiting = asyncio.create_task(budget.reserve(Priced(), ask("q")))
        await asyncio.sleep(0)
        budget.release(first)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert budget.free().tokens == 40
        assert budget.held["solver"] == (0.0, 0)

    asyncio.run(main())


def test_what_is_free_is_never_below_nothing(store: Store) -> None:
    budget = budget_of(store, usd=0.01, tokens=5, solver_usd=0.005)
    budget.keep_unconfirmed(Reservation("solver", 0.04, 40))
    budget.held["solver"] = Amount(0.0, 0)
    assert budget.free() == (0.0, 0)
    assert budget.free("solver") == (0.0, 0)
    assert budget.free("decomposer") == (0.0, 0)
    assert budget_of(store).free() == (float("inf"), 1 << 62)


def test_a_call_in_a_batch_is_a_hold_of_its_own_that_the_next_process_takes_over(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    with Store(path) as store:
        budget = budget_of(store, usd=0.1, tokens=100)
        held = [budget.reserve_in_batch(Priced(), ask("q"), key) for key in ("k1", "k2")]
        with pytest.raises(BudgetReached):
            budget.reserve_in_batch(Priced(), ask("q"), "k3")
        holds = budget.holds_to_write()
        assert {holder: dict(roles) for holder, roles in holds.items() if holder.startswith("batch:")} == {
            "batch:k1": {"solver": (pytest.approx(0.04), 40)},
            "batch:k2": {"solver": (pytest.approx(0.04), 40)},
        }
        own = next(roles for holder, roles in holds.items() if not holder.startswith("batch:"))
        assert own["solver"] == (0.0, 0), "calls in a batch are not this process's"
        store.put_many([], holds=("r", holds))
        budget.written(holds)
        assert list(budget.holds_to_write()) == [next(iter(set(holds) - {"batch:k1", "batch:k2"}))]
        budget.charge(held[0], "m", Usage(1, 10, 0, 5))
        assert budget.holds_to_write()["batch:k1"] == {"solver": (0.0, 0)}
        (own,) = (roles for holder, roles in budget.holds_to_write().items() if not holder.startswith("batch:"))
        assert own["solver"] == (0.0, 0), "a call that has left its batch is not this process's either"
        store.put_many([], holds=("r", budget.holds_to_write()))
    with Store(path) as store:
        after = budget_of(store, usd=0.05, tokens=50)
        assert (after.total_usd(), after.total_tokens()) == (pytest.approx(0.04), 40)
        kept = after.reserve_in_batch(Priced(), ask("q"), "k2")
        assert (kept.usd, kept.tokens, kept.holder) == (pytest.approx(0.04), 40, "batch:k2")
        assert (after.total_usd(), after.total_tokens()) == (pytest.approx(0.0), 0)
        assert after.held["solver"] == (pytest.approx(0.04), 40)
        after.charge(kept, "m", Usage(1, 10, 0, 5))
        assert (after.total_usd(), after.total_tokens()) == (pytest.approx(0.015), 15)


def test_holds_are_of_calls_in_flight_and_of_unconfirmed_ones(store: Store) -> None:
    budget = budget_of(store, usd=1.0)
    budget._hold(Reservation("solver", 0.04, 40))
    budget.keep_unconfirmed(Reservation("decomposer", 0.02, 20))
    (mine,) = budget.holds_to_write().values()
    assert mine["solver"] == (pytest.approx(0.04), 40)
    assert mine["decomposer"].usd == pytest.approx(0.02)
    budget.held["solver"] = Amount(1e-18, 0)
    (mine,) = budget.holds_to_write().values()
    assert mine["solver"] == (0.0, 0), "what adding floats leaves is no reservation"


def test_usage_without_a_report_is_unconfirmed_up_to_the_reservation(store: Store) -> None:
    budget = budget_of(store, usd=1.0)
    for used in (Usage(1, 10, 0, 5, counted=1), Usage(1, 60, 0, 5, counted=1)):
        budget._hold(Reservation("solver", 0.04, 40))
        budget.charge(Reservation("solver", 0.04, 40), "m", used)
    assert budget.unconfirmed["solver"] == (pytest.approx(0.025), 25)
    assert budget.spent["solver"] == (pytest.approx(0.08), 80)
    assert budget.held["solver"] == (pytest.approx(0.0), 0)


@pytest.mark.parametrize(
    ("usd", "tokens", "used", "beyond"),
    [
        (0.04, 40, 40, False),
        (0.04, 40, 41, True),
        (0.04, 99, 41, True),
        (9.0, 40, 41, True),
        (0.04 - 1e-10, 40, 40, False),
    ],
)
def test_a_call_passes_its_bound_in_dollars_or_in_tokens(
    store: Store, usd: float, tokens: int, used: int, beyond: bool
) -> None:
    budget = budget_of(store, usd=1.0)
    assert budget.charge(Reservation("solver", usd, tokens), "m", Usage(1, used, 0, 0)) is beyond


def test_an_allocation_is_taken_and_returned_by_role(store: Store) -> None:
    budget = budget_of(store, usd=10.0, tokens=1000, solver_usd=5.0)
    budget.allocate("shard", {"decomposer": Amount(1.0, 100), "solver": Amount(2.0, 200)})
    assert budget.holds_to_write()["shard"] == {"decomposer": (1.0, 0), "solver": (2.0, 300), "judge": (0.0, 0)}
    assert budget.free("solver") == (pytest.approx(3.0), 700)
    budget.spent_from("shard", {"solver": Amount(2.5, 350)})
    assert "shard" not in budget.holds_to_write(), "the process that commits the calls writes what is left"
    left = taken_from({"decomposer": Amount(1.0, 0), "solver": Amount(2.0, 300)}, {"solver": Amount(2.5, 350)})
    assert left["decomposer"].usd == pytest.approx(0.5)
    assert left["solver"] == (pytest.approx(0.0), 0), "never below nothing"
    assert (budget.total_usd("solver"), budget.total_tokens()) == (pytest.approx(2.5), 350)
    budget.return_allocation("shard", {"decomposer": Amount(0.2, 0)})
    assert budget.free() == (pytest.approx(10 - 2.5 - 0.2), 650)
    budget.return_allocation("shard", {"decomposer": Amount(9.0, 0)})
    assert budget.free().usd == pytest.approx(7.3), "what is kept is at most what is left"
    budget.return_allocation("shard", {})
    assert budget.free().usd == pytest.approx(7.5)


def test_a_model_without_a_success_is_given_up_sooner_than_one_that_died() -> None:
    new = Health()
    assert [new.failed(False) for _ in range(FRUITLESS)] == [False] * (FRUITLESS - 1) + [True]
    assert Health().failed(True), "hopeless"
    old = Health()
    old.succeeded()
    assert (old.successes, old.streak) == (1, 0)
    assert [old.failed(True) for _ in range(50)] == [False] * 49 + [True]
    old.succeeded()
    assert not old.failed(False)


def ledger_of(store: Store, **limits: Any) -> tuple[Ledger, list[str], list[FractionateError]]:
    events: list[str] = []
    stops: list[FractionateError] = []
    ledger = Ledger(
        store, LimitsConfig(**limits), Budget(BudgetConfig(), None, store, "r"), "r", stops.append, events.append
    )
    return ledger, events, stops


def test_a_ledger_tells_the_first_tenth_and_hundredth_event(store: Store) -> None:
    ledger, events, _ = ledger_of(store)
    for count in range(1, 1200):
        ledger.tell(count, str(count))
    assert events == ["1", "10", "100", "1000"]


def test_a_ledger_stops_once_and_keeps_the_first_reason(store: Store) -> None:
    ledger, _, stops = ledger_of(store)
    error = ledger.give_up("first")
    ledger.give_up("second")
    assert stops == [error]
    with pytest.raises(FractionateError, match="first"):
        ledger.check_before_sending()


def test_room_is_kept_for_every_call_in_flight(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, _, stops = ledger_of(store, concurrency=64)
    tried: list[int] = []
    monkeypatch.setattr(store, "try_room", tried.append)
    now = [1000.0]
    monkeypatch.setattr("fractionate.calls.ledger.time.monotonic", lambda: now[0])
    ledger.check_before_sending()
    assert tried == [64 * 16 * 1024]
    now[0] += 0.0049
    monkeypatch.setattr(store, "has_room", lambda size: False)
    ledger.check_before_sending()
    ledger.change(LimitsConfig(concurrency=64))
    now[0] += 0.0002
    with pytest.raises(FractionateError, match="nearly full"):
        ledger.check_before_sending()
    assert len(stops) == 1
    few, _, _ = ledger_of(store, concurrency=2)
    few.check_before_sending()
    assert tried[1:] == [256 * 1024]
    few.change(LimitsConfig(concurrency=17))
    now[0] += 1.0
    few.check_before_sending()
    assert tried[2:] == [17 * 16 * 1024], "more calls need more room, which is tried again"


def test_a_call_given_up_is_counted_and_only_a_lasting_rejection_is_stored(store: Store) -> None:
    async def main() -> None:
        ledger, events, _ = ledger_of(store)
        lost = await ledger.failed(Priced(), ask("q"), "k", TransientFault("503", "busy"), 3)
        assert (lost.finish_reason, lost.error, lost.usage.calls) == ("error", "503: busy (3 attempts)", 3)
        once = await ledger.failed(Priced(), ask("q"), "k", PermanentFault("400", "no"), 1)
        assert once.error == "400: no"
        assert ledger.counters.failures == {"503": 1, "400": 1}
        assert events == ["failed call 1 because of 503: busy", "failed call 1 because of 400: no"]
        assert (len(store), ledger.counters.stored) == (0, 0)
        kept = await ledger.failed(Priced(), ask("q"), "k", PermanentFault("x", "too long", keep=True), 1)
        assert (kept.usage, len(store), ledger.counters.stored) == (Usage(calls=1), 1, 1)
        ledger.commits.close()

    asyncio.run(main())
