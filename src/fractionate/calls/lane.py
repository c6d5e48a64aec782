"""The way to one server: how many calls it takes at once, whether it asks to wait, whether it is there.

Concurrency adapts as TCP does (additive increase, multiplicative decrease, slow start; Chiu and Jain 1989): it doubles
every round trip until the server first complains, falls to half of what the server was really serving, doubles up to
that and then creeps up by one, more slowly each time the server refuses that one more. Where the server takes the one
more, two are tried, then four, until it doubles again.
"""

from __future__ import annotations

from collections.abc import Callable

from fractionate.calls.circuit import Circuit
from fractionate.calls.limits import Places, loop_time
from fractionate.config import LimitsConfig
from fractionate.models.base import SingleModel
from fractionate.models.faults import FatalFault, Fault, PermanentFault, RateHeaders, TransientFault

START = 16
"""Calls in flight at most before the first reply has come."""
DECREASE, DECREASE_NEAR = 0.5, 0.95
"""What remains of the limit after a complaint: while it was doubling, and once it creeps around what a server takes."""
PATIENCE = 16
"""Round trips at most between two tries at one more call in flight than the server last took."""
LONGEST_PAUSE_S = 120.0
"""Seconds that a spent x-ratelimit allowance is waited for at most before a call tries again."""


def is_of_no_use(fault: Fault) -> bool:
    """Whether a fault is the server's, for every call, and it has done nothing with this one: another may do better."""
    return isinstance(fault, FatalFault) or (isinstance(fault, TransientFault) and fault.systematic)


class Lane:
    """At most `limit` calls in flight to one server, paused while it asks for it.

    `in_flight` counts calls that have left and not come back, `settling` those that have come back and keep their place
    until `leave`. A server that is `alone` is asked whatever it does; where there are others it is left out while it
    fails. `on_room` is told when there may be room, `on_cut` of every new limit after a complaint, `on_out` of the
    fault for which the server is left out, `on_back` when it does its work again.
    """

    def __init__(
        self,
        server: SingleModel,
        limits: LimitsConfig,
        places: Places,
        *,
        alone: bool = True,
        on_room: Callable[[], None] = lambda: None,
        on_cut: Callable[[int], None] = lambda limit: None,
        on_out: Callable[[Fault], None] = lambda fault: None,
        on_back: Callable[[], None] = lambda: None,
    ) -> None:
        self.server = server
        self.circuit = Circuit()
        self.ceiling = limits.concurrency
        self.limit = float(min(START, limits.concurrency))
        self.in_flight = 0
        self.settling = 0
        self.paused_until = 0.0
        self._places = places
        self._alone = alone
        self._threshold = float("inf")
        self._patience = 1
        self._cut_at = -1.0
        self._on_room, self._on_cut, self._on_out, self._on_back = on_room, on_cut, on_out, on_back

    @property
    def has_complained(self) -> bool:
        """Whether `limit` is what the server takes, and not only what it has been asked for so far."""
        return self._threshold < float("inf")

    @property
    def has_room(self) -> bool:
        """Whether the server may be sent one call more."""
        return self.in_flight < int(self.limit)

    def enter(self) -> None:
        """Let a call leave, which takes a place."""
        self.in_flight += 1
        self._places.taken += 1
        self.circuit.trying = not self.circuit.closed

    def answered(self) -> None:
        """Note that a call has come back, or was not sent after all, and keeps its place until it leaves."""
        self.in_flight -= 1
        self.settling += 1
        self.circuit.trying = False
        self._on_room()

    def leave(self) -> None:
        """Give the place of an answered call back: its reply is committed, or there is nothing to commit."""
        self.settling -= 1
        self._places.free()

    def succeeded(self) -> None:
        """Note a reply: the server keeps up, more may be asked of it."""
        self._is_there()
        if self.limit >= self.ceiling or self.in_flight + self.settling + 2 < self.limit:
            return  # at the ceiling, or not asking for as much as the limit allows
        if self.limit < self._threshold:
            self.limit = min(self.ceiling, self._threshold, self.limit + 1.0)
            return
        taken = self.limit - self._threshold  # more than the server took when it complained
        step = taken if taken >= 1.0 else 1.0 / self._patience
        self.limit = min(self.ceiling, self.limit + step / self.limit)
        if self.limit > 1.5 * self._threshold + 2:
            # The server takes far more than it did when it complained: find anew how much.
            self._threshold, self._patience = float("inf"), 1

    def failed(self, fault: Fault, sent_at: float) -> None:
        """Note what went wrong with a call sent at `sent_at` (loop time) that still has its place."""
        congested = isinstance(fault, TransientFault) and fault.congested
        if congested:
            self.congested(sent_at)
        if isinstance(fault, PermanentFault):
            self._is_there()
        elif is_of_no_use(fault):
            self._leave_out(fault, sent_at, at_once=True)
        elif not congested or fault.maybe_paid or self.in_flight == 1:
            # A server that is busy is there; one that is busy with nothing of ours might as well not be.
            self._leave_out(fault, sent_at, at_once=False)

    def congested(self, sent_at: float) -> None:
        """Note a complaint (429, 503, a timeout) about a call sent at `sent_at` (loop time) that still has its place.

        Complaints about calls sent before the last cut are part of the same congestion. What the server was serving
        is what is still in flight: that is where slow growth begins; the limit itself falls lower at first, so that
        the server recovers.
        """
        others = float(self.in_flight - 1)
        if sent_at <= self._cut_at:
            self._threshold = max(1.0, min(self._threshold, others))
        else:
            near = self.limit >= self._threshold
            share = DECREASE_NEAR if near else DECREASE
            self._patience = min(PATIENCE, 2 * self._patience) if near else 1
            self._threshold = max(1.0, others)
            self._cut_at = loop_time()
            self.limit = max(1.0, min(self.limit, others + 1.0) * share)
            self._on_cut(int(self.limit))

    def pause(self, seconds: float) -> None:
        """Let nothing leave for some seconds (Retry-After)."""
        self.paused_until = max(self.paused_until, loop_time() + seconds)
        self._on_room()

    def heed(self, rate: RateHeaders) -> None:
        """Wait for the reset when the server says that nothing remains."""
        if rate.remaining_requests == 0 and rate.reset_requests_s > 0:
            self.pause(min(rate.reset_requests_s, LONGEST_PAUSE_S))
        if rate.remaining_tokens == 0 and rate.reset_tokens_s > 0:
            self.pause(min(rate.reset_tokens_s, LONGEST_PAUSE_S))

    def change(self, limits: LimitsConfig) -> None:
        """Keep to other limits from now on. Calls that have left already stay."""
        self.ceiling = limits.concurrency
        self.limit = min(self.limit, float(self.ceiling))

    def _is_there(self) -> None:
        if self.circuit.answered():
            self.limit, self._threshold, self._patience = min(self.limit, START), float("inf"), 1
            self._on_back()

    def _leave_out(self, fault: Fault, sent_at: float, *, at_once: bool) -> None:
        if self._alone:
            return
        if self.circuit.failed(sent_at, loop_time(), at_once=at_once, longest=isinstance(fault, FatalFault)):
            self._on_out(fault)
