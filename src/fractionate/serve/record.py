"""The record of a server's answers: one JSON line for each answer, feedback and shadow answer, written by a thread.

No key, header or account is in a line. An ownership token, a hash of the client's key and the answer's id, shows later
that feedback comes with the same key. It reveals nothing about the key and differs between answers.

No answer waits for the disk: lines are queued and written many at once. Lines that cannot be written are counted, and
serving goes on. The file belongs to its owner alone (0600) and to one server at a time, and holds whole lines only.
`datasets/traffic.py` reads it.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # the name stands for "there are no locks"

from fractionate.errors import FractionateError, UsageError, without_secrets
from fractionate.rows import LINES, is_json
from fractionate.serve.answer import Answered, Choice
from fractionate.serve.catalog import Served
from fractionate.types import Answer, Component, Decomposition, Usage

LOG = logging.getLogger("fractionate.serve")
KNOWN = 100_000
"""The number of latest answers that can be found again."""
_LOOK_BACK = 1 << 28
"""Bytes at the end of an older file that are searched for answers, when it is opened."""
_MOST_WAITING = 1 << 26
"""Bytes of lines that may wait for a slow disk; further lines are lost."""
_AT_ONCE = 4096
_GATHER_S = 0.01
"""Seconds in which lines gather, to be written together: waking for each line costs more than writing it."""
_CLOSE_S = 10.0
_ANSWER, _FEEDBACK, _SHADOW = b'{"id":"', b'{"feedback":"', b'{"shadow":"'


@dataclass(frozen=True, slots=True)
class _Line:
    text: bytes
    id: str
    written: Future[bool] | None


class RecordFile:
    """The open record. Raises UsageError for a path that is no record, FractionateError for one that cannot be used.

    `on_lost` is called in either thread with the number of lost lines and the reason ("disk" or "behind").
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
        """Queue a line (without its end) and return at once; `written` receives whether it was written.

        From then on, `find` returns a line with an `id`.
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
        """Return the line of an answer, None where it is not among the latest. May read the disk."""
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
        """Write the lines that wait, within ten seconds, and close the file."""
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
            os.ftruncate(self._file, self._end)  # no half line stays
        if not self._failing:
            LOG.error("the record %s cannot be written (%s): answers go on unrecorded", self.path, error.strerror)
        self._failing = True
        self._on_lost(count, "disk")

    def _place(self, id: str, place: int) -> None:
        self._places[id] = place
        if len(self._places) > KNOWN:
            del self._places[next(iter(self._places))]

    def _fixed(self) -> int:
        """Remove half a line at the end and return where the next line begins. Raises UsageError for another file."""
        size = os.fstat(self._file).st_size
        begun = os.pread(self._file, len(_FEEDBACK), 0)
        if begun and not any(begun.startswith(one[: len(begun)]) for one in (_ANSWER, _FEEDBACK, _SHADOW)):
            raise UsageError(f"--record {self.path} is no record: name a new file, or an earlier record")
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
        LOG.warning("the record %s ended in half a line, which is removed", self.path)
        os.ftruncate(self._file, size - len(half))
        return size - len(half)

    def _remember(self) -> None:
        """Find the latest answers in an older file."""
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
        os.fchmod(file, 0o600)  # a file that was there already may be readable by others
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError):
            os.close(file)
            raise UsageError(f"--record {path} is in use by another server: name a file of its own") from None
    return file


def _write_all(file: int, text: bytes) -> None:
    view = memoryview(text)
    while view:
        view = view[os.write(file, view) :]


_USAGE = tuple(field.name for field in fields(Usage))
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Finished:
    """An answered request: the answer's id, the account that sent it, and the seconds that it took."""

    id: str
    answered: Answered
    account: str
    seconds: float


def answer_line(finished: Finished, scorer: str, token: str) -> bytes:
    """Return the line of an answered request. `scorer` is the run's `data.scorer`, `token` the ownership token."""
    answered = finished.answered
    request = answered.plan.client_request
    row = {
        "id": finished.id,
        "time": _now(),
        "question": request.question,
        "context": request.context,
        "dataset": answered.plan.dataset.name,
        "scorer": scorer if answered.plan.dataset.name == "jsonl" else "",
        **({"system": request.system} if request.system else {}),
        **({"history": [message._asdict() for message in request.history]} if request.history else {}),
        **({"asked": dict(request.given)} if request.given else {}),
        **answering_row(answered, finished.seconds),
        "measured": not answered.deviations,
        "deviations": answered.deviations,
        "degraded": answered.degraded,
        **({"ownership_token": token} if token else {}),
    }
    return encoded(row)


def answering_row(answered: Answered, seconds: float) -> dict[str, Any]:
    """Return a pair's replies to a question, with usage, dollars and seconds."""
    plan, usd = answered.plan, answered.usd
    known = [cost for cost in usd.values() if cost is not None]
    return {
        **pair_row(plan.pair),
        "replies": [_reply(choice) for choice in answered.choices],
        "usage": {role: {name: getattr(usage, name) for name in _USAGE} for role, usage in answered.usage.items()},
        "usd": {**usd, "total": sum(known) if len(known) == len(usd) else None},
        "latency_s": round(seconds, 4),
    }


def pair_row(pair: Served) -> dict[str, Any]:
    """Return the names and models of a pair."""
    return {
        "pair": _shown(pair.id),
        "strategy": pair.strategy.name,
        "decomposer": _part(pair.decomposer),
        "solver": _part(pair.solver),
    }


def feedback_line(id: str, right: bool, answers: tuple[Answer, ...]) -> bytes:
    """Return the line of feedback; `answers` are the accepted ones, where they were given."""
    return encoded({"feedback": id, "time": _now(), "right": right, **({"answers": answers} if answers else {})})


def shadow_line(id: str, row: Mapping[str, Any], *, same: bool | None, failed: str = "") -> bytes:
    """Return the line of a shadow's answer, or of its failure (`failed`).

    `same` says whether it equals the answer that was sent, None where either is unparsed.
    """
    return encoded({"shadow": id, "time": _now(), **row, "same": same, **({"failed": failed} if failed else {})})


def encoded(row: Mapping[str, Any]) -> bytes:
    """Return a line as it is written, with a question mark for half a surrogate pair."""
    return _ENCODE(row).encode("utf-8", "replace")


def _reply(choice: Choice) -> dict[str, Any]:
    return {
        "output": choice.refusal or choice.content,
        "answer": choice.answer,
        "decomposition": _decomposition(choice.decomposition),
        "sub_answers": list(choice.sub_answers),
        "finish_reason": "refusal" if choice.refusal else choice.finish_reason,
        "cut_off": choice.cut_off,
        "degraded": choice.degraded,
    }


def _decomposition(made: Decomposition | None) -> dict[str, Any] | None:
    if made is None:
        return None
    return {
        "subquestions": list(made.subquestions),
        "status": made.status,
        "dropped": made.dropped,
        "raw": made.raw,
    }


def _part(component: Component) -> dict[str, str]:
    return {"name": _shown(component.name), "kind": component.kind, "model": _shown(component.model)}


_shown = lru_cache(maxsize=1000)(without_secrets)


def _now() -> float:
    return round(time.time(), 3)
