"""The queue of one model: in which order calls leave, and to which of its endpoints each goes.

Calls leave in the order in which they came. An endpoint keeps the prompts that it has read, so calls that share a
prefix are cheap where the first of them went. Rendezvous hashing (Thaler and Ravishankar 1998) gives every prefix an
order of endpoints that depends on nothing else: adding or removing an endpoint moves only the prefixes that come to it
or leave it. Bounded loads (Mirrokni, Thorup and Zadimoghaddam 2018) keep a favoured endpoint from being swamped: one
with more than `SPREAD` times its share of the calls in flight, by capacity, passes a call on to the next in its order.
Where all endpoints are busy and one gets room, a call that belongs to it overtakes one that does not, within bounds.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from fractionate.calls.endpoint import EndpointLimiter, is_unusable
from fractionate.calls.limits import InFlightSlots, RateLimiter, loop_time
from fractionate.config import LimitsConfig
from fractionate.models.base import SingleModel
from fractionate.models.faults import FatalFault, Fault, TransientFault
from fractionate.types import Message, Request

SPREAD = 1.25
"""How much more than its share of the calls in flight an endpoint has at most while another is below its own."""
AHEAD = 64
"""Calls at the head of the queue among which one is sought that belongs to an endpoint with room; also how often the
first of them may be overtaken."""

OnCut = Callable[[str, int], None]
"""Called with an endpoint's name and its new limit after a complaint."""
OnNews = Callable[[int, str], None]
"""Called with a line about an endpoint that is left out or back, and how often it has been left out."""


class Load(NamedTuple):
    """The load of an endpoint: calls in flight, whether it may be sent one more now, and its capacity."""

    in_flight: int
    room: bool
    takes: float
    """Calls at once, > 0: an endpoint's share of the calls in flight is proportional to it."""


def prefix_key(messages: Sequence[Message]) -> str:
    """Return the key under which calls share a prefix: the first paragraph of the first user message.

    It is the passage of a question or, where there is none, the question. The system message is the same for all.
    """
    said = next((message.content for message in messages if message.role == "user"), "")
    return (said or (messages[0].content if messages else "")).lstrip().partition("\n\n")[0]


