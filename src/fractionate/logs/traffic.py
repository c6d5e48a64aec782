"""A record of served traffic (`fractionate serve --record`): a pair's answers to what was asked and marked.

A pair is read with the requests that it answered and those that it answered as a shadow; marks say who was right. Two
pairs of one record are compared on the requests that both answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fractionate import datasets
from fractionate.analysis.systems import Answered, System
from fractionate.datasets.traffic import Answering, Exchange, read_exchanges
from fractionate.errors import UsageError
from fractionate.logs.choices import Choices, named
from fractionate.types import Answer, Usage

_PREFIX = "fractionate/"


def is_traffic(values: Mapping[str, Any]) -> bool:
    """Return whether a row is one of a record of traffic."""
    return {"pair", "replies", "latency_s"} <= values.keys() or {"feedback", "time", "right"} <= values.keys()


def read_record(path: Path, wanted: str, name: str, choices: Choices) -> System:
    """Read what one pair of a record answered; `wanted` may be "" where there is only one.

    Raises UsageError naming the pairs where there are several, or none of that name.
    """
    exchanges = read_exchanges(path)
    pair = _chosen(exchanges, wanted, path)
    answers = []
    unknown = 0
    for one in exchanges:
        shadow = one.shadow if one.shadow and one.shadow.pair == pair else None
        if shadow is None and one.answering.pair != pair:
            continue
        outcome = _outcome(one) if shadow is None else _outcome_of_shadow(one, shadow)
        unknown += shadow is not None and not shadow.failed and one.right is False and outcome is None
        answers.append(_answered(one, shadow or one.answering, outcome, choices))
    if not any(one.outcome is not None for one in answers):
        raise UsageError(f"{path}: no answer of {pair} is marked (POST /v1/feedback), so it cannot be compared")
    notes = []
    if unknown:
        notes.append(
            f"{unknown} requests are left out, which favours the pair that answered them: they were marked wrong "
            f"without the right answer, and {pair} said something else"
        )
    return System(name, tuple(answers), "traffic", tuple(notes))


def _chosen(exchanges: Iterable[Exchange], wanted: str, path: Path) -> str:
    several = [part for one in exchanges for part in (one.answering, one.shadow) if part]
    pairs = list(dict.fromkeys(part.pair for part in several))
    found = [pair for pair in pairs if wanted in ("", pair, pair.removeprefix(_PREFIX))]
    if len(found) == 1:
        return found[0]
    problem = f"no pair {wanted!r}" if not found else f"answers of {len(found)} pairs"
    raise UsageError(f"{path} has {problem}: write {path}:PAIR with one of {named(pairs)}")


def _answered(exchange: Exchange, part: Answering, outcome: float | None, choices: Choices) -> Answered:
    usage: dict[str, Usage] = {}
    for role, component in (("decomposer", part.decomposer), ("solver", part.solver)):
        used = part.usage.get(role, Usage())
        if used.calls:
            usage[component.model] = usage.get(component.model, Usage()) + used
    return Answered(
        question_id=exchange.id,
        outcome=outcome,
        group=choices.group_of({"context": exchange.context}, exchange.id),
        question=exchange.question,
        usage=usage,
        usd=part.usd,
    )


def _outcome(exchange: Exchange) -> float | None:
    return None if exchange.right is None else float(exchange.right)


def _outcome_of_shadow(exchange: Exchange, shadow: Answering) -> float | None:
    """Return whether a shadow was right, None where nobody knows.

    Where only "right" or "wrong" was said of the answer that was sent, a shadow that says the same stands as it does;
    one that says something else is wrong where that was right, and not known where it was wrong.
    """
    if shadow.failed or exchange.right is None:
        return None
    mine, sent = shadow.replies[0].answer, exchange.answering.replies[0].answer
    if exchange.given:
        return float(_reaches(exchange, mine, exchange.given))
    if mine is not None and sent is not None and _reaches(exchange, mine, (sent,)):
        return float(exchange.right)
    return 0.0 if exchange.right else None


def _reaches(exchange: Exchange, answer: Answer | None, right: tuple[Answer, ...]) -> bool:
    name, scorer = exchange.dataset, exchange.scorer
    dataset = datasets.scored_as(name, scorer) if scorer else datasets.get(name)
    return dataset.score(answer, right).exact_match == 1.0
