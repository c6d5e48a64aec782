"""Who is worked for now, who waits and who is asked to come again: places, and a queue of bounded length."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from types import TracebackType

from fractionate.serve.refusals import Refusal


class Admission:
    """At most `places` requests at once and `queue` waiting, in order of arrival; `async with` holds a place.

    `seconds` are those that a request has taken of late: what a client who is turned away is told to wait by.
    """

    def __init__(self, places: int, queue: int) -> None:
        self.places = places
        self.queue = queue
        self.inside = 0
        self.draining = False
        self.seconds = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    def finished(self, seconds: float) -> None:
        """Note how long an answered request took."""
        self.seconds += 0.1 * (seconds - self.seconds)

    async def __aenter__(self) -> None:
        if self.draining:
            raise Refusal(503, "the server is shutting down", code="shutting_down", after_s=5)
        if self.inside < self.places:
            self.inside += 1
            return
        if len(self._waiting) >= self.queue:
            wait = max(1.0, self.seconds * (1 + len(self._waiting) / self.places))
            said = f"{self.inside} requests are worked on and {len(self._waiting)} wait: try again in {wait:.0f} s"
            raise Refusal(429, said, code="server_full", after_s=wait)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._leave()
            with suppress(ValueError):
                self._waiting.remove(place)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        """Hand the place on to who has waited longest."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.inside -= 1
