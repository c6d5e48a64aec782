"""One endpoint of a model: how many calls it takes at once, until when it is paused, whether it is used at all.

The number of calls in flight adapts as TCP's window does (slow start, additive increase, multiplicative decrease: Chiu
and Jain 1989, "Analysis of the increase and decrease algorithms for congestion avoidance in computer networks"). It
doubles every round trip until the endpoint first complains (429, 503, a timeout), falls to half of what the endpoint
was really serving, doubles up to that again and then grows by one call, more slowly each time the endpoint refuses that
one call. Where the endpoint takes it, two are tried, then four, until the limit doubles again.

The circuit breaker is that of Nygard's "Release It!": closed while the endpoint answers; open while it is left out;
half open after that: the next call tries the endpoint, and decides whether it is used again or left out for longer.
"""

from __future__ import annotations

from collections.abc import Callable

from fractionate.calls.limits import InFlightSlots, loop_time
from fractionate.config import LimitsConfig
from fractionate.models.base import SingleModel
from fractionate.models.faults import FatalFault, Fault, PermanentFault, RateHeaders, TransientFault

START = 16
"""Calls in flight before the first reply: a small server survives them, a large one is full after 5 round trips."""
DECREASE, DECREASE_NEAR = 0.5, 0.95
"""Factors of the limit after a complaint. While the limit doubles it may overshoot by two, so half is the last level
that was taken. Once it creeps around the capacity it overshoots by one call, and half would waste the server."""
PATIENCE = 16
"""Round trips at most between two tries at one call more than the endpoint last took: each failed try costs a refused
call, and a server that was enlarged is still found within seconds."""
LONGEST_PAUSE_S = 900.0
"""Seconds of Retry-After that are waited for at most."""
LONGEST_RESET_S = 120.0
"""Seconds until the reset of a spent x-ratelimit allowance that are waited for at most. Some servers give the reset of
a daily quota there though they still take calls; a server that means it refuses the next call with Retry-After."""
FAILURES = 3
"""Failures in a row that open a circuit; one is enough where no call can succeed (a refused connection)."""
FIRST_OUT_S, LONGEST_OUT_S = 1.0, 60.0
"""Seconds that an endpoint is left out at first, and at most: each trial that fails doubles them."""


class CircuitBreaker:
    """Whether one endpoint is used, by the clock of its event loop (seconds).

    No health checks are sent: only a call shows that an endpoint answers calls.
    """

    def __init__(self) -> None:
        self.closed = True
        self.tried_at = 0.0
        """When an endpoint that is left out may be tried again."""
        self.trying = False
        """Whether the call that tries it is in flight."""
        self._failures = 0
        self._out_s = 0.0
        self._opened_at = float("-inf")

    def takes(self, now: float) -> bool:
        """Whether a call may go there now."""
        return self.closed or (now >= self.tried_at and not self.trying)

    def answered(self) -> bool:
        """Note that the endpoint works. Returns whether it had been left out."""
        was_out, self.closed = not self.closed, True
        self._failures = 0
        self._out_s = 0.0
        return was_out

    def failed(self, sent_at: float, now: float, *, at_once: bool = False, longest: bool = False) -> bool:
        """Note that a call sent at `sent_at` failed; `at_once` opens the circuit, `longest` for the longest time.

        Returns whether the circuit was closed and is open now. Calls that were in flight when it opened fail for the
        same reason, so they no longer count.
        """
        if sent_at <= self._opened_at:
            return False
        self._failures += 1
        if self.closed and not at_once and self._failures < FAILURES:
            return False
        was_closed, self.closed = self.closed, False
        self._out_s = LONGEST_OUT_S if longest else min(LONGEST_OUT_S, max(FIRST_OUT_S, 2 * self._out_s))
        self._opened_at = now
        self.tried_at = now + self._out_s
        return was_closed


def is_unusable(fault: Fault) -> bool:
    """Whether a fault is the endpoint's, for every call, and it has done no work: another endpoint may do better."""
    return isinstance(fault, FatalFault) or (isinstance(fault, TransientFault) and fault.systematic)


