"""The client of a model: one call, sent to one or more endpoints until it is answered or given up.

Runs (`engine`) and the served gateway (`serve/upstream.py`) both send through it. `CallHooks` is what differs between
them: what is reserved before each attempt and charged after it, where a reply is stored, how retries are reported.

The rule for waits, the same for both:

1.  `Retry-After` pauses the endpoint for all calls, at most 900 s; a spent x-ratelimit allowance pauses it until its
    reset, at most 120 s.
2.  After a fault that may pass, a call waits for its next attempt as long as `Retry-After` says (where no other
    endpoint could take it meanwhile), plus an exponential back-off with jitter, so that calls refused together do not
    come back together. A fault of the endpoint alone sends the call to another at once, in the same attempt.
3.  A call with a deadline is given up where its next attempt could not leave in time. A call without one waits for any
    `Retry-After` up to 900 s; an endpoint that asks for more is unusable until a later run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fractionate.calls.dispatch import Dispatcher, OnCut, OnNews, Route
from fractionate.calls.endpoint import LONGEST_PAUSE_S, EndpointLimiter
from fractionate.calls.limits import BACKOFF_S, Deadlines, InFlightSlots, backoff, loop_time
from fractionate.config import LimitsConfig
from fractionate.models.base import SingleModel
from fractionate.models.faults import FatalFault, Fault, TransientFault
from fractionate.models.tokens import estimate_messages
from fractionate.types import Completion, Request


class CallHooks:
    """Hooks around the attempts of one call. The defaults are those of a call that costs and stores nothing."""

    __slots__ = ()

    def admit(self) -> bool:
        """Decide, with a slot taken, whether the call is to be made here. Raises what stops all calls.

        False: another process makes the same call; the slot is given back and `made_elsewhere` is awaited.
        """
        return True

    async def made_elsewhere(self) -> Completion | None:
        """Wait for the call of the other process. Returns None where it came to nothing, so that this one is made."""
        return None

    async def reserve(self) -> None:
        """Reserve the most that an attempt can cost. Raises where a budget has no room for it; then nothing is sent."""

    def sent(self) -> None:
        """Note that an attempt leaves now."""

    def failed(self, fault: Fault | None) -> None:
        """Close the reservation of an attempt without a reply. `fault` is None where the attempt was cancelled."""

    async def keep(self, completion: Completion) -> Completion:
        """Charge and store a reply; its slot is held until this returns. Returns the reply that is stored."""
        return completion

    def retrying(self, fault: Fault, wait_s: float) -> None:
        """Note that the call is tried again in so many seconds, 0 at another endpoint."""


class ModelClient:
    """Sends calls to one model within its limits; see the module for the rule for waits."""

    def __init__(
        self,
        model: SingleModel,
        limits: LimitsConfig,
        slots: InFlightSlots | None = None,
        deadlines: Deadlines | None = None,
        *,
        on_cut: OnCut = lambda name, limit: None,
        on_news: OnNews = lambda count, line: None,
        backoff_s: float = BACKOFF_S,
    ) -> None:
        self.dispatcher = Dispatcher(model, limits, slots, on_cut, on_news)
        self.limits_of: Callable[[LimitsConfig], LimitsConfig] = lambda limits: limits
        """The model's own limits, given the user's."""
        self._limits = limits
        self._deadlines = deadlines or Deadlines(limits.timeout_s)
        self._backoff_s = backoff_s

    def change(self, limits: LimitsConfig) -> None:
        """Apply other limits from now on. Calls in flight stay."""
        self._limits = limits = self.limits_of(limits)
        self.dispatcher.change(limits)

    async def complete(
        self,
        request: Request,
        hooks: CallHooks,
        *,
        until: float | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """Send a request until it is answered; return what `hooks.keep` makes of the reply.

        `until` is the call's deadline (loop time); `on_text` is handed the text as it is written. Once it was handed
        any, nothing is tried again: that text cannot be taken back. Raises the Fault of the last attempt, with the
        number of `attempts`, and the errors of the hooks.
        """
        tokens = estimate_messages(request.messages) + request.max_tokens if self._limits.tokens_per_minute else 0
        route = Route(self.dispatcher, request)
        streamed = False

        def hand_on(text: str) -> None:
            nonlocal streamed
            streamed = True
            assert on_text is not None
            on_text(text)

        attempt = 1
        while True:
            endpoint = await self._admitted(route, tokens, hooks, until)
            if isinstance(endpoint, Completion):
                return endpoint
            # The slot is held until the reply is committed: that bounds what is paid for and not stored.
            try:
                outcome = await self._attempt(
                    endpoint, request, tokens, hooks, until, hand_on if on_text is not None else None
                )
                if isinstance(outcome, Completion):
                    return await hooks.keep(outcome)
            finally:
                endpoint.leave()
            fault = route.failed(outcome)
            wait_s = 0.0 if fault is None else self._wait_s(fault, attempt, until)
            if wait_s is None or streamed:
                given_up = fault or outcome
                given_up.attempts = attempt
                raise given_up
            hooks.retrying(outcome, wait_s)
            if fault is not None:
                await asyncio.sleep(wait_s)
                attempt += 1

    async def _admitted(
        self, route: Route, tokens: float, hooks: CallHooks, until: float | None
    ) -> EndpointLimiter | Completion:
        """Wait for a slot to send the call from. Returns its completion instead where another process makes it."""
        while True:
            paused_until = self.dispatcher.paused_until
            if until is not None and paused_until >= until:
                after_s = paused_until - loop_time()
                message = f"{self.dispatcher.name} asks to wait {after_s:.0f} s more, which is past the deadline"
                raise TransientFault("429", message, after_s=after_s, congested=True)
            endpoint = await route.enter(tokens)
            admitted = False
            try:
                admitted = hooks.admit()
            finally:
                if not admitted:
                    self.dispatcher.give_back(tokens, loop_time(), requests=1)
                    endpoint.answered()
                    endpoint.leave()
            if admitted:
                return endpoint
            if (made := await hooks.made_elsewhere()) is not None:
                return made

    async def _attempt(
        self,
        endpoint: EndpointLimiter,
        request: Request,
        tokens: float,
        hooks: CallHooks,
        until: float | None,
        on_text: Callable[[str], None] | None,
    ) -> Completion | Fault:
        """Send a request once. Returns its completion or its fault, both noted at the endpoint."""
        server, left_at = endpoint.server, loop_time()
        try:
            await hooks.reserve()
            hooks.sent()
            sent_at = loop_time()
            sending = server.complete(request) if on_text is None else server.stream(request, on_text)
            task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]  # never None in a coroutine
            try:
                completion = await self._deadlines.run(sending, task)
            except TimeoutError:
                limit = f"{self._limits.timeout_s:g} s (limits.timeout_s)"
                fault: Fault = TransientFault(
                    "timeout", f"{server.name} gave no reply within {limit}", congested=True, maybe_paid=True
                )
            except Fault as raised:
                fault = raised
            except BaseException:
                # Cancelled, or a bug: the request may have reached the provider.
                hooks.failed(None)
                if until is not None and loop_time() >= until:  # the deadline: another endpoint may be in time
                    endpoint.failed(TransientFault("timeout", f"{server.name} gave no reply in time"), sent_at)
                raise
            else:
                endpoint.succeeded()
                if server.rate is not None:
                    endpoint.apply(server.rate)
                used = completion.usage.input_tokens + completion.usage.output_tokens
                if tokens:
                    self.dispatcher.give_back(tokens - used, left_at)
                return completion
            hooks.failed(fault)
            return self._noted(endpoint, fault, sent_at, until)
        finally:
            endpoint.answered()

    def _noted(self, endpoint: EndpointLimiter, fault: Fault, sent_at: float, until: float | None) -> Fault:
        """Tell the endpoint's limiter of a fault; return it as what it means for the call."""
        if isinstance(fault, TransientFault) and fault.after_s:
            endpoint.pause(fault.after_s)
            if fault.after_s > LONGEST_PAUSE_S and until is None:
                asked = f"{fault.message}; it asks to wait {min(fault.after_s, 1e9):.0f} s"
                fault = FatalFault(fault.cause, f"{asked}: run the same command again then to resume")
        endpoint.failed(fault, sent_at)
        if endpoint.server.rate is not None:
            endpoint.apply(endpoint.server.rate)
        return fault

    def _wait_s(self, fault: Fault, attempt: int, until: float | None) -> float | None:
        """Return the seconds until a call's next attempt, None where it is given up."""
        if not isinstance(fault, TransientFault) or attempt >= self._limits.attempts:
            return None
        asked_s = fault.after_s or 0.0 if self.dispatcher.alone else 0.0
        wait_s = asked_s + backoff(self._backoff_s, attempt)
        return wait_s if until is None or loop_time() + wait_s < until else None


