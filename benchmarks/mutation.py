"""Mutation testing of what reads answers, judges and bills: a changed token must make some test fail.

    python benchmarks/mutation.py [--sample 100] [--seed 0] [--area NAME] [--jobs 2] [--goal 90]

Draws a sample of one-token changes: a comparison, an arithmetic or boolean operator, a number, True or False, a `not`,
min for max, a returned value. Every area of `AREAS` gives as many as every other, so that 170 lines that admit requests
count as much as 3,000 that read answers. Each change is applied to a copy of the tree and tried against the tests of
its area, then against further files of the suite (`WIDER`). Prints each change that the area's own tests did not
notice, and the share that was noticed. Exit 0 where that share reaches the goal; 1 below it; 2 where the tests fail
without a change.

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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, chain, islice, pairwise, zip_longest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "fractionate"
SLOW = "huge or official_vectors or cover or valid_at_few or equal_speeds or power_it_states or XX"
"""Tests left out by name, in the terms of pytest's -k: simulations, and those over a million characters."""

AREAS: dict[str, tuple[str, str]] = {
    "answers": (
        "scoring/*.py",
        "scoring/test_final.py scoring/test_numbers.py scoring/test_number_forms.py scoring/test_reply_forms.py "
        "scoring/test_split_final.py scoring/test_lenient.py scoring/test_metrics.py scoring/test_corpus.py",
    ),
    "statistics": (
        "statistics/*.py",
        "statistics/test_outcomes.py statistics/test_clusters.py statistics/test_plans.py",
    ),
    "costs": ("analysis/costs.py", "analysis/test_costs.py analysis/test_pricing.py"),
    "verdict": (
        "analysis/verdict.py analysis/rule.py",
        "analysis/test_verdict.py analysis/test_comparisons.py",
    ),
    "budget": ("calls/budget.py calls/ledger.py", "calls/test_budget.py"),
    "limits": ("calls/limits.py", "calls/test_limits.py calls/test_deadlines.py"),
    "store": ("calls/store.py calls/store_file.py calls/stored_call.py", "calls/test_store.py calls/test_client.py"),
    "spending": ("serve/ledger.py", "serve/test_ledger.py"),
    "admission": ("serve/admission.py serve/errors.py", "serve/test_admission.py"),
    "wire": ("models/openai/wire.py", "models/test_openai_api.py models/test_openai_stream.py"),
    "recorded": (
        "models/recorded.py models/_recorded_rows.py models/_trees.py",
        "models/test_recorded.py models/test_recorded_strategies.py models/test_importing.py",
    ),
    "names": ("run/names.py", "run/test_names.py"),
    "examples": ("students/examples.py", "students/test_examples.py"),
    "cells": ("run/cells.py run/spending.py", "run/test_attempts.py run/test_repeats.py"),
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
        for start, end, text in self._tokens(node):
            self.found.append(Change(self.path, function, start, end, text))
        for name, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and name not in UNCHANGED:
                    self._walk(child, function)

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


def test(folder: Path, names: str, limit_s: float) -> tuple[bool, str]:
    """Return whether these tests pass in a copy of the tree within the limit, and what pytest printed."""
    files = [f"tests/{name}" for name in names.split()]
    chosen = ["-m", "not hypothesis and not model and not browser", "-k", f"not ({SLOW})"]
    running = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *chosen, *files],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A compiled file that a change left behind could be taken for the source's own.
        env={**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        printed, _ = running.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        printed, _ = running.communicate()
        return False, printed + f"\nno end within {limit_s:.0f} s"
    return running.returncode == 0, printed


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
    counts: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory(prefix="fractionate-mutation-") as root,
        ThreadPoolExecutor(arguments.jobs) as pool,
    ):
        folders: queue.Queue[Path] = queue.Queue()
        for number in range(arguments.jobs):
            folders.put(lay_out(Path(root) / str(number)))

        def timed(names: str) -> tuple[bool, str, float]:
            folder, began = folders.get(), time.monotonic()
            passed, printed = test(folder, names, 600.0)
            folders.put(folder)
            return passed, printed, time.monotonic() - began

        def noticed_by(area: str, change: Change) -> str:
            folder = folders.get()
            path = folder / change.path.relative_to(ROOT)
            path.write_bytes(change.applied())
            found = next((names for names in tests[area] if not test(folder, names, 30 + 4 * limits[names])[0]), "")
            shutil.copy2(change.path, path)
            folders.put(folder)
            return "" if not found else "its own tests" if found == tests[area][0] else "further tests"

        tests = {area: (AREAS[area][1], WIDER[area]) for area in areas}
        all_tests = [names for area in areas for names in tests[area]]
        limits: dict[str, float] = {}
        for names, (passed, printed, seconds) in zip(all_tests, pool.map(timed, all_tests), strict=True):
            print(f"{names}: {seconds:.0f} s", flush=True)
            limits[names] = seconds
            if not passed:
                print(f"{printed[-3000:]}\nthese tests fail without a change")
                return 2
        for (_, change), noticed in zip(sample, pool.map(lambda one: noticed_by(*one), sample), strict=True):
            reason = EQUIVALENT.get((change.place, change.shown()))
            counts[noticed or ("equivalent" if reason else "survived")] += 1
            if noticed != "its own tests":
                said = f"noticed by {noticed}" if noticed else f"equivalent, {reason}" if reason else "SURVIVED"
                print(f"{change.place}, line {change.line}: {change.shown()}: {said}", flush=True)
    killed = counts["its own tests"] + counts["further tests"]
    share = 100 * killed / max(killed + counts["survived"], 1)
    print(
        f"{len(sample)} changes (seed {arguments.seed}) of {len(areas)} areas: {killed} killed "
        f"({counts['its own tests']} by the tests of their area, {counts['further tests']} by further ones), "
        f"{counts['survived']} survived, {counts['equivalent']} equivalent: {share:.1f} % killed; "
        f"{(time.monotonic() - started) / 60:.1f} minutes"
    )
    return 0 if share >= arguments.goal else 1


def lay_out(folder: Path) -> Path:
    """Copy the tree to a folder, with the sources compiled."""
    hidden = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "images", "runs")
    shutil.copytree(ROOT, folder, ignore=hidden)
    subprocess.run([sys.executable, "-m", "compileall", "-q", "src"], cwd=folder, check=True)
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
