"""A measured pair as a solver of inspect_ai (https://inspect.aisi.org.uk).

The pair answers in this process, as `fractionate serve` would answer a client: the run's prompts, models and settings,
the same names, the same refusals. What it took, by role, lands in each sample.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import threading
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from fractionate.errors import FractionateError, missing_extra
from fractionate.serve.admission import EVERYBODY, Keys
from fractionate.serve.answer import Answered
from fractionate.serve.catalog import BEST
from fractionate.serve.errors import Refusal
from fractionate.serve.gateway import Gateway
from fractionate.serve.requests import read_chat
from fractionate.types import ROLES, Usage

try:
    from inspect_ai.model import ModelOutput, ModelUsage
    from inspect_ai.solver import Generate, Solver, TaskState, solver
except ImportError:
    raise missing_extra("inspect_ai", "inspect", "a solver of inspect_ai") from None

DEADLINE_S = 600.0
"""Seconds that a sample has, waiting for its turn included."""
_STOP_REASONS = {"stop": "stop", "length": "max_tokens", "content_filter": "content_filter"}


@solver  # type: ignore[untyped-decorator]  # inspect_ai is not followed: to mypy it is Any
def pair_solver(
    run: str, pair: str = BEST, test_set: str = "", deadline_s: float = DEADLINE_S, allow_unmeasured: bool = False
) -> Solver:
    """Answer each sample by a measured pair of a run.

    `run` is the run's folder; `pair` a name that `fractionate serve` lists (`fractionate/best` is the verdict's pair);
    `test_set` that whose form of answer is asked for (the run's first one); `deadline_s` seconds a sample has.

    The sample's messages are the conversation, the last one the question; its metadata's `context` is the passage. The
    pair's words become the output, with all calls' usage; `metadata["fractionate"]` holds the subquestions, their
    answers, the answer as the data set reads it, and usage and dollars by role. Raises FractionateError for a run or
    pair that cannot be asked, and where no answer came.
    """
    here = str(Path(run).resolve())

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        own = {"context": state.metadata.get("context") or None, "test_set": test_set or None}
        messages = [{"role": message.role, "content": message.text} for message in state.messages]
        body = json.dumps({"model": pair, "messages": messages, "fractionate": own}).encode()
        behind = _behind(here, allow_unmeasured)
        asking = asyncio.run_coroutine_threadsafe(behind.ask(body, deadline_s), behind.loop)
        answered = await asyncio.wrap_future(asking)
        state.output = _output(answered)
        state.messages.append(state.output.message)
        state.metadata["fractionate"] = _facts(answered)
        return state

    return solve


class _Behind:
    """A gateway in an event loop of its own, which outlives those that evaluations make and end."""

    def __init__(self, folder: Path, allow_unmeasured: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self._gateway = Gateway(folder, Keys(""), allow_unmeasured=allow_unmeasured)
        threading.Thread(target=self.loop.run_forever, name=f"pairs of {folder}", daemon=True).start()
        atexit.register(self._close)

    async def ask(self, body: bytes, deadline_s: float) -> Answered:
        try:
            plan = self._gateway.plan(read_chat(body, self._gateway.bounds.max_context))
            return await self._gateway.answer(plan, EVERYBODY, self.loop.time() + deadline_s)
        except Refusal as refusal:
            raise FractionateError(refusal.message) from None

    def _close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._gateway.close(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)


@cache
def _behind(folder: str, allow_unmeasured: bool) -> _Behind:
    return _Behind(Path(folder), allow_unmeasured)


def _output(answered: Answered) -> ModelOutput:
    (choice,) = answered.choices
    text = choice.content or choice.refusal
    reason = "content_filter" if choice.refusal else _STOP_REASONS.get(choice.finish_reason, "unknown")
    output = ModelOutput.from_content(answered.plan.pair.id, text, stop_reason=reason)
    total = sum(answered.usage.values(), Usage())
    output.usage = ModelUsage(
        input_tokens=total.input_tokens - total.cached_input_tokens,
        input_tokens_cache_read=total.cached_input_tokens,
        output_tokens=total.output_tokens,
        reasoning_tokens=total.reasoning_tokens,
        total_tokens=total.input_tokens + total.output_tokens,
        total_cost=_total(answered.usd),
    )
    return output


def _facts(answered: Answered) -> dict[str, Any]:
    (choice,) = answered.choices
    pair, fact = answered.plan.pair, answered.plan.fact
    return {
        "pair": pair.id,
        "subquestions": list(choice.decomposition.subquestions) if choice.decomposition else [],
        "sub_answers": list(choice.sub_answers),
        "prediction": list(choice.answer) if choice.answer is not None else None,
        "deviations": answered.deviations,
        "unlike": answered.deviations,  # its name in 0.1: kept for one more release
        "usage": {role: asdict(answered.usage[role]) for role in ROLES},
        "usd": {**answered.usd, "total": _total(answered.usd)},
        "measured": dict(fact) if fact else None,
    }


def _total(usd: Mapping[Any, float | None]) -> float | None:
    known = [value for value in usd.values() if value is not None]
    return sum(known) if len(known) == len(usd) else None
