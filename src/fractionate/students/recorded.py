"""Demonstrations out of traffic: an answer that was right shows how to decompose and solve its question.

It passes the screen as a teacher's does, by its answer, and no model has to be asked again.
"""

from __future__ import annotations

from fractionate import strategies
from fractionate.datasets.base import Dataset
from fractionate.datasets.traffic import Exchange, Reply
from fractionate.errors import UsageError
from fractionate.strategies.prompting import final_line, numbered_lines
from fractionate.students.demonstrate import Demonstration
from fractionate.types import Usage

_SAME_WORK = {"pair", "temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"}
"""Deviations from the measured kind that leave an answer usable as a demonstration."""


def demonstration_of(exchange: Exchange, dataset: Dataset) -> Demonstration | None:
    """Return the demonstration that an answered request is: its first right reply that went by a decomposition.

    None where there is none: nothing was decomposed beforehand (single stage, self-ask, a decomposer that failed), or
    the client asked for other words than a run would (stop strings, a format, fewer tokens).
    """
    if not (set(exchange.deviations) <= _SAME_WORK and _decomposes_first(exchange.answering.strategy)):
        return None
    for reply in exchange.answering.replies:
        score = dataset.score(reply.answer, exchange.answers)
        decomposition = reply.decomposition
        usable = decomposition is not None and decomposition.status != "unparsed" and not reply.degraded
        if usable and decomposition is not None and score.exact_match == 1.0:
            parts = (("decomposer", exchange.answering.decomposer), ("solver", exchange.answering.solver))
            return Demonstration(
                exchange.id,
                0,
                decomposition,
                _worked(exchange, reply),
                reply.answer,
                score,
                solved=True,
                decomposer_usage=Usage(),
                solver_usage=Usage(),
                cut_off=reply.cut_off,
                answered_by=exchange.answering.pair,
                by_students=tuple(role for role, part in parts if part.kind in ("student", "distilled")),
            )
    return None


def _decomposes_first(strategy: str) -> bool:
    try:
        return strategies.get(strategy).stages == "two-stage"
    except UsageError:  # of a plug-in that is not installed here
        return False


def _worked(exchange: Exchange, reply: Reply) -> str:
    """Return the solution in the form that a demonstration has: sub-answers one a line, then the answer."""
    if exchange.answering.strategy == "static" or not reply.sub_answers:
        return reply.output
    return f"{numbered_lines(reply.sub_answers)}\n{final_line(reply.answer or ())}"
