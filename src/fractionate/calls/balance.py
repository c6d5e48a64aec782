"""Which of a model's servers a call goes to: the one that its prompt belongs to, unless that has more than its share.

Servers keep the prompts that they have read, so calls that begin alike are cheap where the first of them went.
Rendezvous hashing (Thaler and Ravishankar 1998) gives every beginning an order of servers that depends on nothing else:
a server more or less moves only the beginnings that come to it or leave it. Bounded loads (Mirrokni, Thorup and
Zadimoghaddam 2018) keep a favoured one from being swamped: a server that has more than `SPREAD` times its share of the
calls in flight, by what each server takes, passes a call on to the next in its order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

from fractionate.types import Message

SPREAD = 1.25
"""How much more than its share of the calls in flight a server has at most while another is below its own."""


class Load(NamedTuple):
    """What a server has to do: calls in flight there, whether it may be sent one more now, and what it takes."""

    in_flight: int
    room: bool
    takes: float
    """Calls at once, > 0: its share is by this."""


def beginning(messages: Sequence[Message]) -> str:
    """Return what calls that share a prefix have in common: the first paragraph of what the user says first.

    It is the passage of a question or, where there is none, the question. Instructions before it are the same for all.
    """
    said = next((message.content for message in messages if message.role == "user"), "")
    return (said or (messages[0].content if messages else "")).lstrip().partition("\n\n")[0]


def order(start: str, servers: Sequence[str]) -> list[int]:
    """Return the positions of servers in the order in which a beginning belongs to them, however they are listed."""
    digest = hashlib.blake2b(start.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    scores = [hashlib.blake2b(server.encode(), key=digest, digest_size=8).digest() for server in servers]
    return sorted(range(len(servers)), key=scores.__getitem__, reverse=True)


def takers(loads: Sequence[Load]) -> set[int]:
    """Return the servers to choose among: those with room that have no more than `SPREAD` times their share.

    Where all that have room are above it, the one that is least above; so there is one whenever a server has room.
    """
    free = [at for at, load in enumerate(loads) if load.room]
    calls, takes = sum(load.in_flight for load in loads) + 1, sum(load.takes for load in loads)
    within = {at for at in free if loads[at].in_flight * takes < SPREAD * calls * loads[at].takes}
    return within or set(sorted(free, key=lambda at: loads[at].in_flight / loads[at].takes)[:1])


def choose(preferred: Sequence[int], among: Collection[int]) -> int | None:
    """Return the first preferred server of these, None where there is none."""
    return next((at for at in preferred if at in among), None)
