"""Scores that the user computes: a function of output and answers, and ratings on a scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fractionate.errors import UsageError
from fractionate.rows import Row, shown

AT_ONCE = 32
"""Calls of an async scorer that run at the same time."""


class Scale(NamedTuple):
    """A rating scale: `low` counts 0, `high` counts 1, and what lies between in proportion."""

    low: float
    high: float

    @classmethod
    def parse(cls, text: str) -> Scale:
        """Read LOW-HIGH, such as 1-5. Raises UsageError for anything else."""
        low, dash, high = text.strip().partition("-") if not text.strip().startswith("-") else ("", "", "")
        try:
            scale = cls(float(low), float(high))
        except ValueError:
            scale = cls(0.0, 0.0)
        if not dash or not (math.isfinite(scale.low) and math.isfinite(scale.high) and scale.low < scale.high):
            raise UsageError(f"--scale takes LOW-HIGH, such as 1-5, not {text!r}")
        return scale

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    def share(self, value: Any, where: str) -> float:
        """Return a rating as a share of the scale, 0 to 1. Raises UsageError where it is none."""
        number = number_in(value)
        if number is None or not self.low <= number <= self.high:
            raise UsageError(f"{where} is {shown(value)}, which is no rating from {self.low:g} to {self.high:g}")
        return (number - self.low) / (self.high - self.low)


def number_in(value: Any) -> float | None:
    """Return the finite number that a value is or writes (true is 1), None where it is none."""
    if hasattr(value, "item"):
        value = value.item()  # numpy's numbers are no numbers of Python
    if not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def call_for_each(
    function: Callable[..., Any], rows: Sequence[Row], outputs: Sequence[Any], answers: Sequence[Any], name: str
) -> list[Any]:
    """Return function(output, answers) of every row, plain or async; None where the row has no output.

    Raises UsageError naming the row where the function fails.
    """
    import asyncio
    import inspect
    from concurrent.futures import ThreadPoolExecutor

    async def call(row: Row, output: Any, of_row: Any, free: asyncio.Semaphore) -> Any:
        if output is None or not str(output).strip():
            return None
        async with free:
            try:
                value = function(output, of_row)
                return await value if inspect.isawaitable(value) else value
            except (Exception, SystemExit) as error:
                said = " ".join(f"{type(error).__name__}: {error}".split())
                raise row.error(f"{name} failed: {said}") from None

    async def call_all() -> list[Any]:
        free = asyncio.Semaphore(AT_ONCE)
        return await asyncio.gather(*(call(*each, free) for each in zip(rows, outputs, answers, strict=True)))

    # In a thread of its own: where a loop runs already (a notebook), asyncio.run is refused in its thread.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, call_all()).result()
