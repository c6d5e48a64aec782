"""The ledger of looks in a project's store: another folder or a deleted one does not reset it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from analysis.measured import PRICES, cell_of, config_of
from fractionate.cli import main
from fractionate.run.attempt_rows import attempt_lines
from fractionate.run.folder import RunFolder, write_rows


def look(project: Path, out: str, n: int = 60, right: int = 40, first: int = 0, **sections: Any) -> dict[str, Any]:
    """Report a run of one student decomposer with its base, in a folder of the project, and return the verdict."""
    project.mkdir(exist_ok=True)
    store = project / "calls.sqlite"
    sqlite3.connect(store).close()
    folder = RunFolder(project / out)
    folder.path.mkdir()
    folder.record(out, store)
    outcomes = [1.0] * right + [0.0] * (n - right)
    cells = [cell_of([1.0] * n, first=first), cell_of([0.0] * n, decomposer="student", first=first)]
    write_rows(folder.attempt_lines, attempt_lines([*cells, cell_of(outcomes, decomposer="D-R", first=first)]))
    config = config_of(prices=PRICES, **sections)
    folder.config.write_text(json.dumps(config.model_dump(mode="json")))
    assert main(["report", str(folder.path), "--quiet"]) == 0
    verdict: dict[str, Any] = json.loads(folder.results.read_text())["verdict"]
    return verdict


def spent(verdict: dict[str, Any]) -> float:
    (share,) = verdict["rule"]["error_spent"].values()
    return round(share, 3)


def test_another_folder_or_a_deleted_one_does_not_reset_what_looks_have_spent(tmp_path: Path) -> None:
    assert spent(look(tmp_path, "a")) == 0.8
    assert spent(look(tmp_path, "b")) == 0.8, "the same look again costs nothing"
    assert spent(look(tmp_path, "more", n=120, right=100)) == 0.944, "another student, since it fails other questions"
    shutil.rmtree(tmp_path / "a")
    shutil.rmtree(tmp_path / "more")
    assert spent(look(tmp_path, "c", right=20)) == 0.965, "a student that was trained again"
    assert spent(look(tmp_path, "d", first=1000)) == 0.974, "the same student at other questions"
    assert spent(look(tmp_path, "e")) == 0.8, "the first look is what it was"


def test_more_questions_of_the_same_student_spend_what_is_kept_for_them(tmp_path: Path) -> None:
    assert spent(look(tmp_path, "a", n=60, right=60)) == 0.8
    assert spent(look(tmp_path, "b", n=120, right=120)) == 0.85


def test_another_projects_store_has_a_ledger_of_its_own(tmp_path: Path) -> None:
    assert [spent(look(tmp_path / name, "run", right=right)) for name, right in (("x", 40), ("y", 20))] == [0.8, 0.8]


def test_a_sealed_test_set_is_judged_once(tmp_path: Path) -> None:
    sealed = {"data": {"test": "atlas", "sealed": True}}
    assert look(tmp_path, "a", **sealed)["evidence"] == look(tmp_path, "b", **sealed)["evidence"] != []
    later = look(tmp_path, "c", right=20, **sealed)
    assert later["evidence"] == []
    assert "the sealed test set was opened" in later["because"]


def test_a_ledger_that_cannot_be_kept_gives_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look(tmp_path, "a")
    with sqlite3.connect(tmp_path / "calls.sqlite") as connection:
        connection.execute("DROP TABLE looks")
        connection.execute("CREATE TABLE looks (id INTEGER)")
    connection.close()
    assert main(["report", str(tmp_path / "a"), "--quiet"]) == 1
    assert "the ledger of looks in" in capsys.readouterr().err
