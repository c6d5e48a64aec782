"""One call to a model on a client's behalf: paced as its server asks, retried while there is time, within a budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

from fractionate.analysis.pricing import Pricing
from fractionate.calls.lane import LONGEST_PAUSE_S
from fractionate.calls.limits import BACKOFF_S, backoff
from fractionate.calls.road import OnNews, Road, Roads, Route
from fractionate.config import LimitsConfig
from fractionate.errors import FractionateError
from fractionate.models.base import Model, SingleModel
from fractionate.models.faults import Fault, PermanentFault, TransientFault
from fractionate.models.tokens import estimate_messages
from fractionate.serve.ledger import Ledger, Reservation
from fractionate.serve.metrics import Metrics
from fractionate.types import Completion, Request, Usage

OnText = Callable[[str], None]


class Upstream:
    """The way from a request to a completion. Nothing is stored or shared: what a client asks is its own."""

    def __init__(
        self,
        limits: LimitsConfig,
        pricing: Pricing,
        ledger: Ledger,
        metrics: Metrics,
        on_news: OnNews = lambda count, line: None,
    ) -> None:
        """`on_news` is told of servers of a model on several that are left out, and of their return."""
        self._limits = limits
        self._roads = Roads(limits, on_news=on_news)
        self._pricing = pricing
        self._ledger = ledger
        self._metrics = metrics

    async def call(
        self,
        model: SingleModel,
        request: Request,
        priced_as: str,
        account: str,
        until: float,
        on_text: OnText | None = None,
    ) -> tuple[Completion, float | None]:
        """Return the reply and its dollars (None: no price is known); `on_text` is handed its words as they come.

        A fault that may pass is tried again until `until` (loop time) or until the attempts are used up, unless words
        were handed on already: those cannot be taken back. Raises Fault, FractionateError, or Refusal (402).
        """
        road = self._roads.of(model)
        route = Route(road, request)
        attempt = 1
        while True:
            words = _Handed(on_text) if on_text is not None else None
            try:
                completion = await self._send(model, request, road, route, account, until, words)
                return completion, self._count(request, priced_as, completion.usage)
            except Fault as raised:
                fault = route.failed(raised)
                wait = 0.0 if fault is None else self._wait_s(fault, attempt, until, alone=road.alone)
                if wait is None or (words is not None and words.any):
                    raise fault or raised from None
                attempt += fault is not None
                self._metrics.retries.add(request.role, raised.cause)
            await asyncio.sleep(wait)

    def _wait_s(self, fault: Fault, attempt: int, until: float, *, alone: bool) -> float | None:
        """Return the seconds until a call's next attempt, None where there is to be none."""
        if not isinstance(fault, TransientFault) or attempt == self._limits.attempts:
            return None
        wait = max((fault.after_s or 0.0) if alone else 0.0, backoff(BACKOFF_S, attempt))
        return wait if asyncio.get_running_loop().time() + wait < until else None

    async def _send(
        self,
        model: SingleModel,
        request: Request,
        road: Road,
        route: Route,
        account: str,
        until: float,
        words: _Handed | None,
    ) -> Completion:
        if not model.paid:  # in this process: no server to spare, nothing to pay
            return _checked(await _replied(model, request, words))
        loop = asyncio.get_running_loop()
        paused_s = road.paused_until - loop.time()
        if road.paused_until >= until:
            message = f"{model.name} asks to be left alone for {paused_s:.0f} s more"
            raise TransientFault("429", message, after_s=paused_s, congested=True)
        lane = await route.enter(
            estimate_messages(request.messages) + request.max_tokens if self._limits.tokens_per_minute else 0
        )
        sent_at = loop.time()
        reservation: Reservation | None = None
        cost: float | None = None
        try:
            reservation = self._ledger.reserve(account, model, request)
            if reservation is not None and words is not None:
                words.guarded(reservation)
            try:
                completion = await _replied(lane.server, request, words)
            except Fault as fault:
                cost = None if fault.maybe_paid else 0.0
                lane.failed(fault, sent_at)
                if isinstance(fault, TransientFault) and fault.after_s:
                    lane.pause(min(fault.after_s, LONGEST_PAUSE_S))
                raise
            except asyncio.CancelledError:
                if not road.alone and loop.time() >= until:  # the deadline: another server may be in time
                    lane.failed(TransientFault("timeout", f"{lane.server.name} gave no reply in time"), sent_at)
                raise
            # A reply without usage may have cost all that it could.
            cost = None if completion.usage.counted else self._pricing.usd(model.name, completion.usage)
            lane.succeeded()
            return _checked(completion)
        finally:
            lane.answered()
            lane.leave()
            self._ledger.settle(reservation, cost)

    def _count(self, request: Request, priced_as: str, usage: Usage) -> float | None:
        metrics, role = self._metrics, request.role
        metrics.calls.add(role)
        metrics.tokens.add(role, "input", amount=usage.input_tokens)
        metrics.tokens.add(role, "output", amount=usage.output_tokens)
        usd = self._pricing.usd(priced_as, usage)
        if usd:
            metrics.usd.add(role, amount=usd)
        return usd

    def check_priced(self, model: Model) -> None:
        """Raise UsageError where a budget is to be kept and a model has no price."""
        self._ledger.check_priced(model)


class _Handed:
    """Hands words on and remembers whether there were any."""

    def __init__(self, on_text: OnText) -> None:
        self.any = False
        self._on_text = on_text

    def guarded(self, reservation: Reservation) -> None:
        """Stop at a text that passes what was reserved for it."""
        self._on_text = reservation.guard(self._on_text)

    def __call__(self, words: str) -> None:
        self.any = True
        self._on_text(words)


async def _replied(model: SingleModel, request: Request, words: _Handed | None) -> Completion:
    started = perf_counter()
    try:
        return await (model.complete(request) if words is None else model.stream(request, words))
    except (Fault, FractionateError):
        raise
    except (OSError, RuntimeError) as error:  # what local weights make of a full memory, say
        said = f"{model.name} failed after {perf_counter() - started:.1f} s: {type(error).__name__}"
        raise PermanentFault("failed", said) from error


def _checked(completion: Completion) -> Completion:
    """Return a reply. Raises PermanentFault for one that only says that there is none."""
    if completion.finish_reason == "error":
        cause = "context too long" if "does not fit" in completion.error else "failed"
        raise PermanentFault(cause, completion.error or "the model failed")
    return completion
