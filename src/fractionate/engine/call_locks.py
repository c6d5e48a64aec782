"""Which process makes a call: processes that share a store send what is in flight in one of them only once.

A claim is a lock on one byte of an empty file beside the store, at a place that the call's key decides. The kernel
keeps it for the process and drops it when the process ends, however it ends: nobody ever waits for the dead, nothing
needs a lease, and a claim costs two system calls and no transaction. Without `fcntl` (Windows), or where the file
system has no locks, every process makes its calls itself, and the first reply that is stored is the one that all use.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from contextlib import suppress

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # the name stands for "there are no locks"

from fractionate.engine.store import Store
from fractionate.errors import FractionateError
from fractionate.types import Completion

LOOK_S = 0.05
"""Seconds between two looks at a call that another process makes."""
_RUNS = 1 << 60
"""Where the bytes that stand for runs begin: calls have those before."""


class CallLocks:
    """The calls of one engine that no other process is to make."""

    def __init__(self, store: Store, patience_s: float) -> None:
        self._store = store
        self._patience_s = patience_s
        self._path = store.path.with_name(f"{store.path.name}-locks")
        self._file = -1
        self._mine: set[str] = set()

    def take(self, key: str) -> bool:
        """Return whether the call is this process's to make: from now on, or already."""
        if key in self._mine:
            return True
        if not self._lock(_place(key)):
            return False
        self._mine.add(key)
        return True

    def give_back(self, key: str) -> None:
        """Let others make the call: it is committed, or failed, or was never this process's."""
        if key not in self._mine:
            return
        self._mine.discard(key)
        if fcntl is not None and self._file >= 0:
            with suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(key))

    async def elsewhere(self, key: str) -> Completion | None:
        """Wait for a call that another process makes. Returns its completion.

        Returns None once the call is to be made here: the other process gave it up or died, or has taken so long
        (`patience_s`) that it may have been halted.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience_s
        while not self.take(key):
            if loop.time() > deadline:
                self._mine.add(key)
                return None
            await asyncio.sleep(LOOK_S)
            stored = self._store.get(key)
            if stored is not None:
                return stored
        return None

    def hold_budget(self, run: str) -> None:
        """Keep a run's budget for this process until `close`: a cap holds because one process alone spends.

        Raises FractionateError if another process has it.
        """
        if not self._lock(_RUNS + _place(hashlib.sha256(run.encode()).hexdigest())):
            raise FractionateError(
                f"another process spends the budget of run {run!r} over {self._store.path}: wait for it or stop it, "
                "then run the same command again"
            )

    def close(self) -> None:
        """Give all claims back."""
        self._mine.clear()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _lock(self, place: int) -> bool:
        """Return False if another process has locked the byte."""
        if fcntl is None or not self._opened():
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            pass  # no locks here: better sent twice than never
        return True

    def _opened(self) -> bool:
        if self._file < 0:
            with suppress(OSError):
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        return self._file >= 0


def _place(key: str) -> int:
    """Return the byte that stands for a key: 60 bits of its digest."""
    return int(key[:15], 16)
