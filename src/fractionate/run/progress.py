"""Progress of long work: a live line on a terminal, a plain line now and then where there is none."""

from __future__ import annotations

import sys
import time
from typing import TextIO

PLAIN_EVERY_S = 10.0
LIVE_EVERY_S = 0.2


class Progress:
    """Says which stage runs and how far it is. Writes to standard error, so that results can be piped."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._quiet = quiet
        self._started = time.monotonic()
        self._last = 0.0
        self._width = 0

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
        if self._live and not last:
            line = f"[{self._clock()}]   {text}"
            print("\r" + line.ljust(self._width), end="", file=self._stream, flush=True)
            self._width = len(line)
        else:
            self._clear()
            print(f"[{self._clock()}]   {text}", file=self._stream, flush=True)

    def _clear(self) -> None:
        if self._live and self._width:
            print("\r" + " " * self._width + "\r", end="", file=self._stream)
            self._width = 0

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60:02d}:{seconds % 60:02d}"
