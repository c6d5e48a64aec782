"""docs/papers.md matches the code: every named file, function, test and config key exists, no experiment is missing."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

from fractionate.config import STUDENTS, Config
from fractionate.strategies import built_in

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "fractionate"
PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
QUOTED = sorted(set(re.findall(r"`([^`\n]+)`", PAGE)))
FILES = [text for text in QUOTED if re.fullmatch(r"[\w./-]+\.(py|toml|txt|md)(::\w+)?", text)]
KEYS = [text for text in QUOTED if text.partition(".")[0] in Config.model_fields and text not in FILES]
ELSEWHERE = ("tests/", "examples/", "protocols/", "benchmarks/", "docs/")


def tables(title: str) -> list[list[str]]:
    """Return the cells of the rows under a heading, up to the next of its level or above."""
    level = title.partition(" ")[0]
    _, _, rest = PAGE.partition(f"\n{title}\n")
    assert rest, f"docs/papers.md has no heading {title!r}"
    section = re.split(rf"\n#{{1,{len(level)}}} ", rest)[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if not set("".join(row)) <= set("-| ") and len(row) > 1]


@cache
def defined_in(path: Path) -> frozenset[str]:
    """Return the names of a test file's functions and classes."""
    parts = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return frozenset(node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, parts))


@pytest.mark.parametrize("named", FILES)
def test_every_file_and_function_named_is_there(named: str) -> None:
    file, _, name = named.partition("::")
    path = (ROOT if file.startswith(ELSEWHERE) else PACKAGE) / file
    assert path.is_file()
    if name and path.is_relative_to(PACKAGE):
        module = importlib.import_module(".".join(("fractionate", *Path(file).with_suffix("").parts)))
        assert callable(getattr(module, name))
    elif name:
        assert name in defined_in(path)


@pytest.mark.parametrize("key", KEYS)
def test_every_config_key_named_is_there(key: str) -> None:
    section, _, name = key.partition(".")
    assert name in Config.model_fields[section].annotation.model_fields  # type: ignore[union-attr]


def test_every_strategy_and_student_is_on_the_page() -> None:
    assert set(QUOTED) >= {*built_in(), *STUDENTS}


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "experiments").glob("*.md")), ids=lambda path: path.name)
def test_no_experiment_is_left_out(page: Path) -> None:
    assert page.name == "README.md" or f"](experiments/{page.name})" in PAGE, f"link {page.name} from docs/papers.md"


@pytest.mark.parametrize("path", sorted((ROOT / "protocols").glob("*.toml")), ids=lambda path: path.name)
def test_no_protocol_is_left_out(path: Path) -> None:
    assert f"protocols/{path.name}" in FILES, f"name protocols/{path.name} in docs/papers.md"


@pytest.mark.parametrize(
    ("heading", "least"),
    [("## Divide-or-Conquer (arXiv 2402.15000v3)", 50),
     ("## The distillation scaling law (arXiv 2502.08606v2)", 6),
     ("## All-Pairs (arXiv 1807.00126) and Knowledge Matters (arXiv 1301.4083)", 8)],
)  # fmt: skip
def test_every_row_of_the_paper_says_where_what_checks_it_and_how_it_stands(heading: str, least: int) -> None:
    rows = tables(heading)
    assert len(rows) > least
    for row in rows:
        assert len(row) == 4, row
        assert all(row), row
        if row[3].startswith("built"):
            assert "`" in row[1], f"{row[0]}: built, but in no file"
            assert "tests/" in row[2], f"{row[0]}: built, but no test holds it"
        if row[3].startswith("measured"):
            assert "](experiments/" in row[2], f"{row[0]}: measured, but no experiment is linked"


def test_there_is_something_to_hold() -> None:
    assert len(FILES) > 80
    assert {"run.cap", "data.allow_overlap"} <= set(KEYS)
