"""Progress says how far a piece of work is, when it will be done, and what a run has spent."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from fractionate.cli import main
from fractionate.run import progress as module
from fractionate.run.progress import Progress, time_left
from servers.chat_server import ChatServer


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_the_time_left_is_reckoned_from_the_latest_pace(clock: Clock) -> None:
    progress = Progress(io.StringIO())
    progress.advance(0, 1190)
    assert progress.far() == "0/1,190", "nothing is known yet"
    clock.now += 1
    progress.advance(400, 1190)  # from the store, in a second
    for done in range(401, 495):
        clock.now += 1
        progress.advance(done, 1190)
    assert progress.far() == "494/1,190, 12 min left", "one a second: 696 seconds"
    progress.advance(1190, 1190)
    assert progress.far() == "1,190/1,190"
    progress.advance(0, 0)
    assert progress.far() == ""


def test_one_item_of_many_says_nothing_of_the_rest(clock: Clock) -> None:
    progress = Progress(io.StringIO())
    progress.advance(0, 160)
    clock.now += 120
    progress.advance(1, 160)
    assert progress.far() == "1/160", "the rest of its batch ends in a moment, not in 5 h"
    clock.now += 1
    progress.advance(4, 160)
    assert progress.far() == "4/160, 79 min left"


def test_a_terminal_gets_a_bar_and_a_file_gets_lines(clock: Clock) -> None:
    for stream, shown in (
        (Terminal(), f"{'━' * 5}{'─' * 15} 1/4, 30 s left; 7 calls"),
        (io.StringIO(), "1/4, 30 s left; 7 calls"),
    ):
        progress = Progress(stream)
        progress.advance(0, 4)
        clock.now += 10
        progress.advance(1, 4)
        clock.now += 0.01
        progress.step("7 calls")
        assert stream.getvalue().strip().endswith(f"]   {shown}")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (119, "119 s"), (121, "2 min"), (300, "5 min"), (7200, "2 h"), (200_000, "2 days")],
)
def test_times(seconds: float, said: str) -> None:
    assert time_left(seconds) == said


def test_the_last_line_says_what_was_spent(
    tmp_path: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test.jsonl").write_text('{"question": "Seven?", "answer": "7"}\n')
    (tmp_path / "run.toml").write_text(f"""
        data.test = "jsonl:test.jsonl"
        models.teacher = "{server.name}"
        models.decomposers = ["none"]
        run = {{strategies = ["single"], variants = []}}
        prices."{server.name}" = {{input_per_million = 100, output_per_million = 100}}
    """)
    assert main(["run", str(tmp_path / "run.toml"), "--out", str(tmp_path / "out")]) == 0
    last = [line for line in capsys.readouterr().err.splitlines() if "model calls" in line]
    assert "; spent $0.0" in last[-1]
    assert " of $" not in last[-1]
    assert main(["run", str(tmp_path / "run.toml"), "--out", str(tmp_path / "out"), "--set", "budget.usd=0.5"]) == 0
    last = [line for line in capsys.readouterr().err.splitlines() if "model calls" in line]
    assert last[-1].endswith(" of $0.5"), "what was spent before counts against the cap"
