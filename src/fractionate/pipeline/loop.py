"""A stage's calls in an event loop of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fractionate.engine.progress import Pulse
from fractionate.pipeline.run import Run

T = TypeVar("T")


def in_loop(run: Run, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a stage's calls in an event loop of its own and close the models' connections with it."""

    async def whole() -> T:
        async with Pulse(run.engine, run.progress.step):
            return await work()

    async def end() -> None:
        # Ctrl-C may come even before the stage's first step: whatever is left of it ends before its models.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await run.close_models()

    stage = whole()
    try:
        with asyncio.Runner() as runner:
            try:
                return runner.run(stage)
            finally:
                runner.run(end())
    finally:
        stage.close()