def order(key: str, endpoints: Sequence[str]) -> list[int]:
    """Return the positions of endpoints in a prefix key's order of preference, however they are listed."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    scores = [hashlib.blake2b(endpoint.encode(), key=digest, digest_size=8).digest() for endpoint in endpoints]
    return sorted(range(len(endpoints)), key=scores.__getitem__, reverse=True)


def takers(loads: Sequence[Load]) -> set[int]:
    """Return the endpoints to choose among: those with room that have no more than `SPREAD` times their share.

    Where all that have room are above it, the one that is least above; so there is one whenever an endpoint has room.
    """
    free = [at for at, load in enumerate(loads) if load.room]
    calls, takes = sum(load.in_flight for load in loads) + 1, sum(load.takes for load in loads)
    within = {at for at in free if loads[at].in_flight * takes < SPREAD * calls * loads[at].takes}
    return within or set(sorted(free, key=lambda at: loads[at].in_flight / loads[at].takes)[:1])


def choose(preferred: Sequence[int], among: Collection[int]) -> int | None:
    """Return the first preferred endpoint among these, None where there is none."""
    return next((at for at in preferred if at in among), None)


class _Waiting:
    """A call that is to leave: the tokens it may use, its endpoints in order, and the turn that it waits for."""

    __slots__ = ("preferred", "tokens", "turn")

    def __init__(self, tokens: float, preferred: Sequence[int]) -> None:
        self.tokens = tokens
        self.preferred = preferred
        self.turn: asyncio.Future[EndpointLimiter] | None = None

    @property
    def gone(self) -> bool:
        """Whether it was cancelled while it waited."""
        return self.turn is not None and self.turn.done()


class Dispatcher:
    """The endpoints of a model, and the calls that wait for one."""

    def __init__(
        self,
        model: SingleModel,
        limits: LimitsConfig,
        slots: InFlightSlots | None = None,
        on_cut: OnCut = lambda name, limit: None,
        on_news: OnNews = lambda count, line: None,
    ) -> None:
        self._slots = slots or InFlightSlots(limits.concurrency)
        self._slots.add(self.wake)
        self._rate = RateLimiter(limits)
        self._on_news = on_news
        self._times_out = [0] * len(model.servers)
        self.endpoints = tuple(
            EndpointLimiter(
                server,
                limits,
                self._slots,
                alone=len(model.servers) == 1,
                on_room=self.wake,
                on_cut=partial(on_cut, server.name),
                on_out=partial(self._note_out, at),
                on_back=partial(self._note_back, at),
            )
            for at, server in enumerate(model.servers)
        )
        self.alone = len(self.endpoints) == 1
        """Whether the model has one endpoint, so that no other can be used meanwhile."""
        self.name = model.name
        self._ids = [server.identity for server in model.servers]
        self._waiting: deque[_Waiting] = deque()
        self._passed_by = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stopped: BaseException | None = None

    def use(self, model: SingleModel) -> None:
        """Send through this model's own endpoints: it may have been opened anew, for another event loop."""
        for endpoint, server in zip(self.endpoints, model.servers, strict=True):
            endpoint.server = server

    @property
    def in_flight(self) -> int:
        """Calls that have left and not come back."""
        return sum(endpoint.in_flight for endpoint in self.endpoints)

    @property
    def paused_until(self) -> float:
        """Until when every endpoint in use is paused (loop time); the past if one is not."""
        return min(self.endpoints[at].paused_until for at in self._asked(loop_time()))

    def order(self, request: Request) -> list[int]:
        """Return the endpoints in a request's order of preference."""
        return [0] if self.alone else order(prefix_key(request.messages), self._ids)

    async def enter(self, tokens: float, preferred: Sequence[int] = (0,), *, first: bool = False) -> EndpointLimiter:
        """Wait for a slot, and return the endpoint to send to. `tokens`: the most that the call will use.

        It is the first of the `preferred` endpoints that has room and no more than its share. A call that had its turn
        already, at an endpoint that could do nothing, goes `first`.
        """
        if self._stopped is not None:
            raise self._stopped
        waiting = _Waiting(tokens, preferred)
        if not self._waiting and self._slots.left:
            open_to, _ = self._open_to()
            if open_to and self._rate.wait_s(tokens) == 0:
                return self._let_out(waiting, open_to)
        turn: asyncio.Future[EndpointLimiter] = asyncio.get_running_loop().create_future()
        waiting.turn = turn
        (self._waiting.appendleft if first else self._waiting.append)(waiting)
        self.wake()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                turn.result().answered()
                turn.result().leave()
            raise

    def debt_s(self) -> float:
        """Return the seconds until a rate limiter that begins empty could take the place of this model's."""
        return self._rate.debt_s()

    def give_back(self, tokens: float, left_at: float, requests: float = 0.0) -> None:
        """Give back a part of the rate that was not used after all."""
        self._rate.give_back(tokens, requests, left_at)

    def change(self, limits: LimitsConfig) -> None:
        """Apply other limits from now on. Calls in flight stay."""
        self._rate.change(limits)
        for endpoint in self.endpoints:
            endpoint.change(limits)
        self.wake()

    def stop(self, reason: BaseException) -> None:
        """Refuse the calls that wait and all later ones."""
        self._stopped = reason
        while self._waiting:
            turn = self._waiting.popleft().turn
            if turn is not None and not turn.done():
                turn.set_exception(reason)

    def wake(self) -> None:
        """Let waiting calls leave, as far as slots, endpoints and rate limits allow it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and self._slots.left:
            if self._waiting[0].gone:
                self._take_out(0)
                continue
            open_to, asked = self._open_to()
            if not open_to:
                self._wake_at(self._next_change(asked))
                return
            at = self._next(open_to, asked)
            delay = self._rate.wait_s(self._waiting[at].tokens)
            if delay > 0:
                self._wake_at(loop_time() + delay)
                return
            waiting = self._take_out(at)
            assert waiting.turn is not None, "a call in the queue waits for its turn"
            waiting.turn.set_result(self._let_out(waiting, open_to))

    def _let_out(self, call: _Waiting, open_to: set[int]) -> EndpointLimiter:
        chosen = choose(call.preferred, open_to)
        assert chosen is not None, "every server is somewhere in the order"
        self.endpoints[chosen].enter()
        self._rate.take(call.tokens)
        return self.endpoints[chosen]

    def _open_to(self) -> tuple[set[int], Sequence[int]]:
        """Return the endpoints that a call may be sent to now, and those in use at all."""
        now = loop_time()
        if self.alone:  # thousands of calls a second pass here
            endpoint = self.endpoints[0]
            return ({0} if endpoint.has_room and endpoint.paused_until <= now else set()), (0,)
        asked = self._asked(now)
        ready = [at for at in asked if self.endpoints[at].paused_until <= now]
        most = max(endpoint.limit for endpoint in self.endpoints)
        loads = []
        for at in ready:
            endpoint = self.endpoints[at]
            # The capacity of an endpoint that never complained is unknown: taken for as large as any.
            loads.append(
                Load(endpoint.in_flight, endpoint.has_room, endpoint.limit if endpoint.has_complained else most)
            )
        return {ready[at] for at in takers(loads)}, asked

    def _asked(self, now: float) -> Sequence[int]:
        """Return the endpoints that are not left out; all where every one has failed: one has to be tried."""
        if not any(endpoint.circuit.closed for endpoint in self.endpoints):
            return range(len(self.endpoints))
        return [at for at, endpoint in enumerate(self.endpoints) if endpoint.circuit.takes(now)]

    def _next(self, open_to: set[int], asked: Sequence[int]) -> int:
        """Return the next call's place in the queue: the first of `AHEAD` that belongs to an endpoint with room."""
        if len(asked) > 1 and self._passed_by < AHEAD:
            for at, call in enumerate(islice(self._waiting, AHEAD)):
                if not call.gone and choose(call.preferred, asked) in open_to:
                    return at
        return 0

    def _take_out(self, at: int) -> _Waiting:
        self._passed_by = 0 if at == 0 else self._passed_by + 1
        call = self._waiting[at]
        del self._waiting[at]
        return call

    def _next_change(self, asked: Sequence[int]) -> float | None:
        """Return when the clock alone makes an endpoint available, None where that takes a reply."""
        times = [endpoint.paused_until for endpoint in self.endpoints if endpoint.has_room]
        times += [endpoint.circuit.tried_at for at, endpoint in enumerate(self.endpoints) if at not in asked]
        return min((time for time in times if time > loop_time()), default=None)

    def _wake_at(self, time: float | None) -> None:
        if time is not None:
            self._timer = asyncio.get_running_loop().call_at(time, self.wake)

    def _note_out(self, at: int, fault: Fault) -> None:
        self._times_out[at] += 1
        left = sum(endpoint.circuit.closed for endpoint in self.endpoints)
        others = (
            f"{left} of {len(self.endpoints)} servers go on" if left else "no other server is available; retrying it"
        )
        self._on_news(self._times_out[at], f"{fault.message}: left out for now, {others}")

    def _note_back(self, at: int) -> None:
        self._on_news(self._times_out[at], f"{self.endpoints[at].server.name} answers again")


