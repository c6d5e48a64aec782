"""The forecast of a run: calls, tokens, dollars and time of every stage, before anything is sent.

Calls that are stored already cost nothing and are counted apart. Of the others there are two figures. What is expected:
prompts counted with the model's own tokenizer where it is at hand, else estimated, and replies as long as the model's
stored replies to such prompts were, else `EXPECTED_SHARE` of `max_tokens`. And the most it can be, a bound: every call
at the amount that a budget reserves for it, in prompts that have grown by replies of full length. The bound knows of no
call that is lost on its way and sent again; the budget's cap does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fractionate.calls.budget import Budget, Pricing, no_price
from fractionate.calls.store import Store
from fractionate.config import BudgetConfig, LimitsConfig
from fractionate.errors import FractionateError, UsageError
from fractionate.models.base import Model
from fractionate.models.tokens import FILLER, FILLER_BYTES, TokenCounter, counter_for, estimate_messages
from fractionate.types import ROLES, CallRole, Request, Usage

EXPECTED_SHARE = 0.4
"""Share of `max_tokens` that a reply is expected to fill where no reply of the model to such a prompt is stored."""
UNLIMITED = 1_000_000
"""Calls at once that stand for "as many as are allowed"."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage's calls to one model. `calls` are those expected still to be made; tokens are totals over them.

    `at_once` is how many of them the model takes together, whatever the user allows. `most` counts the calls that there
    can be by what each can use; None where that cannot be known.
    """

    name: str
    model: str
    role: CallRole
    paid: bool
    calls: int
    stored: int
    input_tokens: int
    expected_output_tokens: int
    most_output_tokens: int
    counted_with: str
    seconds_a_call: float
    at_once: int
    most: Mapping[Usage, int] | None = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class StageForecast:
    """A stage with its dollars (None where no price is known) and seconds."""

    stage: Stage
    expected_usd: float | None
    most_usd: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """Every stage, and their sums."""

    stages: tuple[StageForecast, ...]

    @property
    def calls(self) -> int:
        """Calls still to be made."""
        return sum(entry.stage.calls for entry in self.stages)

    @property
    def seconds(self) -> float:
        """Seconds of the model calls, one stage after another."""
        return sum(entry.seconds for entry in self.stages)

    def tokens(self) -> int:
        """Return the tokens of paid calls that are expected, input and output."""
        return sum(
            entry.stage.input_tokens + entry.stage.expected_output_tokens for entry in self.stages if entry.stage.paid
        )

    def usd(self, role: CallRole | None = None) -> float | None:
        """Return the dollars expected (of one role, if given); None where a paid call has no known price."""
        return _total((entry, entry.expected_usd) for entry in self.stages if role in (None, entry.stage.role))

    @property
    def most_usd(self) -> float | None:
        """Dollars at most; None where a paid call has no known price or no bound."""
        return _total((entry, entry.most_usd) for entry in self.stages)

    @property
    def without_price(self) -> list[str]:
        """The models of paid calls that no price is known for."""
        found = (entry.stage.model for entry in self.stages if entry.expected_usd is None and entry.stage.paid)
        return list(dict.fromkeys(found))

    def check(self, caps: BudgetConfig, spent: Budget | None = None) -> None:
        """Refuse to start where what is spent and expected passes a cap.

        Raises FractionateError that names cap and fix, UsageError where a dollar cap meets a model without a price.
        """
        dollars: list[tuple[str, float | None, CallRole | None]] = [("usd", caps.usd, None)]
        dollars += [(f"{role}_usd", getattr(caps, f"{role}_usd"), role) for role in ROLES]
        for name, cap, role in dollars:
            if cap is None:
                continue
            expected = self.usd(role)
            if expected is None:
                raise no_price(self.without_price[0])
            if expected > 0:
                _check(f"budget.{name}", cap, expected, spent.total_usd(role) if spent else 0.0, "${:.4f}")
        if caps.tokens is not None and self.tokens():
            _check("budget.tokens", caps.tokens, self.tokens(), spent.total_tokens() if spent else 0, "{:,.0f} tokens")

    def as_json(self) -> dict[str, Any]:
        """Return the stages and their sums as JSON values; None is not known."""
        stages = [
            {
                "stage": {one.name: getattr(entry.stage, one.name) for one in fields(Stage) if one.name != "most"},
                "expected_usd": entry.expected_usd,
                "most_usd": entry.most_usd,
                "seconds": entry.seconds,
            }
            for entry in self.stages
        ]
        totals = {"calls": self.calls, "expected_usd": self.usd(), "most_usd": self.most_usd, "seconds": self.seconds}
        return {"stages": stages, **totals}

    def lines(self) -> list[str]:
        """Return a table for a person, its totals last."""
        head = (
            f"{'stage':<14} {'calls':>9} {'stored':>9} {'tokens in':>12} {'tokens out':>12} {'dollars':>19} {'time':>9}"
        )
        rows = [head]
        for entry in self.stages:
            stage = entry.stage
            counts = (
                f"{stage.calls:>9,} {stage.stored:>9,} {stage.input_tokens:>12,} {stage.expected_output_tokens:>12,}"
            )
            cost = f"{_dollars(entry):>19} {_clock(entry.seconds):>9}"
            rows.append(f"{stage.name:<14} {counts} {cost}  {stage.model} ({stage.role})")
        counted = sorted({entry.stage.counted_with for entry in self.stages if entry.stage.calls})
        rows.append(
            f"{'all':<14} {self.calls:>9,} calls, {self._total_line()}, {_clock(self.seconds)}"
            + (f"; tokens by {', '.join(counted)}" if counted else "")
        )
        return rows

    def _total_line(self) -> str:
        expected, most = self.usd(), self.most_usd
        if expected is None:
            return f"dollars unknown (no price known for {', '.join(self.without_price)})"
        return f"${expected:.4f} expected, " + (f"${most:.4f} at most" if most is not None else "without a bound")


def plan_stage(
    name: str,
    model: Model,
    requests: Iterable[Request],
    store: Store | None = None,
    *,
    longest: Iterable[Request] | None = None,
    expected_output: Callable[[Request], float] | None = None,
    seconds_a_call: float | None = None,
    count: tuple[TokenCounter, str] | None = None,
) -> Stage:
    """Count a stage's calls and tokens. Equal requests count once.

    `longest` are the requests that there can be at most (`requests` if absent): FILLER in them counts as its bytes.
    `expected_output` returns the tokens that a request's reply is expected to have, where that is known better than by
    EXPECTED_SHARE; `seconds_a_call` stands in for the guess, and `count` for the model's tokenizer.
    """
    counter, counted_with = count or counter_for(model.name)
    missing, stored = _apart(model, requests, store)
    longest = missing if longest is None else _apart(model, longest, store)[0]
    expected = sum(
        min(request.max_tokens, expected_output(request) if expected_output else EXPECTED_SHARE * request.max_tokens)
        for request in missing
    )
    role: CallRole = next((request.role for request in (*missing, *longest)), "solver")
    if seconds_a_call is None:
        seconds_a_call = model.expected_seconds(expected / len(missing) if missing else 0.0)
    return Stage(
        name,
        model.name,
        role,
        model.paid,
        len(missing),
        stored,
        sum(estimate_messages(request.messages, counter) for request in missing),
        round(expected),
        sum(request.max_tokens for request in longest),
        counted_with,
        seconds_a_call,
        model.at_once(UNLIMITED),
        _most(model, longest),
    )


def forecast(stages: Sequence[Stage], limits: LimitsConfig, pricing: Pricing | None = None) -> Forecast:
    """Price and time the stages. At most `limits.concurrency` calls are under way together."""
    return Forecast(tuple(_one(stage, limits, pricing) for stage in stages))


def _apart(model: Model, requests: Iterable[Request], store: Store | None) -> tuple[list[Request], int]:
    """Return the different requests that are not stored, and how many are."""
    seen: dict[str, Request] = {model.key(request): request for request in requests}
    if store is None:
        return list(seen.values()), 0
    stored = store.get_many(list(seen))
    missing = [
        request for key, request in seen.items() if key not in stored and store.find(model.other_keys(request)) is None
    ]
    return missing, len(seen) - len(missing)


def _most(model: Model, requests: Iterable[Request]) -> Mapping[Usage, int] | None:
    """Count requests by the most that each can use; None where a model cannot say."""
    most = Counter[Usage]()
    try:
        for request in requests:
            usage = model.most_usage(request)
            fillers = sum(message.content.count(FILLER) for message in request.messages)
            more = fillers * (FILLER_BYTES - len(FILLER.encode()))
            most[replace(usage, input_tokens=usage.input_tokens + more) if more else usage] += 1
    except UsageError:
        return None
    return most


def _one(stage: Stage, limits: LimitsConfig, pricing: Pricing | None) -> StageForecast:
    seconds = stage.calls * stage.seconds_a_call / max(1, min(stage.at_once, limits.concurrency, stage.calls))
    if stage.paid and limits.requests_per_minute:
        seconds = max(seconds, 60 * stage.calls / limits.requests_per_minute)
    if stage.paid and limits.tokens_per_minute:
        tokens = stage.input_tokens + stage.expected_output_tokens
        seconds = max(seconds, 60 * tokens / limits.tokens_per_minute)
    return StageForecast(stage, _expected_usd(stage, pricing), _most_usd(stage, pricing), seconds)


def _expected_usd(stage: Stage, pricing: Pricing | None) -> float | None:
    if stage.calls == 0 or (pricing is None and not stage.paid):
        return 0.0
    # One average call priced as often as there are calls: tiers go by the size of a call.
    average = Usage(1, round(stage.input_tokens / stage.calls), 0, round(stage.expected_output_tokens / stage.calls))
    each = None if pricing is None else pricing.usd(stage.model, average)
    return None if each is None else each * stage.calls


def _most_usd(stage: Stage, pricing: Pricing | None) -> float | None:
    if stage.most is not None and (not stage.most or (pricing is None and not stage.paid)):
        return 0.0
    if stage.most is None or pricing is None:
        return None
    total = 0.0
    for usage, calls in stage.most.items():
        # Cached input may cost more than fresh, or less.
        each = [
            pricing.usd(stage.model, one) for one in (usage, replace(usage, cached_input_tokens=usage.input_tokens))
        ]
        known = [usd for usd in each if usd is not None]
        if len(known) < len(each):
            return None
        total += calls * max(known)
    return total


def _total(dollars: Iterable[tuple[StageForecast, float | None]]) -> float | None:
    total = 0.0
    for entry, usd in dollars:
        if usd is None and entry.stage.paid:
            return None
        total += usd or 0.0
    return total


def _check(name: str, cap: float, expected: float, spent: float, form: str) -> None:
    if spent + expected <= cap:
        return
    already = f" beyond {form.format(spent)} already spent or reserved" if spent else ""
    raise FractionateError(
        f"the forecast of {form.format(expected)}{already} passes {name} = {cap:g}: raise it, take fewer rows "
        "(data.test = NAME@START-END), choose a cheaper model, or add --start-anyway to go as far as the cap; nothing "
        "has been sent"
    )


def _dollars(entry: StageForecast) -> str:
    if entry.expected_usd is None:
        return "no price known" if entry.stage.paid or not entry.stage.model.startswith("local:") else "machine time"
    return f"{entry.expected_usd:.4f}–" + (f"{entry.most_usd:.4f}" if entry.most_usd is not None else "?")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
