"""A chat server for whole runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from servers.chat_server import ChatServer
from servers.threaded import in_thread


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A chat server that answers while the test runs."""
    with in_thread(ChatServer()) as made:
        yield made