class EndpointLimiter:
    """At most `limit` calls in flight to one endpoint, which is paused while it asks for it.

    `in_flight` counts calls that have left and not come back, `storing` those that have come back and keep their slot
    until `leave`. An endpoint that is `alone` is always used; where there are others it is left out while it
    fails. Callbacks: `on_room` when there may be room, `on_cut` with every new limit after a complaint, `on_out` with
    the fault for which the endpoint is left out, `on_back` when it works again.
    """

    def __init__(
        self,
        server: SingleModel,
        limits: LimitsConfig,
        slots: InFlightSlots,
        *,
        alone: bool = True,
        on_room: Callable[[], None] = lambda: None,
        on_cut: Callable[[int], None] = lambda limit: None,
        on_out: Callable[[Fault], None] = lambda fault: None,
        on_back: Callable[[], None] = lambda: None,
    ) -> None:
        self.server = server
        self.circuit = CircuitBreaker()
        self.ceiling = limits.concurrency
        self.limit = float(min(START, limits.concurrency))
        self.in_flight = 0
        self.storing = 0
        self.paused_until = 0.0
        self._slots = slots
        self._alone = alone
        self._threshold = float("inf")
        self._patience = 1
        self._cut_at = -1.0
        self._on_room, self._on_cut, self._on_out, self._on_back = on_room, on_cut, on_out, on_back

    @property
    def has_complained(self) -> bool:
        """Whether `limit` is the endpoint's capacity, and not only what it has been asked for so far."""
        return self._threshold < float("inf")

    @property
    def has_room(self) -> bool:
        """Whether the endpoint may be sent one more call."""
        return self.in_flight < int(self.limit)

    def enter(self) -> None:
        """Let a call leave, which takes a slot."""
        self.in_flight += 1
        self._slots.taken += 1
        self.circuit.trying = not self.circuit.closed

    def answered(self) -> None:
        """Note that a call has come back, or was not sent after all; it keeps its slot until `leave`."""
        self.in_flight -= 1
        self.storing += 1
        self.circuit.trying = False
        self._on_room()

    def leave(self) -> None:
        """Give the slot of an answered call back: its reply is committed, or there is nothing to commit."""
        self.storing -= 1
        self._slots.free()

    def succeeded(self) -> None:
        """Note a reply: the endpoint keeps up, so the limit may grow."""
        self._works()
        if self.limit >= self.ceiling or self.in_flight + self.storing + 2 < self.limit:
            return  # at the ceiling, or too few calls in flight to learn anything about the limit
        if self.limit < self._threshold:
            self.limit = min(self.ceiling, self._threshold, self.limit + 1.0)
            return
        taken = self.limit - self._threshold  # calls above what the endpoint took when it complained
        step = taken if taken >= 1.0 else 1.0 / self._patience
        self.limit = min(self.ceiling, self.limit + step / self.limit)
        if self.limit > 1.5 * self._threshold + 2:
            # The endpoint takes far more than it did when it complained: slow start finds its new capacity.
            self._threshold, self._patience = float("inf"), 1

    def failed(self, fault: Fault, sent_at: float) -> None:
        """Note the fault of a call sent at `sent_at` (loop time) that still counts as in flight."""
        congested = isinstance(fault, TransientFault) and fault.congested
        if congested:
            self.congested(sent_at)
        if isinstance(fault, PermanentFault):
            self._works()
        elif is_unusable(fault):
            self._leave_out(fault, sent_at, at_once=True)
        elif not congested or fault.maybe_paid or self.in_flight == 1:
            # A busy endpoint works; one that is busy while it serves none of our calls might as well be down.
            self._leave_out(fault, sent_at, at_once=False)

    def congested(self, sent_at: float) -> None:
        """Note a complaint (429, 503, a timeout) about a call sent at `sent_at` that still counts as in flight.

        Complaints about calls sent before the last cut belong to the same congestion, so they cut nothing again. The
        other calls in flight are what the endpoint was serving: slow growth begins there. The limit itself falls lower
        at first, so that the endpoint recovers.
        """
        others = float(self.in_flight - 1)
        if sent_at <= self._cut_at:
            self._threshold = max(1.0, min(self._threshold, others))
        else:
            near = self.limit >= self._threshold
            factor = DECREASE_NEAR if near else DECREASE
            self._patience = min(PATIENCE, 2 * self._patience) if near else 1
            self._threshold = max(1.0, others)
            self._cut_at = loop_time()
            self.limit = max(1.0, min(self.limit, others + 1.0) * factor)
            self._on_cut(int(self.limit))

    def pause(self, seconds: float) -> None:
        """Let no call leave for some seconds (Retry-After), at most `LONGEST_PAUSE_S`."""
        seconds = min(seconds, LONGEST_PAUSE_S)
        self.paused_until = max(self.paused_until, loop_time() + seconds)
        self._on_room()

    def apply(self, rate: RateHeaders) -> None:
        """Pause until the reset where the x-ratelimit headers say that no allowance remains."""
        if rate.remaining_requests == 0 and rate.reset_requests_s > 0:
            self.pause(min(rate.reset_requests_s, LONGEST_RESET_S))
        if rate.remaining_tokens == 0 and rate.reset_tokens_s > 0:
            self.pause(min(rate.reset_tokens_s, LONGEST_RESET_S))

    def change(self, limits: LimitsConfig) -> None:
        """Apply other limits from now on. Calls in flight stay."""
        self.ceiling = limits.concurrency
        self.limit = min(self.limit, float(self.ceiling))

    def _works(self) -> None:
        if self.circuit.answered():
            self.limit, self._threshold, self._patience = min(self.limit, START), float("inf"), 1
            self._on_back()

    def _leave_out(self, fault: Fault, sent_at: float, *, at_once: bool) -> None:
        if self._alone:
            return
        if self.circuit.failed(sent_at, loop_time(), at_once=at_once, longest=isinstance(fault, FatalFault)):
            self._on_out(fault)
