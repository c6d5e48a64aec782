"""Mutation testing of the answer extractors and scorers: every small change to them must make some test fail.

    pip install mutmut
    python benchmarks/mutation.py [--module numbers] [--keep DIR] [--minutes 10] [--jobs 2]

Copies the sources and the tests of these modules into a folder of its own, lets mutmut change one thing at a time, and
prints each change that no test noticed. Exit 0 if the tests noticed all changes except those listed in `EQUIVALENT`,
with the reason why they change no score; 1 if another survived; 3 if the time was up before all were tried.

With --keep, a run continues the last one in that folder: it retries survivors and changed functions. It does not notice
a change outside of functions (a pattern), so figures to report need a new folder. Property tests and tests with a
million characters are left out: they are slow, and plain cases must suffice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    "reply": "scoring",
    "statements": "scoring",
    "final": "scoring",
    "numbers": "scoring",
    "number_answers": "scoring",
    "choices": "scoring",
    "lenient": "scoring",
    "metrics": "scoring",
}
"""The modules whose changes are tried, and the room each lies in."""
TESTS = (
    "scoring/test_final.py",
    "scoring/test_numbers.py",
    "scoring/reply_cases.py",
    "scoring/test_number_forms.py",
    "scoring/test_reply_forms.py",
    "scoring/test_split_final.py",
    "scoring/test_lenient.py",
    "scoring/test_metrics.py",
)
POLL_S = 15.0
SETTINGS = """[mutmut]
source_paths =
    src
only_mutate =
{modules}
pytest_add_cli_args =
    -q
    -m
    not hypothesis
    -k
    not huge and not official_vectors
pytest_add_cli_args_test_selection =
    tests
"""
KILLED = frozenset((1, 3, 24, -24, 36, 152, 255))
"""Exit codes of mutmut's runs that mean a failed test or one without end; None is not tried, any other a survivor."""

EQUIVALENT: dict[tuple[str, str], str] = {}
"""Reasons by function and changed line, as `explain` gives them: those stay when mutants are numbered anew."""


def prepare(folder: Path, modules: list[str]) -> None:
    """Lay out a project with the sources, the modules' tests and mutmut's settings, over an earlier one of its kind."""
    for name in ("src", "tests"):
        shutil.rmtree(folder / name, ignore_errors=True)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (folder / "tests").mkdir()
    for test in TESTS:
        shutil.copy(ROOT / "tests" / test, folder / "tests")
    paths = "\n".join(f"    src/fractionate/{MODULES[module]}/{module}.py" for module in modules)
    (folder / "setup.cfg").write_text(SETTINGS.format(modules=paths))


def mutmut(folder: Path, *arguments: str) -> str:
    """Run mutmut in the folder and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments], cwd=folder, text=True, capture_output=True, check=False
    )
    return done.stdout + (done.stderr if done.returncode else "")


def verdicts(folder: Path, modules: list[str]) -> dict[str, int | None]:
    """Return what is known of each mutant: the exit code of its tests, None where they did not run yet."""
    known: dict[str, int | None] = {}
    for module in modules:
        # mutmut rewrites the file while it runs.
        with contextlib.suppress(OSError, ValueError):
            known |= json.loads((folder / f"mutants/src/fractionate/{MODULES[module]}/{module}.py.meta").read_text())[
                "exit_code_by_key"
            ]
    return known


def verdict(code: int | None) -> str:
    return "untried" if code is None else "killed" if code in KILLED else "survived"


def forget_survivors(folder: Path, modules: list[str]) -> None:
    """Let survivors be tried again: mutmut would let an old verdict stand though a test was added since."""
    # Which tests reach which function is asked anew too, for both may have changed.
    (folder / "mutants/mutmut-stats.json").unlink(missing_ok=True)
    for module in modules:
        path = folder / f"mutants/src/fractionate/{MODULES[module]}/{module}.py.meta"
        if path.exists():
            meta = json.loads(path.read_text())
            codes = meta["exit_code_by_key"]
            meta["exit_code_by_key"] = {name: code if code in KILLED else None for name, code in codes.items()}
            path.write_text(json.dumps(meta))


def try_all(folder: Path, modules: list[str], jobs: int, deadline: float) -> str:
    """Run mutmut until it is done or the deadline passed; print how far it is. Returns what it printed last."""
    log = folder / "mutmut.log"
    with log.open("w") as out:
        running = subprocess.Popen(
            [sys.executable, "-m", "mutmut", "run", "--max-children", str(jobs)],
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.wait(min(POLL_S, max(0.1, deadline - time.monotonic())))
                    break
                counts = Counter(code is None for code in verdicts(folder, modules).values())
                print(f"{counts[False]} of {counts.total()} tried", flush=True)
                if time.monotonic() > deadline:
                    break
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGTERM)
                running.wait()
    return log.read_text()[-2000:].replace("\r", "\n")


def explain(folder: Path, name: str) -> tuple[str, str, str]:
    """Return a mutant's function (`numbers.read_number`), its changed line as "before → after", and the whole diff."""
    diff = mutmut(folder, "show", name)
    changed = [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    module, _, rest = re.sub(r"^fractionate\.(?:answers|datasets)\.", "", name).partition(".")
    function = rest.removeprefix("x_").rpartition("__mutmut_")[0]
    return f"{module}.{function}", " → ".join(line[1:].strip() for line in changed), diff


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", choices=list(MODULES), action="append", help="only this module; may be given again")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="work in this folder, leave it there, go on from there"
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after this many minutes (default 60)")
    parser.add_argument("--jobs", type=int, default=2, help="mutants tried at the same time (default 2)")
    arguments = parser.parse_args()
    modules = arguments.module or list(MODULES)
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="fractionate-mutation-"))
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    prepare(folder, modules)
    forget_survivors(folder, modules)
    output = try_all(folder, modules, arguments.jobs, started + 60 * arguments.minutes)
    known = verdicts(folder, modules)
    counts = Counter(map(verdict, known.values()))
    unexplained = 0
    for name in [name for name, code in known.items() if verdict(code) == "survived"]:
        function, change, diff = explain(folder, name)
        reason = EQUIVALENT.get((function, change))
        unexplained += reason is None
        print(f"equivalent: {function}: {change}: {reason}" if reason else f"SURVIVED: {function}: {change}\n{diff}")
    print(
        f"{len(known)} mutants of {', '.join(modules)}: {counts['killed']} killed, "
        f"{counts['survived'] - unexplained} equivalent, {unexplained} survived, {counts['untried']} untried; "
        f"{(time.monotonic() - started) / 60:.1f} minutes"
    )
    if not known:
        print(output)
    if not arguments.keep:
        shutil.rmtree(folder)
    if unexplained or not known:
        return 1
    return 3 if counts["untried"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
