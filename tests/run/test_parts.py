"""A large run's attempts on disk say what the same attempts in memory say, to the last digit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from measured import cell_of, config_of, correlated

from fractionate import datasets, spool
from fractionate.analysis.matrix import pool_cells
from fractionate.analysis.rule import Rule
from fractionate.averages import mean_attempt
from fractionate.calls.store import Store
from fractionate.cli import main
from fractionate.config import parse_config
from fractionate.report.examples import pick_examples
from fractionate.report.results import build_results
from fractionate.run import parquet_file, parts
from fractionate.run.attempts import attempt_rows
from fractionate.run.cells import Pair, TestSet
from fractionate.run.parts import PartsWriter, read_parts
from fractionate.strategies import get as strategy
from fractionate.strategies.program import Settings
from fractionate.types import Attempt, Cell, Score, Usage

PAIRS = (("single", "none"), ("static", "teacher"), ("static", "D-R"))


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (parts, parquet_file):
        monkeypatch.setattr(module, "GROUP", 7)


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
    def means(each: Sequence[Attempt]) -> tuple[Attempt, ...]:
        return tuple(mean_attempt(each[start : start + repeats]) for start in range(0, len(each), repeats))

    return [replace(cell, attempts=means(cell.attempts)) for cell in cells]


def on_disk(cells: Sequence[Cell], repeats: int, folder: Path) -> list[Cell]:
    problems = [one.problem for one in cells[0].attempts[::repeats]]
    dataset = datasets.get("atlas")
    writer = PartsWriter(folder / "attempts")
    for cell in cells:
        test = TestSet(cell.reference, cell.dataset, cell.split, problems, dataset, "f1", Settings(), repeats=repeats)
        keeper = writer.cell(test, Pair(strategy(cell.strategy), cell.decomposer, cell.solver))
        for attempt in cell.attempts:
            keeper.append(attempt)
        writer.add(replace(cell, attempts=keeper.attempts()))
    writer.finish()
    return read_parts(folder / "attempts")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 18), st.integers(1, 3), st.integers(0, 99), st.booleans())
def test_reports_are_the_same_from_memory_and_from_disk(
    tmp_path_factory: pytest.TempPathFactory, count: int, repeats: int, seed: int, lenient: bool
) -> None:
    cells = outputs(count, repeats, seed, lenient)
    ours, stored = in_memory(cells, repeats), on_disk(cells, repeats, tmp_path_factory.mktemp("parts"))
    assert [list(cell.attempts) for cell in stored] == [list(cell.attempts) for cell in ours]
    assert stored[0].attempts[count - 1] == ours[0].attempts[count - 1]
    assert list(attempt_rows(stored)) == list(attempt_rows(ours))
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
            test = TestSet("t", "atlas", "test", problems, datasets.get("atlas"), "exact_match", Settings())
            made = cell_of([], name, decomposer)
            if keep:
                return replace(made, attempts=tuple(attempts))
            keeper = writer.cell(test, Pair(strategy(name), made.decomposer, made.solver))
            for attempt in attempts:
                keeper.append(attempt)
            writer.add(done := replace(made, attempts=keeper.attempts()))
            return done

        problems = [one.problem for one in cell_of([1.0] * count).attempts]
        writer = PartsWriter(tmp_path / "attempts")
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
    assert not (small / "attempts").exists()
    assert main(["report", "large"]) == 0
    assert written == {name: (large / name).read_bytes() for name in names}
    capsys.readouterr()
    assert main(["store", "export", "large", "--attempts"]) == 0
    assert capsys.readouterr().out == (small / "attempts.jsonl").read_text()
    cell = "jsonl#q.jsonl/single/none/echo:0.7"
    assert main(["compare", f"large:{cell}", f"small:{cell}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 40

    # A folder holds one of the two forms, whichever run came last.
    assert main(["run", "c.toml", "--quiet", "--out", "small", *LARGE]) == 0
    assert main(["run", "c.toml", "--quiet", "--out", "large"]) == 0
    assert (small / "attempts" / "cells.json").is_file()
    assert not (small / "attempts.jsonl").exists()
    assert (large / "attempts.jsonl").is_file()
    assert not (large / "attempts").exists()


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
    while time.monotonic() < deadline and process.poll() is None and not (Path("cut") / ".attempts.part").is_dir():
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (Path("cut") / "attempts").exists()
    assert main(["run", "c.toml", "--quiet", "--out", "cut", *LARGE]) == 0
    assert not (Path("cut") / ".attempts.part").exists()
    assert (Path("cut") / "results.json").read_bytes() == (Path("whole") / "results.json").read_bytes()
    with Store("whole.sqlite") as whole, Store("calls.sqlite") as cut:
        assert len(cut) == len(whole)


def test_without_the_extra_a_large_run_is_refused_before_it_begins(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["run", "c.toml", "--quiet", *LARGE]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "run.rows_at_most" in said
    assert "fractionate[parquet]" in said
    assert main(["run", "c.toml", "--quiet"]) == 0


def test_what_somebody_keeps_under_the_name_of_the_parts_stays(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = Path("out") / "attempts" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    assert main(["run", "c.toml", "--quiet", "--out", "out"]) == 0
    assert main(["run", "c.toml", "--quiet", "--out", "out", *LARGE]) == 1
    assert "attempts is in the way" in capsys.readouterr().err
    assert mine.read_text() == "mine"
    Path("q.jsonl").rename(Path("out") / "attempts" / "q.jsonl")
    assert main(["run", "c.toml", "--quiet", "--out", "out", "--set", 'data.test="jsonl:out/attempts/q.jsonl"']) == 2
    assert "holds q.jsonl, which this run reads" in capsys.readouterr().err


def test_a_budget_that_ends_within_a_cell_leaves_the_cells_before_it(config: Path, tmp_path: Path) -> None:
    cells = outputs(9, 1, 0, True)
    problems = [one.problem for one in cells[0].attempts]
    test = TestSet("t", "atlas", "test", problems, datasets.get("atlas"), "f1", Settings())
    writer = PartsWriter(tmp_path / "attempts")
    for cell in cells[:2]:
        keeper = writer.cell(test, Pair(strategy(cell.strategy), cell.decomposer, cell.solver))
        for attempt in cell.attempts:
            keeper.append(attempt)
        if cell is cells[0]:
            writer.add(replace(cell, attempts=keeper.attempts()))
    writer.finish()
    assert [list(cell.attempts) for cell in read_parts(tmp_path / "attempts")] == [list(cells[0].attempts)]
    assert not list((tmp_path / "attempts").glob("cell-001*"))


def test_the_limit_decides_no_figure_and_so_no_digest() -> None:
    from fractionate.run.run import config_digest

    tables = [parse_config({"data": {"test": "atlas"}, "run": {"rows_at_most": most}}) for most in (5, 7)]
    assert config_digest(tables[0]) == config_digest(tables[1])
