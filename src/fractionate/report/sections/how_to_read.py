"""How to read this: what the words of the report mean."""

from __future__ import annotations

from fractionate.report.facts import Facts
from fractionate.report.section import PAGES, Lines, Section

_LINES = (
    "A cell is one decomposer, strategy and solver on one test set. Its value is the mean of the metric over n "
    "questions, with its interval; an output that no answer could be read from counts as wrong. Questions that share a "
    "passage (or a group that the data names) are one independent unit: intervals and tests go by passages. Where n "
    "reads 48 × 3, each of 48 questions was answered 3 times and counts with the mean; tokens and dollars are those of "
    "answering once.",
    "The lenient value is what the outputs may have meant, by their last number, name or choice where none is stated. "
    "What a trained part gains over its untrained base under this reading too is substance; the rest is form.",
    "Dollars are those of answering the test set, by role, at the prices listed; they leave out the teacher's "
    "demonstrations and training, which break-even counts. An unknown price gives an unknown cost, never zero.",
    "Dollars of a local model are its tokens at the throughput measured for its base model and the price of its "
    "machine per hour; the wall time of its batches is shown as a latency, per batch, and costs nothing.",
    "Comparisons are paired: both cells answered the same questions. p is the exact McNemar test for independent "
    "right or wrong answers, a sign-flip test otherwise; Holm's adjustment covers each family, primary and "
    "exploratory, apart.",
    "The verdict asks of a distilled configuration that it be no worse than the undistilled pair by more than the "
    "margin, cheaper, and better than its controls: answering in one stage, and the untrained model in each trained "
    "part's place. The cheapest that passes is recommended. The full rule is docs/verdict.md.",
)


def section(facts: Facts) -> Section | None:
    """Return the same sentences for every report."""
    return Section("reading", "How to read this", (Lines(_LINES),), formats=PAGES)
