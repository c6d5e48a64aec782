"""A section is one file and one line in a list; a section added at run time appears in every format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup
from measured import cell_of, config_of, matrix

from fractionate.cli.common import print_results
from fractionate.report import sections
from fractionate.report.facts import Facts
from fractionate.report.render import html, markdown, terminal, with_sections
from fractionate.report.results import build_results
from fractionate.report.section import (
    HTML,
    MARKDOWN,
    PAGES,
    TEXT,
    Column,
    Entry,
    Example,
    Figure,
    Lines,
    Section,
    Table,
    Tried,
)

FOLDER = Path(sections.__file__).parent


def results_of(cells: list[Any], **of_config: object) -> dict[str, Any]:
    return build_results(cells, config_of(**of_config), ["a note"], {"name": "demo", "seed": 0})


def longest(facts: Facts) -> Section | None:
    """What another package might add: the cell with most tokens, in every kind of block."""
    if not facts.cells:
        return None
    columns = (
        Column("cell", "cell", "head"),
        Column("tokens", "tokens written", "number", short="tokens"),
        Column("seen", "only on a page", formats=PAGES),
    )
    rows = [
        {"cell": facts.label(cell), "tokens": Entry(f"{tokens:,}", "in all", sort=tokens), "seen": "here"}
        for cell in facts.cells
        if (tokens := cell["usage"]["solver"]["output_tokens"])
    ]
    tried = Tried("static, a → b", True, ("Why?",), None, "because")
    body = (
        Table(columns, tuple(rows), "By cell"),
        Lines(("Long outputs cost more.",)),
        Figure("A drawing", Markup('<svg aria-hidden="true"></svg>'), None, (), "What it draws."),
        Example("Which one?", "this", "A passage.", (tried,)),
    )
    return Section("longest", "Longest outputs", body, "Who writes most.")


@pytest.fixture
def added() -> Iterator[None]:
    sections.add_section(longest)
    sections.add_section(longest)
    yield
    sections._added.clear()


def test_every_section_of_the_folder_is_in_the_list_once():
    built = sorted(
        f"{path.stem}.{name}"
        for path in FOLDER.glob("*.py")
        if path.stem != "__init__"
        for name in re.findall(r"^def (\w+)\(facts: Facts\) -> Section", path.read_text(), re.MULTILINE)
    )
    listed = sorted(f"{builder.__module__.rsplit('.', 1)[1]}.{builder.__name__}" for builder in sections.all_sections())
    assert listed == built


@pytest.mark.usefixtures("added")
def test_an_added_section_is_in_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    results = results_of(matrix(20))
    page, text = html(results), markdown(results)
    for report in (page, text):
        for said in ("Longest outputs", "Who writes most.", "By cell", "tokens written", "only on a page", "in all",
                     "Long outputs cost more.", "What it draws.", "Which one?"):  # fmt: skip
            assert said in report
    assert page.count('id="longest"') == 1
    assert page.index('id="comparisons"') < page.index('id="longest"') < page.index('id="prices"')
    assert text.index("## Comparisons") < text.index("## Longest outputs") < text.index("## Prices")
    print_results(results, tmp_path, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert "Longest outputs" in lines
    assert lines[lines.index("By cell") + 1].split() == ["cell", "tokens"]
    said = results["verdict"]
    assert lines[-3:] == [f"Which part should you distill? {said['action']}", said["effect"], f"Next: {said['next']}"]
    print_results(results, tmp_path, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    found = printed.pop("sections")["longest"]
    assert printed == results
    assert found["rows"][0] == {"cell": "single, none → teacher", "tokens": 2457, "tokens_detail": "in all"}
    assert found["lines"][0] == "Long outputs cost more."


@pytest.mark.usefixtures("added")
def test_two_sections_of_one_key_have_addresses_of_their_own():
    def notes(facts: Facts) -> Section:
        return Section("notes", "Mine", ())

    sections.add_section(notes)
    page = html(results_of(matrix(3)))
    assert page.count('id="notes"') == page.count('id="notes-2"') == 1


def test_without_added_sections_json_is_results_json():
    results = results_of(matrix(20))
    assert with_sections(results) == results


def test_no_section_keeps_a_column_that_no_format_shows():
    """Every row's entries have a column: a fact that a section computes and shows nowhere is a mistake."""
    results = results_of([*matrix(30), *matrix(30, dataset="other")])
    results["runs"] = {cell["name"]: {"one": cell["value"]} for cell in results["cells"]}
    facts = Facts(results)
    tables = [
        table
        for builder in sections.all_sections()
        if (built := builder(facts))
        for table in built.body
        if isinstance(table, Table)
    ]
    assert len(tables) >= 9
    for table in tables:
        keys = [column.key for column in table.columns]
        assert len(keys) == len(set(keys))
        assert all(set(row) <= set(keys) for row in table.rows)
        assert all(column.formats for column in table.columns)


