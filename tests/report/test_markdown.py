"""report.md shows every number and escapes all data: no link, image, HTML, emphasis or broken table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from measured import cell_of, config_of, matrix

from fractionate.report.render import markdown, plain
from fractionate.report.results import build_results
from fractionate.tools import has_tools

PUBLISHED = [{"decomposer": "teacher", "solver": "teacher", "value": 65.13, "source": "table 1"}]
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
TEXT_ALONE = {"inline", "text", "text_special", "softbreak"}
NASTY = [
    "[click](javascript:alert(1))", "![x](http://evil.example/x.png)", "<javascript:alert(1)>",
    "<script>alert(1)</script>",
    "[a]: javascript:alert(1)", "[a]", "[^1]", "<b>", "</td>", "<!-- ", "<?php", "&lt;b&gt;", "&#91;", "&", "|", "\\|",
    "\\", "\\[", "`", "``", "*", "**", "_", "__", "~~", "# ", "#", "> ", "- ", "+ ", "---", "===", "1. ", "12) ", "\n",
    "\n\n", "\t", "    ", "```", "www.evil.example", "https://evil.example", "a@b.example", "x", " ", "<", "<3", "]",
    "(", ")", "!", "é", "snake_case", "$", ":", "\x00", "\r",
]  # fmt: skip
texts = st.one_of(st.text(max_size=20), st.lists(st.sampled_from(NASTY), min_size=1, max_size=8).map("".join))


def results_of(cells: list[Any], **sections: object) -> dict[str, Any]:
    return build_results(cells, config_of(**sections), ["a note"], {"name": "demo", "seed": 0})


def table_after(text: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    lines = [line for line in text.split(f"## {heading}")[1].split("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_verdict_comes_first_and_every_cell_and_comparison_is_there():
    results = results_of(matrix(60), published=PUBLISHED)
    text = markdown(results)
    said = results["verdict"]
    expected = [f"**{plain(said['action'])}**", plain(said["effect"]), f"Next: {plain(said['next'])}"]
    assert text.split("\n\n")[1:4] == expected
    rows = table_after(text, "Cells")
    assert len(rows) == len(results["cells"])
    for row, cell in zip(rows, results["cells"], strict=True):
        assert row[:5] == ["atlas", cell["strategy"], cell["decomposer"], cell["solver"], "exact match"]
        low, high = (f"{cell[bound] * 100:.1f}" for bound in ("ci_low", "ci_high"))
        assert row[5] == f"**{cell['value'] * 100:.1f} %** ({low} to {high})"
    assert len(table_after(text, "Comparisons")) == len(results["comparisons"])
    assert "65.1 %" in text
    assert "- a note" in text


def test_what_is_known_of_each_price_is_said():
    results = results_of([cell_of([1, 0], decomposer="recorded:rows.jsonl")])
    rows = {row[0]: row[1:] for row in table_after(markdown(results), "Prices")}
    assert rows["recorded:rows.jsonl"][0] == "? unknown"
    assert "no price known" in rows["recorded:rows.jsonl"][1]
    assert rows["openai:gpt-4o-mini"][0] == "✓ known"


def shown(tokens: list[Token] | None) -> str:
    """The text a reader of Markdown sees; anything but text fails."""
    seen = []
    for token in tokens or []:
        assert token.type in TEXT_ALONE, f"{token.type} in {token.content!r}"
        seen.append(" " if token.type == "softbreak" else token.content)
    return "".join(seen)


def on_one_line(text: str) -> str:
    return " ".join(text.split()).replace("\x00", "\ufffd")


@given(texts)
@settings(max_examples=400, deadline=None)
@example("[a]: javascript:alert(1)")
@example("a\\|b|c")
@example("_x_ __y__ snake_case *z*")
@example("1. a")
@example("> a")
@example("- a")
@example("# a #")
def test_any_text_is_read_as_itself_in_a_table_a_bullet_and_a_heading(text: str):
    expected = on_one_line(text)
    page = f"# x {plain(text)}\n\n- {plain(text)}\n- last\n\n| a | b |\n|---|---|\n| {plain(text)} | end |\n"
    tokens = READER.parse(page)
    kinds = [token.type for token in tokens if token.nesting == 1]
    assert kinds == [
        "heading_open", "bullet_list_open", *(["list_item_open", "paragraph_open"] if expected else ["list_item_open"]),
        "list_item_open", "paragraph_open", "table_open", "thead_open", "tr_open", "th_open", "th_open", "tbody_open",
        "tr_open", "td_open", "td_open",
    ]  # fmt: skip
    inline = [shown(token.children) for token in tokens if token.type == "inline"]
    bullets = [expected, "last"] if expected else ["last"]
    assert inline == [f"x {expected}".rstrip(), *bullets, "a", "b", expected, "end"]


@given(texts)
@settings(max_examples=20, deadline=None)
@example("[click](javascript:alert(1))")
@example("<img src=x onerror=alert(1)>")
def test_a_report_full_of_it_has_no_link_no_image_and_no_html(text: str):
    name = text or "x"
    hostile = cell_of([1, 0, 1], decomposer="D-R")
    cells = [replace(hostile, dataset=name, solver=replace(hostile.solver, model=name)), *matrix(3)]
    published = [{"decomposer": name, "solver": name, "value": 1, "source": text}]
    results = build_results(cells, config_of(published=published), [text], {"name": name, "list": [text], name: text})
    tokens = READER.parse(markdown(results))
    every = [*tokens, *(child for token in tokens for child in token.children or [])]
    assert not {token.type for token in every} & {
        "link_open",
        "image",
        "html_inline",
        "html_block",
        "code_inline",
        "fence",
        "hr",
    }
    titles = [
        tokens[place + 1].content
        for place, token in enumerate(tokens)
        if token.type == "heading_open" and token.tag == "h2"
    ]
    if has_tools(name):  # "x[a]" is the name of a model with a tool
        titles.remove("Tools")
    assert titles == ["Unparsed or cut off", "What was compared", "Evidence", "What is open", "Controls",
                      "Cells", "Published figures",
                      "Agreement of decompositions", "Comparisons", "Prices", "Notes", "How to read this",
                      "Run"]  # fmt: skip
    columns = [token.type for token in tokens if token.type in ("th_open", "td_open", "tr_open")]
    assert columns.count("th_open") > 0


def test_addresses_in_data_do_not_become_links_by_themselves():
    """GitHub links bare addresses: https://github.github.com/gfm/#autolinks-extension-."""
    assert plain("see https://a.example, www.a.example and me@a.example") == (
        "see https\\://a.example, www\\.a.example and me\\@a.example"
    )
    assert plain("local:org/Model-1B@runs/D-R") == "local:org/Model-1B@runs/D-R"


def test_ordinary_text_stays_as_readable_as_it_was():
    for text in (
        "−14.8",
        "+1.8",
        "< 0.001",
        "70.0 % (66.4 to 73.4)",
        "filtered_bc_gpt2_medium",
        "gsm8k#test@0-659",
        "R&D",
    ):
        assert plain(text) == text
