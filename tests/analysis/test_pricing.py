"""Dollars come from raw usage and a price that is named; what is not known is None, never 0."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractionate.analysis.pricing import Pricing, table_version
from fractionate.config import PriceConfig
from fractionate.types import Throughput, Usage

USAGE = Usage(calls=2, input_tokens=1_000_000, cached_input_tokens=400_000, output_tokens=500_000, compute_s=1800)
counts = st.integers(0, 10**6)


def priced(name: str, **price: float) -> Pricing:
    return Pricing({name: PriceConfig(**price)})


def test_user_prices_charge_cached_input_apart():
    pricing = priced("openai:x", input_per_million=1.0, cached_input_per_million=0.25, output_per_million=4.0)
    assert pricing.usd("openai:x", USAGE) == pytest.approx(0.6 + 0.1 + 2.0)
    assert "user prices" in pricing.source("openai:x")


def test_cached_input_costs_as_input_where_no_other_price_is_given():
    assert priced("openai:x", input_per_million=1.0, output_per_million=4.0).usd("openai:x", USAGE) == pytest.approx(3)


def test_user_prices_win_over_the_table():
    pricing = priced("openai:gpt-4o-mini", input_per_million=7.0, output_per_million=0.0)
    assert pricing.usd("openai:gpt-4o-mini", USAGE) == pytest.approx(7.0)


def test_the_table_prices_openai_models_with_its_version_and_date_and_no_network(monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a price lookup reached for the network")

    monkeypatch.setattr(socket, "socket", refuse)
    pricing = Pricing({})
    found = pricing.usd("openai:gpt-4o-mini", Usage(1, 1_000_000, 0, 1_000_000))
    assert found == pytest.approx(0.75)
    version, date = table_version()
    assert version in pricing.source("openai:gpt-4o-mini")
    assert f"updated {date}" in pricing.source("openai:gpt-4o-mini")


def test_a_price_by_size_of_call_follows_the_mean_call():
    """The table prices long calls higher: ten short calls must not be taken for one long one."""
    from genai_prices.types import ModelPrice, Tier, TieredPrices

    from fractionate.analysis.pricing import _for_size, _Rates

    table = ModelPrice(input_mtok=TieredPrices(base=1, tiers=[Tier(start=200_000, price=2)]), output_mtok=3)
    rates = _Rates("table", table=table)
    assert _for_size(rates, Usage(calls=10, input_tokens=1_000_000)).input == 1.0
    assert _for_size(rates, Usage(calls=1, input_tokens=1_000_000)).input == 2.0


@pytest.mark.parametrize("name", ["openai:no-such-model", "recorded:some/rows.jsonl", "http://127.0.0.1:9/v1#mine"])
def test_an_unknown_price_is_none_and_says_what_to_give(name):
    pricing = Pricing({})
    assert pricing.usd(name, USAGE) is None
    assert "no price known" in pricing.source(name)
    assert name in pricing.source(name)


def test_half_a_user_price_leaves_the_cost_unknown_only_where_the_missing_half_counts():
    pricing = priced("recorded:x", output_per_million=2.0)
    assert pricing.usd("recorded:x", USAGE) is None
    assert pricing.usd("recorded:x", Usage(1, 0, 0, 1_000_000)) == pytest.approx(2.0)


SPEED = Throughput((1000.0, 1000.0), (250.0, 250.0), cores=2)
"""Reads 1,000 tokens per second and core, writes 250: USAGE takes 1,000 + 2,000 core-seconds."""


def test_local_models_without_a_price_are_unknown_not_free():
    assert Pricing({}).usd("local:org/m", USAGE) is None
    assert 'prices."local:org/m".per_hour' in Pricing({}).source("local:org/m@adapters/D-R")
    free = priced("local:org/m", per_hour=0.0)
    assert free.usd("local:org/m", USAGE) == 0.0, "a machine that costs nothing is stated to"


def test_a_machine_hour_is_charged_by_tokens_at_the_measured_throughput():
    by_hour = Pricing({"local:org/m": PriceConfig(per_hour=3.0)}, throughput={"local:org/m": SPEED})
    assert by_hour.usd("local:org/m", USAGE) == pytest.approx(3.0 * 3000 / 2 / 3600)
    assert by_hour.usd("local:org/m@adapters/D-R", USAGE) == by_hour.usd("local:org/m", USAGE), "a student runs on it"
    assert "1,000 tokens read and 250 written per second" in by_hour.source("local:org/m")
    unmeasured = priced("local:org/m", per_hour=3.0)
    assert unmeasured.usd("local:org/m", USAGE) is None
    assert "not measured yet" in unmeasured.source("local:org/m")


def test_neither_neighbours_nor_a_busy_machine_change_what_a_question_costs():
    by_hour = Pricing({"local:m": PriceConfig(per_hour=3.0)}, throughput={"local:m": SPEED})
    quiet, busy = Usage(1, 900, 0, 40, compute_s=0.1), Usage(1, 900, 700, 40, compute_s=60.0)
    assert by_hour.usd("local:m", quiet) == by_hour.usd("local:m", busy)


def test_an_adapters_own_price_wins_over_its_bases():
    prices = {"local:m": PriceConfig(per_hour=3.0), "local:m@a": PriceConfig(per_hour=1.0)}
    pricing = Pricing(prices, throughput={"local:m": SPEED})
    assert pricing.usd("local:m@a", USAGE) == pytest.approx(1.0 * 3000 / 2 / 3600)


def test_a_machine_price_of_a_remote_model_is_unknown_not_zero():
    pricing = priced("http://h/v1#m", per_hour=3.0)
    assert pricing.usd("http://h/v1#m", Usage(1, 100, 0, 100)) is None
    assert "local models only" in pricing.source("http://h/v1#m")


def test_no_calls_cost_nothing_whatever_the_model():
    for name in ("", "recorded:x", "openai:no-such-model", "openai:gpt-4o-mini"):
        assert Pricing({}).usd(name, Usage()) == 0.0
    assert Pricing({}).usd("echo:", USAGE) == 0.0


@given(counts, counts, counts, counts)
def test_dollars_add_up_over_calls(input_a, output_a, input_b, output_b):
    pricing = priced("openai:x", input_per_million=1.5, output_per_million=6.0)
    a, b = Usage(1, input_a, input_a // 2, output_a), Usage(1, input_b, 0, output_b)
    together = pricing.usd("openai:x", a + b)
    apart = (pricing.usd("openai:x", a) or 0) + (pricing.usd("openai:x", b) or 0)
    assert together == pytest.approx(apart)
