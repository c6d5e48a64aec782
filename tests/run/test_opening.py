"""Opening a run has no side effects, and a run's files are readable by their owner only."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from fractionate.calls.store import Store
from fractionate.cli import main
from fractionate.config import load_config
from fractionate.errors import FractionateError
from fractionate.run.forecast import forecast_run
from fractionate.run.progress import Progress
from fractionate.run.run import Run

CONFIG = '[data]\ntest = "jsonl:test.jsonl"\n[models]\nteacher = "echo:"\n[run]\nvariants = []\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": "What is 1?", "answer": "1"}) + "\n")
    (tmp_path / "run.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opened(folder: Path) -> Run:
    return Run(load_config(folder / "run.toml"), folder / "run", folder, Progress(quiet=True))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_opening_and_forecasting_write_nothing(folder: Path) -> None:
    before = files(folder)
    with opened(folder) as run:
        assert forecast_run(run).calls > 0
        assert run.stored is None
    assert files(folder) == before
    assert main(["run", "run.toml", "--out", "run", "--quiet"]) == 0
    before = files(folder)
    with opened(folder) as run:
        forecast_run(run)
        assert run.stored is not None
        assert len(run.stored) > 0
    assert main(["run", "run.toml", "--out", "run", "--dry-run"]) == 0
    assert main(["store", "list", "run"]) == 0
    assert files(folder) == before


def test_what_workers_left_is_merged_when_work_begins_not_when_the_run_is_opened(folder: Path) -> None:
    """A worker's store that is no store is only met, and refused, by a run that begins."""
    left = folder / "run/workers"
    left.mkdir(parents=True)
    (left / "w1.sqlite").write_text("not a store")
    before = files(folder)
    with opened(folder) as run:
        run.pairs()
    assert files(folder) == before


def test_a_run_s_folder_is_free_again_once_the_run_is_closed(folder: Path) -> None:
    with opened(folder) as run:
        run.begin()
        child = os.fork()
        if child == 0:  # another process
            try:
                opened(folder).begin()
            except FractionateError:
                os._exit(3)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    with opened(folder) as run:
        run.begin()


@pytest.mark.skipif(os.name != "posix", reason="rights of files are POSIX's")
def test_what_holds_prompts_is_readable_by_its_owner_alone(folder: Path) -> None:
    before = os.umask(0o022)
    try:
        Store(folder / "calls.sqlite").close()
        (folder / "calls.sqlite").chmod(0o644)  # as an earlier version left it
        (folder / "calls.sqlite-locks").touch(0o644)
        assert main(["run", "run.toml", "--out", "run", "--quiet"]) == 0
    finally:
        os.umask(before)
    shared = {"report.html", "report.md", "results.json"}  # made to be shown
    records = [path for path in (folder / "run").rglob("*") if path.is_file() and path.name not in shared]
    for path in (*records, *folder.glob("calls.sqlite*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert len(records) > 3


def test_a_store_that_may_not_be_written_stays_so(folder: Path) -> None:
    Store(folder / "calls.sqlite").close()
    (folder / "calls.sqlite").chmod(0o444)
    with suppress(FractionateError):  # root may write it all the same
        Store(folder / "calls.sqlite").close()
    assert stat.S_IMODE((folder / "calls.sqlite").stat().st_mode) == 0o400