@pytest.mark.parametrize("format", ["html", "markdown", "terminal", "json"])
def test_wide_entries_and_missing_ones_keep_rows_as_long_as_the_head(format: Any):
    columns = tuple(Column(key, key, formats=HTML if key == "c" else HTML | TEXT) for key in "abcde")
    table = Table(columns, ({"a": "x", "b": Entry("wide", span=3)}, {"e": "y"}))
    for row in table.laid_out(format):
        assert sum(entry.span for _, entry in row) == len(table.shown(format))


def test_the_terminal_is_aligned_and_obeys_no_control_character():
    hostile = "x\x1b[31m\x07\ny"
    text = terminal(results_of([cell_of([1, 0], decomposer=hostile), *matrix(4)]))
    assert text.replace("\n", "").isprintable()
    assert r"x\x1b[31m\x07 y" in text
    head, rule, *rows = text.partition("\nCells\n")[2].splitlines()
    assert rule.startswith("--------  --------  ")
    ends = {row.index(")") for row in rows}
    assert len(ends) == 1, "numbers are set to the right"
    assert head.startswith("test set  strategy")


def test_the_terminal_shows_what_was_asked_of_nobody():
    assert terminal(results_of(matrix(0))).count("–") >= 8
    assert terminal(results_of([])) == ""


def test_a_strategy_and_a_metric_of_another_package_are_called_by_their_names():
    results = results_of(matrix(5))
    for cell in results["cells"]:
        cell["strategy"], cell["strategy_label"], cell["stages"], cell["metric"] = (
            "tot",
            "tree of thought",
            "two",
            "bleu",
        )
    page = html(results)
    assert "tree of thought, bleu" in page
    assert "| tot |" in markdown(results)


def test_what_went_wrong_comes_first():
    results = build_results(matrix(5), config_of(), [], {"name": "demo"}, warnings=["D-R was left out"])
    assert markdown(results).split("\n## ")[1] == "Warnings\n\n- D-R was left out\n"
    page = html(results)
    assert page.index("D-R was left out") < page.index('id="evidence"')
    assert "Went wrong" not in html(results_of(matrix(5)))


def test_a_package_s_section_that_fails_says_so_and_loses_no_report(monkeypatch: pytest.MonkeyPatch):
    def broken(facts: Facts) -> Section:
        raise KeyError("no such\nfield")

    def installed(group: str) -> dict[str, Any]:
        assert group == "sections"
        return {"mine": broken, "longest": longest}

    monkeypatch.setattr(sections, "all_plugins", installed)
    results = results_of(matrix(5))
    for report in (html(results), markdown(results), terminal(results)):
        assert "This section of another package could not be made" in report
        assert "KeyError" in report
        assert "Longest outputs" in report


def test_formats_do_not_mix():
    results = results_of(matrix(20))
    assert not MARKDOWN & HTML
    assert "<svg" not in markdown(results)
    assert "decomposer tokens (in / cached / out)" not in html(results)


def tried_row(**changes: object) -> dict[str, object]:
    row = {
        "student": "D-R", "base": "local:b", "method": "lora", "learning_rate": 1e-3, "lora_rank": 8, "epochs": 3.0,
        "examples": 90, "steps": 24, "planned_steps": 36, "best_step": 16, "dev_loss": 0.51239, "dev_examples": 9,
        "dev_losses": [[8, 0.6], [16, 0.51239], [24, 0.55]], "chosen": True,
    }  # fmt: skip
    return row | changes


def test_what_was_tried_on_the_dev_split_has_a_row_per_candidate() -> None:
    diverged = {"examples": None, "steps": None, "planned_steps": None, "best_step": None, "dev_loss": None}
    rows = [
        tried_row(),
        tried_row(learning_rate=1e-5, steps=36, best_step=36, dev_loss=0.7, chosen=False),
        tried_row(**diverged, learning_rate=9.0, dev_examples=None, dev_losses=[], chosen=False),
        tried_row(student="E-A", method="full", lora_rank=None),
    ]
    results = build_results(matrix(), config_of(), [], {"name": "demo", "seed": 0}, tried=rows)
    assert results["tried"] == rows
    lines = [
        line
        for line in markdown(results).splitlines()
        if line.startswith(("| D-R | 0.001", "| D-R | 1e-05", "| D-R | 9", "| E-A | 0.001"))
    ]
    assert [line.split(" | ")[1:] for line in lines] == [
        ["0.001", "8", "3", "24 of 36 (best after 16)", "**0.5124**", "9", "✓ kept |"],
        ["1e-05", "8", "3", "36", "0.7000", "9", " |"],
        ["9", "8", "3", "–", "diverged", "–", " |"],
        ["0.001", "every weight", "3", "24 of 36 (best after 16)", "**0.5124**", "9", "✓ kept |"],
    ]
    assert "Candidates tried on the dev split" in html(results, ())


def test_without_a_dev_split_nothing_is_said_of_one() -> None:
    results = results_of(matrix())
    assert results["tried"] == []
    del results["tried"]  # as written by an earlier version
    assert "dev split" not in markdown(results)
