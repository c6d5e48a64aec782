"""What strategies share. A strategy is a coroutine that yields lists of model calls and returns a `Solution`.

A strategy does no I/O of its own, so the same code runs against a server, local weights or recorded rows; the driver
(`calls/drive.py`) decides when each call is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from fractionate.datasets.base import AnswerForm, Dataset
from fractionate.models.base import Call, CallCoroutine, Model
from fractionate.prompts import SHIPPED, Instructions
from fractionate.strategies.structured import response_format
from fractionate.types import Completion, Decomposition, Message, Origin, Problem, Prompt, Request, Role, Stages

__all__ = ["Call", "CallCoroutine", "MostCalls", "Sampler", "Settings", "Solution", "Strategy", "Task", "ask"]

DECOMPOSE_TOKENS = 256
DIRECT_TOKENS = 64
STEP_TOKENS = 96
WORKED_TOKENS = 512
"""Output tokens per call at most, by what is asked for; a model's own `max_tokens` option stands in for them."""


@dataclass(frozen=True)
class Settings:
    """How calls are sampled. `cap` bounds the number of subquestions (None: no bound).

    `sample` numbers independent answers to the same question, from 0. `sample_temperature` applies to samples after
    the first, and to votes where the model's own temperature is 0.
    """

    cap: int | None = 3
    shots: int = 0
    decomposer_context: bool = True
    sample: int = 0
    sample_temperature: float = 0.7
    votes: int = 5


@dataclass(frozen=True)
class Sampler:
    """A model and how it is sampled."""

    model: Model
    temperature: float = 0.0
    max_tokens: int = 0
    structured: bool = False
    instructions: Instructions = SHIPPED


@dataclass
class Solution:
    """The result of a strategy on one problem: the final output, its calls by role, and the intermediate answers."""

    output: str
    calls: list[tuple[Role, Completion]]
    decomposition: Decomposition | None = None
    sub_answers: list[str] = field(default_factory=list)
    fell_back: bool = False
    side_by_side: bool = False
    """Whether the calls were independent, so that their latencies overlap."""


def ask(
    sampler: Sampler,
    role: Role,
    messages: tuple[Message, ...],
    origin: Origin,
    settings: Settings,
    max_tokens: int,
    *,
    final: bool = False,
    subquestion: str = "",
) -> Call:
    """Build one call, at the sampler's temperature; the sampler's own `max_tokens`, if set, replaces the given one.

    `final` and `subquestion` are those of `Call`. A strategy sends it with `(completion,) = yield [ask(…)]`.
    """
    request = Request(
        messages=messages,
        role=role,
        max_tokens=sampler.max_tokens or max_tokens,
        temperature=sampler.temperature,
        sample=settings.sample,
        response_format=response_format(role) if sampler.structured else None,
        origin=origin,
    )
    return Call(sampler.model, request, final, subquestion)


@dataclass(frozen=True)
class Task:
    """One problem for a strategy: its solver, its decomposer (dynamic strategies call it) and its decomposition."""

    problem: Problem
    form: AnswerForm
    solver: Sampler
    decomposer: Sampler | None = None
    decomposition: Decomposition | None = None
    settings: Settings = field(default_factory=Settings)
    dataset: Dataset | None = None
    """How answers are read and compared, for strategies that have to."""
    strategy: str = ""
    """The name of the strategy, which recorded models look rows up by."""

    def origin(self, prompt: Prompt = "", step: int = 0, subquestion: str = "") -> Origin:
        """Return what a call of the solver is for: see `Origin`."""
        decomposition = self.decomposition
        return Origin(
            self.problem,
            subquestions=decomposition.subquestions if decomposition else (),
            decomposer=self.decomposer.model.name if self.decomposer else "",
            decomposition=decomposition.raw if decomposition else "",
            strategy=self.strategy,
            prompt=prompt,
            step=step,
            subquestion=subquestion,
        )

    def without_decomposition(self) -> Task:
        """Return the same task in one stage."""
        return replace(self, decomposition=None, decomposer=None)


class MostCalls(NamedTuple):
    """So many calls of a role at most, of so many output tokens each unless a model's own `max_tokens` replaces it."""

    role: Role
    calls: int
    max_tokens: int


@dataclass(frozen=True)
class Strategy:
    """A way to work through a problem: its coroutine, its kind of stages, and its label in reports."""

    name: str
    coroutine: Callable[[Task], CallCoroutine[Solution]]
    stages: Stages
    label: str
    votes: bool = False
    """Whether each answer takes `run.votes` samples."""
    most_calls: Callable[[Settings], Sequence[MostCalls] | None] | None = None
    """What a question takes at most, besides one call of the decomposer in two stages; None where nothing bounds it."""
