"""A piece ends in time and keeps its state; pieces together give the result of one long run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pieces import GO_ON, ROOT, Piece, PieceOver, add_row, rows

torch = pytest.importorskip("torch", reason="the 'testbeds' extra is not installed")


def test_a_command_is_interrupted_at_the_deadline_as_ctrl_c_does(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(
        "import signal, sys, time, pathlib\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n"
        f"    pathlib.Path({str(tmp_path / 'kept')!r}).write_text('state')\n    sys.exit(130)\n"
    )
    piece = Piece(tmp_path, 3 / 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        with pytest.raises(PieceOver):
            piece.command("waits")
        assert (tmp_path / "kept").read_text() == "state"
        with pytest.raises(PieceOver):  # there is no time left to begin anything
            piece.command("waits")


def test_a_command_that_fails_ends_the_driver(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="ended with 2"):
        Piece(tmp_path, float("inf")).command("fractionate", "run", str(tmp_path / "nothing.toml"))


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a process of its own: what tests before this one loaded may have taken the signal over."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before or signal.default_int_handler)


@pytest.mark.usefixtures("ctrl_c")
def test_work_in_this_process_is_interrupted_too(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(PieceOver), Piece(tmp_path, 0.2 / 60).interrupt_at_deadline():
        time.sleep(60)
    assert signal.getsignal(signal.SIGALRM) is before


def test_a_row_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    add_row(tmp_path / "rows.jsonl", {"part": "one"})
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"part": "tw')
    assert rows(tmp_path / "rows.jsonl") == [{"part": "one"}]


def race(out: Path, minutes: float) -> subprocess.CompletedProcess[str]:
    script = ROOT / "docs/experiments/gpu/allpairs_race.py"
    command = [sys.executable, str(script), "--small", "--device", "cpu", "--samples", "300", "--out", str(out)]
    return subprocess.run([*command, "--minutes", str(minutes)], capture_output=True, text=True, check=False)


def test_a_driver_without_time_says_how_to_go_on(tmp_path: Path) -> None:
    told = race(tmp_path, 1e-9)
    assert told.returncode == GO_ON
    assert told.stdout.splitlines()[-1] == "run again to go on"


def tiny_grid() -> Any:
    from scaling_grids import GPU

    return replace(
        GPU,
        vocabulary=64,
        context=16,
        batch=4,
        held_out=8,
        student_text=200,
        shapes={"a": (1, 32), "b": (2, 32)},
        teachers=(("b", 0.002),),
        students=(("a", 0.002), ("a", 0.001)),
        repeated=("a", 0.001, "b"),
    )


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random tokens in place of the packages' sources."""
    import numpy as np
    import scaling_grids

    drawn = np.random.default_rng(0).integers(0, 64, (400, 17)).astype(np.uint16)
    monkeypatch.setattr(scaling_grids, "_packages_text", lambda grid, out: (drawn, drawn[:8], "random"))


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.usefixtures("text")
def test_a_grid_cut_in_the_middle_of_runs_gives_the_same_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bf16: bool
) -> None:
    import tiny_transformer
    from scaling_law import Laboratory

    grid, never = tiny_grid(), float("inf")
    whole = Laboratory(tmp_path / "whole", never, grid, "cpu", bf16)
    for run in grid.plan():
        whole.do(run)
    assert len(whole.rows()) == 11

    ticks = iter(range(10**9))
    clock = SimpleNamespace(monotonic=lambda: float(next(ticks)), process_time=time.process_time)
    monkeypatch.setattr(tiny_transformer, "time", clock)
    pieces = 0
    while True:
        # Every step of a training looks at the clock once: a piece has nine of them.
        cut = Laboratory(tmp_path / "cut", next(ticks) + 9.5, grid, "cpu", bf16)
        try:
            for run in grid.plan():
                if run.name not in cut.rows():
                    cut.do(run)
            break
        except tiny_transformer.SliceOver:
            pieces += 1
    assert pieces > 10
    losses = {name: row["loss"] for name, row in whole.rows().items()}
    assert {name: row["loss"] for name, row in cut.rows().items()} == losses
    assert len(set(losses.values())) == 11
    json.dumps(losses)


@pytest.mark.usefixtures("text")
def test_a_teacher_asked_online_teaches_what_its_stored_words_do(tmp_path: Path) -> None:
    from scaling_law import Laboratory

    found = []
    for online in (True, False):
        grid = replace(tiny_grid(), online=online)
        laboratory = Laboratory(tmp_path / str(online), float("inf"), grid)
        for run in grid.plan():
            if run.role != "supervised":
                laboratory.do(run)
        found.append([row["loss"] for row in laboratory.rows().values()])
    assert found[0] == pytest.approx(found[1], abs=2e-4)  # stored as half floats
    assert found[0] != found[1]
