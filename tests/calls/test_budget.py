"""The cap is never passed, for any prices, concurrency, faults and restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import FlatPricing, ask, asking
from hypothesis import given, settings
from hypothesis import strategies as st

from fractionate.calls.budget import Budget, BudgetReached, Reservation
from fractionate.calls.drive import run_all
from fractionate.calls.engine import Engine
from fractionate.calls.store import Amount, Store, StoredCall
from fractionate.config import BudgetConfig, LimitsConfig
from fractionate.errors import FractionateError, UsageError
from fractionate.models.base import SingleModel
from fractionate.models.faults import TransientFault
from fractionate.models.openai.api import OpenAIModel
from fractionate.models.tokens import input_bound
from fractionate.types import Completion, Message, Request, Usage
from servers.chat_server import ChatServer

PRICE = 0.001


class Provider(SingleModel):
    """A paid model that bills a share of each call's bound; `billed` is the provider's own book."""

    paid = True
    name = identity = "openai:paid"

    def __init__(self, share: Callable[[str], float], fault: Callable[[str], str] = lambda _: "") -> None:
        self.share = share
        self.fault = fault
        self.billed = 0
        self.billed_by_role = {"decomposer": 0, "solver": 0}
        self.sent = 0

    async def complete(self, request: Request) -> Completion:
        text = request.messages[0].content
        self.sent += 1
        fault = self.fault(f"{text}/{self.sent}")
        usage = Usage(
            1, round(input_bound(request) * self.share(text)), 0, round(request.max_tokens * self.share(text))
        )
        if fault != "refused":
            self.billed += usage.input_tokens + usage.output_tokens
            self.billed_by_role[request.role] += usage.input_tokens + usage.output_tokens
        await asyncio.sleep(0)
        if fault:
            raise TransientFault(fault, fault, maybe_paid=fault == "lost")
        return Completion(text, usage=usage)


def drive(store: Store, provider: Provider, budget: BudgetConfig, calls: int, concurrency: int) -> BudgetReached | None:
    """Ask `calls` questions, half by each role; return the budget's word if it stopped the run."""

    async def main() -> None:
        limits = LimitsConfig(concurrency=concurrency, attempts=3)
        async with Engine(store, limits, budget, FlatPricing(PRICE), run="r", backoff_s=0.0001) as engine:

            def program(number: int) -> Any:
                from fractionate.calls.drive import Call

                yield [Call(provider, ask(f"question {number}", role=("decomposer", "solver")[number % 2]))]

            await run_all((program(number) for number in range(calls)), engine)

    try:
        asyncio.run(main())
    except BudgetReached as reached:
        return reached
    except FractionateError:
        return None  # every attempt of a call met a fault before any call had succeeded
    return None


@settings(deadline=None, max_examples=30)
@given(
    cap=st.integers(0, 3000),
    role_cap=st.none() | st.integers(0, 2000),
    in_tokens=st.booleans(),
    shares=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=7),
    faults=st.lists(st.sampled_from(["", "", "", "refused", "lost"]), min_size=1, max_size=7),
    concurrency=st.integers(1, 30),
    restarts=st.integers(1, 3),
)
def test_the_cap_is_never_passed(
    tmp_path_factory: pytest.TempPathFactory,
    cap: int,
    role_cap: int | None,
    in_tokens: bool,
    shares: list[float],
    faults: list[str],
    concurrency: int,
    restarts: int,
) -> None:
    provider = Provider(lambda text: shares[hash(text) % len(shares)], lambda text: faults[hash(text) % len(faults)])
    caps: dict[str, Any] = {"tokens": cap} if in_tokens else {"usd": cap * PRICE}
    if role_cap is not None:
        caps["solver_usd"] = role_cap * PRICE
    path = tmp_path_factory.mktemp("budget") / "calls.sqlite"
    for _ in range(restarts):
        with Store(path) as store:
            stopped = drive(store, provider, BudgetConfig(**caps), 20, concurrency)
        assert provider.billed <= cap
        assert role_cap is None or provider.billed_by_role["solver"] <= role_cap
        if stopped is None:
            break


