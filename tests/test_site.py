"""The site of the documentation builds without a warning, so every link leads somewhere, and reads well."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

pytest.importorskip("sphinx", reason="the 'site' extra is not installed")

DOCS = Path(__file__).resolve().parents[1] / "docs"
CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def page(site: Path) -> Iterator[Any]:
    """A narrow page of a real browser, with the site's address as its `base`."""
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with sync_playwright() as started:
            launched = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
            context = launched.new_context(
                viewport={"width": 390, "height": 800}, base_url=f"http://127.0.0.1:{server.server_port}"
            )
            yield context.new_page()
            launched.close()
        server.shutdown()


def test_every_page_of_the_docs_is_a_page_of_the_site(site: Path) -> None:
    pages = {source.relative_to(DOCS).with_suffix(".html") for source in DOCS.rglob("*.md")}
    assert pages <= {made.relative_to(site) for made in site.rglob("*.html")}


def test_the_python_interface_is_documented_whole(site: Path) -> None:
    import fractionate

    text = (site / "reference" / "python.html").read_text()
    assert [name for name in fractionate._HOME_OF if f"fractionate.{name}" not in text] == []


@pytest.mark.browser
@pytest.mark.parametrize("address", ["index.html", "guide/your-own-data.html", "verdict.html", "reference/config.html"])
def test_a_narrow_screen_needs_no_sideways_scrolling(page: Any, address: str) -> None:
    page.goto(f"/{address}")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.browser
def test_a_search_finds_the_page(page: Any) -> None:
    page.goto("/search.html?q=non-inferiority+margin")
    page.wait_for_selector("#search-results li a")
    assert "verdict" in " ".join(page.locator("#search-results li a").all_inner_texts()).lower()


@pytest.mark.browser
def test_the_dark_mode_is_dark(page: Any) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto("/index.html")
    red, green, blue = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    assert max(red, green, blue) < 60