class Route:
    """The endpoints of one call: its order of preference, and those tried since its present attempt began."""

    __slots__ = ("_dispatcher", "_last", "_preferred", "_tried")

    def __init__(self, dispatcher: Dispatcher, request: Request) -> None:
        self._dispatcher = dispatcher
        self._preferred = dispatcher.order(request)
        self._tried: dict[int, Fault] = {}
        self._last = -1

    async def enter(self, tokens: float) -> EndpointLimiter:
        """Wait for an endpoint; those that have failed the call come last."""
        later = {*self._tried, self._last}
        preferred = self._preferred
        if len(preferred) > 1 and later:
            preferred = sorted(preferred, key=later.__contains__)
        endpoint = await self._dispatcher.enter(tokens, preferred, first=bool(self._tried))
        self._last = self._dispatcher.endpoints.index(endpoint)
        return endpoint

    def failed(self, fault: Fault) -> Fault | None:
        """Note a fault of the endpoint entered last, and return the fault of the whole attempt.

        None: that endpoint did no work on the call, which goes to another at once, as part of the same attempt.
        """
        self._tried[self._last] = fault
        if is_unusable(fault) and self._others_left():
            return None
        tried, self._tried = list(self._tried.values()), {}
        return fault if len(tried) == 1 or not is_unusable(fault) else _together(tried)

    def _others_left(self) -> bool:
        """Whether an endpoint that was not tried yet may be sent a call now."""
        now = loop_time()
        return any(
            endpoint.paused_until <= now
            for at, endpoint in enumerate(self._dispatcher.endpoints)
            if at not in self._tried
        )


def _together(faults: Iterable[Fault]) -> Fault:
    """Return the faults of all endpoints, each of them unusable, as one: fatal only where every one is."""
    all_of_them = list(faults)
    message = "; ".join(fault.message for fault in all_of_them)
    passing = [fault for fault in all_of_them if isinstance(fault, TransientFault)]
    if not passing:
        return FatalFault(all_of_them[-1].cause, message)
    return TransientFault(passing[-1].cause, message, systematic=True)
