"""Cells whose calls all go to servers, answered in shards: every pair over a part of a test set at a time.

A question's coroutine works through all pairs, so that its decompositions never travel, and scores where it runs; the
packed attempts are merged into the run's store.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import Any

from fractionate.calls.drive import side_by_side
from fractionate.cluster.shard_queue import can_leave
from fractionate.models.base import CallCoroutine
from fractionate.run.attempts import AttemptWriter, CellKey, pack_attempts
from fractionate.run.cells import Decomposed, Pair, TestSet, attempt, decompose_once, samplers
from fractionate.run.run import Run
from fractionate.run.work import on_test
from fractionate.strategies.base import Sampler
from fractionate.types import Attempt, Component, Problem

_PROBLEM = attrgetter(*(each.name for each in fields(Problem)))
Item = tuple[int, list[tuple[int, tuple[Any, ...]]]]
"""Questions that are worded alike: a digest of their words, and their numbers with the fields of their problems."""
Answered = list[tuple[int, list[list[Attempt]]]]
"""Questions by their numbers, each with its attempts by pair and repeat."""


@dataclass(frozen=True)
class _Asked:
    """A pair to be measured, and the models that it asks."""

    pair: Pair
    solver: Sampler
    decomposer: Sampler | None


class ShardedCells:
    """Answers the test sets of a run on its cluster, as far as pairs ask servers alone."""

    def __init__(self, run: Run, attempts: AttemptWriter) -> None:
        self._run = run
        self._attempts = attempts
        # Where all calls in the store were made just now, for training questions, others need not be looked for in it.
        made_now = len(run.store) == run.engine.counters.stored
        learnt_from = run.data.demonstrated.values() if run.names.students else ()
        self._seen = {_digest(problem) for problem in learnt_from} if made_now else None

    async def answer(self, test: TestSet, keys: Mapping[Pair, CellKey]) -> Collection[Pair]:
        """Have workers answer a test set's questions, and merge the attempts as they come.

        `keys` says where the pairs' cells stand in the store of attempts. Returns the pairs that were measured: those
        whose calls can be made elsewhere, some of them by a server.
        """
        run, sampler_of = self._run, partial(on_test, self._run, self._run.models.sampler)
        asked = [_Asked(pair, *samplers(pair, sampler_of)) for pair in keys]
        graders = [test.grader] if test.grader else []
        asked = [
            one
            for one in asked
            if can_leave([each.model for each in (one.solver, one.decomposer, *graders) if each is not None])
        ]
        if not asked:
            return ()
        pairs = [one.pair for one in asked]
        alike: dict[int, list[int]] = {}
        for number, problem in enumerate(test.problems):
            alike.setdefault(_digest(problem), []).append(number)
        new = set[int]() if self._seen is None else alike.keys() - self._seen
        if self._seen is not None:
            self._seen |= new
        items = (
            (digest, [(number, _PROBLEM(test.problems[number])) for number in numbers])
            for digest, numbers in alike.items()
        )
        run.progress.stage(
            f"{test.reference}: {len(pairs)} cells of {len(test.problems)} questions on {run.workers.on}"
        )
        await run.workers.shards().run(
            partial(answer, replace(test, problems=()), asked),
            items,
            partial(pack_answers, [keys[pair] for pair in pairs]),
            self._attempts.sink,
            lambda item: item[0] in new,
        )
        return pairs


def answer(test: TestSet, asked: Sequence[_Asked], item: Item) -> CallCoroutine[Answered]:
    """Answer questions that are worded alike, one after another: what the first asks for the others share."""
    answered: Answered = []
    for number, plain in item[1]:
        answered.append((number, (yield from _answer_one(test, asked, Problem(*plain)))))
    return answered


def _answer_one(test: TestSet, asked: Sequence[_Asked], problem: Problem) -> CallCoroutine[list[list[Attempt]]]:
    """Answer a question as often as it is to be, by every pair."""
    two_stage = [one for one in asked if one.pair.strategy.stages == "two-stage"]
    repeats = range(test.repeats)
    wanted = {(one.pair.decomposer, repeat): one.decomposer for one in two_stage for repeat in repeats}
    made = yield from side_by_side(
        [decompose_once(test, who, sampler, problem, repeat) for (who, repeat), sampler in wanted.items()]
    )
    given: dict[tuple[Component, int], Decomposed] = dict(zip(wanted, made, strict=True))

    def by(one: _Asked, repeat: int) -> CallCoroutine[Attempt]:
        # A dynamic strategy asks its follow-ups itself: it is given no decomposition.
        decomposed = given[one.pair.decomposer, repeat] if one in two_stage else None
        return attempt(test, one.pair, problem, repeat, decomposed, one.solver, one.decomposer)

    attempts = yield from side_by_side([by(one, repeat) for one in asked for repeat in repeats])
    return [attempts[first : first + test.repeats] for first in range(0, len(attempts), test.repeats)]


def pack_answers(keys: Sequence[CellKey], values: Sequence[Answered]) -> bytes:
    """Pack the attempts of questions into tables for `AttemptSink`; `keys` are the cells' of the pairs."""
    by_number = dict(sorted(chain.from_iterable(values)))
    parts: list[tuple[CellKey, int, list[Attempt]]] = []
    for place, key in enumerate(keys):
        last = -2
        for number, answered in by_number.items():
            if number != last + 1:
                parts.append((key, number * key.repeats, []))
            parts[-1][2].extend(answered[place])
            last = number
    return pack_attempts(parts)


def _digest(problem: Problem) -> int:
    return hash((problem.question, problem.background))
