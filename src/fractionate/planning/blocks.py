"""Long work in numbered blocks: on all cores, with progress, kept in a file as it is done, resumed from it."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np

from fractionate.errors import FractionateError, UsageError
from fractionate.planning.minimise import Minimum

Work = Callable[[int, threading.Event], Minimum]
"""Does the block of that number; looks at the event now and then, and raises StoppedError once it is set."""


class StoppedError(Exception):
    """The work was interrupted between two parts of a block."""


class Journal:
    """A file of JSON lines, one per finished block. Blocks of other data or options are not taken from it.

    Without a path nothing is kept.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self._path = path
        self._blocks: dict[str, Minimum] = {}
        if path is not None and path.is_file():
            self._read(path, key)
        if path is not None and not self._blocks:
            self._append({"key": key}, "w")

    def __len__(self) -> int:
        return len(self._blocks)

    def get(self, name: str) -> Minimum | None:
        """Return the block of that name where it is done."""
        return self._blocks.get(name)

    def put(self, name: str, block: Minimum) -> None:
        """Keep a finished block. Raises FractionateError where the file cannot be written."""
        self._blocks[name] = block
        if self._path is not None:
            self._append({"block": name, "theta": block.theta.tolist(), "loss": block.loss.tolist()}, "a")

    def discard(self) -> None:
        """Remove the file: the work is done."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _append(self, record: dict[str, object], mode: str) -> None:
        assert self._path is not None
        try:
            with self._path.open(mode, encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise FractionateError(
                f"{self._path} cannot be written ({error.strerror or error}): name another place with --state, or "
                f"'none'"
            ) from None

    def _read(self, path: Path, key: str) -> None:
        # A process that was killed may have left half a line: what cannot be read is done again.
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or [json.dumps({"key": ""})]
        for number, line in enumerate(lines):
            try:
                record = json.loads(line)
                if number == 0 and record["key"] != key:
                    return  # of other data or options: it is begun anew
                if number:
                    theta, loss = np.array(record["theta"], float), np.array(record["loss"], float)
                    self._blocks[record["block"]] = Minimum(theta, loss)
            except (ValueError, KeyError, TypeError):
                if number == 0:
                    raise UsageError(
                        f"{path} is there already and keeps no parts of a fit: name another file with --state"
                    ) from None


def digest(*parts: object) -> str:
    """Return a key of data and options: arrays by their bytes, everything else by its text."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.tobytes() if isinstance(part, np.ndarray) else str(part).encode())
        whole.update(b"\0")
    return whole.hexdigest()


def run_blocks(
    name: str, count: int, work: Work, journal: Journal, say: Callable[[str], None], workers: int | None = None
) -> list[Minimum]:
    """Do the blocks that the journal lacks, and return all `count` of them in order.

    NumPy lets go of the interpreter while it computes, so threads use the cores. Ctrl-C keeps every finished block.
    """
    done: list[Minimum | None] = [journal.get(f"{name} {number}") for number in range(count)]
    missing = [number for number in range(count) if done[number] is None]
    if len(missing) < count and missing:
        say(f"{name}: {count - len(missing)} of {count} parts were done before")
    stop = threading.Event()
    executor = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        running: dict[Future[Minimum], int] = {executor.submit(work, number, stop): number for number in missing}
        while running:
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                number = running.pop(future)
                block = future.result()
                done[number] = block
                journal.put(f"{name} {number}", block)
            say(f"{name}: {count - len(running)} of {count} parts")
    finally:
        stop.set()
        executor.shutdown(wait=True, cancel_futures=True)
    return [block for block in done if block is not None]
