"""Damaged stores: every command ends in one line, returns the readable part, and overwrites nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attack_size import TIMES

from fractionate.calls.store import Store, StoredCall
from fractionate.cli import main
from fractionate.errors import FractionateError
from fractionate.run.folder import RunFolder
from fractionate.types import Completion, Message, Request, Usage

CALLS = 40
LIST_AS_NOBODY = """
import os, sys
from fractionate.cli import main
main(["store", "list", "/nowhere"])  # imports all that it needs, some of which nobody else may read
if os.geteuid() == 0:  # who may write everywhere
    os.setgid(65534)
    os.setuid(65534)
sys.exit(main(["store", "list", sys.argv[1], "--json", "--limit", "0"]))
"""


def fill(path: Path) -> None:
    calls = []
    for number in range(CALLS):
        request = Request((Message("user", f"How many? {number}"),), "solver" if number % 2 else "decomposer")
        completion = Completion(f"reply {number}", usage=Usage(1, 10, 0, 5))
        calls.append(StoredCall(f"{number:064x}", "openai:m", "openai:m", "r", request, completion, 1e9 + number))
    with Store(path) as store:
        store.put_many(calls, holds=("r", {"h": {}}))
        store.put_batch("b", "openai:m", "r", ["k"])


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "calls.sqlite"
    fill(path)
    return path


def sql(statement: str) -> Callable[[Path, random.Random], None]:
    def damage(path: Path, draw: random.Random) -> None:
        connection = sqlite3.connect(path)
        connection.execute(statement)
        connection.commit()
        connection.close()

    damage.__name__ = statement
    return damage


def flipped(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 4, 64])):
        data[draw.randrange(len(data))] = draw.randrange(256)
    path.write_bytes(data)


def truncated(path: Path, draw: random.Random) -> None:
    os.truncate(path, draw.randrange(path.stat().st_size))


def overwritten(path: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    start = draw.randrange(len(data) - 2000)
    path.write_bytes(data[:start] + draw.randbytes(2000) + data[start + 2000 :])


def a_log_of_nonsense(path: Path, draw: random.Random) -> None:
    path.with_name(path.name + "-wal").write_bytes(draw.randbytes(5000))


def a_folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path, draw: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def empty(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"")


EDITS = (
    *("request = 'no json'", "request = '{}'", "request = 5", "request = '[' || request", "role = 'cook'"),
    *("text = 5", "text = x'ff'", "text = CAST(x'fffe' AS TEXT)", "input_tokens = 'many'", "input_tokens = -5"),
    *(
        "output_tokens = 1e30",
        "created = 'noon'",
        "created = 1e300",
        "latency_s = 'long'",
        "key = CAST(rowid AS TEXT) || x'ff00'",
    ),
    *("finish_reason = 7", "model = 5", "run = x'00'", "counted = 'no'", "calls = 2.5e300"),
)
DAMAGES: list[Callable[[Path, random.Random], None]] = [
    *(sql(f"UPDATE calls SET {edit} WHERE rowid % 10 = 3") for edit in EDITS),
    *(sql(f"DROP TABLE {table}") for table in ("calls", "holds", "batches", "purged", "room")),
    sql("ALTER TABLE calls RENAME COLUMN text TO words"),
    sql("PRAGMA user_version = 99"),
    sql("PRAGMA user_version = -1"),
    sql("PRAGMA user_version = 1"),
    sql("UPDATE batches SET keys = '{', state = 'open'"),
    sql("INSERT INTO holds VALUES ('r', 'x', 'cook', 'much', 'more')"),
    sql("INSERT INTO purged VALUES ('r', 5, 'cook', 'a', 'b', 'c', 'd', 'e', 'f', 'g')"),
    *([flipped, truncated, overwritten] * (6 * TIMES)),
    *(a_log_of_nonsense, a_folder, a_pipe, empty),
]
COMMANDS = (
    ["list", "{store}"],
    ["list", "{store}", "--json", "--limit", "0"],
    ["show", "{store}", "0000000000000000000000000000000000000000000000000000000000000002"],
    ["show", "{store}", "f"],
    ["export", "{store}", "{out}"],
    ["purge", "{store}", "--model", "openai:m"],
    ["purge", "{store}", "--key", "00", "--yes"],
)


@pytest.mark.parametrize("number", range(len(DAMAGES)), ids=lambda number: f"{number}-{DAMAGES[number].__name__[:40]}")
def test_every_command_over_a_damaged_store_ends_in_one_line(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    path = tmp_path / "calls.sqlite"
    for command in COMMANDS:
        for file in tmp_path.iterdir():
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        shutil.copy(good, path)
        DAMAGES[number](path, random.Random(number))
        code = main(["store", *(part.format(store=path, out=tmp_path / "out.jsonl") for part in command)])
        said = capsys.readouterr()
        assert code in (0, 1, 2)
        assert "unexpected" not in said.err, said.err
        assert "Traceback" not in said.err
        if code:
            assert said.err.startswith("fractionate: "), said.err
            assert len(said.err.splitlines()) <= 8
    with pytest.MonkeyPatch.context():
        open_and_use(path)


def open_and_use(path: Path) -> None:
    """What a run does with its store, over a damaged one: it works, or says so in one line."""
    try:
        with Store(path) as store:
            store.spent("r")
            store.holders("r")
            store.open_batches("openai:m")
            store.try_room(1000)
            store.get_many([f"{number:064x}" for number in range(CALLS)])
    except FractionateError as error:
        assert "\n" not in str(error)  # noqa: PT017 - whether it raises is up to the damage


@pytest.mark.parametrize("edit", EDITS)
def test_one_bad_row_keeps_no_other_back(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], edit: str
) -> None:
    path, out = tmp_path / "calls.sqlite", tmp_path / "out.jsonl"
    shutil.copy(good, path)
    sql(f"UPDATE calls SET {edit} WHERE rowid % 10 = 3")(path, random.Random(0))
    code = main(["store", "export", str(path), str(out)])
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    if len(rows) == CALLS:  # SQLite has turned what was written into what belongs there
        assert code == 0
        return
    assert code == 1
    assert len(rows) == CALLS - 4
    assert capsys.readouterr().err.count("left out:") == 4


@pytest.mark.parametrize("name", ["calls.sqlite", "./calls.sqlite", "link", "hard", "calls.sqlite-locks"])
def test_an_export_never_writes_over_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(Path("calls.sqlite"))
    Path("link").symlink_to("calls.sqlite")
    Path("calls.sqlite-locks").touch()
    if name == "hard":
        Path("hard").hardlink_to("calls.sqlite")
    assert main(["store", "export", ".", name]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    with Store("calls.sqlite", read_only=True) as store:
        assert len(store) == CALLS


def test_scoring_never_writes_over_what_it_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    row = {"index": 0, "question": "q", "output": "The answer is: 4", "answers": ["4"], "answer": "4"}
    Path("x.jsonl").write_text(json.dumps(row) + "\n")
    Path("gold.jsonl").write_text(json.dumps(row) + "\n")
    Path("link.jsonl").symlink_to("x.jsonl")
    for target in ("x.jsonl", "link.jsonl"):
        assert main(["score", "x.jsonl", "--dataset", "jsonl", "--rows", target]) == 2
    assert main(["score", "x.jsonl", "--dataset", "jsonl", "--gold", "jsonl:gold.jsonl", "--rows", "gold.jsonl"]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert json.loads(Path("x.jsonl").read_text()) == row
    assert main(["score", "x.jsonl", "--dataset", "jsonl", "--rows", "out.jsonl"]) == 0


def test_a_device_is_written_to_and_stays_one(tmp_path: Path, good: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True)
    assert main(["store", "export", str(good), str(pipe)]) == 0
    assert len(reader.communicate()[0].splitlines()) == CALLS
    assert pipe.is_fifo()


@pytest.fixture
def unwritable() -> Iterator[Path]:
    """A store in a folder that its reader cannot write to; everyone else's temporary folders may not be passed."""
    folder = Path(tempfile.mkdtemp(prefix="fractionate-attack-"))
    fill(folder / "calls.sqlite")
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("log", [False, True], ids=["closed", "with its log"])
def test_a_store_that_cannot_be_written_can_be_listed(unwritable: Path, log: bool) -> None:
    path = unwritable / "calls.sqlite"
    if log:  # as a killed process leaves it: the last calls are in the log alone
        copy = unwritable / "copy"
        copy.mkdir()
        with Store(path) as store:
            store.purge(key="0" * 63 + "1")
            extra = StoredCall("f" * 64, "openai:m", "openai:m", "r", Request((), "solver"), Completion("late"))
            store.put_many([extra])
            for name in ("calls.sqlite", "calls.sqlite-wal"):
                shutil.copy(unwritable / name, copy)
        for name in ("calls.sqlite", "calls.sqlite-wal"):
            shutil.move(copy / name, unwritable / name)
        (unwritable / "calls.sqlite-shm").unlink(missing_ok=True)
    for file in unwritable.iterdir():
        file.chmod(0o555 if file.is_dir() else 0o444)
    unwritable.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", LIST_AS_NOBODY, str(unwritable)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    keys = {row["key"] for row in json.loads(done.stdout)}
    assert len(keys) == CALLS  # with the log: one purged, one put
    assert ("f" * 64 in keys) == log


def test_a_run_s_folder_names_the_project_s_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "calls.sqlite")
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    RunFolder(run).record("run", tmp_path / "calls.sqlite")
    assert main(["store", "list", str(run), "--limit", "1"]) == 0
    assert f"1 of {CALLS} calls in {tmp_path / 'calls.sqlite'}" in capsys.readouterr().err


def test_what_is_shown_cannot_drive_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wild = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.exe\x00"
    request = Request((Message("user", wild),), "solver")
    call = StoredCall("ab" * 32, wild, "m", wild, request, Completion(wild, reasoning=wild, error=wild))
    with Store(tmp_path / "calls.sqlite") as store:
        store.put_many([call])
    shown = ["list", str(tmp_path)], ["show", str(tmp_path), "ab"], ["show", str(tmp_path), "ab", "--json"]
    for command in (*shown, ["export", str(tmp_path)], ["list", str(tmp_path), "--json"]):
        assert main(["store", *command]) == 0
        said = capsys.readouterr().out
        assert said.replace("\n", "").isprintable(), command
    assert main(["store", "show", str(tmp_path), "ab", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == wild
