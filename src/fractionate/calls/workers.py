"""One blocking batch in a thread of its own, so that progress and Ctrl-C work while it runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from fractionate.errors import FractionateError
from fractionate.models.base import BatchModel
from fractionate.types import Completion, Request

INTERRUPT_GRACE_S = 10.0
"""Seconds that a batch which can be interrupted has to reach a safe point."""


async def in_worker(model: BatchModel, requests: Sequence[Request]) -> list[Completion]:
    """Run `model.complete_batch` in a daemon thread.

    When cancelled, the model is asked to stop (`interrupt`) and given a moment; a batch that has not ended by then is
    left behind: its thread dies with the process and its result is dropped. Errors that are no FractionateError are
    turned into one that names the model.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[Completion]] = loop.create_future()

    def finish(result: list[Completion] | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            assert result is not None
            done.set_result(result)

    def work() -> None:
        result, error = None, None
        try:
            result = model.complete_batch(requests)
        except FractionateError as raised:
            error = raised
        except BaseException as raised:
            text = " ".join(str(raised).split()) or type(raised).__name__
            error = FractionateError(f"{model.name} failed on a batch of {len(requests)}: {text}")
            error.__cause__ = raised
        try:
            loop.call_soon_threadsafe(finish, result, error)
        except RuntimeError:
            return  # the loop is gone: the run was interrupted and nobody waits

    threading.Thread(target=work, name=f"batch of {model.name}", daemon=True).start()
    try:
        completions = await asyncio.shield(done)
    except asyncio.CancelledError:
        if not done.done():
            model.interrupt()
            await asyncio.wait([done], timeout=INTERRUPT_GRACE_S)
        if done.done() and not done.cancelled():
            done.exception()  # seen, so that it is not reported as forgotten
        raise
    if len(completions) != len(requests):
        raise FractionateError(f"{model.name} gave {len(completions)} replies to a batch of {len(requests)}")
    return completions
