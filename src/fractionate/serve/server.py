"""A gateway as a process: it listens, says so in one line, and ends when it is asked to, after its last answer."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fractionate.errors import FractionateError, UsageError
from fractionate.serve.app import make_app
from fractionate.serve.gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MOST_HEADER = 8190
"""Bytes of a request's first line, and of each header."""
_SHUTDOWN_S = 2.0
"""Seconds that connections have once nothing is answered any more."""


@asynccontextmanager
async def listening(gateway: Gateway, host: str, port: int) -> AsyncIterator[str]:
    """Listen while the block runs; yields the server's URL. Raises UsageError for an address that cannot be had."""
    from aiohttp import web

    silent = logging.getLogger("fractionate.serve.http")
    silent.setLevel(logging.CRITICAL)  # it would quote what it could not read
    runner = web.AppRunner(
        make_app(gateway),
        access_log=None,
        logger=silent,
        handler_cancellation=True,
        max_line_size=MOST_HEADER,
        max_field_size=MOST_HEADER,
        shutdown_timeout=_SHUTDOWN_S,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=1024)
        try:
            await site.start()
        except OSError as error:
            raise _no_address(host, port, error) from None
        bound = runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{bound}"
    finally:
        await runner.cleanup()
        await gateway.close()


async def serve(gateway: Gateway, host: str, port: int, say: Callable[[str], None], *, check: bool = True) -> None:
    """Serve until SIGTERM or Ctrl-C, then answer what was begun, within `drain_s`. A second signal ends at once."""
    loop = asyncio.get_running_loop()
    asked_to_end, at_once = asyncio.Event(), asyncio.Event()

    def end() -> None:
        (at_once if asked_to_end.is_set() else asked_to_end).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if check:
        try:
            await gateway.check_models()
        except FractionateError:
            await gateway.close()
            raise
    async with listening(gateway, host, port) as url:
        say(url)
        await asked_to_end.wait()
        await _drain(gateway, at_once)


async def _drain(gateway: Gateway, at_once: asyncio.Event) -> None:
    """Begin nothing new and wait for what was begun."""
    gateway.admission.draining = True
    end = asyncio.get_running_loop().time() + gateway.bounds.drain_s
    while gateway.admission.inside and not at_once.is_set() and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.02)


def _no_address(host: str, port: int, error: OSError) -> FractionateError:
    if error.errno == errno.EADDRINUSE:
        return UsageError(f"port {port} of {host} is in use: stop what listens there, or take another with --port")
    return UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}")
