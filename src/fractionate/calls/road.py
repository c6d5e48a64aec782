"""The way to one model: who waits for it, how fast calls may leave, and a lane to each server that answers for it.

Calls are let out in the order in which they came, each to the server that `balance` gives it. Where all servers are
busy and one gets room, a call that belongs to it goes before one that does not, within bounds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice

from fractionate.calls.balance import Load, beginning, choose, order, takers
from fractionate.calls.lane import Lane, is_of_no_use
from fractionate.calls.limits import Minute, Places, loop_time
from fractionate.config import LimitsConfig
from fractionate.models.base import SingleModel
from fractionate.models.faults import FatalFault, Fault, TransientFault
from fractionate.types import Request

AHEAD = 64
"""Calls at the head of the queue among which one is looked for that belongs to a server with room; also how often the
first of them may be passed by."""

OnCut = Callable[[str, int], None]
"""Told a server's name and its new limit after a complaint."""
OnNews = Callable[[int, str], None]
"""Told a line about a server that is left out or back, and how often it has been left out."""


class _Waiting:
    """A call that is to leave: what it may use, its servers in order, and the place it waits for, if it has to."""

    __slots__ = ("place", "preferred", "tokens")

    def __init__(self, tokens: float, preferred: Sequence[int]) -> None:
        self.tokens = tokens
        self.preferred = preferred
        self.place: asyncio.Future[Lane] | None = None

    @property
    def gone(self) -> bool:
        """Whether it was cancelled while it waited."""
        return self.place is not None and self.place.done()


class Road:
    """The lanes to a model's servers, and those who wait for one."""

    def __init__(
        self,
        model: SingleModel,
        limits: LimitsConfig,
        places: Places | None = None,
        on_cut: OnCut = lambda name, limit: None,
        on_news: OnNews = lambda count, line: None,
    ) -> None:
        self._places = places or Places(limits.concurrency)
        self._places.add(self.wake)
        self._minute = Minute(limits)
        self._on_news = on_news
        self._times_out = [0] * len(model.servers)
        self.lanes = tuple(
            Lane(
                server,
                limits,
                self._places,
                alone=len(model.servers) == 1,
                on_room=self.wake,
                on_cut=partial(on_cut, server.name),
                on_out=partial(self._note_out, at),
                on_back=partial(self._note_back, at),
            )
            for at, server in enumerate(model.servers)
        )
        self.alone = len(self.lanes) == 1
        """Whether one server answers for the model, so that no other can be asked meanwhile."""
        self._ids = [server.identity for server in model.servers]
        self._waiting: deque[_Waiting] = deque()
        self._passed_by = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stopped: BaseException | None = None

    def use(self, model: SingleModel) -> None:
        """Send by this model's own servers: it may have been opened anew, for another event loop."""
        for lane, server in zip(self.lanes, model.servers, strict=True):
            lane.server = server

    @property
    def in_flight(self) -> int:
        """Calls that have left and not come back."""
        return sum(lane.in_flight for lane in self.lanes)

    @property
    def paused_until(self) -> float:
        """Until when every server that is asked has asked to be left alone (loop time); the past if one has not."""
        return min(self.lanes[at].paused_until for at in self._asked(loop_time()))

    def order(self, request: Request) -> list[int]:
        """Return the servers in the order in which a request belongs to them."""
        return [0] if self.alone else order(beginning(request.messages), self._ids)

    async def enter(self, tokens: float, preferred: Sequence[int] = (0,), *, first: bool = False) -> Lane:
        """Wait for a place, and return the lane that it is on. `tokens`: what the call will use at most.

        It is the lane of the first of the `preferred` servers that has room and no more than its share. A call that has
        had its turn already, and nothing of it, goes `first`.
        """
        if self._stopped is not None:
            raise self._stopped
        waiting = _Waiting(tokens, preferred)
        if not self._waiting and self._places.left:
            open_to, _ = self._open_to()
            if open_to and self._minute.wait_s(tokens) == 0:
                return self._let_out(waiting, open_to)
        place: asyncio.Future[Lane] = asyncio.get_running_loop().create_future()
        waiting.place = place
        (self._waiting.appendleft if first else self._waiting.append)(waiting)
        self.wake()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                place.result().answered()
                place.result().leave()
            raise

    def give_back(self, tokens: float, left_at: float, requests: float = 0.0) -> None:
        """Give back a share of the minute that was not used after all."""
        self._minute.give_back(tokens, requests, left_at)

    def change(self, limits: LimitsConfig) -> None:
        """Keep to other limits from now on. Calls that have left already stay."""
        self._minute.change(limits)
        for lane in self.lanes:
            lane.change(limits)
        self.wake()

    def stop(self, reason: BaseException) -> None:
        """Turn away everyone who waits and everyone who comes."""
        self._stopped = reason
        while self._waiting:
            place = self._waiting.popleft().place
            if place is not None and not place.done():
                place.set_exception(reason)

    def wake(self) -> None:
        """Let those who wait leave, as far as there is a place and the clock allows it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and self._places.left:
            if self._waiting[0].gone:
                self._take_out(0)
                continue
            open_to, asked = self._open_to()
            if not open_to:
                self._wake_at(self._next_change(asked))
                return
            at = self._next(open_to, asked)
            delay = self._minute.wait_s(self._waiting[at].tokens)
            if delay > 0:
                self._wake_at(loop_time() + delay)
                return
            waiting = self._take_out(at)
            assert waiting.place is not None, "who waits has a place to come"
            waiting.place.set_result(self._let_out(waiting, open_to))

    def _let_out(self, call: _Waiting, open_to: set[int]) -> Lane:
        chosen = choose(call.preferred, open_to)
        assert chosen is not None, "every server is somewhere in the order"
        self.lanes[chosen].enter()
        self._minute.take(call.tokens)
        return self.lanes[chosen]

    def _open_to(self) -> tuple[set[int], Sequence[int]]:
        """Return the servers that a call may be sent to now, and those that are asked at all."""
        now = loop_time()
        if self.alone:  # thousands of calls a second pass here
            lane = self.lanes[0]
            return ({0} if lane.has_room and lane.paused_until <= now else set()), (0,)
        asked = self._asked(now)
        ready = [at for at in asked if self.lanes[at].paused_until <= now]
        most = max(lane.limit for lane in self.lanes)
        loads = []
        for at in ready:
            lane = self.lanes[at]
            # How much a server takes that has never complained nobody knows: as much as any.
            loads.append(Load(lane.in_flight, lane.has_room, lane.limit if lane.has_complained else most))
        return {ready[at] for at in takers(loads)}, asked

    def _asked(self, now: float) -> Sequence[int]:
        """Return the servers that are not left out; all of them where every one has failed, since one must be asked."""
        if not any(lane.circuit.closed for lane in self.lanes):
            return range(len(self.lanes))
        return [at for at, lane in enumerate(self.lanes) if lane.circuit.takes(now)]

    def _next(self, open_to: set[int], asked: Sequence[int]) -> int:
        """Return where in the queue the next call is: the first that belongs to a server with room, within bounds."""
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
        """Return when the clock alone opens a server to calls, None where that takes a reply."""
        times = [lane.paused_until for lane in self.lanes if lane.has_room]
        times += [lane.circuit.tried_at for at, lane in enumerate(self.lanes) if at not in asked]
        return min((time for time in times if time > loop_time()), default=None)

    def _wake_at(self, time: float | None) -> None:
        if time is not None:
            self._timer = asyncio.get_running_loop().call_at(time, self.wake)

    def _note_out(self, at: int, fault: Fault) -> None:
        self._times_out[at] += 1
        left = sum(lane.circuit.closed for lane in self.lanes)
        others = f"{left} of {len(self.lanes)} servers go on" if left else "no other server is left, so it is asked on"
        self._on_news(self._times_out[at], f"{fault.message}: left out for now, {others}")

    def _note_back(self, at: int) -> None:
        self._on_news(self._times_out[at], f"{self.lanes[at].server.name} answers again")


class Route:
    """One call's way: which servers its prompt belongs to, and which it has tried since its present attempt began."""

    def __init__(self, road: Road, request: Request) -> None:
        self._road = road
        self._preferred = road.order(request)
        self._tried: dict[int, Fault] = {}
        self._last = -1

    async def enter(self, tokens: float) -> Lane:
        """Wait for a place on a lane; the servers that have failed the call come last."""
        later = {*self._tried, self._last}
        preferred = self._preferred
        if len(preferred) > 1 and later:
            preferred = sorted(preferred, key=later.__contains__)
        lane = await self._road.enter(tokens, preferred, first=bool(self._tried))
        self._last = self._road.lanes.index(lane)
        return lane

    def failed(self, fault: Fault) -> Fault | None:
        """Note a fault of the server that was entered last, and return what the call's attempt came to.

        None: that server has done nothing with the call, which goes to another at once, as part of the same attempt.
        """
        self._tried[self._last] = fault
        if is_of_no_use(fault) and self._others_left():
            return None
        tried, self._tried = list(self._tried.values()), {}
        return fault if len(tried) == 1 or not is_of_no_use(fault) else _together(tried)

    def _others_left(self) -> bool:
        """Whether a server that was not tried yet may be sent something now."""
        now = loop_time()
        return any(lane.paused_until <= now for at, lane in enumerate(self._road.lanes) if at not in self._tried)


