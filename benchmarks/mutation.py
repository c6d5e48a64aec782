"""Mutation testing of what reads answers, judges and bills: a changed token must make some test fail.

    python benchmarks/mutation.py [--sample 100] [--seed 0] [--area NAME] [--jobs 2] [--goal 90]

Draws a sample of one-token changes: a comparison, an arithmetic or boolean operator, a number, True or False, a `not`,
min for max, a returned value. Every area of `AREAS` gives as many as every other, so that 170 lines that admit requests
count as much as 3,000 that read answers. All tests of the areas run once without a change, while coverage notes which
tests run which line. Each change is then applied to a copy of the tree and tried against the tests of its area that run
the changed statement, quickest first. Prints each change that no test noticed, and the share that was noticed. Exit 0
where that share reaches the goal; 1 below it; 2 where the tests do not come to their end without a change.

Changes listed in `EQUIVALENT` alter no behaviour, for the reason given there, and do not count. Strings (docstrings,
messages), annotations, decorators and `__repr__` are never changed. Property tests, models and browsers are left out:
they are slow, and plain cases must suffice.

Why not mutmut (3.8): it changes only functions, and none with a decorator such as `property`, so it tries no tolerance,
limit or table of constants. It changes messages, which no test should quote in full. It runs every test once before the
first change, which takes longer than a sample.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import multiprocessing
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, chain, islice, pairwise, zip_longest
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "fractionate"
SLOW = "huge or official_vectors or cover or valid_at_few or equal_speeds or power_it_states or XX"
"""Tests left out by name, in the terms of pytest's -k: simulations, and those over a million characters."""
MOST_S = 40.0
"""Seconds of tests that a change is tried against at most."""

AREAS: dict[str, tuple[str, str]] = {
    "answers": (
        "scoring/*.py",
        "scoring/test_final.py scoring/test_numbers.py scoring/test_number_forms.py scoring/test_reply_forms.py "
        "scoring/test_split_final.py scoring/test_lenient.py scoring/test_metrics.py scoring/test_corpus.py",
    ),
    "statistics": (
        "statistics/*.py",
        "statistics/test_exact_figures.py statistics/test_prediction_powered.py statistics/test_outcomes.py "
        "statistics/test_clusters.py statistics/test_plans.py",
    ),
    "costs": ("analysis/costs.py", "analysis/test_exact_costs.py analysis/test_costs.py analysis/test_pricing.py"),
    "verdict": (
        "analysis/verdict.py analysis/rule.py",
        "analysis/test_exact_verdict.py analysis/test_verdict.py analysis/test_comparisons.py",
    ),
    "budget": ("calls/budget.py calls/ledger.py", "calls/test_exact_budget.py calls/test_budget.py"),
    "limits": ("calls/limits.py", "calls/test_exact_limits.py calls/test_limits.py calls/test_deadlines.py"),
    "store": (
        "calls/store.py calls/store_file.py calls/stored_call.py",
        "calls/test_exact_store.py calls/test_store.py calls/test_client.py",
    ),
    "spending": ("serve/ledger.py", "serve/test_exact_ledger.py serve/test_ledger.py"),
    "admission": ("serve/admission.py serve/errors.py", "serve/test_admission.py"),
    "wire": (
        "models/openai/wire.py",
        "models/test_exact_wire.py models/test_openai_api.py models/test_openai_stream.py",
    ),
    "recorded": (
        "models/recorded.py models/_recorded_rows.py models/_trees.py",
        "models/test_exact_recorded.py models/test_recorded.py models/test_recorded_strategies.py "
        "models/test_importing.py",
    ),
    "names": ("run/names.py", "run/test_exact_names.py run/test_names.py"),
    "examples": ("students/examples.py", "students/test_exact_examples.py students/test_examples.py"),
    "cells": ("run/cells.py run/spending.py", "run/test_exact_cells.py run/test_attempts.py run/test_repeats.py"),
}
"""By area: the changed modules (globs below the package) and the test files that judge them, quickest first."""