def test_a_budget_that_suffices_stops_nothing(store: Store) -> None:
    provider = Provider(lambda _: 1.0)
    each = input_bound(ask("question 10")) + 16
    assert drive(store, provider, BudgetConfig(tokens=20 * each), 20, 8) is None
    assert provider.sent == 20


def test_calls_wait_for_others_to_settle_before_the_run_stops(store: Store) -> None:
    """Cheap outcomes leave room: the budget is used up, not given up while calls are in flight."""
    provider = Provider(lambda _: 0.1)
    each = input_bound(ask("question 10")) + 16
    assert drive(store, provider, BudgetConfig(tokens=4 * each), 20, 16) is None
    assert provider.sent == 20


def test_reaching_the_cap_says_how_to_resume_and_resuming_pays_only_the_rest(store: Store) -> None:
    provider = Provider(lambda _: 1.0)
    each = input_bound(ask("question 10")) + 16
    reached = drive(store, provider, BudgetConfig(tokens=5 * each), 20, 8)
    assert reached is not None
    assert "--set budget.tokens=" in str(reached)
    assert "\n" not in str(reached)
    assert provider.sent == 5
    assert len(store) == 5
    assert drive(store, provider, BudgetConfig(tokens=20 * each), 20, 8) is None
    assert provider.sent == 20


def test_what_another_run_spent_counts_unless_the_cap_is_the_run_s(store: Store) -> None:
    completion = Completion("x", usage=Usage(1, 10**6, 0, 10**6))
    store.put_many([StoredCall("ff", "openai:paid", "openai:paid", "another", ask("old"), completion)])
    reached = drive(store, Provider(lambda _: 1.0), BudgetConfig(tokens=1000), 5, 2)
    assert 'what other runs over this store have spent counts: budget.scope = "store"' in str(reached)
    assert drive(store, Provider(lambda _: 1.0), BudgetConfig(tokens=1000, scope="run"), 5, 2) is None
    reached = drive(store, Provider(lambda _: 1.0), BudgetConfig(tokens=1000, scope="run"), 99, 2)
    assert reached is not None
    assert "budget.scope" not in str(reached)


def test_what_another_run_has_in_flight_or_lost_counts_too(store: Store) -> None:
    store.put_many([], holds=("another", {"its process": {"solver": Amount(0.9, 10)}}))
    budget = Budget(BudgetConfig(usd=1.0), FlatPricing(PRICE), store, "r")
    assert budget.total_usd() == pytest.approx(0.9)
    assert Budget(BudgetConfig(usd=1.0, scope="run"), FlatPricing(PRICE), store, "r").total_usd() == 0


def test_another_run_s_model_without_a_price_is_named_with_both_ways_out(store: Store) -> None:
    completion = Completion("x", usage=Usage(1, 10, 0, 10))
    store.put_many([StoredCall("ff", "openai:odd", "openai:odd", "another", ask("old"), completion)])
    with pytest.raises(UsageError, match=r'prices\."openai:odd".*budget\.scope = "run"'):
        Budget(BudgetConfig(usd=1.0), FlatPricing(PRICE, "openai:odd"), store, "r")


def test_calls_in_flight_when_a_process_dies_count_as_spent(tmp_path: Path) -> None:
    """The store knows of a reservation before its call leaves: a killed process's calls are not forgotten."""
    path = tmp_path / "calls.sqlite"
    seen: list[int] = []

    class Peeking(Provider):
        async def complete(self, request: Request) -> Completion:
            with Store(path, read_only=True) as peek:
                seen.append(peek.held("r")[request.role].tokens)
            return await super().complete(request)

    with Store(path) as store:
        drive(store, Peeking(lambda _: 0.5), BudgetConfig(tokens=10**6), 6, 3)
        assert min(seen) >= input_bound(ask("question 1")) + 16
        assert store.held("r")["solver"].tokens == 0  # all came back


