"""A record of served traffic (`fractionate serve --record`), read as a system: a pair's answers with feedback.

A pair has the requests that it answered, as the served pair or as a shadow; feedback says which answers are right. Two
pairs of one record are compared on the requests that both answered.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fractionate import datasets
from fractionate.analysis.systems import Answered, System
from fractionate.config import ScorerConfig
from fractionate.datasets.traffic import Answering, Exchange, is_traffic, read_exchanges
from fractionate.errors import UsageError
from fractionate.logs.choices import Choices, named
from fractionate.types import Answer, Usage

__all__ = ["is_traffic", "read_record"]
_PREFIX = "fractionate/"


def read_record(path: Path, wanted: str, name: str, choices: Choices) -> System:
    """Read one pair's answers in a record; `wanted` may be "" where there is only one pair.

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
        raise UsageError(
            f"{path}: no answer of {pair} has feedback (POST /v1/feedback), so the pair cannot be compared"
        )
    notes = []
    if unknown:
        notes.append(
            f"{unknown} requests are left out, which favours the pair that answered them: feedback says the answer "
            f"is wrong but not which is right, and {pair} gave another answer"
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
    """Return whether a shadow was right, None where that is unknown.

    Where feedback is only "right" or "wrong", a shadow with the same answer counts alike. A shadow with another answer
    is wrong where the sent answer was right, and unknown where it was wrong.
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
    dataset = datasets.scored_as(name, ScorerConfig.parse(scorer)) if scorer else datasets.get(name)
    return dataset.score(answer, right).exact_match == 1.0
