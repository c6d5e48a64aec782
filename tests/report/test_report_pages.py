"""The page shows every number of results.json, fits every screen, and escapes all data."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import cell_of, config_of, matrix
from test_sentence import OUTCOMES
from test_sentence import results_of as verdicts
from test_verdict import GOOD, NEVER, run

from fractionate.analysis.next_step import Place
from fractionate.analysis.rule import Rule
from fractionate.report.charts import Forest, Point, scatter, ticks
from fractionate.report.examples import pick_examples
from fractionate.report.render import html, markdown, write_html, write_markdown
from fractionate.report.results import build_results
from fractionate.run.attempt_rows import attempt_lines, read_jsonl
from fractionate.run.folder import write_rows

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">{{ 7*7 }} | & '\""
PUBLISHED = [{"decomposer": "teacher", "solver": "teacher", "value": 65.13, "source": "table 1"}]


def results_of(cells, **sections):
    return build_results(cells, config_of(**sections), ["a note"], {"name": "demo", "seed": 0})


class Text(HTMLParser):
    """Collects a page's visible text, its tags and the ids it defines."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.hidden = False

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.hidden = tag in ("script", "style")

    def handle_endtag(self, tag):
        self.hidden = False

    def handle_data(self, data):
        if not self.hidden:
            self.text.append(data)


def read(page: str) -> tuple[str, list[tuple[str, dict[str, str | None]]]]:
    parser = Text()
    parser.feed(page)
    return " ".join("".join(parser.text).split()), parser.tags


@pytest.mark.parametrize("render", [markdown, html])
def test_an_unknown_cost_reads_unknown_and_never_zero(render):
    page = render(results_of([cell_of([1, 0], decomposer="recorded:rows.jsonl")]))
    assert "unknown" in page
    assert "no price known" in page


@pytest.mark.parametrize("render", [markdown, html])
@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("metric", ["exact_match", "f1"])
def test_a_report_of_next_to_nothing_is_still_a_report(render, n, metric):
    assert re.search("ndecided|No verdict, since", render(results_of(matrix(n, metric=metric))))
    assert "nothing was measured" in render(results_of([]))


def test_html_shows_the_verdict_every_cell_and_the_examples():
    cells = matrix(60)
    config = config_of(published=PUBLISHED)
    results = build_results(cells, config, ["a note"], {"name": "demo", "versions": {"python": "3.11"}})
    text, tags = read(html(results, pick_examples(cells, Rule.of(config))))
    assert results["verdict"]["because"] in text, "action and effect follow each other"
    assert f"Next: {results['verdict']['next']}" in text
    assert text.count("Answer read:") == 12
    assert text.count("has two rivers.") == 6, "every example has its passage"
    rows = [attributes for tag, attributes in tags if tag == "table"]
    assert len(rows) >= 5
    for cell in results["cells"]:
        assert f"{cell['value'] * 100:.1f} %" in text
    assert "python 3.11" in text


