"""Outputs that stand in files, scored by a judge: through the same store, budget and forecast as the calls of a run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fractionate.analysis.pricing import Pricing
from fractionate.calls.engine import Engine
from fractionate.calls.forecast import Forecast, forecast, plan_stage
from fractionate.calls.stages import Stage, TaskFactory, Work, carry_out, walk
from fractionate.calls.store import Store
from fractionate.config import Config
from fractionate.errors import FractionateError, UsageError
from fractionate.interrupts import run_interruptible
from fractionate.models.base import Call, Model
from fractionate.run.folder import RunFolder
from fractionate.run.models import ModelPool
from fractionate.run.run import store_path
from fractionate.strategies.judge import Graded, Judge
from fractionate.types import Completion, Problem, Score, Usage

RUN = "judge"
"""What the store knows the calls of `score` and `compare` by."""


class FileJudge:
    """A config's judge, for outputs that no run has made. Raises UsageError where `judge.model` names none."""

    def __init__(self, config: Config, base: Path, say: Callable[[str], None] | None = None) -> None:
        """`base` is the folder of the config, beside which the store lies; `say` takes lines of progress."""
        self.config = config
        self._base = base
        self._say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        self._pool = ModelPool(config, RunFolder(base), base, run=RUN, say=self._say)
        self.judge = Judge(self._pool.judge(), config.judge)

    @property
    def identity(self) -> str:
        """What the scores depend on: see `Judge.identity`."""
        return self.judge.identity

    def grade(self, problems: Sequence[Problem], outputs: Sequence[str]) -> list[Score | None]:
        """Score outputs, None where no verdict could be read. Raises FractionateError where the budget does not do."""
        if self.config.judge.scale == "preference":
            raise UsageError('judge.scale = "preference" compares two logs: use it with fractionate compare')
        work = [partial(self.judge.grade, *each) for each in zip(problems, outputs, strict=True)]
        graded: list[Graded] = self._carry_out(work, f"judge: {self.identity}, on {len(work):,} outputs")
        failed = [one.failure for one in graded if one.failure]
        if graded and len(failed) == len(graded):
            raise FractionateError(f"the judge gave no verdict on any of {len(graded)} outputs, first: {failed[0]}")
        if failed:
            self._say(f"the judge gave no verdict on {len(failed)} of {len(graded)} outputs (first: {failed[0]})")
        return [one.score for one in graded]

    def prefer(self, problems: Sequence[Problem], a: Sequence[str], b: Sequence[str]) -> list[float | None]:
        """Return for each question 1 where a's output is better, 0 where b's is, 0.5 for a tie; in both orders."""
        work = [partial(self.judge.prefer, *each) for each in zip(problems, a, b, strict=True)]
        said = f"judge: {self.identity}, on {len(work):,} pairs of outputs in both orders"
        found: list[tuple[float | None, Usage]] = self._carry_out(work, said)
        return [share for share, _ in found]

    def _carry_out(self, work: Sequence[TaskFactory], label: str) -> list[Any]:
        store = Store(store_path(self.config, self._base))
        try:
            self._pool.begin(store, lambda model: model)
            pricing = Pricing.of(self.config)
            engine = Engine(store, self.config.limits, self.config.budget, pricing, run=RUN, on_event=self._say)
            try:
                plan = self._forecast(work, label, store, pricing)
                plan.check(self.config.budget, engine.budget)
                if plan.calls:
                    self._say(f"forecast: {plan.lines()[-1].removeprefix('all').strip()}")
                made: list[Any] = run_interruptible(
                    lambda: carry_out(_stage(work, label), engine, self._say), self._pool.close
                )
            finally:
                engine.close()
        finally:
            store.close()
        return made

    def _forecast(self, work: Sequence[TaskFactory], label: str, store: Store, pricing: Pricing) -> Forecast:
        def reply(longest: bool, call: Call) -> Completion:
            stored = store.get(call.model.key(call.request))
            return stored or (call.longest if longest else call.expected) or Completion("")

        walks = [walk(_stage(work, label), partial(reply, longest))[1] for longest in (False, True)]
        models: dict[str, Model] = {call.model.name: call.model for calls in walks for call in calls}
        stages = [
            plan_stage(
                "judge",
                model,
                [call.request for call in walks[0] if call.model.name == name],
                store,
                longest=[call.request for call in walks[1] if call.model.name == name],
            )
            for name, model in models.items()
        ]
        return forecast(stages, self.config.limits, pricing)


def _stage(work: Sequence[TaskFactory], label: str) -> Stage[list[Any]]:
    made: list[Any] = yield Work(label, work, count=len(work))
    return made
