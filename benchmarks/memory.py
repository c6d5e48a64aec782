"""Memory of a whole run by its number of questions: four cells of echo models, from questions to report.

    python benchmarks/memory.py [--questions 10000 100000 1000000] [--keep FOLDER] [--report]

Each stage is the command line in its own process: `evaluate` into an empty store, `evaluate` again (every call comes
from the store, as in a resumed run), `report`. For each it prints the peak resident memory, seconds of processor time
(and wall time), microseconds of processor time per question and cell, and the size of the run's folder and the store on
disk. Every size runs as a large run (run.rows_at_most = 0: no attempts.jsonl).

`--report` measures the report alone, in minutes: 2,500 questions are evaluated, and their rows are copied with new ids
until the requested number of questions is reached.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from contextlib import closing
from pathlib import Path

CELLS = 4
CONFIG = """
[data]
test = "jsonl:questions.jsonl"
[models]
teacher = "echo:0.8"
solvers = ["echo:0.7", "echo:0.6"]
decomposers = ["none", "teacher"]
[run]
strategies = ["single", "static"]
variants = []
out = "run"
rows_at_most = 0
"""
EVALUATED = 2500
STAGES = (("evaluate", "evaluate"), ("evaluate again", "evaluate"), ("report", "report"))


def write_questions(path: Path, count: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            boxes, pens = number % 97, number % 13
            question = (
                f"Crate {number} of the morning's delivery holds {boxes} boxes, and every box of it holds {pens} pens "
                "that nobody has taken out yet. How many pens are there in the whole crate?"
            )
            file.write(json.dumps({"question": question, "answer": str(boxes * pens)}) + "\n")


def measured(command: list[str], folder: Path) -> tuple[float, float, float]:
    """Return the peak resident MB of a successful command, its processor seconds and wall seconds."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{' '.join(command)} failed ({status})")
    process.returncode = 0
    return used.ru_maxrss / 1024, used.ru_utime + used.ru_stime, seconds


def size_mb(*paths: Path) -> float:
    files = (file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
    return sum(file.stat().st_size for file in files) / 1e6


def copy_attempts(store: Path, times: int) -> None:
    """Multiply a run's questions by copying rows, with new ids for questions and passages."""
    import numpy as np

    with closing(sqlite3.connect(store)) as database, database:
        cells = database.execute("SELECT cell, test_set, questions, repeats FROM cells").fetchall()
        for copy in range(1, times):
            asked = copy * EVALUATED
            database.execute(
                f"INSERT INTO questions SELECT question + {asked}, fields FROM questions "
                f"WHERE question & 0xffffffff < {EVALUATED}"
            )
            database.execute(
                f"INSERT INTO attempts SELECT attempt + {asked}, cell, question + {asked}, repeat, fields "
                f"FROM attempts WHERE attempt & 0xffffffff < {EVALUATED}"
            )
            database.execute(
                f"INSERT INTO arrays SELECT cell, name, first + {asked}, kind, packed FROM arrays "
                f"WHERE first < {EVALUATED}"
            )
        database.execute(f"UPDATE cells SET questions = {times * EVALUATED}")
        assert {repeats for *_, repeats in cells} == {1}
        ids = database.execute("SELECT rowid, first, packed FROM arrays WHERE name IN ('id_digest', 'cluster_digest')")
        for row, first, packed in ids.fetchall():
            numbers = np.arange(first, first + len(zlib.decompress(packed)) // 8, dtype=np.uint64)
            packed = zlib.compress((numbers * np.uint64(0x9E3779B97F4A7C15)).tobytes(), 1)
            database.execute("UPDATE arrays SET packed = ? WHERE rowid = ?", (packed, row))


def run(count: int, folder: Path, *, report_alone: bool) -> None:
    write_questions(folder / "questions.jsonl", EVALUATED if report_alone else count)
    (folder / "memory.toml").write_text(CONFIG)
    if report_alone:
        measured([sys.executable, "-m", "fractionate", "evaluate", "memory.toml", "--quiet"], folder)
        copy_attempts(folder / "run" / "attempts.sqlite", count // EVALUATED)
    for said, stage in STAGES[-1:] if report_alone else STAGES:
        command = [sys.executable, "-m", "fractionate", stage, "memory.toml", "--quiet"]
        peak, processor, seconds = measured(command, folder)
        each = processor / count / CELLS * 1e6
        print(
            f"{count:>9,}  {said:<14}  {peak:>6.0f} MB  {processor:>7.1f} s ({seconds:>7.1f} s)  {each:>6.1f} µs  "
            f"run {size_mb(folder / 'run'):>7.1f} MB  store {size_mb(*folder.glob('calls.sqlite*')):>8.1f} MB",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--keep", type=Path, help="keep questions, run and store in this folder")
    parser.add_argument("--report", action="store_true", help="measure the report alone")
    arguments = parser.parse_args()
    print("questions  stage            peak RSS  processor (clock)   per question and cell   on disk")
    for count in arguments.questions:
        if arguments.keep is not None:
            folder = (arguments.keep / str(count)).resolve()
            folder.mkdir(parents=True)
            run(count, folder, report_alone=arguments.report)
            continue
        with tempfile.TemporaryDirectory() as name:
            run(count, Path(name), report_alone=arguments.report)


if __name__ == "__main__":
    main()
