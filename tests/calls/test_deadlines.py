"""A deadline cuts off what takes too long and nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fractionate.calls.limits import Deadlines


async def begin(deadlines: Deadlines, seconds: float) -> str:
    async def work() -> str:
        await asyncio.sleep(seconds)
        return f"slept {seconds}"

    task: Any = asyncio.current_task()
    try:
        return await deadlines.run(work(), task)
    except TimeoutError:
        assert task.cancelling() == 0
        await asyncio.sleep(0)  # the task goes on
        return "late"


def test_only_what_takes_too_long_is_cut_off() -> None:
    async def main() -> list[str]:
        deadlines = Deadlines(0.2)
        first = asyncio.gather(*(begin(deadlines, seconds) for seconds in (30, 0, 30, 0.01)))
        await asyncio.sleep(0.1)
        second = asyncio.gather(*(begin(deadlines, seconds) for seconds in (0.01, 30)))
        return [*await first, *await second]

    assert asyncio.run(main()) == ["late", "slept 0", "late", "slept 0.01", "slept 0.01", "late"]


def test_one_set_of_deadlines_serves_one_loop_after_another() -> None:
    deadlines = Deadlines(0.05)
    for _ in range(2):
        assert asyncio.run(begin(deadlines, 30)) == "late"


def test_a_cancelled_caller_is_told_so_and_not_of_a_timeout() -> None:
    async def main() -> None:
        task = asyncio.create_task(begin(Deadlines(30), 30))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_errors_pass_through() -> None:
    async def fail() -> None:
        raise ValueError("a fault")

    async def main() -> None:
        task: Any = asyncio.current_task()
        with pytest.raises(ValueError, match="a fault"):
            await Deadlines(1).run(fail(), task)

    asyncio.run(main())
