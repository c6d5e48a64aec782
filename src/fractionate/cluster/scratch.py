"""The stores of workers on one machine's disk: each writes its own, and a dead one's is found and handed in.

    NAME.sqlite   what worker NAME has committed, and what it held of the budget
    NAME.alive    locked while the worker lives: the kernel unlocks it however it ends

A store is deleted once the run has all that it holds.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

try:
    import fcntl
except ImportError:  # Windows, where Ray's workers are not run
    fcntl = None  # type: ignore[assignment]

from fractionate.calls.store import Hold, Store
from fractionate.errors import FractionateError
from fractionate.types import Role

ORPHAN_S = 30.0
"""Seconds that workers of a run that was killed may take to end."""
_ALIVE = ".alive"
_TOGETHER = 2_000


class Left(NamedTuple):
    """What a dead worker left: its rows (values of `COLUMNS`), and what it held of the budget when it ended."""

    worker: str
    rows: list[tuple[Any, ...]]
    held: Mapping[Role, Hold]


class Scratch:
    """A folder of workers' stores. Raises FractionateError where it cannot be made or written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._locks: dict[str, int] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FractionateError(
                f"the workers' folder {folder} cannot be made ({error.strerror}): name another with cluster.scratch"
            ) from None

    def new(self) -> str:
        """Return the name of a new worker, which is taken to live from now on."""
        name = secrets.token_hex(6)
        if not self._lock(name):
            raise FractionateError(f"{self.folder} cannot be written: name another folder with cluster.scratch")
        return name

    def store(self, worker: str) -> Path:
        """Return the file of a worker's store."""
        return self.folder / f"{worker}.sqlite"

    def dead(self, run: str) -> Iterator[Left]:
        """Take over the stores of workers that have ended without handing in, and yield what they hold."""
        for file in sorted(self.folder.glob("*.sqlite")):
            worker = file.stem
            if worker in self._locks or not self._lock(worker):
                continue
            if not file.is_file():  # another has handed it in meanwhile
                self.remove(worker)
                continue
            with Store(file) as store:
                place, rows = 0, []
                while True:
                    place, more = store.rows_after(place, run, _TOGETHER)
                    rows += more
                    if len(more) < _TOGETHER:
                        break
                yield Left(worker, rows, store.held(run))

    def living(self) -> list[str]:
        """Return the names of workers that others have here and that live."""
        names = [file.stem for file in sorted(self.folder.glob(f"*{_ALIVE}")) if file.stem not in self._locks]
        found = []
        for name in names:
            if self._lock(name):
                self._unlock(name)
            else:
                found.append(name)
        return found

    def remove(self, worker: str) -> None:
        """Delete a worker's store, all of which the run has, and let its name go."""
        for end in ("", "-wal", "-shm", "-locks"):
            self.store(worker).with_name(f"{worker}.sqlite{end}").unlink(missing_ok=True)
        (self.folder / f"{worker}{_ALIVE}").unlink(missing_ok=True)
        self._unlock(worker)
        with suppress(OSError):
            self.folder.rmdir()  # only where nothing else is in it

    def close(self) -> None:
        """Let all names go; what is still here waits for whoever looks next."""
        for worker in list(self._locks):
            self._unlock(worker)

    def _lock(self, worker: str) -> bool:
        if fcntl is None:
            return False
        try:
            file = os.open(self.folder / f"{worker}{_ALIVE}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        self._locks[worker] = file
        return True

    def _unlock(self, worker: str) -> None:
        if (file := self._locks.pop(worker, None)) is not None:
            os.close(file)
