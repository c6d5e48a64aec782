"""Lists that may outgrow memory: a short one stays in memory, a long one goes to a temporary file.

The file has no name and disappears with the process. A value is written as plain tuples of texts and numbers, and built
again each time it is read.
"""

from __future__ import annotations

import marshal
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Generic, TypeVar, overload

from fractionate.columns import digest
from fractionate.errors import FractionateError

T = TypeVar("T")

KEPT = 20_000
"""Values up to which a list stays in memory."""
_TOGETHER = 512
"""Values that are read from the file at a time."""
_BUFFER = 1 << 20


class Spool(Sequence[T], Generic[T]):
    """A list that can only grow. `encode` returns a value as plain tuples, `decode` builds the value from them.

    Raises FractionateError where the temporary file cannot be written.
    """

    def __init__(self, encode: Callable[[T], Any], decode: Callable[[Any], T], kept: int | None = None) -> None:
        self._encode = encode
        self._decode = decode
        self._kept = KEPT if kept is None else kept
        self._values: list[T] = []
        self._file: Any = None
        self._ends = array("Q", [0])
        self._waiting = bytearray()
        self._flushed = 0

    def append(self, value: T) -> None:
        """Add a value at the end."""
        if self._file is None:
            self._values.append(value)
            if len(self._values) > self._kept:
                self._spill()
            return
        self._write(value)

    def __len__(self) -> int:
        return len(self._ends) - 1 if self._file is not None else len(self._values)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...
    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        if self._file is None:
            return self._values[place]
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        at = range(len(self))[place]
        (value,) = self._read(at, at + 1)
        return value

    def __iter__(self) -> Iterator[T]:
        if self._file is None:
            yield from self._values
            return
        for start in range(0, len(self), _TOGETHER):
            yield from self._read(start, min(start + _TOGETHER, len(self)))

    @property
    def values(self) -> Sequence[T]:
        """The values as a plain list, or this spool where they are too many."""
        return self._values if self._file is None else self

    def _spill(self) -> None:
        try:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # it lives as long as this object
        except OSError as error:
            raise _unwritable(error) from None
        for value in self._values:
            self._write(value)
        self._values = []

    def _write(self, value: T) -> None:
        self._waiting += marshal.dumps(self._encode(value))
        self._ends.append(self._flushed + len(self._waiting))
        if len(self._waiting) >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        try:
            self._file.seek(self._flushed)
            rest = memoryview(self._waiting)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise _unwritable(error) from None
        self._flushed += len(self._waiting)
        self._waiting = bytearray()

    def _read(self, start: int, end: int) -> list[T]:
        if self._waiting:
            self._flush()
        first = self._ends[start]
        self._file.seek(first)
        block = memoryview(self._whole(self._ends[end] - first))
        places = [place - first for place in self._ends[start : end + 1]]
        return [self._decode(marshal.loads(block[begin:stop])) for begin, stop in pairwise(places)]

    def _whole(self, size: int) -> bytes:
        """Read so many bytes from here; one read may give fewer."""
        parts: list[bytes] = []
        while size:
            part = self._file.read(size)
            if not part:
                raise FractionateError("a temporary file of this run was cut short: run the same command again")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class SpoolIndex:
    """Finds the positions of a key's values in a spool, in 16 bytes a value.

    Keys are compared by a digest of 64 bits, so a caller checks that a value found is the one meant.
    """

    def __init__(self) -> None:
        self._digests = array("Q")
        self._places = array("Q")
        self._sorted = True

    def add(self, key: str, place: int) -> None:
        """Note the position of a value with this key; positions come in ascending order."""
        self._digests.append(digest(key))
        self._places.append(place)
        self._sorted = False

    def of(self, key: str) -> list[int]:
        """Return the positions of a key in ascending order, and rarely one of another key."""
        if not self._sorted:
            self._sort()
        wanted = digest(key)
        at = bisect_left(self._digests, wanted)
        found = []
        while at < len(self._digests) and self._digests[at] == wanted:
            found.append(self._places[at])
            at += 1
        return found

    def _sort(self) -> None:
        import numpy as np

        order = np.argsort(np.frombuffer(self._digests, dtype=np.uint64), kind="stable")
        for name in ("_digests", "_places"):
            column = np.frombuffer(getattr(self, name), dtype=np.uint64)[order]
            setattr(self, name, array("Q", column.tobytes()))
        self._sorted = True


def collect(values: Iterable[T], spool: Spool[T]) -> Sequence[T]:
    """Return the values in order, as a plain list where they are few and as the spool where they are many."""
    for value in values:
        spool.append(value)
    return spool.values


def _unwritable(error: OSError) -> FractionateError:
    folder = tempfile.gettempdir()
    return FractionateError(
        f"a temporary file in {folder} cannot be written ({error.strerror}): make room there, or set TMPDIR to a "
        "folder with room"
    )
