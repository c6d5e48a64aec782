"""What a reader needs beside the figures: warnings, outputs without a readable answer, training candidates, examples,
prices, notes, terms, and what the run was made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fractionate.report.amounts import count, percent
from fractionate.report.facts import Facts, Record
from fractionate.report.section import (
    HTML,
    PAGES,
    TERMINAL,
    Column,
    Entry,
    Example,
    Lines,
    Row,
    Section,
    Table,
    Tried,
    table_section,
)


def warnings(facts: Facts) -> Section | None:
    """Return the warnings of the run; commands print them on standard error themselves."""
    lines = tuple(facts.results["warnings"])
    return Section("warnings", "Warnings", (Lines(lines),), formats=PAGES) if lines else None


_UNPARSED_NAMED = 3
"""Cells that a line names."""


def unparsed(facts: Facts) -> Section | None:
    """Return a line per fix: where it would help, and how bad it is there."""
    by_fix: dict[tuple[str, ...], list[Record]] = {}
    for cell in facts.results.get("unread", []):
        # results.json of an earlier version calls the fixes "mends".
        by_fix.setdefault(tuple(cell.get("fixes", cell.get("mends", ()))), []).append(cell)
    lines = tuple(_unparsed_line(facts, fixes, cells) for fixes, cells in by_fix.items())
    lead = (
        "In these cells no answer could be read from more than a tenth of the outputs, or they were cut off. Their "
        "values may reflect the format of the answers, not the reasoning: compare them with the lenient reading."
    )
    return Section("unread", "Unparsed or cut off", (Lines(lines),), lead, PAGES | TERMINAL) if lines else None


def _unparsed_line(facts: Facts, fixes: Sequence[str], cells: Sequence[Record]) -> str:
    names = [facts.label(facts.by_name[cell["cell"]]) for cell in cells[:_UNPARSED_NAMED]]
    more = f" and {len(cells) - _UNPARSED_NAMED} more" if len(cells) > _UNPARSED_NAMED else ""
    worst = "at most " if len(cells) > 1 else ""
    unparsed, cut_off = (max(cell[key] for cell in cells) for key in ("unread_share", "cut_off_share"))
    said = f"{'; '.join(names)}{more}: {worst}{percent(unparsed)} unparsed, {percent(cut_off)} cut off."
    return f"{said} Fix: {'; '.join(fixes)}." if fixes else said


_TRIED_LEAD = (
    "All candidates of a student learn from the same examples. The loss is the lowest over training steps, in nats "
    "per target token, on examples made from the dev split's questions. The candidate with the lowest loss is kept; "
    "no candidate is measured on the test questions. Losses of different students are not comparable, because their "
    "targets differ. Among close candidates the choice is random, and the lowest loss is a slightly optimistic "
    "estimate."
)


def tried(facts: Facts) -> Section | None:
    """Return a row per candidate, None where there was no dev split."""
    rows = facts.results.get("tried", [])
    columns = (
        *((Column("run", "run"),) if any("run" in row for row in rows) else ()),
        Column("student", "student", "head"),
        Column("rate", "learning rate", "number"),
        Column("rank", "rank", "number"),
        Column("epochs", "epochs", "number"),
        Column("steps", "steps run", "number"),
        Column("loss", "loss on dev", "number"),
        Column("n", "dev examples", "number"),
        Column("chosen", "kept", "answer"),
    )
    return table_section(
        "tried", "Candidates tried on the dev split", columns, map(_tried_row, rows), _TRIED_LEAD, PAGES
    )


def _tried_row(row: Record) -> Row:
    loss = row["dev_loss"]
    return {
        **({"run": row["run"]} if "run" in row else {}),
        "student": Entry(row["student"], hint=row["base"]),
        "rate": f"{row['learning_rate']:g}",
        "rank": "every weight" if row["lora_rank"] is None else str(row["lora_rank"]),
        "epochs": f"{row['epochs']:g}",
        "steps": _tried_steps(row),
        "loss": Entry("diverged", sort="") if loss is None else Entry(f"{loss:.4f}", strong=row["chosen"]),
        "n": count(row["dev_examples"]) if row["dev_examples"] else "–",
        "chosen": Entry("✓ kept", state="yes") if row["chosen"] else "",
    }


def _tried_steps(row: Record) -> Entry:
    """Return the steps taken, of how many where training stopped early, and which step was kept."""
    steps, planned, best = row["steps"], row["planned_steps"], row["best_step"]
    if steps is None:
        return Entry("–", sort="")
    taken = f"{count(steps)} of {count(planned)}" if steps < planned else count(steps)
    return Entry(taken, f"best after {count(best)}" if best < steps else "", sort=float(steps))


def prompts(facts: Facts) -> Section | None:
    """Return the instructions that the user brought, None where all were the shipped ones."""
    own, examples = facts.results.get("prompts", {}), facts.results.get("examples", [])
    lines = (
        *(f"{name}: {' '.join(text.split())}" for name, text in own.items()),
        *(f"worked example: {' '.join(question.split())}" for question in examples),
    )
    lead = "This run asked with its own texts ([prompts] in the config) in place of the shipped instructions."
    return Section("prompts", "Own instructions", (Lines(lines),), lead, PAGES) if lines else None


_EXAMPLES_LEAD = "Questions on which the pairs differ: not a random sample."


def examples(facts: Facts) -> Section | None:
    """Return the picked examples, each with its passage where it has one."""
    picked = tuple(_example(facts, example) for example in facts.examples)
    return Section("examples", "Example questions", picked, _EXAMPLES_LEAD, HTML) if picked else None


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


def prices(facts: Facts) -> Section | None:
    """Return one row per model that was called."""
    columns = (
        Column("model", "model", "code"),
        Column("known", "cost", "answer"),
        Column("source", "price and where it comes from"),
    )
    rows = [
        {
            "model": price["model"],
            "known": Entry("✓ known", state="yes") if price["known"] else Entry("? unknown", state="open"),
            "source": price["source"],
        }
        for price in facts.results["prices"]
    ]
    return table_section("prices", "Prices", columns, rows, formats=PAGES)


def notes(facts: Facts) -> Section | None:
    """Return the notes of the run and of its report."""
    lines = tuple(facts.results["notes"])
    return Section("notes", "Notes", (Lines(lines),), formats=PAGES) if lines else None


_HOW_TO_READ_LINES = (
    "A cell is one decomposer, strategy and solver on one test set. Its value is the mean of the metric over n "
    "questions, with its interval. An output without a readable answer counts as wrong and is called unparsed. "
    "Questions that share a passage (or a group that the data names) are one independent unit: intervals and tests go "
    "by passage. Where n reads 48 × 3, each of 48 questions was answered 3 times and counts with the mean; tokens and "
    "dollars are those of answering once.",
    "The lenient value takes the last number, name or choice of an output that states no answer. The part of a "
    "training gain that the lenient reading shows too is content gain; the rest is formatting gain.",
    "Dollars cover answering the test set, by role, at the prices listed. They do not cover the teacher's "
    "demonstrations and training, which break-even counts. An unknown price gives an unknown cost, never zero.",
    "Dollars of a local model are its tokens, the throughput measured for its base model and the price of its machine "
    "per hour. The wall time of its batches is shown as latency per batch and costs nothing.",
    "Comparisons are paired: both cells answered the same questions. p is the exact McNemar test for independent "
    "right or wrong answers, a sign-flip test otherwise; Holm's adjustment covers each family, primary and "
    "exploratory, apart.",
    "A distilled configuration passes the verdict's rule if it is at most the margin worse than the undistilled pair, "
    "costs less, and beats its controls: answering in one stage, and the untrained model in the place of each trained "
    "part. The cheapest configuration that passes is recommended. The full rule is docs/verdict.md.",
)


def how_to_read(facts: Facts) -> Section | None:
    """Return the same sentences for every report."""
    return Section("reading", "How to read this", (Lines(_HOW_TO_READ_LINES),), formats=PAGES)


def run(facts: Facts) -> Section | None:
    """Return the run's own fields that say something."""
    rows = [
        {"name": str(name), "value": _field_text(value)}
        for name, value in facts.results["run"].items()
        if value not in ("", None)
    ]
    if not rows:
        return None
    columns = (Column("name", "", "head"), Column("value", ""))
    return Section("run", "Run", (Table(columns, tuple(rows), look="fields"),), formats=PAGES)


def _field_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {of_name}" for name, of_name in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
