"""Progress of long work: a live line with a bar on a terminal, a plain line now and then where there is none."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TextIO

PLAIN_EVERY_S = 10.0
LIVE_EVERY_S = 0.2
RECENT_S = 60.0
"""Seconds over whose pace the time left is reckoned: what the store answered at first says nothing of what comes."""
LEAST_SHARE = 0.02
"""Share of the items that must be done before the time left is reckoned: a batch ends many items at once, late."""
BAR = 20
"""Letters of a bar."""


class Progress:
    """Says which stage runs and how far it is. Writes to standard error, so that results can be piped."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._quiet = quiet
        self._started = time.monotonic()
        self._last = 0.0
        self._width = 0
        self._done = self._count = 0
        self._pace: deque[tuple[float, int]] = deque()

    def advance(self, done: int, count: int) -> None:
        """Note that so many of a piece of work are done, of `count` (0: not known)."""
        now = time.monotonic()
        if done < self._done or count != self._count:  # another piece of work
            self._pace.clear()
        if not self._pace or now - self._pace[-1][0] >= LIVE_EVERY_S:
            self._pace.append((now, done))
        while len(self._pace) > 2 and now - self._pace[1][0] > RECENT_S:
            self._pace.popleft()
        self._done, self._count = done, count

    def stage(self, text: str) -> None:
        """Say that a stage begins, or a fact worth keeping on the screen."""
        if self._quiet:
            return
        self._clear()
        print(f"[{self._clock()}] {text}", file=self._stream, flush=True)
        self._last = time.monotonic()

    def step(self, text: str, *, last: bool = False) -> None:
        """Say how far the stage is; most calls are swallowed. The last one of a stage is always said."""
        now = time.monotonic()
        if self._quiet or not (last or now - self._last >= (LIVE_EVERY_S if self._live else PLAIN_EVERY_S)):
            return
        self._last = now
        text = "; ".join(filter(None, [self.far(), text]))
        if self._live and not last:
            line = f"[{self._clock()}]   {text}"
            print("\r" + line.ljust(self._width), end="", file=self._stream, flush=True)
            self._width = len(line)
        else:
            self._clear()
            print(f"[{self._clock()}]   {text}", file=self._stream, flush=True)

    def far(self) -> str:
        """Return how far the piece of work is and when it will be done: "494/1,190, 5 min left"; "" where unknown."""
        done, count = self._done, self._count
        if not count:
            return ""
        full = BAR * done // count
        bar = f"{'━' * full}{'─' * (BAR - full)} " if self._live else ""
        first_at, first = self._pace[0] if self._pace else (0.0, 0)
        pace = (done - first) / max(time.monotonic() - first_at, 1e-9)
        is_known = done - first >= max(1, LEAST_SHARE * count) and done < count
        left = f", {time_left((count - done) / pace)} left" if is_known else ""
        return f"{bar}{done:,}/{count:,}{left}"

    def _clear(self) -> None:
        if self._live and self._width:
            print("\r" + " " * self._width + "\r", end="", file=self._stream)
            self._width = 0

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60:02d}:{seconds % 60:02d}"


def time_left(seconds: float) -> str:
    """Return a time in the largest unit that has at least two of it: "40 s", "5 min", "3 h", "2 days"."""
    for name, size, most in (("s", 1, 119), ("min", 60, 119), ("h", 3600, 47)):
        if round(seconds / size) <= most:
            return f"{round(seconds / size)} {name}"
    return f"{round(seconds / 86_400)} days"
