"""What workers have stored, brought into the run's own store, and its cost counted against what they were lent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fractionate.calls.engine import Engine
from fractionate.calls.store import Hold
from fractionate.calls.stored_call import billed
from fractionate.cluster.scratch import Left


def take_in(engine: Engine, run: str, worker: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Commit rows that a worker stored to the run's own store, and count what they cost against its loan."""
    if not rows:
        return
    budget = engine.budget
    if not budget.active:
        engine.store.adopt(rows)
    else:
        for row in rows:
            if (bill := billed(row)) is not None:
                model, role, usage = bill
                budget.spent_by(worker, role, model, usage)
        holds = budget.holds_to_write()
        engine.store.adopt(rows, (run, holds))
        budget.written(holds)


def take_in_left(engine: Engine, run: str, left: Left) -> None:
    """Commit what a dead worker left. Of its loan only what it had in flight stays: that may be billed."""
    budget = engine.budget
    if budget.active:
        budget.loan(left.worker)
    take_in(engine, run, left.worker, left.rows)
    if not budget.active:
        return
    for role, hold in budget.loan(left.worker).items():
        held = left.held.get(role, Hold(0.0, 0))
        budget.take_back(left.worker, role, max(0.0, hold.usd - held.usd), max(0, hold.tokens - held.tokens))
    holds = budget.holds_to_write()
    engine.store.adopt((), (run, holds))
    budget.written(holds)
