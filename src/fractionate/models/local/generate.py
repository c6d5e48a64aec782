"""One batch from its prompts to its replies, for work that is known beforehand.

Imports torch at the top, so import it only from functions that run a local model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from fractionate.errors import FractionateError
from fractionate.models.local.batch import Batch
from fractionate.models.local.rows import Prompt, Reply, Row, RowBatch


class InterruptedBatchError(FractionateError):
    """Generation was asked to stop between two tokens; nothing of the batch is kept."""


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    ends: Collection[int],
    share: bool = True,
    stopped: Callable[[], bool] = lambda: False,
) -> list[Reply]:
    """Continue every prompt, as one batch. `ends` are the token ids that end a reply; `share` reads prefixes once.

    A row's reply does not depend on its neighbours, up to the rounding of floating point sums. Greedy or, above
    temperature 0, sampled from a stream of the row's own `seed`. Raises InterruptedBatchError once `stopped()` is true.
    """
    if not prompts:
        return []
    rows = [Row(prompt, tokenizer) for prompt in prompts]
    return work_through(Batch(model, ends, share), rows, stopped)


def work_through(batch: RowBatch, rows: Sequence[Row], stopped: Callable[[], bool]) -> list[Reply]:
    """Write rows to their ends on any runtime. Raises InterruptedBatchError once `stopped()` is true."""
    if rows:
        batch.join(rows)
    while batch.rows:
        if stopped():
            batch.drop()
            raise InterruptedBatchError("generation was interrupted")
        batch.step()
    return [row.finish() for row in rows]
