"""Whether a server is asked at all: one that fails is left out for a growing while, then tried with one call.

The circuit breaker of Nygard's "Release It!": closed while the server answers, open while it is left out, half open
once that while is over: the next call tries the server, and decides whether it is asked again or left out for longer.
"""

from __future__ import annotations

FAILURES = 3
"""Failures one after another that open the circuit; one is enough where no call can succeed (a refused connection)."""
FIRST_OUT_S, LONGEST_OUT_S = 1.0, 60.0
"""Seconds that a server is left out at first, and at most: each trial that fails doubles them."""


class Circuit:
    """The state of one server, by the clock of its event loop (seconds)."""

    def __init__(self) -> None:
        self.closed = True
        self.tried_at = 0.0
        """When a server that is left out may be tried again."""
        self.trying = False
        """Whether the call that tries it is under way."""
        self._failures = 0
        self._out_s = 0.0
        self._opened_at = float("-inf")

    def takes(self, now: float) -> bool:
        """Whether a call may go there now."""
        return self.closed or (now >= self.tried_at and not self.trying)

    def answered(self) -> bool:
        """Note that the server does its work. Returns whether it had been left out."""
        was_out, self.closed = not self.closed, True
        self._failures = 0
        self._out_s = 0.0
        return was_out

    def failed(self, sent_at: float, now: float, *, at_once: bool = False, longest: bool = False) -> bool:
        """Note that a call sent at `sent_at` failed; `at_once` makes it enough, `longest` leaves it out for longest.

        Returns whether this leaves the server out that was not before. Calls that were under way when it was left out
        fail of the same cause and count no more.
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