def test_a_model_without_a_price_is_refused_under_a_dollar_cap(store: Store) -> None:
    async def main() -> int:
        async with ChatServer() as server:
            model = OpenAIModel(server.name)
            engine = Engine(store, budget=BudgetConfig(usd=1.0), pricing=FlatPricing(1.0, server.name))
            with pytest.raises(UsageError, match=r'\[prices\."http://127') as caught:
                await run_all([asking(model, "q")], engine)
            assert "\n" not in str(caught.value)
            await model.close()
            return server.asked.total()

    assert asyncio.run(main()) == 0


def test_free_models_do_not_count(store: Store) -> None:
    provider = Provider(lambda _: 1.0)
    provider.paid = False
    assert drive(store, provider, BudgetConfig(usd=0.0, tokens=0), 5, 2) is None
    assert provider.sent == 5


def test_a_role_has_a_cap_of_its_own(store: Store) -> None:
    provider = Provider(lambda _: 1.0)
    reached = drive(store, provider, BudgetConfig(decomposer_usd=0.0), 6, 1)
    assert reached is not None
    assert "budget.decomposer_usd" in str(reached)
    assert provider.billed_by_role["decomposer"] == 0


def test_the_cap_holds_against_a_real_server_with_many_in_flight(store: Store) -> None:
    async def main() -> int:
        async with ChatServer(delay_s=0.01) as server:
            model = OpenAIModel(server.name)
            async with Engine(store, LimitsConfig(concurrency=32), BudgetConfig(tokens=2000), run="r") as engine:
                with pytest.raises(BudgetReached):
                    await run_all((asking(model, f"question {n}") for n in range(500)), engine)
            await model.close()
            return server.billed_tokens

    assert 1500 < asyncio.run(main()) <= 2000


def test_reservations_leave_nothing_behind(store: Store) -> None:
    async def main() -> None:
        budget, model = Budget(BudgetConfig(usd=1.0), FlatPricing(PRICE), store, "r"), Provider(lambda _: 1.0)
        held = [await budget.reserve(model, ask("q")) for _ in range(3)]
        budget.charge(held[0], "m", Usage(1, 5, 0, 5))
        budget.release(held[1])
        budget.keep_unconfirmed(held[2])
        assert budget.total_tokens() == 10 + held[2].tokens
        (holds,) = budget.holds_to_write().values()
        assert holds["solver"].tokens == held[2].tokens

    asyncio.run(main())


def test_what_is_free_is_the_least_that_a_cap_leaves(store: Store) -> None:
    async def main() -> None:
        caps = BudgetConfig(usd=1.0, solver_usd=0.4, tokens=900)
        budget, model = Budget(caps, FlatPricing(PRICE), store, "r"), Provider(lambda _: 1.0)
        one = await budget.reserve(model, ask("q"))
        two = await budget.reserve(model, ask("q", role="decomposer"))
        assert one.usd == pytest.approx(PRICE * one.tokens)
        held = one.tokens + two.tokens
        assert budget.free() == (pytest.approx(1.0 - PRICE * held), 900 - held)
        assert budget.free("solver").usd == pytest.approx(0.4 - PRICE * one.tokens)
        assert budget.free("decomposer").usd == pytest.approx(1.0 - PRICE * held)
        assert not budget.charge(one, "m", Usage(1, 100, 0, 50)) or one.tokens < 150
        budget.keep_unconfirmed(two)
        assert budget.total_usd() == pytest.approx(PRICE * (150 + two.tokens))
        assert budget.total_usd("solver") == pytest.approx(PRICE * 150)
        assert budget.free() == (pytest.approx(1.0 - PRICE * (150 + two.tokens)), 900 - 150 - two.tokens)
        assert budget.free("solver").usd == pytest.approx(0.4 - PRICE * 150)

    asyncio.run(main())


