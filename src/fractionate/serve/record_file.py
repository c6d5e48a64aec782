"""A file of JSON lines that a server adds to while it answers: no answer ever waits for the disk.

Lines are queued and written by a thread of their own, many at once. What cannot be written is counted and said once;
serving goes on. The file is its owner's alone (0600), one server's at a time, and holds whole lines only: half a line
that a crash or a full disk left is taken back.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # the name stands for "there are no locks"

from fractionate.errors import FractionateError, UsageError
from fractionate.rows import LINES, is_json

LOG = logging.getLogger("fractionate.serve")
KNOWN = 100_000
"""How many of the latest answers can be found again."""
_LOOK_BACK = 1 << 28
"""Bytes at the end of an older file that are looked through for answers, when it is opened."""
_MOST_WAITING = 1 << 26
"""Bytes of lines that may wait for a slow disk; further ones are lost."""
_AT_ONCE = 4096
_GATHER_S = 0.01
"""Seconds in which more lines may come, to be written together: waking for each costs more than writing it."""
_CLOSE_S = 10.0
_ANSWER, _FEEDBACK, _SHADOW = b'{"id":"', b'{"feedback":"', b'{"shadow":"'


@dataclass(frozen=True, slots=True)
class _Line:
    text: bytes
    id: str
    written: Future[bool] | None


class RecordFile:
    """The open record. Raises UsageError for a path that is no record, FractionateError for one that cannot be used.

    `on_lost` is told, in the thread that noticed, how many lines were lost and why ("disk" or "behind").
    """

    def __init__(self, path: Path, on_lost: Callable[[int, str], None]) -> None:
        self.path = path
        self._on_lost = on_lost
        self._waiting_bytes = 0
        self._counting = threading.Lock()
        self._unwritten: dict[str, bytes] = {}
        self._places: dict[str, int] = {}
        self._queue: queue.SimpleQueue[_Line | None] = queue.SimpleQueue()
        self._failing = False
        self._closed = False
        self._file = _opened(path)
        try:
            self._end = self._fixed()
            self._remember()
        except BaseException:
            os.close(self._file)
            raise
        self._thread = threading.Thread(target=self._work, name="record", daemon=True)
        self._thread.start()

    def add(self, text: bytes, id: str = "", written: Future[bool] | None = None) -> None:
        """Queue a line (without its end) and return at once; `written` will say whether it was written.

        A line with an `id` is found by it from now on.
        """
        line = _Line(text + b"\n", id, written)
        with self._counting:
            taken = not self._closed and self._waiting_bytes + len(line.text) <= _MOST_WAITING
            self._waiting_bytes += len(line.text) if taken else 0
        if not taken:
            self._on_lost(1, "behind")
            if written is not None:
                written.set_result(False)
            return
        if id:
            self._unwritten[id] = text
        self._queue.put(line)

    def find(self, id: str) -> bytes | None:
        """Return the line of an answer, None for one that is not there or not among the latest. May read the disk."""
        text = self._unwritten.get(id)
        place = self._places.get(id)
        if text is not None or place is None:
            return text
        found = b""
        while not found.endswith(b"\n"):
            part = os.pread(self._file, 1 << 14, place + len(found))
            if not part:
                break
            cut = part.find(b"\n")
            found += part if cut < 0 else part[: cut + 1]
        return found.rstrip(b"\n") or None

    def close(self) -> None:
        """Write what waits, within ten seconds, and close the file."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            LOG.error("the record %s cannot be written: %d bytes are lost", self.path, self._waiting_bytes)
        else:
            os.close(self._file)

    def _work(self) -> None:
        ended = False
        while not ended:
            lines = [self._queue.get()]
            time.sleep(_GATHER_S)
            with suppress(queue.Empty):
                while len(lines) < _AT_ONCE:
                    lines.append(self._queue.get_nowait())
            ended = None in lines
            self._write([line for line in lines if line is not None])

    def _write(self, lines: list[_Line]) -> None:
        if not lines:
            return
        try:
            _write_all(self._file, b"".join(line.text for line in lines))
        except OSError as error:
            self._failed(error, len(lines))
            written = False
        else:
            written = True
            if self._failing:
                LOG.warning("the record %s is written again", self.path)
            self._failing = False
        for line in lines:
            if line.id and written:
                self._place(line.id, self._end)
            if line.id:
                del self._unwritten[line.id]
            self._end += len(line.text) if written else 0
            with self._counting:
                self._waiting_bytes -= len(line.text)
            if line.written is not None:
                line.written.set_result(written)

    def _failed(self, error: OSError, count: int) -> None:
        with suppress(OSError):
            os.ftruncate(self._file, self._end)  # half a line is none
        if not self._failing:
            LOG.error("the record %s cannot be written (%s): answers go on unrecorded", self.path, error.strerror)
        self._failing = True
        self._on_lost(count, "disk")

    def _place(self, id: str, place: int) -> None:
        self._places[id] = place
        if len(self._places) > KNOWN:
            del self._places[next(iter(self._places))]

    def _fixed(self) -> int:
        """Take back half a line at the end. Returns where the next line begins. Raises UsageError for another file."""
        size = os.fstat(self._file).st_size
        begun = os.pread(self._file, len(_FEEDBACK), 0)
        if begun and not any(begun.startswith(one[: len(begun)]) for one in (_ANSWER, _FEEDBACK, _SHADOW)):
            raise UsageError(f"--record {self.path} is a file of another kind: name a new one, or one recorded before")
        line, start = b"", size
        while start and b"\n" not in line:
            start = max(0, start - (1 << 16))
            line = os.pread(self._file, size - start, start)
        half = line[line.rfind(b"\n") + 1 :]
        if not half:
            return size
        if is_json(half):
            _write_all(self._file, b"\n")
            return size + 1
        LOG.warning("the record %s ended in half a line, which is taken back", self.path)
        os.ftruncate(self._file, size - len(half))
        return size - len(half)

    def _remember(self) -> None:
        """Find the latest answers of an older file."""
        with open(self.path, "rb") as file:
            place = file.seek(max(0, self._end - _LOOK_BACK))
            if place:
                place += len(file.readline())
            for line in file:
                if line.startswith(_ANSWER):
                    self._place(line[len(_ANSWER) :].partition(b'"')[0].decode("utf-8", "replace"), place)
                place += len(line)


def _opened(path: Path) -> int:
    if path.suffix.lower() not in LINES:
        raise UsageError(f"--record {path}: the file's name must end in {' or '.join(LINES)}")
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FractionateError(f"--record {path} cannot be opened: {error.strerror}") from None
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError):
            os.close(file)
            raise UsageError(f"--record {path} is another server's record: name a file of its own") from None
    return file


def _write_all(file: int, text: bytes) -> None:
    view = memoryview(text)
    while view:
        view = view[os.write(file, view) :]
