"""Shared code of the gateway's tests: the served run and a gateway over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fractionate.serve.admission import Keys
from fractionate.serve.gateway import Bounds, Gateway
from fractionate.serve.server import listening
from servers.solver_server import SolverServer

T = TypeVar("T")

ROWS = [
    {"question": "How many clips did Natalia sell to her 48 friends in April, and how many in May?", "answer": "72"},
    {"question": "How far is it to 7?", "answer": "7", "context": "The road is long.\n\nIt has 7 bends."},
    {"question": "How many apples are there if twice six are 12?", "answer": "12", "context": "Apples: 12"},
]
CONFIG = """
[data]
test = ["jsonl:test.jsonl"]
answer = "text"
[models]
teacher = "echo:"
solvers = ["{url}#test", "{url}#short", "teacher"]
decomposers = ["none", "teacher", "{url}#test"]
[models.options."{url}#short"]
style = "student"
max_tokens = 40
[run]
strategies = ["single", "single-cot", "static", "stepwise", "dynamic", "self-consistency"]
variants = []
votes = 3
[limits]
attempts = 4
[prices."{url}#test"]
input_per_million = 1.0
output_per_million = 2.0
[prices."{url}#short"]
input_per_million = 1.0
output_per_million = 2.0
"""


@dataclass(frozen=True)
class Measured:
    """A run's folder, the server behind it, and the bodies that the run sent."""

    folder: Path
    server: SolverServer
    sent: list[dict[str, Any]]

    @property
    def solver(self) -> str:
        return f"{self.server.base_url}#test"

    @property
    def short(self) -> str:
        return f"{self.server.base_url}#short"

    def pair(self, strategy: str, decomposer: str = "none", solver: str = "") -> str:
        return f"fractionate/{strategy}:{decomposer}+{solver or self.solver}"


@asynccontextmanager
async def open_gateway(
    run: Measured, *, keys: str = "", allow_unmeasured: bool = False, **bounds: Any
) -> AsyncIterator[tuple[str, Gateway]]:
    gateway = Gateway(run.folder, Keys(keys), Bounds(**bounds), allow_unmeasured=allow_unmeasured)
    async with listening(gateway, "127.0.0.1", 0) as url:
        yield url, gateway


def through(run: Measured, work: Callable[[str, Gateway], Awaitable[T]], **options: Any) -> T:
    """Let a gateway answer while some work is done with its URL."""

    async def inside() -> T:
        async with open_gateway(run, **options) as (url, gateway), asyncio.timeout(300):
            return await work(url, gateway)

    return asyncio.run(inside())


def timeless(facts: dict[str, Any]) -> dict[str, Any]:
    """Return what a reply says of itself but for the seconds, which no two requests share."""
    assert set(facts["seconds"]) == {"decomposer", "solver"}
    return {name: value for name, value in facts.items() if name != "seconds"}