WIDER = {
    "answers": "scoring/test_corpus.py analysis/test_reading.py datasets/test_scoring.py datasets/test_sets.py",
    "statistics": "analysis/test_comparisons.py analysis/test_verdict.py planning/test_power.py",
    "costs": "analysis/test_verdict.py planning/test_break_even.py run/test_break_even_report.py report",
    "verdict": "report run/test_pooled_report.py run/test_two_readings.py cli",
    "budget": "attacks/test_attack_budget.py attacks/test_attack_replies.py run/test_run_budget.py",
    "limits": "calls/test_faults.py calls/test_replicas.py calls/test_drive.py calls/test_balance.py",
    "store": "attacks/test_attack_stores.py calls/test_faults.py calls/test_budget.py",
    "spending": "serve/test_admission.py serve/test_hostile_requests.py serve/test_feedback.py",
    "admission": "serve/test_hostile_requests.py serve/test_ledger.py serve/test_openapi.py serve/test_responses.py",
    "wire": "attacks/test_attack_replies.py calls/test_faults.py models/test_openai_batch.py",
    "recorded": "students/test_recorded_demonstrations.py run/test_repeats.py attacks/test_attack_files.py",
    "names": "test_config.py run/test_curve_run.py run/test_run.py",
    "examples": "students/test_recorded_demonstrations.py students/test_dev.py run/test_run.py",
    "cells": "run/test_run.py strategies run/test_two_readings.py",
}
"""By area: further test files of the suite, tried where the area's own notice nothing."""

EQUIVALENT: dict[tuple[str, str], str] = {
    (
        "statistics/clusters.py design_of",
        "events = total**2 / float(np.sum(squares**2)) if total > 1e-30 else 0.0 → "
        "events = total**2 / float(np.sum(squares**2)) if total > 1e-30 else 1.0",
    ): "one event makes as many pairs as none",
    (
        "calls/limits.py TokenBucket.wait_s",
        "filled = 0.0 if short < _ROUNDING else short / self.per_second → "
        "filled = 0.0 if short <= _ROUNDING else short / self.per_second",
    ): "the sum of floats that is short by 1e-9 exactly waits a billionth of a second, or none",
    **{
        (
            "serve/ledger.py Ledger.reserve",
            "raise self._refusal(what, name, cap or 0.0) → " + changed,
        ): "an account without a cap always fits, so None is never shown"
        for changed in (
            "raise self._refusal(what, name, cap or (-1.0))",
            "raise self._refusal(what, name, cap or 1.0)",
        )
    },
}
"""Reasons by place ("analysis/costs.py mean") and change ("before → after"): lines may move, these stay."""

SWAPS = {
    "Lt": ("<", "<="), "LtE": ("<=", "<"), "Gt": (">", ">="), "GtE": (">=", ">"), "Eq": ("==", "!="),
    "NotEq": ("!=", "=="), "Is": ("is", "is not"), "IsNot": ("is not", "is"), "In": ("in", "not in"),
    "NotIn": ("not in", "in"), "And": ("and", "or"), "Or": ("or", "and"), "Add": ("+", "-"), "Sub": ("-", "+"),
    "Mult": ("*", "/"), "Div": ("/", "*"), "FloorDiv": ("//", "*"), "Mod": ("%", "//"), "Pow": ("**", "*"),
    "BitOr": ("|", "&"), "BitAnd": ("&", "|"), "Not": ("not", ""), "USub": ("-", "+"), "Invert": ("~", ""),
    "min": ("min", "max"), "max": ("max", "min"), "any": ("any", "all"), "all": ("all", "any"),
}  # fmt: skip
"""The token of each operator and function that is changed, and the token in its place."""
UNCHANGED = frozenset(("annotation", "returns", "decorator_list"))


@dataclass(frozen=True)
class Change:
    """One changed token: `text` in place of the bytes from `start` to `end` of a module."""

    path: Path
    function: str
    start: int
    end: int
    text: str
    statement: tuple[int, int]
    """The first and last line of the statement, or of the head of one with a body."""
    at_import: bool
    """Whether the statement is run when its module is imported."""

    def applied(self) -> bytes:
        """Return the module's source with the change."""
        source = self.path.read_bytes()
        return source[: self.start] + self.text.encode() + source[self.end :]

    @property
    def place(self) -> str:
        """The module below the package and the function."""
        return f"{self.path.relative_to(PACKAGE)} {self.function}"

    @property
    def line(self) -> int:
        """The number of the changed line."""
        return self.path.read_bytes().count(b"\n", 0, self.start) + 1

    def shown(self) -> str:
        """Return the changed line as "before → after"."""
        return " → ".join(
            source.decode().splitlines()[self.line - 1].strip() for source in (self.path.read_bytes(), self.applied())
        )


