"""What a run will take, before it takes it: calls, tokens, dollars and time of every stage.

Requests that are stored already cost nothing and are counted apart. Tokens of prompts are counted with the model's own
tokenizer where it is at hand, else estimated; replies are unknown, so there are two figures: what is expected, and the
most it can be (every reply as long as `max_tokens` lets it).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fractionate.calls.budget import Pricing
from fractionate.calls.store import Store
from fractionate.config import BudgetConfig, LimitsConfig
from fractionate.errors import FractionateError
from fractionate.models.base import Model
from fractionate.models.tokens import TokenCounter, counter_for, estimate_messages
from fractionate.types import Request, Role, Usage

EXPECTED_SHARE = 0.4
"""Share of `max_tokens` a reply is expected to fill where nothing is known about its length."""
UNLIMITED = 1_000_000
"""Calls at once that stand for "as many as are allowed"."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage's calls to one model. `calls` are those still to be made; tokens are totals over them.

    `at_once` is how many of them the model takes together, whatever the user allows.
    """

    name: str
    model: str
    role: Role
    paid: bool
    calls: int
    stored: int
    input_tokens: int
    expected_output_tokens: int
    most_output_tokens: int
    counted_with: str
    seconds_a_call: float
    at_once: int


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
    def tokens(self) -> int:
        """Tokens of paid calls that are expected, input and output."""
        return sum(
            entry.stage.input_tokens + entry.stage.expected_output_tokens for entry in self.stages if entry.stage.paid
        )

    @property
    def seconds(self) -> float:
        """Seconds of the model calls, one stage after another."""
        return sum(entry.seconds for entry in self.stages)

    def usd(self, role: Role | None = None) -> float:
        """Return the dollars expected (of one role, if given); stages without a known price count nothing."""
        return sum(entry.expected_usd or 0.0 for entry in self.stages if role in (None, entry.stage.role))

    @property
    def most_usd(self) -> float:
        """Dollars if every reply is as long as it may be."""
        return sum(entry.most_usd or 0.0 for entry in self.stages)

    def check(self, caps: BudgetConfig) -> None:
        """Refuse to start where the forecast passes a cap: raises FractionateError that names cap and fix."""
        expected: list[tuple[str, float | None, float]] = [
            ("usd", caps.usd, self.usd()),
            ("decomposer_usd", caps.decomposer_usd, self.usd("decomposer")),
            ("solver_usd", caps.solver_usd, self.usd("solver")),
            ("tokens", caps.tokens, float(self.tokens)),
        ]
        for name, cap, amount in expected:
            if cap is not None and amount > cap:
                shown = f"{amount:,.0f} tokens" if name == "tokens" else f"${amount:.4f}"
                raise FractionateError(
                    f"the forecast of {shown} passes budget.{name} = {cap:g}: raise it, take fewer rows "
                    "(data.test = NAME@START-END), or choose a cheaper model; nothing has been sent"
                )

    def lines(self) -> list[str]:
        """Return a table for a person, its totals last."""
        head = (
            f"{'stage':<14} {'calls':>9} {'stored':>9} {'tokens in':>12} {'tokens out':>12} {'dollars':>19} {'time':>9}"
        )
        rows = [head]
        for entry in self.stages:
            stage = entry.stage
            rows.append(
                f"{stage.name:<14} {stage.calls:>9,} {stage.stored:>9,} {stage.input_tokens:>12,} "
                f"{stage.expected_output_tokens:>12,} {_dollars(entry):>19} {_clock(entry.seconds):>9}  {stage.model}"
            )
        counted = sorted({entry.stage.counted_with for entry in self.stages if entry.stage.calls})
        rows.append(
            f"{'all':<14} {self.calls:>9,} calls, ${self.usd():.4f} expected, ${self.most_usd:.4f} at most, "
            f"{_clock(self.seconds)}" + (f"; tokens by {', '.join(counted)}" if counted else "")
        )
        return rows


def plan_stage(
    name: str,
    model: Model,
    requests: Iterable[Request],
    store: Store | None = None,
    *,
    expected_output: int | None = None,
    seconds_a_call: float | None = None,
    count: tuple[TokenCounter, str] | None = None,
) -> Stage:
    """Count a stage's calls and tokens. `expected_output`: tokens of a reply, where the caller knows better.

    `seconds_a_call` stands in for the guess, and `count` for the model's tokenizer. Equal requests count once.
    """
    counter, counted_with = count or counter_for(model.name)
    seen: dict[str, Request] = {model.key(request): request for request in requests}
    stored = store.get_many(list(seen)) if store is not None else {}
    if store is not None:
        for key, request in seen.items():
            if key not in stored and (found := store.find(model.other_keys(request))) is not None:
                stored[key] = found
    missing = [request for key, request in seen.items() if key not in stored]
    most = sum(request.max_tokens for request in missing)
    expected = most * EXPECTED_SHARE if expected_output is None else expected_output * len(missing)
    if expected_output is None and stored:
        expected = len(missing) * sum(reply.usage.output_tokens for reply in stored.values()) / len(stored)
    expected = min(expected, most)
    role: Role = next((request.role for request in seen.values()), "solver")
    if seconds_a_call is None:
        seconds_a_call = model.expected_seconds(expected / len(missing) if missing else 0.0)
    return Stage(
        name,
        model.name,
        role,
        model.paid,
        len(missing),
        len(stored),
        sum(estimate_messages(request.messages, counter) for request in missing),
        round(expected),
        most,
        counted_with,
        seconds_a_call,
        model.at_once(UNLIMITED),
    )


def forecast(stages: Sequence[Stage], limits: LimitsConfig, pricing: Pricing | None = None) -> Forecast:
    """Price and time the stages. At most `limits.concurrency` calls are under way together."""
    return Forecast(tuple(_one(stage, limits, pricing) for stage in stages))


def _one(stage: Stage, limits: LimitsConfig, pricing: Pricing | None) -> StageForecast:
    def usd(output_tokens: int) -> float | None:
        if stage.calls == 0:
            return 0.0
        if pricing is None:
            return 0.0 if not stage.paid else None
        # One average call priced as often as there are calls: tiers go by the size of a call.
        average = Usage(1, round(stage.input_tokens / stage.calls), 0, round(output_tokens / stage.calls))
        each = pricing.usd(stage.model, average)
        return None if each is None else each * stage.calls

    seconds = stage.calls * stage.seconds_a_call / max(1, min(stage.at_once, limits.concurrency, stage.calls))
    if stage.paid and limits.requests_per_minute:
        seconds = max(seconds, 60 * stage.calls / limits.requests_per_minute)
    if stage.paid and limits.tokens_per_minute:
        tokens = stage.input_tokens + stage.expected_output_tokens
        seconds = max(seconds, 60 * tokens / limits.tokens_per_minute)
    return StageForecast(stage, usd(stage.expected_output_tokens), usd(stage.most_output_tokens), seconds)


def _dollars(entry: StageForecast) -> str:
    if entry.expected_usd is None or entry.most_usd is None:
        return "no price known"
    return f"{entry.expected_usd:.4f}–{entry.most_usd:.4f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
