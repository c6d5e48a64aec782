"""A run folder with edited or damaged files is read, or refused in one line."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import fractionate
from attacks.attack_size import TIMES
from fractionate.run.attempt_rows import attempt_lines

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 7, 1.5, 10**400, 1e308, "", "x", "\ud800", "NaN", [], [1], ["x"], {}, {"a": 1}, [[[]]],
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    config = fractionate.parse_config(
        {
            "data": {"test": "atlas#test@0-7"},
            "models": {"teacher": "echo:0.9", "solvers": ["echo:0.6"], "decomposers": ["none", "teacher"]},
            "run": {"variants": [], "strategies": ["single", "static"]},
        }
    )
    with fractionate.Run(config, folder, base=folder.parent) as run:
        run.run()
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container with every key of it, at any depth."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def changed(table: Any, draw: random.Random) -> Any:
    """Return a copy of a table in which one value is another one, or is gone."""
    table = json.loads(json.dumps(table))
    container, key = draw.choice(list(places(table)))
    if draw.random() < 0.25:
        del container[key]
    else:
        container[key] = draw.choice(VALUES)
    return table


def flipped(content: bytes, draw: random.Random) -> bytes:
    """Return bytes with a few of them changed, cut off or repeated."""
    at = draw.randrange(len(content))
    if draw.random() < 0.3:
        return content[:at] + draw.choice([b"", content[at : at + 40] * 2, draw.randbytes(9)])
    found = bytearray(content)
    for _ in range(draw.randrange(1, 4)):
        found[draw.randrange(len(found))] = draw.choice([draw.randrange(256), ord("7"), ord("a")])
    return bytes(found)


def bytes_of(file: Path, good: bytes) -> Callable[[random.Random], None]:
    def mutate(draw: random.Random) -> None:
        file.write_bytes(flipped(good, draw))

    return mutate


def outcomes(use: Callable[[], object], mutate: Callable[[random.Random], None], times: int) -> set[str]:
    """Return how so many damaged files were met: "read", or "refused" in one line. Any other error is a failure."""
    seen = set()
    for number in range(times):
        mutate(random.Random(number))
        refused = ""
        try:
            use()
        except fractionate.FractionateError as error:
            refused = str(error)
        assert "\n" not in refused, f"mutation {number}: {refused}"
        seen.add("refused" if refused else "read")
    return seen


def test_changed_results(folder: Path) -> None:
    file = folder / "results.json"
    good = json.loads(file.read_text())

    def use() -> None:
        report = fractionate.read_report(folder)
        assert str(report.verdict)
        assert all(isinstance(line, str) for line in report.warnings)
        report.to_pandas()
        report._repr_html_()

    (folder / "attempts.sqlite").unlink()  # examples are not what is tried here
    (folder / "attempts.jsonl").unlink()

    def mutate(draw: random.Random) -> None:
        file.write_text(json.dumps(changed(good, draw)))

    assert outcomes(use, mutate, 80 * TIMES) == {"read", "refused"}
    text = json.dumps(good).encode()
    assert outcomes(use, bytes_of(file, text), 50 * TIMES) == {"read", "refused"}


def test_changed_lines_of_attempts(folder: Path) -> None:
    (folder / "attempts.sqlite").unlink()
    file = folder / "attempts.jsonl"
    good = [json.loads(line) for line in file.read_text().splitlines()]

    def mutate(draw: random.Random) -> None:
        rows = list(good)
        at = draw.randrange(len(rows))
        rows[at] = changed(rows[at], draw)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def use() -> None:
        list(attempt_lines(fractionate.read_cells(folder)))
        fractionate.to_pandas(fractionate.read_cells(folder))

    assert outcomes(use, mutate, 80 * TIMES) == {"read", "refused"}


def test_changed_rows_of_the_store(folder: Path) -> None:
    """What SQL can change: the fields of cells, questions and attempts, and the arrays."""
    file = folder / "attempts.sqlite"
    good = file.read_bytes()

    def mutate(draw: random.Random) -> None:
        file.write_bytes(good)
        with closing(sqlite3.connect(file)) as database, database:
            table = draw.choice(["cells", "questions", "attempts", "arrays"])
            columns = [name for (_, name, *_) in database.execute(f"PRAGMA table_info({table})")]
            rows = database.execute(f"SELECT rowid, * FROM {table}").fetchall()
            row = draw.choice(rows)
            at = draw.randrange(len(columns))
            value: Any = draw.choice([None, -1, 10**12, 1.5, "x", b"\xff\x00"])
            if columns[at] == "fields" and draw.random() < 0.8:
                value = json.dumps(changed(json.loads(row[1 + at]), draw))
            query = f"DELETE FROM {table} WHERE rowid = ?" if draw.random() < 0.1 else ""
            try:
                if query:
                    database.execute(query, (row[0],))
                else:
                    database.execute(f"UPDATE {table} SET {columns[at]} = ? WHERE rowid = ?", (value, row[0]))
            except sqlite3.Error:
                pass  # its own constraints

    assert outcomes(lambda: use_all(folder), mutate, 80 * TIMES) == {"read", "refused"}


def test_changed_bytes_of_the_store(folder: Path) -> None:
    file = folder / "attempts.sqlite"
    good = file.read_bytes()
    assert outcomes(lambda: use_all(folder), bytes_of(file, good), 70 * TIMES) == {"read", "refused"}


def use_all(folder: Path) -> None:
    cells = fractionate.read_cells(folder)
    list(attempt_lines(cells))
    for cell in cells:
        cell.values()
        for role in ("decomposer", "solver"):
            cell.columns.usage(role)
    fractionate.read_report(folder)._repr_html_()