def test_an_overrun_is_more_dollars_or_more_tokens_than_were_reserved(store: Store) -> None:
    budget = Budget(BudgetConfig(usd=1.0), FlatPricing(PRICE), store, "r")

    def overruns(usd: float, tokens: int, used: int) -> bool:
        return budget.charge(Reservation("solver", usd, tokens), "m", Usage(1, used, 0, 0))

    assert not overruns(0.1, 100, 100)
    assert overruns(0.1, 100, 101)
    assert overruns(0.099, 200, 100)
    assert not overruns(0.2, 100, 99)


def test_a_reply_without_usage_counts_as_all_that_was_reserved(store: Store) -> None:
    budget = Budget(BudgetConfig(usd=1.0), FlatPricing(PRICE), store, "r")
    budget.charge(Reservation("solver", 0.1, 100), "m", Usage(1, 20, 0, 10, counted=1))
    assert (budget.spent["solver"], budget.unconfirmed["solver"]) == (
        (pytest.approx(0.03), 30),
        (pytest.approx(0.07), 70),
    )
    budget.charge(Reservation("solver", 0.1, 100), "m", Usage(1, 150, 0, 0, counted=1))
    assert budget.unconfirmed["solver"] == (pytest.approx(0.07), 70)


def test_a_call_that_just_fits_is_made_and_the_next_one_is_refused(store: Store) -> None:
    async def main() -> None:
        model = Provider(lambda _: 1.0)
        each = Budget(BudgetConfig(usd=1.0), FlatPricing(PRICE), store, "r").dearest(model, ask("q"))
        for caps in (
            BudgetConfig(usd=2 * each.usd),
            BudgetConfig(solver_usd=2 * each.usd),
            BudgetConfig(tokens=2 * each.tokens),
        ):
            budget = Budget(caps, FlatPricing(PRICE), store, "r")
            for _ in range(2):
                budget.keep_unconfirmed(await budget.reserve(model, ask("q")))
            with pytest.raises(BudgetReached):
                await budget.reserve(model, ask("q"))

    asyncio.run(main())


def test_an_allocation_shrinks_by_what_is_spent_from_it_and_the_rest_comes_back(store: Store) -> None:
    budget = Budget(BudgetConfig(usd=10.0, tokens=1000), FlatPricing(PRICE), store, "r")
    budget.allocate("shard", {"decomposer": Amount(1.0, 100), "solver": Amount(3.0, 300)})
    assert budget.free() == (pytest.approx(6.0), 600)
    assert budget.held["solver"].usd == pytest.approx(3.0)
    budget.spent_from("shard", {"solver": Amount(0.5, 50)})
    assert budget.free() == (pytest.approx(6.0), 600)
    assert (budget.held["solver"].usd, budget.held["decomposer"].usd) == (pytest.approx(2.5), pytest.approx(1.0))
    budget.spent_from("shard", {"decomposer": Amount(1.5, 10)})  # beyond its own amount, it takes of the other role's
    assert (budget.held["decomposer"].usd, budget.held["solver"].usd) == (pytest.approx(0.0), pytest.approx(2.0))
    budget.return_allocation("shard", {"solver": Amount(0.25, 40)})
    assert budget.total_usd() == pytest.approx(2.0)
    assert budget.free() == (pytest.approx(10.0 - 2.0 - 0.25), 1000 - 60 - 40)
    assert budget.price_all([]) == (0.0, 0)


def test_a_cap_in_tokens_alone_reserves_no_dollars(store: Store) -> None:
    """Models without a price may be used under it."""
    ask = Request((Message("user", "How many?"),), "solver", max_tokens=10)
    tokens_only = Budget(BudgetConfig(tokens=10_000), FlatPricing(PRICE, "openai:paid"), store, "r")
    held = tokens_only.dearest(Provider(lambda _: 1.0), ask)
    assert held == Reservation("solver", 0.0, input_bound(ask) + 10)
    priced = Budget(BudgetConfig(usd=1.0, tokens=10_000), FlatPricing(PRICE), store, "r")
    assert priced.dearest(Provider(lambda _: 1.0), ask).usd == pytest.approx(PRICE * held.tokens)
