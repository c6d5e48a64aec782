"""A chat server for whole runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from servers.chat_server import ChatServer


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A chat server in a thread of its own, since a run has its own event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    made = ChatServer()
    asyncio.run_coroutine_threadsafe(made.__aenter__(), loop).result(10)
    yield made
    asyncio.run_coroutine_threadsafe(made.__aexit__(None, None, None), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
