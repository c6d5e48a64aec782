"""Mutation testing of the answer extractors and scorers: every small change to them must make some test fail.

    pip install mutmut
    python benchmarks/mutation.py [--keep DIR]

Copies the sources and the three test files into a folder of its own, lets mutmut change one thing at a time, and prints
each change that no test noticed. Exit 1 when a survivor is not listed in `EQUIVALENT` below, with the reason why it
changes nothing. Property tests and those with a million characters are left out: they are slow, and plain cases must
suffice.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("text", "numbers", "metrics")
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

EQUIVALENT: dict[str, str] = {}


def prepare(folder: Path) -> None:
    """Lay out a project that has the sources, the three modules' tests and mutmut's settings."""
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (folder / "tests").mkdir()
    for module in MODULES:
        shutil.copy(ROOT / "tests/datasets" / f"test_{module}.py", folder / "tests")
    paths = "\n".join(f"    src/fractionate/datasets/{module}.py" for module in MODULES)
    (folder / "setup.cfg").write_text(SETTINGS.format(modules=paths))


def mutmut(folder: Path, *arguments: str) -> str:
    """Run mutmut in the folder and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments], cwd=folder, text=True, capture_output=True, check=False
    )
    return done.stdout + (done.stderr if done.returncode else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this new folder and leave it there")
    keep = parser.parse_args().keep
    folder = keep or Path(tempfile.mkdtemp(prefix="fractionate-mutation-"))
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder)
    output = mutmut(folder, "run")
    print(output.splitlines()[-1] if output else "mutmut printed nothing")
    results = mutmut(folder, "results")
    survivors = [line.strip().rpartition(":") for line in results.splitlines() if ":" in line]
    unexplained = 0
    for name, _, status in survivors:
        reason = EQUIVALENT.get(name, "")
        unexplained += not reason
        print(f"{status.strip()}: {name}: {reason or 'UNEXPLAINED'}")
        if not reason:
            print(mutmut(folder, "show", name))
    print(f"{len(survivors)} survivors, {unexplained} unexplained")
    if not keep:
        shutil.rmtree(folder)
    return 1 if unexplained or "🎉" not in output else 0


if __name__ == "__main__":
    raise SystemExit(main())