class Roads(dict[tuple[str, ...], Road]):
    """The road to every model, by the identities of its servers."""

    def __init__(
        self, limits: LimitsConfig, on_cut: OnCut = lambda name, limit: None, on_news: OnNews = lambda count, line: None
    ) -> None:
        super().__init__()
        self._limits = limits
        self._on_cut = on_cut
        self._on_news = on_news
        self._changed = False
        self.places = Places(limits.concurrency)

    def of(self, model: SingleModel) -> Road:
        """Return the road to a model; one is made for a new model."""
        servers = tuple(server.identity for server in model.servers)
        if servers not in self:
            self[servers] = road = Road(model, self._limits, self.places, self._on_cut, self._on_news)
            if self._changed:
                road.change(self._limits)
        road = self[servers]
        road.use(model)
        return road

    def change(self, limits: LimitsConfig) -> None:
        """Keep to other limits from now on."""
        self._limits = limits
        self._changed = True
        self.places.ceiling = limits.concurrency
        for road in self.values():
            road.change(limits)

    def hold(self, held: bool) -> None:
        """Let no call leave, or let them leave again."""
        if held != self.places.held:
            self.places.held = held
            for road in self.values():
                road.wake()

    def stop(self, reason: BaseException) -> None:
        """Turn away everyone who waits for any of them and everyone who comes."""
        for road in self.values():
            road.stop(reason)


def _together(faults: Iterable[Fault]) -> Fault:
    """Return the faults of all servers, none of which could do anything, as one: fatal only where each of them is."""
    all_of_them = list(faults)
    message = "; ".join(fault.message for fault in all_of_them)
    passing = [fault for fault in all_of_them if isinstance(fault, TransientFault)]
    if not passing:
        return FatalFault(all_of_them[-1].cause, message)
    return TransientFault(passing[-1].cause, message, systematic=True)
