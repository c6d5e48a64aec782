"""A shadow: another pair that answers the same requests after the answer, on spare capacity and its own budget.

No client waits for a shadow. Where the server is busy, the shadow's budget is spent or too many are in flight, the
request has no shadow, and is counted. Local weights run only while no request is in flight, and stop when one arrives.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from fractionate.config import LimitsConfig
from fractionate.datasets.base import Dataset
from fractionate.errors import UsageError
from fractionate.serve.answer import Answerer
from fractionate.serve.catalog import Served
from fractionate.serve.errors import Refusal
from fractionate.serve.gateway import Gateway
from fractionate.serve.ledger import Ledger
from fractionate.serve.metrics import Counter, Metrics
from fractionate.serve.record import Finished, answering_row, pair_row
from fractionate.serve.upstream import Upstream
from fractionate.tools import parts_of
from fractionate.tools.base import ToolModel
from fractionate.types import Answer

LOG = logging.getLogger("fractionate.serve")
LEDGER = "shadow.sqlite"
SHARE = 0.1
"""The share of answers with a shadow, by default."""
AT_ONCE = 4
"""Shadows in flight at most."""
PAUSE_S = 0.02
"""Seconds after an answer before its shadow is begun, so that the answer is on its way."""
SHADOW = "shadow"
"""The ledger account of its calls."""
_NOT_ASKED = ("budget_reached", "no_ledger", "unsupported_parameter", "invalid_value", "model_not_usable")
"""Codes of refusals by the gateway itself, where no call was made."""
_LATEST = 1000
"""Latencies over which the medians are taken."""
_NOTHING = {"replies": [], "usage": {}, "usd": {"total": None}}


@dataclass(frozen=True, slots=True)
class Shadowed:
    """A shadow's answer: `row` is its part of the record, `same` whether it equals the answer that was sent."""

    row: Mapping[str, Any]
    dataset: Dataset
    answer: Answer | None = None
    same: bool | None = None
    failed: str = ""


Keep = Callable[[Finished, Shadowed], None]


