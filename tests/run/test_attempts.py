"""Attempts in the store equal the same attempts in memory, to the last digit."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from measured import cell_of, config_of, correlated

from fractionate import datasets, spool
from fractionate.analysis.matrix import pool_cells
from fractionate.analysis.rule import Rule
from fractionate.averages import MeanAttempts
from fractionate.calls.store import Store
from fractionate.cli import main
from fractionate.config import parse_config
from fractionate.errors import FractionateError
from fractionate.report.examples import pick_examples
from fractionate.report.results import build_results
from fractionate.run import attempts as store
from fractionate.run.attempt_rows import attempt_lines, read_jsonl
from fractionate.run.attempts import AttemptWriter, pack_attempts, read_attempts
from fractionate.run.cells import Pair, TestSet, _decomposed, _plain, _scored
from fractionate.run.folder import RunFolder
from fractionate.strategies import get as strategy
from fractionate.strategies.base import Settings, Solution
from fractionate.types import Cell, Completion, Decomposition, Problem, Score, Usage

PAIRS = (("single", "none"), ("static", "teacher"), ("static", "D-R"))


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "GROUP", 7)


def outputs(count: int, repeats: int, seed: int, lenient: bool) -> list[Cell]:
    """Return cells of several outputs a question, each with whatever an attempt may have."""
    rng = random.Random(seed)
    cells = []
    for rank, (name, decomposer) in enumerate(PAIRS):
        cell = cell_of(correlated(0.6, count, seed + rank, seed), name, decomposer)
        each = []
        for one in cell.attempts:
            passage = "" if seed % 2 else f"passage {one.problem.index // 3}"
            problem = replace(one.problem, context=passage, kind="k", answers=(("a", "b"), ("ü",)))
            for _ in range(repeats):
                strict = Score(float(rng.random() < 0.6), rng.random())
                known = lenient and (rng.random() < 0.98 or seed % 3 > 0)
                usage = Usage(1, rng.randrange(9), 0, rng.randrange(9), 0, rng.choice([0.1, 0.25]), rng.randrange(2))
                each.append(
                    replace(
                        one,
                        problem=problem,
                        score=strict,
                        lenient=Score(1.0, 1.0) if known else None,
                        output=rng.choice(["", "x", "The answer is ü\x00.\n"]),
                        prediction=rng.choice([None, (), ("x",), ("x", "y")]),
                        failures=rng.choice([(), ("length",), ("refusal", "length")]),
                        cut_off=rng.choice([(), ("solver",), ("solver", "decomposer")]),
                        solver_usage=usage,
                        fell_back=rng.random() < 0.2,
                        latency_s=rng.random(),
                    )
                )
        cells.append(replace(cell, attempts=tuple(each)))
    return cells


def in_memory(cells: Iterable[Cell], repeats: int) -> list[Cell]:
    return [replace(cell, attempts=MeanAttempts.of_repeats(cell.attempts, repeats)) for cell in cells]


def asked_by(cell: Cell, repeats: int = 1) -> TestSet:
    problems = [one.problem for one in cell.attempts[::repeats]]
    dataset = datasets.get("atlas")
    return TestSet(cell.reference, cell.dataset, cell.split, problems, dataset, "f1", Settings(), repeats=repeats)


def pair_of(cell: Cell) -> Pair:
    return Pair(strategy(cell.strategy), cell.decomposer, cell.solver)


def on_disk(cells: Sequence[Cell], repeats: int, folder: Path, shards: int = 0) -> list[Cell]:
    """Return the cells as the store has them, appended here or merged from shards, the last shard first."""
    writer = AttemptWriter(RunFolder(folder))
    for cell in cells:
        taken = writer.cell(asked_by(cells[0], repeats), pair_of(cell))
        for start in reversed(range(0, len(cell.attempts), shards)) if shards else ():
            writer.sink(pack_attempts([(taken.key, start, cell.attempts[start : start + shards])]))
        for attempt in () if shards else cell.attempts:
            taken.append(attempt)
        taken.cell()
    return writer.finish(rows_at_most=10**6)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 18), st.integers(1, 3), st.integers(0, 99), st.booleans(), st.sampled_from([0, 1, 5, 7, 8]))
def test_reports_are_the_same_from_memory_and_from_disk(
    tmp_path_factory: pytest.TempPathFactory, count: int, repeats: int, seed: int, lenient: bool, shards: int
) -> None:
    cells = [
        replace(cell, metric="f1", label=strategy(cell.strategy).label)
        for cell in outputs(count, repeats, seed, lenient)
    ]
    folder = tmp_path_factory.mktemp("run")
    ours, stored = in_memory(cells, repeats), on_disk(cells, repeats, folder, shards)
    assert [list(cell.attempts) for cell in stored] == [list(cell.attempts) for cell in ours]
    assert stored[0].attempts[count - 1] == ours[0].attempts[count - 1]
    assert list(attempt_lines(stored)) == list(attempt_lines(ours))
    assert [list(cell.attempts) for cell in read_jsonl(folder / "attempts.jsonl")] == [
        list(cell.attempts) for cell in ours
    ]
    config = config_of()
    assert build_results(stored, config, [], {}) == build_results(ours, config, [], {})
    assert pick_examples(stored, Rule.of(config)) == pick_examples(ours, Rule.of(config))
    both = [build_results(pool_cells({"a": of, "b": of})[0], config, [], {}) for of in (stored, ours)]
    assert both[0] == both[1]


def test_memory_does_not_grow_with_the_questions(tmp_path: Path) -> None:
    """An attempt in memory takes over 1,000 bytes; a column of floats as a list, which some sums need, 32."""

    def peak(count: int, keep: bool) -> float:
        rng = random.Random(0)
        usages = [Usage(1, number, 0, number) for number in range(5)]

        def cell(name: str, decomposer: str) -> Cell:
            (one,) = cell_of([1.0], name, decomposer).attempts
            attempts = (
                replace(
                    one,
                    problem=problems[place],
                    output=f"{place} {'x' * 200}",
                    score=Score(float(rng.random() < 0.5), 1.0),
                    solver_usage=rng.choice(usages),
                )
                for place in range(count)
            )
            made = cell_of([], name, decomposer)
            if keep:
                return replace(made, attempts=tuple(attempts))
            taken = writer.cell(test, pair_of(made))
            for attempt in attempts:
                taken.append(attempt)
            return taken.cell()

        problems = [one.problem for one in cell_of([1.0] * count).attempts]
        test = TestSet("t", "atlas", "test", problems, datasets.get("atlas"), "exact_match", Settings())
        writer = AttemptWriter(RunFolder(tmp_path))
        config = config_of()
        build_results([cell_of([1.0], *pair) for pair in PAIRS[:2]], config, [], {})
        tracemalloc.start()
        cells = [cell(*pair) for pair in PAIRS[:2]]
        build_results(cells, config, [], {})
        pick_examples(cells, Rule.of(config))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = 300, 1500
    growth, kept = ((peak(many, keep) - peak(few, keep)) / (many - few) for keep in (False, True))
    assert growth < 350 < 1000 < kept, f"{growth:.0f} bytes a question on disk, {kept:.0f} in memory"


CONFIG = """
[data]
test = ["jsonl:q.jsonl", "jsonl:q.jsonl@0-9"]
[models]
teacher = "echo:0.8"
solvers = ["echo:0.7"]
decomposers = ["none", "teacher"]
[run]
name = "one"
strategies = ["single", "static"]
variants = []
"""
LARGE = ("--set", "run.rows_at_most=30")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(spool, "KEPT", 5)
    rows = [{"question": f"What is {n} plus {n}, all in all?", "answer": 2 * n} for n in range(40)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "c.toml").write_text(CONFIG)
    return tmp_path / "c.toml"


def test_a_large_run_reports_what_a_small_one_does_and_its_attempts_can_be_taken_out(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, large = Path("small"), Path("large")
    assert main(["run", "c.toml", "--quiet", "--out", "small"]) == 0
    assert main(["run", "c.toml", "--quiet", "--out", "large", *LARGE]) == 0
    names = ("results.json", "report.md", "report.html")
    written = {name: (large / name).read_bytes() for name in names}
    assert written == {name: (small / name).read_bytes() for name in names}
    assert not (large / "attempts.jsonl").exists()
    assert stat.S_IMODE((large / "attempts.sqlite").stat().st_mode) == 0o600
    assert main(["report", "large"]) == 0
    assert written == {name: (large / name).read_bytes() for name in names}
    capsys.readouterr()
    assert main(["store", "export", "large", "--attempts"]) == 0
    assert capsys.readouterr().out == (small / "attempts.jsonl").read_text()
    cell = "jsonl#q.jsonl/single/none/echo:0.7"
    assert main(["compare", f"large:{cell}", f"small:{cell}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 40

    # Lines that an earlier, smaller run left do not stay beside the attempts of a large one.
    assert main(["run", "c.toml", "--quiet", "--out", "small", *LARGE]) == 0
    assert not (small / "attempts.jsonl").exists()


def test_a_large_run_that_is_killed_goes_on_to_the_same_end(config: Path) -> None:
    assert main(["run", "c.toml", "--quiet", "--out", "whole", "--store", "whole.sqlite", *LARGE]) == 0
    slow = (
        "import time, fractionate.models.echo as echo; was = echo.EchoModel._solve\n"
        "echo.EchoModel._solve = lambda *a: time.sleep(0.02) or was(*a)\n"
        "from fractionate.cli import main; main()"
    )
    command = [sys.executable, "-c", slow, "run", "c.toml", "--quiet", "--out", "cut", *LARGE]
    process = subprocess.Popen(command, env={**os.environ}, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while (
        time.monotonic() < deadline and process.poll() is None and not (Path("cut") / ".attempts.sqlite.part").exists()
    ):
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (Path("cut") / "attempts.sqlite").exists()
    assert main(["run", "c.toml", "--quiet", "--out", "cut", *LARGE]) == 0
    assert not (Path("cut") / ".attempts.sqlite.part").exists()
    assert (Path("cut") / "results.json").read_bytes() == (Path("whole") / "results.json").read_bytes()
    with Store("whole.sqlite") as whole, Store("calls.sqlite") as cut:
        assert len(cut) == len(whole)


def test_a_budget_that_ends_within_a_cell_leaves_the_cells_before_it(tmp_path: Path) -> None:
    cells = outputs(9, 1, 0, True)
    writer = AttemptWriter(RunFolder(tmp_path))
    for cell in cells[:2]:
        taken = writer.cell(asked_by(cell), pair_of(cell))
        for attempt in cell.attempts:
            taken.append(attempt)
        if cell is cells[0]:
            taken.cell()
    assert [list(cell.attempts) for cell in writer.finish(0)] == [list(cells[0].attempts)]
    assert [list(cell.attempts) for cell in read_attempts(tmp_path / "attempts.sqlite")] == [list(cells[0].attempts)]


def test_a_cell_of_which_a_part_was_not_merged_is_an_error(tmp_path: Path) -> None:
    (cell, *_) = outputs(9, 2, 0, True)
    writer = AttemptWriter(RunFolder(tmp_path))
    taken = writer.cell(asked_by(cell, 2), pair_of(cell))
    writer.sink(pack_attempts([(taken.key, 8, cell.attempts[8:])]))
    with pytest.raises(FractionateError, match="10 attempts of 18"):
        taken.cell()


def test_people_read_scores_with_sql(tmp_path: Path) -> None:
    cells = outputs(9, 1, 0, True)
    on_disk(cells, 1, tmp_path)
    with closing(sqlite3.connect(tmp_path / "attempts.sqlite")) as database:
        query = "SELECT decomposer, avg(exact_match) FROM scores WHERE kind = 'k' GROUP BY cell ORDER BY cell"
        found = database.execute(query.replace("cell", "strategy || decomposer")).fetchall()
    assert dict(found) == {
        cell.decomposer.name: pytest.approx(sum(one.score.exact_match for one in cell.attempts) / 9) for cell in cells
    }


def test_a_folder_of_an_earlier_version_says_what_to_do(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "c.toml", "--quiet", "--out", "old"]) == 0
    before = (Path("old") / "report.md").read_bytes()
    Path("old/attempts.sqlite").unlink()
    assert main(["report", "old"]) == 0  # attempts.jsonl alone, as small runs left it
    assert (Path("old") / "report.md").read_bytes() == before
    Path("old/attempts.jsonl").unlink()
    Path("old/attempts").mkdir()
    Path("old/attempts/cells.json").write_text("{}")
    capsys.readouterr()
    assert main(["report", "old"]) == 2
    said = capsys.readouterr().err
    assert "run fractionate evaluate again" in said
    assert said.count("\n") == 1


def test_the_limit_decides_no_figure_and_so_no_digest() -> None:
    from fractionate.run.run import config_digest

    tables = [parse_config({"data": {"test": "atlas"}, "run": {"rows_at_most": most}}) for most in (5, 7)]
    assert config_digest(tables[0]) == config_digest(tables[1])


DECOMPOSING = Completion("1. a?", "length", Usage(1, 5, 0, 2), 3.0)
SOLVING = [
    ("solver", Completion("x", "length", Usage(1, 7, 0, 1), 1.0)),
    ("solver", Completion("y", "", latency_s=2.0)),
]


@pytest.mark.parametrize(("side_by_side", "seconds"), [(False, 6.0), (True, 3.0)])
def test_calls_after_each_other_take_the_sum_of_their_time_and_calls_beside_each_other_the_longest(
    side_by_side: bool, seconds: float
) -> None:
    problem = Problem("q", "How many?", (("4",),), dataset="gsm8k")
    solution = Solution("The answer is: 4", list(SOLVING), side_by_side=side_by_side)
    attempt = _scored(problem, solution, DECOMPOSING, datasets.get("gsm8k"), None)
    assert attempt.latency_s == seconds
    assert attempt.score.exact_match == 1.0
    assert (attempt.decomposer_usage, attempt.solver_usage) == (Usage(1, 5, 0, 2), Usage(2, 7, 0, 1))
    assert (attempt.failures, attempt.cut_off) == (("length", "length", ""), ("decomposer", "solver"))


def test_a_decomposition_is_the_same_after_a_file_held_it() -> None:
    for completion in (None, DECOMPOSING):
        one = Decomposition(("a?",), "ok", "1. a?"), completion
        assert _decomposed(_plain(one)) == one
