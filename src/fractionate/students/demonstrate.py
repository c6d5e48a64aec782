"""The teacher's demonstrations: decompositions of the training questions and, to screen them, solutions.

A question has up to n independent samples: sample k+1 is asked for only where sample k did not reach the gold answer
(the paper's second sample, §3, carried on to n). A right answer in recorded traffic is a demonstration too: it passes
the screen by its answer, and no model is asked again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fractionate import strategies
from fractionate.datasets.base import Dataset
from fractionate.datasets.traffic import Exchange, Reply
from fractionate.errors import UsageError
from fractionate.rows import Row
from fractionate.scoring.metrics import ZERO
from fractionate.strategies.base import CallCoroutine, Sampler, Settings, Solution, Task
from fractionate.strategies.decompose import decompose
from fractionate.strategies.judge import Grader
from fractionate.strategies.prompting import final_line, numbered_lines
from fractionate.strategies.static import static
from fractionate.types import Answer, Decomposition, Problem, Score, Usage


@dataclass(frozen=True)
class Demonstration:
    """One sample of the teacher for one question; `output`, `prediction` and `score` are its solution's."""

    problem_id: str
    sample: int
    decomposition: Decomposition
    output: str = ""
    prediction: Answer | None = None
    score: Score = field(default=Score(0.0, 0.0))
    solved: bool = False
    """Whether a solution was asked for at all: without one there is nothing to screen by."""
    decomposer_usage: Usage | None = None
    solver_usage: Usage | None = None
    """Tokens that the sample took; None where an earlier version recorded none."""
    cut_off: tuple[str, ...] = ()
    """The roles whose reply ended at its limit: half a reply is no target to learn."""
    answered_by: str = ""
    """The served pair whose recorded answer it is; "" for the teacher's."""
    by_students: tuple[str, ...] = ()
    """The roles in it that a student played: learning from them is training on one's own words."""

    @property
    def correct(self) -> bool:
        """Whether the teacher's solution reached the gold answer."""
        return self.solved and self.score.exact_match == 1.0

    def as_row(self, problem: Problem) -> dict[str, Any]:
        """Return the row of demonstrations.jsonl, readable by itself."""
        return {
            "id": self.problem_id,
            "question": problem.question,
            "sample": self.sample,
            "status": self.decomposition.status,
            "subquestions": list(self.decomposition.subquestions),
            "decomposition": self.decomposition.raw,
            "dropped": self.decomposition.dropped,
            "solved": self.solved,
            "output": self.output,
            "prediction": list(self.prediction) if self.prediction is not None else None,
            "exact_match": self.score.exact_match,
            "f1": self.score.f1,
            "correct": self.correct,
            "cut_off": list(self.cut_off),
            "answered_by": self.answered_by,
            "by_students": list(self.by_students),
            "decomposer_usage": asdict(self.decomposer_usage) if self.decomposer_usage else None,
            "solver_usage": asdict(self.solver_usage) if self.solver_usage else None,
        }

    @classmethod
    def from_row(cls, row: Row) -> Demonstration:
        """Read a row back. Raises UsageError naming the place of a row that lacks a field."""
        values = row.values
        try:
            return cls(
                problem_id=values["id"],
                sample=values["sample"],
                decomposition=Decomposition(
                    tuple(values["subquestions"]), values["status"], values["decomposition"], values["dropped"]
                ),
                output=values["output"],
                prediction=tuple(values["prediction"]) if values["prediction"] is not None else None,
                score=Score(values["exact_match"], values["f1"]),
                solved=values["solved"],
                decomposer_usage=_usage(values.get("decomposer_usage")),
                solver_usage=_usage(values.get("solver_usage")),
                cut_off=tuple(values.get("cut_off", ())),
                answered_by=values.get("answered_by", ""),
                by_students=tuple(values.get("by_students", ())),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise row.error(f"not a demonstration ({error}): run the demonstrate stage again") from None


def demonstrate(
    problem: Problem,
    dataset: Dataset,
    teacher: Sampler,
    solver: Sampler | None,
    settings: Settings,
    samples: int,
    grader: Grader | None = None,
) -> CallCoroutine[list[Demonstration]]:
    """Sample the teacher for one problem. Without a solver there is one sample and no solution (all that D-T needs).

    `grader` scores solutions where calls do.
    """
    demonstrations: list[Demonstration] = []
    for sample in range(samples if solver else 1):
        drawn = replace(settings, sample=sample)
        sampler = _warmed(teacher, drawn)
        decomposition, call = yield from decompose(problem, sampler, drawn)
        demonstration = Demonstration(
            problem.id,
            sample,
            decomposition,
            decomposer_usage=call.usage,
            solver_usage=Usage(),
            cut_off=("decomposer",) if call.finish_reason == "length" else (),
        )
        if solver:
            warmed = _warmed(solver, drawn)
            task = Task(problem, dataset.answer_form, warmed, sampler, decomposition, drawn, strategy="static")
            solution = yield from static(task)
            prediction = dataset.extract(solution.output)
            if grader:
                score = (yield from grader.grade(problem, solution.output)).score or ZERO
            else:
                score = dataset.score(prediction, problem.answers)
            demonstration = replace(
                demonstration,
                output=solution.output,
                prediction=prediction,
                score=score,
                solved=True,
                solver_usage=sum((completion.usage for _, completion in solution.calls), Usage()),
                cut_off=(*demonstration.cut_off, *(("solver",) if _is_cut_off(solution) else ())),
            )
        demonstrations.append(demonstration)
        if demonstration.correct:
            break
    return demonstrations


def _is_cut_off(solution: Solution) -> bool:
    return any(completion.finish_reason == "length" for _, completion in solution.calls)


def _usage(fields: dict[str, Any] | None) -> Usage | None:
    if fields is None:
        return None
    if not all(isinstance(amount, int | float) and 0 <= amount < 1e15 for amount in fields.values()):
        raise TypeError("usage that no call can have")
    return Usage(**fields)


def _warmed(sampler: Sampler, settings: Settings) -> Sampler:
    """Return a sampler at its sample's temperature: the model's for the first, at least `sample_temperature` after."""
    if settings.sample == 0:
        return sampler
    return replace(sampler, temperature=max(sampler.temperature, settings.sample_temperature))


def flatten(by_problem: Iterable[list[Demonstration]]) -> list[Demonstration]:
    """Return all demonstrations in the order of the problems, a problem's samples one after another."""
    return [demonstration for several in by_problem for demonstration in several]


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