class Finder:
    """The changes of one module, in `found`."""

    def __init__(self, path: Path) -> None:
        self.path, self.source = path, path.read_bytes()
        self.starts = [0, *accumulate(map(len, self.source.splitlines(keepends=True)))]
        self.found: list[Change] = []
        self._statement, self._within_function = (1, 1), False
        self._walk(ast.parse(self.source), "")

    def _walk(self, node: ast.AST, function: str) -> None:
        match node:
            case ast.JoinedStr() | ast.If(test=ast.Name(id="TYPE_CHECKING")):  # messages, imports for types
                return
            case ast.keyword(arg="strict"):  # of a zip over rows that are of one length by construction
                return
            case ast.Call(func=ast.Name(id="isinstance" | "cast" | "TypeVar")):
                return
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                if node.name in ("__repr__", "__str__"):
                    return
                function = f"{function}.{node.name}".lstrip(".")
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            self._statement = node.lineno, (body[0].lineno - 1 if body else node.end_lineno or node.lineno)
            self._statement = node.lineno, max(self._statement)
        for start, end, text in self._tokens(node):
            # The default of a parameter is not of the function, but is known by its name.
            at_import = not self._within_function
            self.found.append(Change(self.path, function, start, end, text, self._statement, at_import))
        statement, within = self._statement, self._within_function
        for name, value in ast.iter_fields(node):
            self._statement = statement
            self._within_function = within or (
                name == "body" and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            )
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and name not in UNCHANGED:
                    self._walk(child, function)
        self._within_function = within

    def _tokens(self, node: ast.AST) -> Iterator[tuple[int, int, str]]:
        """Yield what may stand in place of a node or its operator: where it starts, where it ends, the new text."""
        match node:
            case ast.Compare():
                for left, kind, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
                    yield from self._swap(kind, self._end(left), self._start(right))
            case ast.BoolOp():
                for left, right in pairwise(node.values):
                    yield from self._swap(node.op, self._end(left), self._start(right))
            case ast.BinOp(left=left, right=right):
                if not any(isinstance(side, ast.JoinedStr) or _is_text(side) for side in (left, right)):
                    yield from self._swap(node.op, self._end(left), self._start(right))
            case ast.AugAssign():
                yield from self._swap(node.op, self._end(node.target), self._start(node.value))
            case ast.UnaryOp():
                yield from self._swap(node.op, self._start(node), self._start(node.operand))
            case ast.Name(id="min" | "max" | "any" | "all"):
                yield self._start(node), self._end(node), SWAPS[node.id][1]
            case ast.Constant(value=bool()):
                yield self._start(node), self._end(node), str(not node.value)
            case ast.Constant(value=(int() | float()) as number):
                for changed in (number + 1, number - 1):
                    yield self._start(node), self._end(node), repr(changed) if changed >= 0 else f"({changed!r})"
            case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
                yield self._start(value), self._end(value), "None"
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
                if isinstance(test, ast.Name | ast.Attribute | ast.Call):
                    yield self._start(test), self._start(test), "not "

    def _swap(self, kind: ast.AST, after: int, before: int) -> Iterator[tuple[int, int, str]]:
        """Yield the change of an operator, which the syntax tree does not place: it stands between two operands."""
        token, text = SWAPS.get(type(kind).__name__, ("", ""))
        at = self.source.find(token.encode(), after, before)
        if token and at >= 0:
            yield at, at + len(token), text

    def _start(self, node: ast.expr) -> int:
        return self.starts[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.expr) -> int:
        return self.starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def draw(areas: list[str], count: int, seed: int) -> list[tuple[str, Change]]:
    """Return a sample of areas' changes, the same number of each area; all of them where `count` is 0."""
    drawn = []
    for area in areas:
        paths = sorted({path for glob in AREAS[area][0].split() for path in PACKAGE.glob(glob)})
        found = [(area, change) for path in paths for change in Finder(path).found]
        random.Random(f"{seed} {area}").shuffle(found)
        drawn.append(found)
    turns = chain.from_iterable(zip_longest(*drawn))
    return list(islice((one for one in turns if one and _compiles(one[1])), count or None))


def _compiles(change: Change) -> bool:
    with contextlib.suppress(SyntaxError):
        return bool(ast.parse(change.applied()))
    return False


