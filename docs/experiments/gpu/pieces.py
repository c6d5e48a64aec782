"""Shared code of the GPU experiments: pieces of limited time, state in one folder, results as JSON lines.

A driver is called repeatedly. Each call works until its minutes are over, saves its state for the next call and ends
with the exit status 75 and the line "run again to go on"; the last call ends with 0:

    while python docs/experiments/gpu/NAME.py --minutes 9; [ $? -eq 75 ]; do :; done
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
SITE = ROOT / "runs/gpu/site"
"""Where `pack.py unpack` puts the student's weights; on the path of every command."""
DATA = ROOT / "runs/gpu/data"
GO_ON = 75
"""The exit status of a finished piece (EX_TEMPFAIL of sysexits.h: try again later)."""
GRACE_S = 45.0
"""Seconds that an interrupted command has to save its state."""


class PieceOver(Exception):  # noqa: N818
    """The time of this piece is up; the state is saved."""


class Piece:
    """One call of a driver: its folder and when it has to be over."""

    def __init__(self, out: Path, minutes: float) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.deadline = out, time.monotonic() + 60 * minutes

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def check(self) -> None:
        """Raise PieceOver if the time is up."""
        if self.seconds_left <= 0:
            raise PieceOver

    def command(self, *arguments: str) -> None:
        """Run `python -m ARGUMENTS`, which resumes; interrupt it (as Ctrl-C does) at the deadline."""
        self.check()
        child = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=ROOT, env=environment(), start_new_session=True
        )
        try:
            status = child.wait(None if self.deadline == float("inf") else max(self.seconds_left, 0))
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(GRACE_S)
            if child.poll() is None:
                child.kill()  # its saved state stays; only later work is repeated
                child.wait()
            raise PieceOver from None
        except BaseException:
            child.send_signal(signal.SIGINT)
            child.wait()
            raise
        if status:
            raise SystemExit(f"'{' '.join(arguments)}' ended with {status}")

    @contextlib.contextmanager
    def interrupt_at_deadline(self) -> Iterator[None]:
        """Send this process SIGINT once the time is up; resumable work then raises PieceOver."""
        if self.deadline == float("inf"):
            yield
            return
        self.check()

        rung: list[bool] = []

        def ring(*_: object) -> None:
            rung.append(True)
            signal.raise_signal(signal.SIGINT)

        before = signal.signal(signal.SIGALRM, ring)
        try:
            signal.setitimer(signal.ITIMER_REAL, max(self.seconds_left, 0.001))
            yield
        except KeyboardInterrupt:
            if not rung:
                raise  # it was the user
            raise PieceOver from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def environment() -> dict[str, str]:
    """Return the environment of a command: this checkout, and the unpacked weights."""
    path = [str(ROOT / "src"), *([str(SITE)] if SITE.is_dir() else []), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in path if part)}


def use_unpacked() -> None:
    """Add this checkout and the unpacked weights to this process's path."""
    for folder in (ROOT / "src", SITE):
        if folder.is_dir() and str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def parser(doc: str | None, out: str) -> argparse.ArgumentParser:
    """Return the parser with the options of every driver."""
    found = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--out", type=Path, default=Path(out), help=f"the folder of state and results ({out})")
    found.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop after this many minutes; the next call continues"
    )
    return found


def main(work: Any, arguments: argparse.Namespace) -> None:
    """Do a driver's work, and print how to continue if the piece is over."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that a running command is stopped too
    try:
        work(Piece(arguments.out, arguments.minutes), arguments)
    except PieceOver:
        print("run again to go on", flush=True)
        raise SystemExit(GO_ON) from None


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines, none if there is no file; a truncated line is left out."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def add_row(path: Path, row: dict[str, Any]) -> None:
    """Append a row to a file of JSON lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def data_folder() -> Path:
    """Return the folder of the recorded data: FRACTIONATE_DATA, the unpacked one, or the one next to the checkout."""
    own = os.environ.get("FRACTIONATE_DATA")
    for folder in [Path(own)] if own else [DATA, ROOT.parent / "shared/data"]:
        if folder.is_dir():
            return folder
    raise SystemExit(
        f"no data in {own or DATA}: unpack them first (docs/experiments/gpu/pack.py), or set FRACTIONATE_DATA"
    )
