"""A server's budgets to the cent, and the very byte at which a stream has passed its reservation."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from fractionate.analysis.pricing import Pricing
from fractionate.config import PriceConfig
from fractionate.errors import UsageError
from fractionate.models.base import SingleModel
from fractionate.models.faults import PermanentFault
from fractionate.serve.errors import Refusal
from fractionate.serve.ledger import SERVER, Ledger, Reservation
from fractionate.types import Completion, Message, Request, Usage

NAME = "openai:m"
ASKED = Request((Message("user", "How far is it?"),), "solver", max_tokens=10)


class Priced(SingleModel):
    """A model whose dearest call takes 40 tokens of input and 10 of output."""

    paid = True
    name = identity = NAME

    def most_usage(self, request: Request) -> Usage:
        return Usage(1, 40, 0, 10)

    async def complete(self, request: Request) -> Completion:
        raise NotImplementedError


def ledger_of(path: Path, usd: float | None, per_key: float | None = None, **price: Any) -> Ledger:
    rates = {"input_per_million": 1000.0, "cached_input_per_million": 500.0, "output_per_million": 6000.0, **price}
    return Ledger(path / "ledger.sqlite", Pricing({NAME: PriceConfig(**rates)}), usd, per_key)


def accounts(ledger: Ledger) -> dict[str, tuple[float, float]]:
    with sqlite3.connect(ledger.path) as connection:
        rows = connection.execute("SELECT name, spent, held FROM accounts").fetchall()
    return {name: (pytest.approx(spent, abs=1e-9), pytest.approx(held, abs=1e-9)) for name, spent, held in rows}


def test_a_stream_is_read_until_eight_bytes_a_token_and_64_more() -> None:
    for text, most in (("a", 10 * 8 + 64), ("é", (10 * 8 + 64) // 2)):
        reserved = Reservation("a", NAME, 1.0, 10)
        reserved.take(text * most)
        assert (reserved.read, reserved.excess) == (144, None)
        with pytest.raises(PermanentFault, match="more than the 10 tokens") as fault:
            reserved.take(text)
        assert (fault.value.cause, fault.value.maybe_paid) == ("max_tokens ignored", True)
        assert reserved.excess == Usage(1, 0, 0, (145 if text == "a" else 146) // 4)


@pytest.mark.parametrize(("cached", "usd"), [(500.0, 0.04 + 0.06), (2000.0, 0.08 + 0.06)])
def test_a_call_reserves_its_dearest_outcome_for_the_server_and_its_key(
    tmp_path: Path, cached: float, usd: float
) -> None:
    ledger = ledger_of(tmp_path, 1.0, 1.0, cached_input_per_million=cached)
    held = ledger.reserve("key-a", Priced(), ASKED)
    assert (held.account, held.model, held.usd, held.max_tokens) == ("key-a", NAME, pytest.approx(usd), 10)
    assert accounts(ledger) == {SERVER: (0.0, usd), "key-a": (0.0, usd)}
    assert ledger.spent() == ledger.spent("key-a") == pytest.approx(usd)
    assert ledger.spent("key-b") == 0.0
    ledger.charge(held, 0.03)
    assert accounts(ledger) == {SERVER: (0.03, 0.0), "key-a": (0.03, 0.0)}
    ledger.close()


@pytest.mark.parametrize(
    ("usd", "estimated", "cost"),
    [(0.03, False, 0.03), (None, False, 0.1), (0.03, True, 0.1), (0.15, True, 0.15), (0.15, False, 0.15)],
)
def test_a_reply_costs_what_is_reported_and_at_least_its_reservation_where_nothing_is(
    tmp_path: Path, usd: float | None, estimated: bool, cost: float
) -> None:
    ledger = ledger_of(tmp_path, 1.0)
    ledger.charge(ledger.reserve("key-a", Priced(), ASKED), usd, estimated=estimated)
    assert ledger.spent() == pytest.approx(cost)
    ledger.charge(None, 5.0)
    assert ledger.spent() == pytest.approx(cost)
    ledger.close()


def test_text_beyond_a_reservation_costs_on_top_of_it(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, 9.0)
    held = ledger.reserve("key-a", Priced(), ASKED)
    held.excess = Usage(1, 0, 0, 50)
    ledger.charge(held, None)
    assert ledger.spent() == pytest.approx(0.1 + 50 * 0.006)
    assert ledger.reserve("key-b", Priced(), ASKED).usd == pytest.approx(0.4), "the dearest call that was seen"
    ledger.close()


def test_a_free_model_reserves_and_costs_nothing(tmp_path: Path) -> None:
    free = dict.fromkeys(("input_per_million", "cached_input_per_million", "output_per_million"), 0.0)
    ledger = ledger_of(tmp_path, 9.0, **free)
    held = ledger.reserve("key-a", Priced(), ASKED)
    assert held.usd == 0.0
    held.excess = Usage(1, 0, 0, 50)
    ledger.charge(held, None)
    assert ledger.spent() == 0.0
    ledger.close()


def test_the_dearest_call_is_remembered_by_model_and_by_the_file(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, 9.0)
    for cost, next_one in ((0.1, 0.1), (0.1 + 5e-10, 0.1), (0.2, 0.2), (0.15, 0.2), (0.25, 0.25)):
        ledger.charge(ledger.reserve("key-a", Priced(), ASKED), cost)
        held = ledger.reserve("key-a", Priced(), ASKED)
        assert held.usd == pytest.approx(next_one)
        ledger.charge(held, 0.0)
    ledger.close()
    again = ledger_of(tmp_path, 9.0)
    assert again.reserve("key-a", Priced(), ASKED).usd == pytest.approx(0.25)
    assert again.spent() == pytest.approx(0.8 + 0.25)
    again.close()


def test_a_lesser_overrun_does_not_make_the_dearest_one_forgotten(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, 9.0)
    in_flight = [ledger.reserve("key-a", Priced(), ASKED) for _ in range(2)]
    for held, cost in zip(in_flight, (0.25, 0.15), strict=True):
        ledger.charge(held, cost)
    assert ledger.reserve("key-a", Priced(), ASKED).usd == pytest.approx(0.25)
    ledger.close()


def test_a_budget_may_be_used_to_its_last_cent(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, 0.3, 0.2)
    for account in ("key-a", "key-a", "key-b"):
        ledger.check_left(account)
        ledger.charge(ledger.reserve(account, Priced(), ASKED), None)
    for account, said in (("key-a", "--budget-usd 0.3"), ("key-b", "--budget-usd 0.3")):
        with pytest.raises(Refusal, match=said) as refused:
            ledger.reserve(account, Priced(), ASKED)
        assert (refused.value.status, refused.value.code) == (402, "budget_reached")
        with pytest.raises(Refusal, match=r"0\.3000 are spent"):
            ledger.check_left(account)
    ledger.close()
    by_key = ledger_of(tmp_path, None, 0.2)
    with pytest.raises(Refusal, match=r"--budget-usd-per-key 0\.2"):
        by_key.reserve("key-a", Priced(), ASKED)
    assert accounts(by_key)[SERVER] == (0.3, 0.0), "what is refused reserves nothing, of the server either"
    by_key.check_left("key-b")
    by_key.reserve("key-b", Priced(), ASKED)
    by_key.close()


def test_a_budget_of_nothing_admits_free_calls_alone(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, 0.0)
    with pytest.raises(Refusal, match="used up"):
        ledger.reserve("key-a", Priced(), ASKED)
    free = Priced()
    free.paid = False
    assert ledger.reserve("key-a", free, ASKED) is None
    ledger.close()


def test_without_a_budget_nothing_is_reserved_and_no_file_is_made(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, None)
    assert not ledger.active
    assert ledger.reserve("key-a", Priced(), ASKED) is None
    ledger.check_left("key-a")
    assert ledger.spent() == 0.0
    assert not ledger.path.exists()
    ledger.close()
    assert ledger_of(tmp_path, None, 1.0).active


def test_a_model_needs_a_price_only_where_a_budget_is_kept(tmp_path: Path) -> None:
    unknown = Priced()
    unknown.name = "openai:nobody-has-heard-of-it"
    for usd, paid, refused in ((1.0, True, True), (None, True, False), (1.0, False, False)):
        ledger = ledger_of(tmp_path, usd)
        unknown.paid = paid
        if refused:
            with pytest.raises(UsageError, match="no price is known"):
                ledger.check_priced(unknown)
        else:
            ledger.check_priced(unknown)
        ledger.check_priced(Priced())
        ledger.close()


def test_a_price_is_known_where_both_directions_are(tmp_path: Path) -> None:
    for known in ("input_per_million", "output_per_million"):
        ledger = Ledger(tmp_path / "l.sqlite", Pricing({"openai:x-y-z": PriceConfig(**{known: 1.0})}), 1.0, None)
        half = Priced()
        half.name = "openai:x-y-z"
        with pytest.raises(UsageError, match="no price is known"):
            ledger.check_priced(half)
        ledger.close()


def test_a_file_that_cannot_be_written_lets_no_call_leave(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, 1.0)
    held = ledger.reserve("key-a", Priced(), ASKED)
    ledger._connection.execute("DROP TABLE accounts")
    with pytest.raises(Refusal, match="cannot be written") as refused:
        ledger.reserve("key-a", Priced(), ASKED)
    assert (refused.value.status, refused.value.code) == (503, "no_ledger")
    with pytest.raises(Refusal, match="cannot be written"):
        ledger.charge(held, 0.1)
    ledger.close()
