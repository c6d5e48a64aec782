"""The docs match the code: the reference is generated, every example config parses, links resolve."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fractionate.config import Config, load_config
from fractionate.run.run import Run

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def test_the_reference_is_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate_reference.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}: run make docs"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_every_example_parses_and_names_cells(path: Path, tmp_path: Path) -> None:
    with Run(load_config(path), tmp_path / "run", path.parent) as run:
        assert run.pairs()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_config_blocks_in_the_docs_parse(page: Path) -> None:
    import tomllib

    for block in re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        tomllib.loads(block)


def test_the_reference_has_every_table_of_the_config() -> None:
    page = (ROOT / "docs" / "reference" / "config.md").read_text(encoding="utf-8")
    missing = [name for name in Config.model_fields if f"[{name}" not in page]
    assert missing == []


def test_the_tree_names_what_is_there() -> None:
    """Every file and folder of the tree exists, and no module or package of the top level is missing from it."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"```text\n(src/fractionate/\n.*?)```", page, re.DOTALL)
    package, folder = ROOT / "src" / "fractionate", ROOT
    named = set()
    for line in tree.splitlines():
        depth, (name, _, said) = len(line) - len(line.lstrip()), line.strip().partition(" ")
        home = {0: ROOT, 2: package}.get(depth, folder)
        inside = home / name if name.endswith("/") else home
        if depth == 2:
            folder = inside
        for each in [name, *re.findall(r"[\w/]+\.py|\b\w+/(?=[,: (])", said)]:
            places = [place for place in (home / each, inside / each) if place.exists()]
            assert places, f"{line.strip()!r}: there is no {each}"
            named.update(places)
    there = {path for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {path.name for path in there - named} <= {"__init__.py", "__main__.py"}