class Shadow:
    """Answers a `share` (0 to 1) of what a gateway has answered with another pair, for at most `usd` dollars, ever.

    Raises UsageError for a pair that is not served, and for one whose calls cost money that no budget bounds.
    """

    def __init__(self, gateway: Gateway, model: str, share: float, usd: float | None) -> None:
        self._gateway = gateway
        self._model = model
        self._share = share
        self._pair = _served(gateway, model)
        parts = [one for one in (self._pair.decomposer, self._pair.solver) if one.kind != "none"]
        models = [model for part in parts for model in parts_of(gateway.sampler(part).model)]
        writing = next((one.short_name for one in models if isinstance(one, ToolModel) and one.config.writes), None)
        if writing is not None:
            raise UsageError(
                f"--shadow {model}: its tool {writing} writes (tools.{writing}.writes): no shadow may use it"
            )
        if usd is None and any(one.paid for one in models):
            raise UsageError(f"--shadow {model} calls paid models: set a budget with --shadow-usd")
        config = gateway.catalog.config
        own = Metrics()
        self._ledger = Ledger(gateway.catalog.folder.path / LEDGER, gateway.pricing, usd, None)
        self._upstream = Upstream(_limits(config.limits, share), gateway.pricing, self._ledger, own)
        for one in models:
            self._upstream.check_priced(one)
        self._answerer = Answerer(self._upstream, own)
        self._in_process = any(not one.paid and not one.replays for one in models)
        self._tasks: set[asyncio.Task[None]] = set()
        self._because = ""
        self._seconds: dict[str, deque[float]] = {side: deque(maxlen=_LATEST) for side in ("answered", "shadow")}
        self._answers = Counter(
            "fractionate_shadow_total", "Answers of the shadow, by comparison with the answer.", ("result",)
        )
        self._dropped = Counter("fractionate_shadow_dropped_total", "Requests without a shadow, by reason.", ("why",))
        self._usd = Counter("fractionate_shadow_usd_total", "Dollars of requests with both answers, by pair.", ("by",))
        gateway.metrics.further += [self._answers, self._dropped, self._usd]
        for side, help_text in (("answered", "answers that were sent"), ("shadow", "shadow answers")):
            name = f"fractionate_shadow_p50_seconds_{side}"
            text = f"Median seconds of {help_text}, where there are both."
            gateway.metrics.gauges[name] = (text, lambda side=side: self._median(side))  # type: ignore[misc]
        if self._in_process:
            gateway.on_arrival.append(self._yield)

    def follow(self, finished: Finished, keep: Keep) -> None:
        """Answer a request as well, if it is in the share and there is capacity. `keep` receives the answer."""
        if int(finished.id[-6:], 16) >= self._share * 16**6:  # ids are drawn at random
            return
        several = finished.answered.plan.client_request.n > 1
        why = "several_answers" if several else self._hindrance()
        if why:
            self._dropped.add(why)
            return
        task = asyncio.get_running_loop().create_task(self._work(finished, keep))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel the shadows in flight."""
        self._cancel("shutdown")
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._ledger.close()

    def _hindrance(self) -> str:
        """Return why no shadow can start now, "" where one can."""
        admission = self._gateway.admission
        free = admission.inside == 0 if self._in_process else admission.inside < max(1, admission.slots // 2)
        if admission.draining or admission.waiting or not free:
            return "busy"
        if len(self._tasks) >= AT_ONCE:
            return "too_many"
        try:
            self._ledger.check_left(SHADOW)
        except Refusal as refusal:
            return refusal.code
        return ""

    async def _work(self, finished: Finished, keep: Keep) -> None:
        try:
            await asyncio.sleep(PAUSE_S)
            admission = self._gateway.admission
            if self._in_process and (admission.inside or admission.waiting):
                self._dropped.add("busy")
                return
            shadowed = await self._answer(finished)
            if shadowed is not None:
                keep(finished, shadowed)
        except asyncio.CancelledError:
            self._dropped.add(self._because)
        except Exception as error:  # the server goes on; the message may hold a client's text
            LOG.error("unexpected %s in a shadow", type(error).__name__)
            self._answers.add("failed")

    async def _answer(self, finished: Finished) -> Shadowed | None:
        """Return the shadow's answer; None where no call was made."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        until = started + self._gateway.bounds.deadline_s
        plan = finished.answered.plan
        test_set = plan.client_request.test_set or (plan.fact["test_set"] if plan.fact else "")
        request = replace(plan.client_request, model=self._model, stream=False, test_set=test_set)
        try:
            own = self._gateway.plan(request)
            async with asyncio.timeout_at(until):
                answered = await self._answerer.answer(own, SHADOW, until)
        except (Refusal, TimeoutError) as failure:
            code = failure.code if isinstance(failure, Refusal) else "deadline_passed"
            if code in _NOT_ASKED:
                self._dropped.add(code)
                return None
            self._answers.add("failed")
            row = {**pair_row(self._pair), **_NOTHING, "latency_s": round(loop.time() - started, 4)}
            return Shadowed(row, plan.dataset, failed=code)
        seconds = loop.time() - started
        mine, theirs = answered.choices[0].answer, finished.answered.choices[0].answer
        same = None if mine is None or theirs is None else plan.dataset.score(mine, [theirs]).exact_match == 1.0
        self._answers.add("unread" if same is None else "same" if same else "different")
        for side, one, took in (("answered", finished.answered, finished.seconds), ("shadow", answered, seconds)):
            self._seconds[side].append(took)
            self._usd.add(side, amount=sum(cost for cost in one.usd.values() if cost is not None))
        return Shadowed(answering_row(answered, seconds), plan.dataset, mine, same)

    def _yield(self) -> None:
        self._cancel("interrupted")

    def _cancel(self, why: str) -> None:
        self._because = why
        for task in self._tasks:
            task.cancel()

    def _median(self, side: str) -> float:
        return median(self._seconds[side]) if self._seconds[side] else 0.0


def _limits(limits: LimitsConfig, share: float) -> LimitsConfig:
    """Return the limits of a shadow's calls: its share of the user's limits per minute."""
    rates = {"requests_per_minute": limits.requests_per_minute, "tokens_per_minute": limits.tokens_per_minute}
    return limits.model_copy(update={name: rate * share for name, rate in rates.items() if rate is not None})


def _served(gateway: Gateway, model: str) -> Served:
    try:
        return gateway.catalog.find(model)
    except Refusal as refusal:
        raise UsageError(f"--shadow: {refusal.message}") from None
