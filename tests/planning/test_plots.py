"""Plots are real SVG and PNG files, equal for the same plan, and faults are reported before the work."""

import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from fractionate.errors import UsageError
from fractionate.planning import SCENARIOS, SETS, Setting

pytest.importorskip("matplotlib", reason="the 'plots' extra is not installed")

from fractionate.planning import plots

PAPER = SETS["paper-corrected"]


def figures():
    setting = Setting(1e9, 1e21)
    return {
        "capacity gap": lambda: plots.capacity_gap(1e9, 2e10, 2.1, PAPER),
        "recipes": lambda: plots.recipes([setting, replace(setting, scenario=SCENARIOS["both"])]),
    }


@pytest.mark.parametrize("name", figures())
def test_each_plot_is_an_svg_with_its_words(name, tmp_path):
    path = tmp_path / "plot.svg"
    plots.save(figures()[name](), path, name)
    root = ElementTree.fromstring(path.read_text())
    words = " ".join(root.itertext())
    expected = {
        "capacity gap": ["teacher's loss (nats per token)", "best teacher, 1.933"],
        "recipes": ["best-case", "both", "compute (FLOPs)"],
    }
    for text in expected[name]:
        assert text in words
    first = path.read_bytes()
    plots.save(figures()[name](), path, name)
    assert path.read_bytes() == first


def test_a_png_is_a_png(tmp_path):
    path = tmp_path / "plot.PNG"
    plots.check_path(path)
    plots.save(figures()["capacity gap"](), path, "x")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [one.name for one in tmp_path.iterdir()] == ["plot.PNG"]


def test_the_u_that_is_drawn_has_its_bottom_where_the_law_has_it():
    figure = plots.capacity_gap(1e9, 2e10, None, PAPER)
    x, y = figure.axes[0].lines[0].get_data()
    at = int(np.argmin(y))
    assert x[at] == pytest.approx(1.933, abs=0.01)
    assert y[at] == pytest.approx(2.3143, abs=1e-3)


def test_paths_that_cannot_be_drawn_to_are_said_first(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"written as .svg or .png, not as .pdf"):
        plots.check_path(tmp_path / "plot.pdf")
    with pytest.raises(UsageError, match="is no folder"):
        plots.check_path(tmp_path / "none" / "plot.svg")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"pip install 'fractionate\[plots\]'"):
        plots.check_path(tmp_path / "plot.svg")