def test_html_is_one_file_that_asks_for_nothing():
    _, tags = read(html(results_of(matrix(30))))
    for tag, attributes in tags:
        assert tag not in ("iframe", "object", "embed", "base", "img")
        for name in ("src", "href", "srcset", "action"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
    assert "@import" not in html(results_of(matrix(30)))


def test_html_tables_and_charts_can_be_read_without_seeing_them():
    _, tags = read(html(results_of(matrix(30))))
    ids = [attributes["id"] for _, attributes in tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for tag, attributes in tags:
        if tag == "th":
            assert attributes.get("scope") in ("col", "row")
        if tag == "svg":
            assert attributes.get("aria-hidden") or attributes.get("aria-label") or attributes.get("aria-labelledby")
        for label in (attributes.get("aria-labelledby") or "").split():
            assert label in ids


def hostile_page() -> str:
    cell = cell_of([1, 0, 1], decomposer=HOSTILE)
    attempts = tuple(
        replace(
            attempt,
            problem=replace(attempt.problem, question=HOSTILE, context=HOSTILE, answers=((HOSTILE,),)),
            output=HOSTILE,
            prediction=(HOSTILE,),
            decomposition=replace(attempt.decomposition, subquestions=(HOSTILE,)),
        )
        for attempt in cell.attempts
    )
    cells = [replace(cell, attempts=attempts, dataset=HOSTILE, solver=replace(cell.solver, model=HOSTILE)), *matrix(3)]
    config = config_of(published=[{"decomposer": HOSTILE, "solver": HOSTILE, "value": 1, "source": HOSTILE}])
    results = build_results(cells, config, [HOSTILE], {"name": HOSTILE, HOSTILE: [HOSTILE], "map": {HOSTILE: HOSTILE}})
    return html(results, pick_examples(cells, Rule.of(config)))


def test_a_question_with_markup_stays_text():
    page = hostile_page()
    text, tags = read(page)
    assert " ".join(HOSTILE.split()) in text
    assert [tag for tag, _ in tags].count("script") == 1
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    assert "{{ 7*7 }}" in text


def test_an_example_s_passage_survives_the_run_s_folder(tmp_path: Path) -> None:
    path, config = tmp_path / "attempts.jsonl", config_of()
    write_rows(path, attempt_lines([cell_of([1, 0, 1]), cell_of([0, 1, 1], decomposer="D-R")]))
    cells = read_jsonl(path)
    page = html(build_results(cells, config, [], {"name": "demo"}), pick_examples(cells, Rule.of(config)))
    assert page.count("<summary>Passage</summary><pre>Country") == 3


def test_examples_show_disagreement_first_and_the_same_question_twice():
    config = config_of()
    cells = [cell_of([1, 1, 0, 0]), cell_of([1, 0, 1, 0], decomposer="D-R")]
    examples = pick_examples(cells, Rule.of(config), limit=4)
    right = [tuple(attempt["right"] for attempt in example["attempts"]) for example in examples]
    assert set(right[:2]) == {(True, False), (False, True)}
    assert right[2:] == [(True, True), (False, False)]
    assert all(len(example["attempts"]) == 2 for example in examples)
    assert pick_examples([], Rule.of(config)) == []
    assert len(pick_examples([cell_of([1, 0])], Rule.of(config))) == 2


@given(st.floats(-1e4, 1e4), st.floats(1e-6, 1e4))
def test_ticks_are_within_bounds_and_few(low, width):
    found = ticks(low, low + width)
    assert all(low - width * 1e-6 - 1e-9 <= tick <= low + width * (1 + 1e-6) + 1e-9 for tick in found)
    assert 1 <= len(found) <= 11


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1)), min_size=1, max_size=12),
    st.sampled_from([380, 860]),
)
@settings(max_examples=40, deadline=None)
def test_every_mark_of_a_scatter_lies_inside_the_chart(data, width):
    points = [
        Point(index, str(index), x, y, max(0.0, y - 0.1), min(1.0, y + 0.1), "student", "single", False)
        for index, (x, y) in enumerate(data)
    ]
    drawn = scatter(points, "dollars", True, width, 400, "key")
    centres = re.findall(r'<circle cx="([-\d.]+)" cy="([-\d.]+)"', drawn)
    assert len(centres) == len(points)
    assert all(0 <= float(x) <= width and 0 <= float(y) <= 400 for x, y in centres)


def test_a_better_cell_is_drawn_higher_and_a_dearer_one_further_right():
    points = [Point(i, str(i), x, y, y, y, "none", "single", False) for i, (x, y) in enumerate([(1, 0.2), (2, 0.6)])]
    (x0, y0), (x1, y1) = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', scatter(points, "", True, 860, 400, "k"))
    assert float(x0) < float(x1)
    assert float(y0) > float(y1)


def test_a_forest_puts_no_difference_between_its_bounds():
    forest = Forest([-0.1, 0.3], (0.0, -0.02))
    assert 0 < forest.share(-0.1) < forest.share(-0.02) < forest.share(0.0) < forest.share(0.3) < 100
    assert [text for _, text in forest.axis()] == ["−10", "0", "+10", "+20", "+30"]
    assert Forest([]).axis()


