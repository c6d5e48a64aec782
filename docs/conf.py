"""The site of the documentation: `make site` builds it into `site/` (https://www.sphinx-doc.org).

Sphinx because it reads docstrings, checks every link between pages and builds the search index itself; MyST because the
pages are Markdown, as they read in the repository; Furo for its dark mode and narrow screens.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import fractionate

DOCS = Path(__file__).parent

project = "fractionate"
author = "the authors of fractionate"
version = release = fractionate.__version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "index"
source_suffix = {".md": "markdown"}
exclude_patterns = ["**/*.py"]
nitpicky = False
"""Links between pages are checked by MyST; docstrings name modules in plain code."""

myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath", "colon_fence"]

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "undoc-members": False}

html_theme = "furo"
html_title = "fractionate"
html_copy_source = False

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#\s]*)(?:#[^)\s]*)?\)")


def setup(app: Any) -> None:
    """Let pages of the repository that are not of the site (README.md, folders) be named without a link."""

    def unlink(app: Any, name: str, source: list[str]) -> None:
        def plain(match: re.Match[str]) -> str:
            target = (DOCS / name).parent.joinpath(match[2]).resolve()
            outside = DOCS not in target.parents and (target.is_dir() or target.suffix == ".md")
            return match[1] if outside else match[0]

        source[0] = _LINK.sub(plain, source[0])

    app.connect("source-read", unlink)
