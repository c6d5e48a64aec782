"""How to read this: what the words of the report mean."""

from __future__ import annotations

from fractionate.report.facts import Facts
from fractionate.report.section import PAGES, Lines, Section

_LINES = (
    "A cell is one decomposer, strategy and solver on one test set. Its value is the mean of the metric over n "
    "questions, with its interval; an output that no answer could be read from counts as wrong.",
    "Dollars are those of answering the test set, by role, at the prices listed; they leave out the teacher's "
    "demonstrations and training. An unknown price gives an unknown cost, never zero.",
    "Comparisons are paired: both cells answered the same questions. p is the exact McNemar test for right/wrong, a "
    "paired bootstrap for F1; Holm's adjustment covers every comparison of the run, so an adjusted p below 0.05 stands "
    "among all of them.",
    "The verdict asks of a student whether its pair is non-inferior to the undistilled pair within the margin and "
    "cheaper, each with the stated confidence. The full rule is docs/verdict.md.",
)


def section(facts: Facts) -> Section | None:
    """Return the same sentences for every report."""
    return Section("reading", "How to read this", (Lines(_LINES),), formats=PAGES)