class ModelClients(dict[tuple[str, ...], ModelClient]):
    """The clients of all models, by the identities of their endpoints. They share in-flight slots and one timer."""

    def __init__(
        self,
        limits: LimitsConfig,
        on_cut: OnCut = lambda name, limit: None,
        on_news: OnNews = lambda count, line: None,
        backoff_s: float = BACKOFF_S,
    ) -> None:
        super().__init__()
        self.slots = InFlightSlots(limits.concurrency)
        self._limits = limits
        self._deadlines = Deadlines(limits.timeout_s)
        self._on_cut = on_cut
        self._on_news = on_news
        self._backoff_s = backoff_s
        self._changed = False

    @property
    def in_flight(self) -> int:
        """Calls that have left and not come back."""
        return sum(client.dispatcher.in_flight for client in self.values())

    def debt_s(self) -> float:
        """Return the seconds until rate limiters that begin empty could take the place of these."""
        return max((client.dispatcher.debt_s() for client in self.values()), default=0.0)

    def of(self, model: SingleModel) -> ModelClient:
        """Return the client of a model; one is made for a new model."""
        key = tuple([server.identity for server in model.servers])
        client = self.get(key)
        if client is None:
            self[key] = client = ModelClient(
                model,
                model.limits(self._limits),
                self.slots,
                self._deadlines,
                on_cut=self._on_cut,
                on_news=self._on_news,
                backoff_s=self._backoff_s,
            )
            client.limits_of = model.limits
            if self._changed:
                client.change(self._limits)
        client.dispatcher.use(model)
        return client

    def change(self, limits: LimitsConfig) -> None:
        """Apply other limits from now on."""
        self._limits = limits
        self._changed = True
        self.slots.ceiling = limits.concurrency
        for client in self.values():
            client.change(limits)

    def hold(self, held: bool) -> None:
        """Let no call leave, or let them leave again."""
        if held != self.slots.held:
            self.slots.held = held
            for client in self.values():
                client.dispatcher.wake()

    def stop(self, reason: BaseException) -> None:
        """Refuse the calls that wait and all later ones."""
        for client in self.values():
            client.dispatcher.stop(reason)
