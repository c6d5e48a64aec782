"""Recorded outputs are checked before a run starts: every request that will be replayed is looked up.

A request that no row answers, or that several rows answer differently, would otherwise stop the run half-way.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from fractionate.calls.drive import run_with
from fractionate.calls.stages import Gathering, Stage
from fractionate.models.base import Call
from fractionate.models.recorded import RecordedModel
from fractionate.run.cells import Pair, discard, measure
from fractionate.run.run import Run
from fractionate.run.work import demonstrating, on_test
from fractionate.types import Completion, Component


def check_recordings(run: Run) -> None:
    """Look up what recorded models will be asked for. Raises UsageError naming the question and the rows.

    A pair is walked where its subquestions are known beforehand: recorded, the data set's own, or none. Recorded
    decomposers of live solvers are asked for their subquestions alone.
    """
    sampler_of = partial(on_test, run, run.models.stand_in)
    pairs = [pair for pair in run.pairs() if _is_known(pair)]
    for stage in measure(run.data.tests, pairs, sampler_of, discard):
        _walk(stage)
    if run.names.students and _is_recorded(run.names.teacher) and _is_recorded(run.names.screen_solver):
        _walk(demonstrating(run))


def missing_decompositions(run: Run) -> Iterator[str]:
    """Yield a sentence for every recorded decomposer that was recorded without some question's decomposition."""
    asked = (pair.decomposer for pair in run.pairs() if pair.strategy.stages == "two-stage")
    for component in dict.fromkeys(one for one in asked if one.kind not in ("none", "gold", "student")):
        model = run.models.sampler(component).model
        if not isinstance(model, RecordedModel):
            continue
        for test in run.data.tests:
            without = sum(model.lacks_decomposition(problem) for problem in test.problems)
            if without:
                yield (
                    f"{component.name} was recorded without a decomposition of {without} of {len(test.problems)} "
                    f"questions of {test.reference}: they fall back to single stage."
                )


def _is_known(pair: Pair) -> bool:
    """Whether a pair replays anything, and its subquestions are known before it is measured."""
    if pair.strategy.stages == "single":
        return _is_recorded(pair.solver)
    replays = _is_recorded(pair.decomposer) or _is_recorded(pair.solver)
    return replays and (_is_recorded(pair.decomposer) or pair.decomposer.kind == "gold")


def _is_recorded(component: Component) -> bool:
    return component.model.startswith("recorded:")


def _walk(stage: Stage[Any]) -> None:
    """Carry out a stage with recorded replies, and empty ones where a model is live; keep no call."""
    values: Gathering | None = None
    while True:
        try:
            work = stage.send(values)
        except StopIteration:
            return
        values = work.gather()
        for factory in work.factories:
            values.append(run_with(factory(), _reply))


def _reply(call: Call) -> Completion:
    if isinstance(call.model, RecordedModel):
        return Completion(call.model.replay(call.request))
    return call.expected or Completion("")
