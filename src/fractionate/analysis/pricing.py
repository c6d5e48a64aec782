"""Dollars from raw usage, at prices that are named: the user's, a dated table's, or a machine's by the hour.

Usage is stored raw and priced when it is reported, so a price can be fixed without another call. A price that is not
known is None throughout, never 0: an unknown cost must not look like a free one.

A local model is priced by its tokens: the machine's price by the hour, at the throughput measured for its base model
(`models/local/throughput.py`). The wall time of its batches is no part of it: that depends on the neighbours in a batch
and on what else the machine was doing, and would make of one slow batch many dear questions.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from fractionate.config import Config, PriceConfig
from fractionate.config.addresses import TOOL, find_for, is_on_servers, split_name, split_tools
from fractionate.types import Throughput, Usage

if TYPE_CHECKING:
    from datetime import datetime

    from genai_prices.types import ModelPrice

MILLION = 1e6
BATCH_SHARE = 0.5
"""What a call through the batch endpoint costs of a direct one (https://platform.openai.com/docs/guides/batch)."""
_CHECKED = re.compile(r"\b(?:checked|verified|as of|updated)\b[^.;]*?(\d{4}-\d{2}-\d{2})", re.IGNORECASE)


@dataclass(frozen=True)
class _Rates:
    """Dollars per million tokens and per hour; None is not known. `table` replaces them by the call's size."""

    source: str
    input: float | None = None
    cached: float | None = None
    output: float | None = None
    per_hour: float | None = None
    per_call: float = 0.0
    throughput: Throughput | None = None
    table: ModelPrice | None = None
    share: float = 1.0
    """Of the table's prices: half for calls through the batch endpoint."""


class Pricing:
    """The prices of one run. User prices (by exact model name) win over the genai-prices table (offline data only)."""

    def __init__(
        self,
        prices: Mapping[str, PriceConfig] | None = None,
        batched: Collection[str] = (),
        throughput: Mapping[str, Throughput] | None = None,
        tools: Mapping[str, float] | None = None,
    ) -> None:
        """`batched` names the models that are called through the batch endpoint, at half the table's price.

        `throughput` is that of local base models, by name, where it was measured; `tools` the dollars of a tool's call.
        """
        self._tools = dict(tools or {})
        self._prices = dict(prices or {})
        self._batched = frozenset(batched)
        self._throughput = dict(throughput or {})
        self._rates: dict[str, _Rates] = {}

    @classmethod
    def of(cls, config: Config, throughput: Mapping[str, Throughput] | None = None) -> Pricing:
        """Return the prices that a config states."""
        batched = [name for name, options in config.models.options.items() if options.batch]
        tools = {name: tool.usd_per_call for name, tool in config.tools.items()}
        return cls(config.prices, batched, throughput, tools)

    def usd(self, model_name: str, usage: Usage) -> float | None:
        """Return the dollars of one or more calls of a model, ≥ 0, or None where no price is known.

        Cached input is priced apart from the rest of the input. No calls cost nothing, whatever the model. Where a
        table's price depends on the size of a call, the mean size of these calls decides.
        """
        tokens = self.by_tokens(model_name, usage)
        machine = self.by_machine(model_name, usage)
        return None if tokens is None or machine is None else tokens + machine

    def by_tokens(self, model_name: str, usage: Usage) -> float | None:
        """Return the dollars charged by the token or the call, None where such a price is not known."""
        if usage.calls == 0 and usage.input_tokens == 0 and usage.output_tokens == 0:
            return 0.0
        rates = _for_size(self._of(model_name), usage)
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        parts = (
            _product(rates.input, (usage.input_tokens - cached) / MILLION),
            _product(rates.input if rates.cached is None else rates.cached, cached / MILLION),
            _product(rates.output, usage.output_tokens / MILLION),
            rates.per_call * usage.calls,
        )
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    def by_machine(self, model_name: str, usage: Usage) -> float | None:
        """Return the dollars charged for machine time, None where it has a price and its throughput is not known."""
        rates = self._of(model_name)
        if not rates.per_hour or (usage.input_tokens == 0 and usage.output_tokens == 0):
            return 0.0
        return rates.per_hour * rates.throughput.hours(usage) if rates.throughput else None

    def by_hours(self, model_name: str, hours: float) -> float | None:
        """Return the dollars of so many hours of the machine that a model runs on, None where it has no price."""
        return _product(self._of(model_name).per_hour, hours)

    def per_hour(self, model_name: str) -> float:
        """Return the dollars per machine hour that a model is charged by, 0 where it is not."""
        return self._of(model_name).per_hour or 0.0

    def throughput(self, model_name: str) -> Throughput | None:
        """Return the throughput that a model's machine time is priced by, None where none is."""
        rates = self._of(model_name)
        return rates.throughput if rates.per_hour else None

    def machines(self, model_names: Iterable[str]) -> list[str]:
        """Return the base models of these whose machine has a price by the hour: those to measure the throughput of."""
        local = [split_tools(name)[0] for name in model_names if name.startswith("local:")]
        return list(dict.fromkeys(_base(name) for name in local if self._of(name).per_hour))

    def source(self, model_name: str) -> str:
        """Return where a model's price comes from, in words, with the table's version and date."""
        return self._of(model_name).source

    def _of(self, model_name: str) -> _Rates:
        if model_name.endswith("]"):
            model_name = split_tools(model_name)[0]  # what tools cost comes apart
        if model_name not in self._rates:
            self._rates[model_name] = self._look_up(model_name)
        return self._rates[model_name]

    def _look_up(self, name: str) -> _Rates:
        if name.startswith(TOOL):
            per_call = self._tools.get(name.removeprefix(TOOL), 0.0)
            said = f"${per_call:g} per call (usd_per_call)" if per_call else "no price: its calls are free"
            return _Rates(said, 0.0, 0.0, 0.0, 0.0, per_call)
        given = self._given(name)
        if given is not None:
            return _user_rates(name, given, self._throughput.get(_base(name)))
        if not name:
            return _Rates("no model", 0.0, 0.0, 0.0, 0.0)
        if name.startswith("local:"):
            return _Rates(
                f'no price known: give prices."{_base(name)}".per_hour, what its machine costs (0 if it is free)'
            )
        if name.startswith("echo:"):
            return _Rates("a fake model, at zero", 0.0, 0.0, 0.0, 0.0)
        model, url = _table_reference(name)
        found = _find(model, url) if model else None
        if found is not None:
            version, date = table_version()
            batched = name in self._batched
            said = f"genai-prices {version}, updated {date}: {_said(found)}" + ", half of it (batch endpoint)" * batched
            return _Rates(said, per_hour=0.0, table=found, share=BATCH_SHARE if batched else 1.0)
        return _Rates(f'no price known: give prices."{name}".input_per_million and .output_per_million', per_hour=0.0)

    def _given(self, name: str) -> PriceConfig | None:
        """Return the user's price of this name, of a list of servers that it shares, or of the base of an adapter."""
        given = find_for(self._prices, name)
        return self._prices.get(_base(name)) if given is None and name.startswith("local:") else given


def table_version() -> tuple[str, str]:
    """Return the version of the genai-prices table and its date: the newest day it says a price was checked on."""
    from importlib.metadata import version

    return version("genai-prices"), _table_date()


def _base(name: str) -> str:
    return name.split("@", 1)[0]


def _user_rates(name: str, price: PriceConfig, throughput: Throughput | None) -> _Rates:
    tokens_priced = price.input_per_million is not None or price.output_per_million is not None
    local = name.startswith(("local:", "echo:"))
    missing = 0.0 if local else None
    said = [
        f"${value:g} per {what}"
        for value, what in (
            (price.input_per_million, "million input tokens"),
            (price.cached_input_per_million, "million cached input tokens"),
            (price.output_per_million, "million output tokens"),
            (price.per_hour, "machine hour"),
        )
        if value is not None
    ]
    source = "user prices: " + (", ".join(said) or "none given")
    if price.per_hour:
        source += _said_of_machine(local, tokens_priced, throughput)
    return _Rates(
        source,
        missing if price.input_per_million is None else price.input_per_million,
        price.cached_input_per_million,
        missing if price.output_per_million is None else price.output_per_million,
        price.per_hour if local else 0.0,
        throughput=throughput,
    )


def _said_of_machine(local: bool, tokens_priced: bool, throughput: Throughput | None) -> str:
    if not local:
        return "" if tokens_priced else " (machine time is known of local models only, so this cost is unknown)"
    if throughput is None:
        return ", its throughput not measured yet (run fractionate evaluate), so this cost is unknown"
    rates = (throughput.input_per_s, throughput.output_per_s)
    reading, writing = (len(each) / sum(1 / rate for rate in each) for each in rates)
    unit = "the GPU" if throughput.device.startswith("cuda") else f"each of {throughput.cores} cores"
    return (
        f", at {reading:,.0f} tokens read and {writing:,.0f} written per second by {unit}, in batches of "
        f"{throughput.batch_size} (measured {len(throughput.input_per_s)} times)"
    )


def _product(rate: float | None, amount: float) -> float | None:
    """Return rate × amount; an unknown rate of nothing is nothing."""
    if amount == 0:
        return 0.0
    return None if rate is None else rate * amount


def _for_size(rates: _Rates, usage: Usage) -> _Rates:
    if rates.table is None:
        return rates
    size = usage.input_tokens / max(usage.calls, 1)
    return _Rates(
        rates.source,
        _product(_tier(rates.table.input_mtok, size), rates.share),
        _product(_tier(rates.table.cache_read_mtok, size), rates.share),
        _product(_tier(rates.table.output_mtok, size), rates.share),
        rates.per_hour,
    )


def _said(table: ModelPrice) -> str:
    """Return a table's token prices in words, those of the smallest calls where they differ by size."""
    named = (("input", table.input_mtok), ("cached input", table.cache_read_mtok), ("output", table.output_mtok))
    return ", ".join(
        f"${_tier(price, 0):g} per million {what} tokens" + (", more for long calls" if hasattr(price, "tiers") else "")
        for what, price in named
        if price is not None
    )


def _tier(price: object, size: float) -> float | None:
    """Return the price of a call of `size` input tokens: crossing a tier's start prices the whole call at that tier."""
    from genai_prices.types import TieredPrices

    if price is None:
        return None
    if not isinstance(price, TieredPrices):
        return float(str(price))
    reached = [tier.price for tier in price.tiers if size > tier.start]
    return float(reached[-1] if reached else price.base)


def _table_reference(name: str) -> tuple[str, str]:
    """Return (model, URL of the server) of a remote model name; the URL is "" for OpenAI's own."""
    if name.startswith("openai:"):
        return name.removeprefix("openai:"), ""
    if is_on_servers(name):
        addresses, model = split_name(name)
        return model, addresses[0]
    return "", ""


def _find(model: str, url: str) -> ModelPrice | None:
    """Return the table's price of a model on its date, from the data in the installed package, or None."""
    from genai_prices.data_snapshot import get_snapshot

    try:
        _, info = get_snapshot().find_provider_model(model, None, None if url else "openai", url or None)
    except LookupError:
        return None
    # The price of the table's own day, not of now: the same cells must give the same report tomorrow.
    return info.get_prices(_table_noon())


def _table_noon() -> datetime:
    from datetime import UTC, datetime

    return datetime.fromisoformat(f"{_table_date()}T12:00:00").replace(tzinfo=UTC)


@lru_cache(maxsize=1)
def _table_date() -> str:
    return max(str(date) for comment in _comments() for date in _CHECKED.findall(comment))


def _comments() -> Iterator[str]:
    from genai_prices.data_snapshot import get_snapshot

    for provider in get_snapshot().providers:
        yield provider.price_comments or ""
        for model in provider.models:
            yield model.price_comments or ""
