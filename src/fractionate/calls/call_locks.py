"""Locks on calls in flight: of several processes that share a store, only one sends a given call.

A claim is a lock on one byte of an empty file beside the store, at a place that the call's key decides. The kernel
keeps it for the engine that took it and drops it when its process ends, however it ends: no process waits for one that
died, no lease is needed, and a claim costs three system calls and no transaction. The file lies beside the store
itself, whatever link the store was named by; one that was deleted is made again, and what this engine holds is locked
anew before anything more is sent. Without `fcntl` (Windows) every process makes its calls itself, and the first reply
that is stored is the one that all use.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import struct
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # the name stands for "there are no locks"

from fractionate.calls.store import Store
from fractionate.errors import FractionateError
from fractionate.files import PRIVATE, utf8
from fractionate.types import Completion

LOOK_S = 0.05
"""Seconds between two checks of a call that another process makes."""
_BUDGETS = 1 << 60
"""The first byte offset of budget locks; call locks use the offsets below it."""


class CallLocks:
    """The calls of one engine that no other is to make. Raises FractionateError where the file cannot be locked."""

    def __init__(self, store: Store, patience_s: float) -> None:
        self._store = store
        self._patience_s = patience_s
        self._path = store.locks
        self._needed = fcntl is not None and store.is_shared
        self._file = -1
        self._closing: Callable[[], Any] = lambda: None
        self._inode = (0, 0)
        self._mine: set[str] = set()
        self._budget: int | None = None

    def take(self, key: str) -> bool:
        """Return whether the call is this engine's to make: from now on, or already."""
        self._see_file()
        if key in self._mine:
            return True
        if not self._lock(_place(key)):
            return False
        self._mine.add(key)
        return True

    def give_back(self, key: str) -> None:
        """Release the lock of a call that is committed, that failed, or that another engine holds."""
        if key not in self._mine:
            return
        self._mine.discard(key)
        if fcntl is not None and self._file >= 0:
            with suppress(OSError):
                _set(self._file, fcntl.F_UNLCK, _place(key))

    async def elsewhere(self, key: str) -> Completion | None:
        """Wait for a call that another engine makes. Returns its completion.

        Returns None once the call is to be made here: the other gave it up or died, or has taken so long
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

    def hold_budget(self, run: str, scope: str = "store") -> None:
        """Keep a budget for this engine until `close`: a cap holds because one engine alone spends.

        That is the budget of the whole store, or with the scope "run" that of the run. Raises FractionateError if
        another engine has it.
        """
        self._see_file()
        budget = _budget_place(run if scope == "run" else None)
        if not self._lock(budget):
            whose = f"run {run!r} over" if scope == "run" else "the store"
            apart = "" if scope == "run" else '; with budget.scope = "run" each run has a cap of its own'
            raise FractionateError(
                f"another process spends the budget of {whose} {self._store.path}: wait for it or stop it, then run "
                f"the same command again{apart}"
            )
        self._budget = budget

    def close(self) -> None:
        """Give all claims back."""
        self._mine.clear()
        self._budget = None
        self._close_file()

    def _lock(self, place: int) -> bool:
        """Return False if another engine has locked the byte."""
        if not self._needed:
            return True
        try:
            _set(self._file, fcntl.F_WRLCK, place)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            raise self._unlockable(error) from None
        return True

    def _see_file(self) -> None:
        """See that the file is still the one that others find; lock what is held in a new one where it is not."""
        if not self._needed:
            return
        try:
            found = os.stat(self._path)
            if self._file >= 0 and (found.st_dev, found.st_ino) == self._inode:
                return
        except OSError:
            pass  # not there yet, or not there any more
        held = [_place(key) for key in self._mine] + ([] if self._budget is None else [self._budget])
        self._open_file()
        if not all(self._lock(place) for place in held):
            raise FractionateError(
                f"{self._path} was deleted, and another process makes calls of this run meanwhile: wait for it or stop "
                "it, then run the same command again"
            )

    def _open_file(self) -> None:
        self._close_file()
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
            found = os.fstat(self._file)
        except OSError as error:
            raise self._unlockable(error) from None
        # Closed with this object at the latest, so that an engine that was never closed keeps no lock.
        self._closing = weakref.finalize(self, os.close, self._file)
        self._inode = found.st_dev, found.st_ino

    def _close_file(self) -> None:
        self._closing()
        self._file = -1

    def _unlockable(self, error: OSError) -> FractionateError:
        return FractionateError(
            f"{self._path} cannot be locked ({error.strerror}), so another process could pay for the same calls: put "
            "the store on a disk with locks where its folder may be written (run.store)"
        )


def _set(file: int, kind: int, place: int) -> None:
    """Lock or unlock one byte without waiting: for the open file where the system can, else for the process.

    A process has its locks once, so that two engines in it would not exclude each other, and one that closes the file
    would drop the other's.
    """
    assert fcntl is not None
    if sys.platform == "linux" and sys.maxsize > 1 << 32:
        # struct flock of 64-bit Linux: type, whence, start, length, process (0, as the call wants it)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, place, 1, 0))
    else:
        command = fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB
        fcntl.lockf(file, command, 1, place)


def _place(key: str) -> int:
    """Return the byte that stands for a key: 60 bits of its digest."""
    return int(key[:15], 16)


def _budget_place(run: str | None) -> int:
    """Return the byte that stands for the budget of a run, or of the whole store (None)."""
    return _BUDGETS + (0 if run is None else 1 + _place(hashlib.sha256(utf8(run)).hexdigest()))
