"""Start-up stays light: help and import load few modules. Modules are counted, not time."""

import subprocess
import sys
from collections.abc import Collection, Mapping

import grimp
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


KNOWN_CIRCLES: set[frozenset[str]] = set()
"""Circles of modules that are still to go: none may be added."""


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Layers are between packages (import-linter); this is between modules, those of one package too.

    Imports for type checkers alone do not count. Imports inside functions do: they put off a circle, and leave it.
    """
    graph = grimp.build_graph("fractionate", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    circles = {frozenset(circle) for circle in circles_of(imports)}
    assert not circles - KNOWN_CIRCLES, "modules that import each other"
    assert not KNOWN_CIRCLES - circles, "gone: take it off the list"


def test_circles_are_found() -> None:
    imports = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"d", "e"}}
    assert circles_of(imports) == [{"a", "b", "c"}]


def circles_of(imports: Mapping[str, Collection[str]]) -> list[set[str]]:
    """Return the largest sets of modules of which each reaches every other (Tarjan's strongly connected components)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for imported in sorted(imports.get(module, ())):
            if imported not in order:
                visit(imported)
                lowest[module] = min(lowest[module], lowest[imported])
            elif imported in stack:
                lowest[module] = min(lowest[module], order[imported])
        if lowest[module] == order[module]:
            circle: set[str] = set()
            while module not in circle:
                circle.add(stack.pop())
            if len(circle) > 1:
                found.append(circle)

    for module in sorted(imports):
        if module not in order:
            visit(module)
    return found
