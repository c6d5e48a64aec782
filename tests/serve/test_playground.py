"""The playground in a real browser, against a real server: keyboard use, display, and excluded attacks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import fractionate

pytestmark = pytest.mark.browser
CHROMIUM = Path("/usr/bin/chromium")
CONFIG = """\
[data]
test = ["jsonl:questions.jsonl"]
[models]
teacher = "echo:0.9"
solvers = ["echo:0.9"]
decomposers = ["none", "teacher"]
[run]
strategies = ["single", "stepwise"]
variants = []
[prices."echo:0.9"]
input_per_million = 0.15
output_per_million = 0.6
"""
NASTY = "What is <img src=x onerror=document.title='broken'> of <b>Chad</b>?"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("playground")
    rows = [{"id": f"q{n}", "question": f"What is the capital of land {n}?", "answers": [f"{n}?"]} for n in range(24)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "c.toml").write_text(CONFIG)
    assert fractionate("run", "c.toml", "--out", "run", "--quiet", cwd=folder).returncode == 0
    return folder / "run"


def served(run_folder: Path, *options: str, keys: str = "") -> Iterator[str]:
    command = [sys.executable, "-m", "fractionate", "serve", str(run_folder), "--port", "0", *options]
    environment = {**os.environ, "FRACTIONATE_KEYS": keys}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield next(word for word in line.split() if word.startswith("http")).removesuffix("/v1")
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


@pytest.fixture(scope="module")
def url(run_folder: Path) -> Iterator[str]:
    yield from served(run_folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield launched
        launched.close()


def opened(browser: Any, url: str, **options: Any) -> tuple[Any, list[str], list[str]]:
    """Return a page on the playground, the errors it meets, and every address that it asks."""
    page = browser.new_context(**options).new_page()
    errors: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    return page, errors, asked


@pytest.mark.parametrize(("width", "scheme"), [(1180, "light"), (390, "dark")])
def test_a_question_is_asked_by_keyboard_and_answered_twice(browser: Any, url: str, width: int, scheme: str) -> None:
    page, errors, asked = opened(browser, url, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.locator("#pair option").first.wait_for(state="attached")
    assert page.evaluate("() => document.activeElement.id") == "question"
    page.locator("#pair").select_option("fractionate/stepwise")
    page.locator("#question").focus()
    page.keyboard.type("Which land borders Chad?")
    page.keyboard.press("Control+Enter")
    page.locator("table:not([hidden])").nth(1).wait_for()
    pair, single = page.locator(".panel").all()
    assert pair.locator(".steps li").count() == 2
    assert all(text.strip() for text in pair.locator(".steps b").all_inner_texts()), "each subquestion has its answer"
    assert single.locator(".steps li").count() == 0
    assert pair.locator(".answer").inner_text()
    assert "exact match" in pair.locator(".measured").inner_text()
    assert "n = 24" in single.locator(".measured").inner_text()
    roles = pair.locator("tbody th").all_inner_texts()
    assert roles == ["decomposer", "solver", "all"]
    calls = pair.locator("tbody tr td:first-of-type").all_text_contents()
    assert calls == ["1", "3", "4"]
    assert "$" in pair.locator("tbody tr").last.inner_text()
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the page"
    assert errors == []
    assert all(address.startswith((url, "data:")) for address in asked), "nothing is loaded from elsewhere"
    page.context.close()


def test_colours_follow_the_system_and_the_button(browser: Any, url: str) -> None:
    page, _, _ = opened(browser, url, color_scheme="dark")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.locator("#theme").focus()
    page.keyboard.press("Enter")
    light = page.evaluate(ground)
    assert dark != light
    page.keyboard.press("Enter")
    assert page.evaluate(ground) == dark
    page.context.close()


def test_figures_are_rounded_as_in_reports(browser: Any, url: str) -> None:
    page = browser.new_page()
    page.goto(url)
    shares = [0.3625, 0.3675, 0.0025, 0.30625, 0.36249, 0.36251, 1 / 3, 0.0, 1.0]
    said = page.evaluate("async shares => shares.map((await import(document.scripts[0].src)).percent)", shares)
    assert said == [f"{100 * share:.1f} %" for share in shares]


def test_what_a_question_holds_stays_text(browser: Any, url: str) -> None:
    page, errors, _ = opened(browser, url)
    page.locator("#pair option").first.wait_for(state="attached")
    page.locator("#pair").select_option("fractionate/stepwise")
    page.locator("#question").fill(NASTY)
    page.locator("#send").click()
    page.locator("table:not([hidden])").nth(1).wait_for()
    assert page.locator(".panel img").count() == 0
    assert "<b>Chad</b>" in page.locator(".steps").first.inner_text()
    assert page.title() == "fractionate playground"
    assert errors == []
    page.context.close()


def test_a_refusal_is_shown_in_words(browser: Any, url: str) -> None:
    page, _, _ = opened(browser, url)
    page.locator("#pair option").first.wait_for(state="attached")
    page.locator("#question").fill("word " * 200_000)
    page.locator("#send").click()
    page.locator(".state.failed").first.wait_for()
    assert "larger than" in page.locator(".state.failed").first.inner_text() or "tokens" in page.inner_text("#answers")
    page.context.close()


def test_a_server_with_keys_asks_for_one(browser: Any, run_folder: Path) -> None:
    for url in served(run_folder, keys="k-playground"):
        page, _, _ = opened(browser, url)
        page.locator("#key-field").wait_for()
        page.locator("#key").fill("wrong")
        page.locator("#key").press("Tab")
        page.get_by_text("key", exact=False).first.wait_for()
        assert page.locator("#pair option").count() == 0
        page.locator("#key").fill("k-playground")
        page.locator("#key").press("Tab")
        page.locator("#pair option").first.wait_for(state="attached")
        page.locator("#question").fill("Which land borders Chad?")
        page.keyboard.press("Control+Enter")
        page.locator("table:not([hidden])").nth(1).wait_for()
        page.context.close()


def test_an_answer_is_marked_where_the_server_keeps_a_record(browser: Any, run_folder: Path, tmp_path: Path) -> None:
    record = tmp_path / "traffic.jsonl"
    for url in served(run_folder, "--record", str(record)):
        page, errors, _ = opened(browser, url)
        page.locator("#beside option").first.wait_for(state="attached")
        page.locator("#pair").select_option("fractionate/stepwise")
        page.locator("#question").fill("Which land borders Chad?")
        page.locator("#send").click()
        page.locator("table:not([hidden])").nth(1).wait_for()
        first, second = page.locator(".panel").all()
        first.locator("[data-right=true]").click()
        first.get_by_text("kept", exact=True).wait_for()
        second.locator(".feedback input").fill("Libya")
        second.locator("[data-correct]").click()
        second.get_by_text("kept", exact=True).wait_for()
        assert errors == []
        page.context.close()
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    marks = {row["feedback"]: row for row in rows if "feedback" in row}
    by_pair = {row["pair"]: marks[row["id"]] for row in rows if "feedback" not in row}
    stepwise = next(mark for pair, mark in by_pair.items() if "stepwise" in pair)
    single = next(mark for pair, mark in by_pair.items() if "single" in pair)
    assert stepwise["right"] is True
    assert single["answers"] == [["Libya"]]


def test_without_a_record_nothing_can_be_marked(browser: Any, url: str) -> None:
    page, _, _ = opened(browser, url)
    page.locator("#pair option").first.wait_for(state="attached")
    page.locator("#question").fill("Which land borders Chad?")
    page.locator("#send").click()
    page.locator("table:not([hidden])").first.wait_for()
    assert page.locator(".feedback").first.is_hidden()
    page.context.close()