@dataclass(frozen=True)
class Tests:
    """What the tests without a change showed: by test its seconds, and by module and line which tests run that line."""

    seconds: dict[str, float]
    reached: dict[str, dict[int, list[str]]]
    failed: set[str]
    """Tests that fail without a change, as those do that a busy machine disturbs: they are left out."""

    def of(self, area: str, change: Change) -> list[str]:
        """Return the tests of an area that run the changed statement, quickest first, in all at most `MOST_S`.

        What is run when a module is imported concerns all tests of the module. The area's own come before further ones.
        """
        lines = self.reached.get(str(change.path.relative_to(PACKAGE)), {})
        first, last = change.statement
        found = {test for line in range(first, last + 1) for test in lines.get(line, ())}
        if change.at_import:
            found = {test for tests in lines.values() for test in tests}
        own, further = ([f"tests/{name}" for name in names.split()] for names in (AREAS[area][1], WIDER[area]))
        ranked = {
            test: (not test.startswith(tuple(own)), seconds)
            for test, seconds in self.seconds.items()
            if test in found and test.startswith((*own, *further))
        }
        quickest = sorted(ranked, key=ranked.__getitem__)
        spent = accumulate(self.seconds[test] for test in quickest)
        return [test for test, after in zip(quickest, spent, strict=True) if after <= MOST_S]


class _Reached:
    """A plugin of pytest that notes which tests run which lines of the package, and the seconds of each test."""

    def __init__(self, folder: Path) -> None:
        from coverage import Coverage

        self.folder = folder
        self.seconds: Counter[str] = Counter()
        self.failed: set[str] = set()
        self.coverage = Coverage(data_file=None, include=[f"{folder}/src/fractionate/*"], messages=False)
        self.coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self.coverage.switch_context(item.nodeid)
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed.add(report.nodeid)

    def found(self) -> Tests:
        """Return what was noted."""
        self.coverage.stop()
        data, package = self.coverage.get_data(), self.folder / "src" / "fractionate"
        files = {file: str(Path(file).relative_to(package)) for file in data.measured_files()}
        passing = {test: spent for test, spent in self.seconds.items() if test not in self.failed}
        return Tests(passing, {name: data.contexts_by_lineno(file) for file, name in files.items()}, self.failed)


def run_tests(folder: Path, tests: list[str], note: bool, told: Connection) -> None:
    """Run tests in a copy of the tree, in a process of its own, and tell pytest's exit code and what was noted."""
    os.setsid()
    os.chdir(folder)
    # A compiled file that a change left behind could be taken for the source's own.
    sys.dont_write_bytecode = True
    os.environ.update(PYTHONPATH=f"{folder}/src", PYTHONDONTWRITEBYTECODE="1")
    sys.path.insert(0, f"{folder}/src")
    with open(folder / "printed", "wb") as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
    plugins = [_Reached(folder)] if note else []
    options = ["-q", "-p", "no:cacheprovider", "-m", "not hypothesis and not model and not browser"]
    options += ["-k", f"not ({SLOW})"] if note else ["-x"]
    code = int(pytest.main([*options, *tests], plugins=plugins))
    times = os.times()
    told.send((code, plugins[0].found() if plugins else None, sum(times[:4])))
    os._exit(code)


