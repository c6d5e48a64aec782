"""What was tried on the dev split: every candidate a student was trained with, its loss there, and the one kept."""

from __future__ import annotations

from fractionate.report.amounts import count
from fractionate.report.facts import Facts, Record
from fractionate.report.section import PAGES, Column, Entry, Row, Section, table_section

LEAD = (
    "Every candidate of a student learnt from the same examples. The loss is that of its best step on examples made of "
    "the dev split's questions, in nats per target token; the lowest is kept, and no candidate was measured on the "
    "test questions. Losses of two students do not compare: their targets differ. Among candidates that are close, "
    "which one is lowest is chance, and the lowest is a little too low an estimate."
)


def section(facts: Facts) -> Section | None:
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
    return table_section("tried", "What was tried on the dev split", columns, map(_row, rows), LEAD, PAGES)


def _row(row: Record) -> Row:
    loss = row["dev_loss"]
    return {
        **({"run": row["run"]} if "run" in row else {}),
        "student": Entry(row["student"], hint=row["base"]),
        "rate": f"{row['learning_rate']:g}",
        "rank": "every weight" if row["lora_rank"] is None else str(row["lora_rank"]),
        "epochs": f"{row['epochs']:g}",
        "steps": _steps(row),
        "loss": Entry("diverged", sort="") if loss is None else Entry(f"{loss:.4f}", strong=row["chosen"]),
        "n": count(row["dev_examples"]) if row["dev_examples"] else "–",
        "chosen": Entry("✓ kept", state="yes") if row["chosen"] else "",
    }


def _steps(row: Record) -> Entry:
    """Return the steps taken, of how many where training stopped early, and which step was kept."""
    steps, planned, best = row["steps"], row["planned_steps"], row["best_step"]
    if steps is None:
        return Entry("–", sort="")
    taken = f"{count(steps)} of {count(planned)}" if steps < planned else count(steps)
    return Entry(taken, f"best after {count(best)}" if best < steps else "", sort=float(steps))