def test_files_are_written(tmp_path):
    results = results_of(matrix(5))
    write_markdown(results, tmp_path / "report.md")
    write_html(results, tmp_path / "report.html")
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == markdown(results)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == html(results)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=str(CHROMIUM), args=options)
        yield launched
        launched.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Open a page's text in the browser; what it logs and asks for is collected."""
    pages = []

    def show(text: str, **options: object):
        path = tmp_path / "report.html"
        path.write_text(text, encoding="utf-8")
        page = browser.new_page(**options)
        pages.append(page)
        page.trouble = []
        page.on("console", lambda message: page.trouble.append(message.text))
        page.on("pageerror", lambda error: page.trouble.append(str(error)))
        page.on("request", lambda request: request.url == path.as_uri() or page.trouble.append(request.url))
        page.goto(path.as_uri())
        return page

    yield show
    for page in pages:
        page.close()


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (320, "dark")])
def test_the_page_fits_every_width_and_says_nothing_to_the_console(opened, width, scheme):
    long = "recorded:elsewhere/filtered_bc_gpt2_medium.jsonl"
    cells = [*matrix(60), cell_of([1, 0] * 30, decomposer=long, solver=long), *matrix(60, dataset="other", seed=2)]
    page = opened(
        html(results_of(cells), pick_examples(cells, Rule.of(config_of()))),
        viewport={"width": width, "height": 800},
        color_scheme=scheme,
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.trouble == []
    assert page.locator("svg.scatter:visible").count() == 2
    heights = page.eval_on_selector_all("table.heat th", "cells => cells.map(cell => cell.offsetHeight)")
    assert max(heights) < 130, "a row's name is squeezed to a letter a line"


def luminance(colour: list[float]) -> float:
    """WCAG's relative luminance of an sRGB colour, 0 to 1."""
    red, green, blue = (
        share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4
        for share in (channel / 255 for channel in colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_schemes(opened, scheme):
    """WCAG AA: 4.5 to 1 for text against the page and the cards, computed from what the browser resolved."""
    page = opened(html(results_of(matrix(60))), color_scheme=scheme)
    read = """(name) => {
      const probe = document.createElement('i');
      probe.style.color = `var(--${name})`;
      document.body.append(probe);
      return getComputedStyle(probe).color.match(/[0-9.]+/g).slice(0, 3).map(Number);
    }"""
    inks, grounds = ("ink", "soft", "good", "bad", "open", "reference", "student", "none"), ("paper", "card")
    light = {name: luminance(page.evaluate(read, name)) for name in (*inks, *grounds)}
    ratios = {
        f"{ink} on {ground}": (max(light[ink], light[ground]) + 0.05) / (min(light[ink], light[ground]) + 0.05)
        for ink in inks
        for ground in grounds
    }
    assert {pair: ratio for pair, ratio in ratios.items() if ratio < 4.5} == {}


@pytest.mark.browser
def test_pressing_a_heading_sorts_by_number_and_presses_turn_it_round(opened):
    results = results_of(matrix(60))
    page = opened(html(results))
    values = sorted(cell["value"] for cell in results["cells"])
    column = "table.sortable tbody tr td:nth-child(5)"
    page.evaluate("location.hash = 'cells'")
    button = page.get_by_role("button", name="value")
    for expected, direction in ((values, "ascending"), (values[::-1], "descending")):
        button.click()
        found = page.eval_on_selector_all(column, "cells => cells.map(cell => Number(cell.dataset.v))")
        assert found == expected
        assert page.locator("th[aria-sort]").get_attribute("aria-sort") == direction


@pytest.mark.browser
def test_markup_in_data_does_not_run(opened):
    page = opened(hostile_page())
    assert page.title() != "taken"
    page.evaluate("location.hash = 'examples'")
    page.wait_for_function("document.getElementById('examples').closest('details').open")
    assert page.locator("article h3").first.inner_text() == HOSTILE
    assert page.trouble == []


def decided(**changed):
    """Results of a run whose verdict recommends the decomposer."""
    config = config_of(data={"test": "atlas#test@0-599"})
    cells = run(cot=NEVER, single=NEVER, untrained=NEVER, **changed)
    return build_results(cells, config, [], {"name": "demo"}, place=Place.of(config, "runs/demo", "demo.toml"))


@pytest.mark.browser
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_the_first_screen_answers_what_to_do_what_it_saves_and_what_comes_next(opened, width, height):
    page = opened(html(decided()), viewport={"width": width, "height": height})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for words in ("Distill the decomposer: let Tiny-1B", "→ $0.119 per 1,000 questions", "fractionate serve runs/demo"):
        box = page.get_by_text(words).bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= height, words
    chart = page.locator("svg.scatter:visible")
    assert chart.bounding_box()["y"] < height, "the picture begins on the first screen"
    assert chart.locator("g.recommended").count() == 1
    assert "(recommended)" in chart.locator("desc").text_content()


@pytest.mark.browser
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_first_screen_answers_for_every_outcome_and_two_hold_five_sentences(opened, outcome, width, height):
    """The first screen has the verdict: what to do, what it saves, what comes next; the picture's lead follows."""
    results = verdicts(OUTCOMES[outcome][0])
    page = opened(html(results), viewport={"width": width, "height": height})
    said = page.locator("h1, .because, main .lead >> visible=true")
    lines = [" ".join(line.split()) for line in said.all_inner_texts()]
    verdict = [results["verdict"]["action"], results["verdict"]["effect"], f"Next: {results['verdict']['next']}"]
    answer = [line for line in verdict if line]
    assert lines[: len(answer)] == answer
    ends = [box["y"] + box["height"] for box in (line.bounding_box() for line in said.all())]
    assert ends[len(answer) - 1] <= height, "the verdict ends on the first screen"
    sentences = 0
    for line, end in zip(lines, ends, strict=True):
        if sentences < 5:
            assert end <= 2 * height, line
        sentences += max(1, len(re.findall(r"[.:](?:\s|$)", line)))
    assert sentences >= 5


@pytest.mark.browser
def test_printed_the_verdict_and_picture_are_on_page_one_all_is_open_and_nothing_is_cut_off(opened, tmp_path):
    """A real PDF of A4 pages; the longest names and the widest table are in it."""
    pdfium = pytest.importorskip("pypdfium2", reason="pypdfium2 is not installed")
    long = "recorded:elsewhere/filtered_bc_gpt2_medium.jsonl"
    cells = [*run(cot=NEVER, single=NEVER, untrained=NEVER), cell_of([1, 0] * 300, decomposer=long, solver=long)]
    config = config_of(data={"test": "atlas#test@0-599"})
    results = build_results(cells, config, [], {"name": "demo"}, place=Place.of(config, "runs/demo", "demo.toml"))
    page = opened(html(results, pick_examples(cells, Rule.of(config))))
    page.pdf(path=tmp_path / "report.pdf", format="A4", prefer_css_page_size=True)
    assert page.locator("details.folded[open]").count() == 0, "what was opened for the printer is folded again"
    printed = pdfium.PdfDocument(tmp_path / "report.pdf")
    texts = [" ".join(sheet.get_textpage().get_text_bounded().split()) for sheet in printed]
    for words in (
        "Distill the decomposer: let Tiny-1B",
        "Next: fractionate serve runs/demo",
        "dollars per 1,000 questions",
    ):
        assert words in texts[0]
    # A line of each folded part: controls, matrix, cells, examples, prices, notes, how to read.
    for words in (
        "decomposing beats one stage",
        "decomposer ↓ solver",
        "latency p95",
        "Which river of",
        "machine hour",
    ):
        assert any(words in text for text in texts), words
    assert any("A cell is one decomposer, strategy and solver on one test set" in text for text in texts)
    margin = 12 / 25.4 * 72  # points
    for number, sheet in enumerate(printed, 1):
        words = sheet.get_textpage()
        for place in range(words.count_rects()):
            left, bottom, right, top = words.get_rect(place)
            assert margin - 1 <= left, words.get_text_bounded(left, bottom, right, top)
            assert right <= sheet.get_width() - margin + 1, (number, words.get_text_bounded(left, bottom, right, top))


@pytest.mark.browser
def test_details_are_folded_open_by_key_and_by_address_and_are_printed(opened):
    page = opened(html(decided()))
    controls = page.locator("details.folded", has=page.locator("#controls"))
    assert not page.locator("#controls ~ *:visible").count()
    assert controls.get_attribute("open") is None
    controls.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert controls.get_attribute("open") is not None
    page.evaluate("location.hash = 'prices'")
    page.wait_for_function("document.getElementById('prices').closest('details').open")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.folded:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details.folded:not([open])").count() > 0
    assert page.trouble == []


def test_what_was_compared_is_said_in_plain_words_and_what_is_open_by_its_gate():
    text, _ = read(html(decided()))
    assert "Tiny-1B, trained on screened demonstrations (D-R), decomposes; gpt-4o-mini solves" in text
    near = {"reference": GOOD[350:450], "decomposer": GOOD[350:450], "single": NEVER[:100], "cot": NEVER[:100]}
    few = build_results(run(**near, untrained=NEVER[:100], solver=None, pair=None), config_of(), [], {"name": "demo"})
    text, _ = read(html(few))
    assert re.search(r"What is open D-R → teacher: its loss may be more than the margin \(the interval ends at −", text)


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_nothing(opened, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = opened(html(decided()), viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"][:120] for node in one["nodes"][:3]]) for one in found] == []