class Runner:
    """Runs tests in copies of the tree, each time in a process that has imported the large libraries already."""

    def __init__(self, root: Path, jobs: int) -> None:
        self.cpu_s = 0.0
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["numpy", "scipy.stats", "aiohttp", "pydantic", "hypothesis", "pytest"])
        self._folders: queue.Queue[Path] = queue.Queue()
        for number in range(jobs):
            self._folders.put(lay_out(root / str(number)))

    def run(self, tests: list[str], limit_s: float, change: Change | None = None) -> tuple[bool, Tests | None, str]:
        """Return whether tests pass within the limit; without a change also what was noted, and what pytest printed."""
        folder = self._folders.get()
        path = None if change is None else folder / change.path.relative_to(ROOT)
        if change is not None and path is not None:
            path.write_bytes(change.applied())
        mine, its = self._processes.Pipe(duplex=False)
        process = self._processes.Process(target=run_tests, args=(folder, tests, change is None, its))
        process.start()
        its.close()
        code, noted, seconds = 1, None, limit_s
        with contextlib.suppress(EOFError):  # the process ended without a word
            if mine.poll(limit_s):
                code, noted, seconds = mine.recv()
        with contextlib.suppress(ProcessLookupError, TypeError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it left running
        process.join()
        self.cpu_s += seconds
        if change is not None and path is not None:
            shutil.copy2(change.path, path)
        printed = (folder / "printed").read_text(errors="replace")
        self._folders.put(folder)
        return code == 0, noted, printed


def try_all(runner: Runner, sample: list[tuple[str, Change]], tests: Tests, jobs: int) -> Counter[str]:
    """Try changes, print those that the tests of their area do not notice, and count them by what noticed them."""
    counts: Counter[str] = Counter()

    def noticed(area: str, change: Change) -> str:
        chosen = tests.of(area, change)
        limit_s = 60 + 4 * sum(tests.seconds[test] for test in chosen)
        if not chosen or runner.run(chosen, limit_s, change)[0]:
            return ""
        return "killed"

    with ThreadPoolExecutor(jobs) as pool:
        for (area, change), found in zip(sample, pool.map(lambda one: noticed(*one), sample), strict=True):
            reason = EQUIVALENT.get((change.place, change.shown()))
            counts[found or ("equivalent" if reason else "survived")] += 1
            if not found:
                said = f"equivalent, {reason}" if reason else f"SURVIVED {len(tests.of(area, change))} tests"
                print(f"{change.place}, line {change.line}: {change.shown()}: {said}", flush=True)
    return counts


def note_tests(runner: Runner, areas: list[str], jobs: int) -> Tests:
    """Run all tests of areas once without a change. Raises SystemExit (2) where they do not come to their end."""
    files = [f"tests/{name}" for area in areas for names in (AREAS[area][1], WIDER[area]) for name in names.split()]
    unique = [file for file in dict.fromkeys(files) if not any(file.startswith(f"{other}/") for other in files)]
    parts, together = [unique[at::jobs] for at in range(jobs)], Tests({}, {}, set())
    with ThreadPoolExecutor(jobs) as pool:
        for _, noted, printed in pool.map(lambda part: runner.run(part, 3600.0), parts):
            if noted is None:
                print(f"{printed[-3000:]}\nthese tests do not come to their end without a change")
                raise SystemExit(2)
            together.failed.update(noted.failed)
            together.seconds.update(noted.seconds)
            for module, lines in noted.reached.items():
                known = together.reached.setdefault(module, {})
                for line, reaching in lines.items():
                    known[line] = [*known.get(line, []), *reaching]
    return together


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=100, help="changes to try (default 100); 0 tries all")
    parser.add_argument("--seed", type=int, default=0, help="which sample (default 0)")
    parser.add_argument("--area", choices=list(AREAS), action="append", help="only this area; may be given again")
    parser.add_argument("--jobs", type=int, default=2, help="changes tried at the same time (default 2)")
    parser.add_argument("--goal", type=float, default=90.0, help="exit 1 below this percentage (default 90)")
    arguments = parser.parse_args()
    areas, started = arguments.area or list(AREAS), time.monotonic()
    sample = draw(areas, arguments.sample, arguments.seed)
    with tempfile.TemporaryDirectory(prefix="fractionate-mutation-") as root:
        runner = Runner(Path(root), arguments.jobs)
        tests = note_tests(runner, areas, arguments.jobs)
        for test in sorted(tests.failed):
            print(f"left out, since it fails without a change: {test}")
        print(f"{len(tests.seconds)} tests pass without a change: {runner.cpu_s:.0f} s of CPU", flush=True)
        counts = try_all(runner, sample, tests, arguments.jobs)
    tried = counts["killed"] + counts["survived"]
    share = 100 * counts["killed"] / max(tried, 1)
    low, high = (100 * bound for bound in wilson(counts["killed"], tried))
    print(
        f"{len(sample)} changes (seed {arguments.seed}) of {len(areas)} areas: {counts['killed']} killed, "
        f"{counts['survived']} survived, {counts['equivalent']} equivalent: {share:.1f} % killed "
        f"(95 % interval {low:.0f} to {high:.0f} %); {(time.monotonic() - started) / 60:.1f} minutes, "
        f"{runner.cpu_s / 60:.1f} of CPU"
    )
    return 0 if share >= arguments.goal else 1


def wilson(count: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson, J. Am. Stat. Assoc. 22 (1927) 209)."""
    z, share = 1.96, count / max(n, 1)
    centre, width = share + z**2 / (2 * n), z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return (centre - width) / (1 + z**2 / n), (centre + width) / (1 + z**2 / n)


def lay_out(folder: Path) -> Path:
    """Copy the tree to a folder, with the sources compiled."""
    hidden = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "images", "runs")
    shutil.copytree(ROOT, folder, ignore=hidden)
    subprocess.run([sys.executable, "-m", "compileall", "-q", "src"], cwd=folder, check=True)
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
