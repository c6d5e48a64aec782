"""One worker, seen from the run: what is known of it, and how it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from fractionate.calls.status import Counters
from fractionate.config import LimitsConfig
from fractionate.errors import FractionateError


class WorkerDied(Exception):  # noqa: N818 - a state, not an error
    """A worker is gone; another takes its place."""


class Member:
    """One worker, as the run knows it: `seen` is how far its store was read, `part` its share of the limits.

    It was `asked` for news last at so much of the loop's time. One that is `dead` may be `cut_off` only, and live.
    """

    def __init__(self, actor: Any, node: str) -> None:
        self.actor = actor
        self.node = node
        self.name = ""
        self.seen = 0
        self.ranges = 0
        self.counters = Counters()
        self.in_flight = 0
        self.part: LimitsConfig | None = None
        self.asked = 0.0
        self.dead = False
        self.cut_off = False
        self.reported = asyncio.Event()
        self.listening: asyncio.Task[None] | None = None
        self.replacing: asyncio.Task[None] | None = None

    async def read_up_to(self, place: int) -> None:
        """Wait until the run has all of the worker's rows up to a place. Raises WorkerDied."""
        while self.seen < place:
            if self.dead:
                raise WorkerDied
            await self.reported.wait()


async def ask(member: Member, reference: Awaitable[Any]) -> Any:
    """Await a worker's answer. Raises WorkerDied where there is no worker any more."""
    from ray.exceptions import (
        ActorUnavailableError,
        ActorUnschedulableError,
        RayActorError,
        RaySystemError,
        RayTaskError,
        WorkerCrashedError,
    )

    try:
        return await reference
    except (RayActorError, ActorUnschedulableError, RaySystemError, WorkerCrashedError) as error:
        member.dead = True
        member.cut_off |= isinstance(error, ActorUnavailableError)
        raise WorkerDied from error
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, FractionateError):
            raise cause from None
        raise
