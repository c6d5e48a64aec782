"""`fractionate store` reads, exports and purges; it changes nothing unless told to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fractionate.calls.store import Store, StoredCall
from fractionate.cli import main
from fractionate.run.folder import RunFolder
from fractionate.types import Completion, Message, Request, Usage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    calls = []
    for number in range(5):
        request = Request((Message("user", f"How many?\n{number}"),), "solver" if number % 2 else "decomposer")
        completion = Completion(f"four, {number}", usage=Usage(1, 10, 0, 5))
        model = "openai:small" if number < 3 else "openai:large"
        calls.append(StoredCall(f"{number}abc{number:060x}", model, model, "r", request, completion, 1e9 + number))
    with Store(tmp_path / "calls.sqlite") as store:
        store.put_many(calls)
    return tmp_path


def test_options_may_stand_in_any_place(folder: Path, tmp_path: Path) -> None:
    store, out, chosen = str(folder), str(tmp_path / "out.jsonl"), ["--model", "openai:large"]
    written = []
    for arguments in ([store, out, *chosen], [store, *chosen, out], [*chosen, store, out]):
        assert main(["store", "export", *arguments]) == 0
        written.append(Path(out).read_text())
    assert len(written[0].splitlines()) == 2
    assert written[1:] == written[:1] * 2


def test_list_shows_the_newest_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "list", str(folder), "--limit", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["key"][:4] for row in rows] == ["4abc", "3abc"]
    assert main(["store", "list", str(folder), "--role", "solver"]) == 0
    out = capsys.readouterr()
    assert len(out.out.splitlines()) == 2
    assert "How many? 3" in out.out
    assert "2 of 5 calls" in out.err


def test_a_runs_folder_says_which_store_it_used(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path_factory.mktemp("run"))
    run.record("run", folder / "calls.sqlite")
    assert main(["store", "list", str(run.path), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 5


def test_show_prints_one_call_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "show", str(folder / "calls.sqlite"), "2abc", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["messages"] == [{"role": "user", "content": "How many?\n2"}]
    assert record["text"] == "four, 2"
    assert main(["store", "show", str(folder), "2"]) == 0
    assert "four, 2" in capsys.readouterr().out


@pytest.mark.parametrize(("key", "code", "words"), [("ffff", 1, "no call"), ("", 2, "more than one")])
def test_show_needs_one_call(folder: Path, capsys: pytest.CaptureFixture[str], key: str, code: int, words: str) -> None:
    assert main(["store", "show", str(folder), key]) == code
    assert words in capsys.readouterr().err


def test_export_writes_json_lines(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    assert main(["store", "export", str(folder), str(out), "--model", "openai:large"]) == 0
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == ["four, 4", "four, 3"]
    capsys.readouterr()
    assert main(["store", "export", str(folder)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_purge_says_what_it_would_do_and_does_it_when_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "purge", str(folder), "--model", "openai:small"]) == 0
    assert "3 calls would be deleted" in capsys.readouterr().out
    assert main(["store", "purge", str(folder), "--model", "openai:small", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"purged": 3}
    with Store(folder / "calls.sqlite") as store:
        assert len(store) == 2
    assert main(["store", "purge", str(folder), "--yes"]) == 2


def test_no_store_is_one_line_and_makes_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "list", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
