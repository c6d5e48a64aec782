"""Malformed files: damaged bytes, and JSON lines with odd values in odd places."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

ODD: list[Any] = [
    *(None, "", " ", "x", "x" * 200_000, "\x1b[2J\x00", "\ud800", "7", "-7", "1e400", "nan", "[", '{"a": 1}'),
    *(0, -1, 7, 2**31, 2**63, 10**30, 0.5, 1e300, float("nan"), float("inf"), True, False),
    *([], [[]], [None], ["x"], {}, {"a": {}}, {"input_tokens": -5}, {"output_tokens": 10**30}, {"calls": "many"}),
]


def _rows(data: bytes) -> list[Any]:
    """Return the objects of a file: one a line, or one in all."""
    try:
        return [json.loads(data)]
    except ValueError:
        return [json.loads(line) for line in data.splitlines()]


def _lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def flipped(data: bytes, draw: random.Random) -> bytes:
    edited = bytearray(data)
    for _ in range(draw.choice([1, 4, 16])):
        edited[draw.randrange(len(edited))] = draw.randrange(256)
    return bytes(edited)


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def nonsense(data: bytes, draw: random.Random) -> bytes:
    return draw.choice([b"", b"\n", b"null", b"[]", b"{}", b"5", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe\x00"])


def odd_value(data: bytes, draw: random.Random) -> bytes:
    rows = _rows(data)
    row = draw.choice(rows)
    row[draw.choice(list(row))] = draw.choice(ODD)
    return _lines(rows)


def odd_value_within(data: bytes, draw: random.Random) -> bytes:
    """Put an odd value somewhere inside what a field holds."""
    rows = _rows(data)
    row = draw.choice(rows)
    inner = [value for value in row.values() if isinstance(value, dict | list) and value] or [row]
    place = draw.choice(inner)
    key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
    place[key] = draw.choice(ODD)
    return _lines(rows)


def odd_value_anywhere(data: bytes, draw: random.Random) -> bytes:
    """Put an odd value at a place drawn among all places, at any depth."""
    rows = _rows(data)
    places: list[tuple[Any, Any]] = []
    waiting: list[Any] = [rows]
    while waiting:
        value = waiting.pop()
        keys = list(value) if isinstance(value, dict) else range(len(value))
        places += [(value, key) for key in keys]
        waiting += [value[key] for key in keys if isinstance(value[key], dict | list)]
    place, key = draw.choice(places)
    place[key] = draw.choice(ODD)
    return _lines(rows)


def odd_column(data: bytes, draw: random.Random) -> bytes:
    rows = _rows(data)
    name, value = draw.choice(list(rows[0])), draw.choice(ODD)
    return _lines([{**row, name: value} for row in rows])


def without_a_field(data: bytes, draw: random.Random) -> bytes:
    rows = _rows(data)
    row = draw.choice(rows)
    del row[draw.choice(list(row))]
    return _lines(rows)


def odd_row(data: bytes, draw: random.Random) -> bytes:
    rows = _rows(data)
    rows[draw.randrange(len(rows))] = draw.choice([*ODD, rows[0]])
    return _lines(rows)


Mutation = Callable[[bytes, random.Random], bytes]
OF_BYTES: list[Mutation] = [flipped, cut, nonsense]
OF_ROWS: list[Mutation] = [*OF_BYTES, odd_value, odd_value_within, odd_column, without_a_field, odd_row]


def mutate(file: Path, mutations: list[Mutation], draw: random.Random) -> str:
    """Mutate a file in one way, drawn at random. Returns which."""
    mutation = draw.choice(mutations)
    file.write_bytes(mutation(file.read_bytes(), draw))
    return f"{file.name}: {mutation.__name__}"
