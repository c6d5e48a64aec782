"""Questions to look at: the same question worked through by two pairs."""

from __future__ import annotations

from fractionate.report.facts import Facts, Record
from fractionate.report.section import HTML, Example, Section, Tried

_LEAD = "Chosen for where the pairs differ, so not a fair sample."


def section(facts: Facts) -> Section | None:
    """Return the picked examples, each with its passage where it has one."""
    examples = tuple(_example(facts, example) for example in facts.examples)
    return Section("examples", "Questions to look at", examples, _LEAD, HTML) if examples else None


def _example(facts: Facts, example: Record) -> Example:
    return Example(
        example["question"],
        " or ".join(example["gold"]),
        example["context"],
        tuple(
            Tried(
                attempt["pair"],
                attempt["right"],
                tuple(attempt["subquestions"]),
                attempt["prediction"],
                attempt["output"],
            )
            for attempt in example["attempts"]
        ),
        example["test_set"] if len(facts.test_sets) > 1 else "",
    )
