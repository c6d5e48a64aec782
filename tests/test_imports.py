"""Start-up stays light: help and import load next to nothing. Modules are counted, not time."""

import subprocess
import sys

import pytest

HEAVY = {
    "aiohttp", "asyncio", "pydantic", "numpy", "scipy", "jinja2", "rich", "torch", "transformers", "sqlite3",
    "genai_prices", "matplotlib", "trl", "peft", "datasets", "pyarrow", "tokenizers",
}  # fmt: skip
MOST_MODULES = 60
"""Modules that may be loaded beyond those of a bare interpreter; argparse and what it needs are about 35."""


def loaded_by(code: str) -> set[str]:
    script = f"import sys; before = set(sys.modules)\n{code}\nprint(*(set(sys.modules) - before), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "code",
    [
        "import fractionate",
        "from fractionate.cli import main; main(['--help'])",
        "from fractionate.cli import main; main(['--version'])",
        "from fractionate.cli import main; main(['nonsense'])",
    ],
)
def test_start_up_loads_next_to_nothing(code: str) -> None:
    modules = loaded_by(code)
    assert not modules & HEAVY
    assert len(modules) <= MOST_MODULES


def test_a_command_s_own_help_loads_nothing_heavy() -> None:
    for command in (
        "run",
        "demo",
        "score",
        "evaluate",
        "doctor",
        "report",
        "init",
        "store",
        "plan",
        "testbed",
        "export",
    ):
        code = f"from fractionate.cli import main\ntry: main(['{command}', '--help'])\nexcept SystemExit: pass"
        assert not loaded_by(code) & (HEAVY - {"asyncio"}), command
