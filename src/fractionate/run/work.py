"""The work of a run's stages. The engine carries it out, and the forecaster walks through the same work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from fractionate.calls.stages import Stage, Work
from fractionate.errors import UsageError
from fractionate.models.base import Model
from fractionate.run.cells import G, SamplerOf, Take, measure
from fractionate.run.run import Run
from fractionate.strategies.base import Sampler
from fractionate.students.demonstrate import Demonstration, demonstrate, flatten
from fractionate.students.examples import needs_screening, needs_solutions
from fractionate.types import Component, Role


def demonstrating(run: Run) -> Stage[list[Demonstration]]:
    """Have the teacher decompose the questions for training and dev, and solve them where a variant needs that."""
    variants = run.names.variants or ["D-R"]
    teacher = run.models.sampler(run.names.teacher)
    solver = run.models.sampler(run.names.screen_solver) if needs_solutions(variants) else None
    samples = samples_per_question(run)
    recorded, problems = run.data.recorded, run.data.demonstrated
    factories = (
        partial(
            demonstrate, problem, dataset, teacher, solver, run.data.settings(dataset), samples, run.grader(dataset)
        )
        for problem in problems.values()
        if problem.id not in recorded
        for dataset in (run.data.dataset_of(problem),)
    )
    each = f", up to {samples} samples each" if samples > 1 else ""
    shown = f"; {len(recorded)} more from traffic" if recorded else ""
    said = f"demonstrate: {run.names.teacher.model} on {len(problems) - len(recorded)} questions{each}{shown}"
    by_teacher = iter((yield Work(said, factories, count=len(problems) - len(recorded))))
    return flatten([recorded[key]] if key in recorded else next(by_teacher) for key in problems)


def evaluating(run: Run, sampler_of: SamplerOf, take: Take[G]) -> Iterator[Stage[G]]:
    """Yield every cell of the run as a stage, one after another. Each returns the collector of its attempts."""
    return measure(run.tests(), run.pairs(), partial(on_test, run, sampler_of), take)


def on_test(run: Run, sampler_of: SamplerOf, component: Component) -> Sampler:
    """Return how a component is sampled on test questions: at its own temperature, or else at that of the run."""
    sampler = sampler_of(component)
    return replace(sampler, temperature=sampler.temperature or run.config.run.temperature)


def check_repeats(run: Run) -> None:
    """Raise UsageError for repeats and votes that would all be the same answer, or that were not recorded."""
    repeats, votes = run.config.run.repeats, run.config.run.votes
    for pair in run.pairs():
        times = repeats * (votes if pair.strategy.votes else 1)
        if times == 1:
            continue
        sampler = on_test(run, run.models.stand_in, pair.solver)
        if sampler.model.replays:
            _check_recorded(run, sampler.model, times)
        elif pair.strategy.votes and not (sampler.temperature or run.config.run.sample_temperature):
            raise UsageError(f"{pair.strategy.name} needs votes that differ: set run.sample_temperature above 0")
        elif not (pair.strategy.votes or sampler.temperature):
            raise UsageError(
                f"run.repeats = {repeats}, but {pair.solver.name} says the same every time at temperature 0: set "
                f"run.temperature (such as 0.7) or the temperature of its models.options, or run.repeats = 1"
            )


def repeated_decompositions(run: Run) -> Iterator[str]:
    """Yield a sentence for every decomposer with fewer decompositions than a question has repeats."""
    repeats = run.config.run.repeats
    asked = [pair.decomposer for pair in run.pairs() if pair.strategy.stages == "two-stage"] if repeats > 1 else []
    for component in dict.fromkeys(one for one in asked if one.kind not in ("none", "gold")):
        sampler = on_test(run, run.models.sampler, component)
        held = _fewest(run, sampler.model, "decomposer")
        if held is not None and held < repeats:
            yield f"{component.name} was recorded with {held} sample(s) per question: {repeats} repeats take turns."
        elif not (sampler.temperature or sampler.model.replays):
            yield f"{component.name} decomposes at temperature 0: its {repeats} repeats share one decomposition."


def _check_recorded(run: Run, model: Model, times: int) -> None:
    held = _fewest(run, model, "solver")
    if held is not None and held < times:
        raise UsageError(
            f"{model.name} holds {held} answer(s) per question, and run.repeats and run.votes take {times}: lower "
            "them, or record more (rows of one question with sample = 0, 1, …)"
        )


def _fewest(run: Run, model: Model, role: Role) -> int | None:
    """Return the fewest samples that a recording holds of any test question, None for a live model."""
    held = (model.samples(problem, role) for test in run.data.tests for problem in test.problems)
    return min((count for count in held if count is not None), default=None)


def samples_per_question(run: Run) -> int:
    """Return the samples per question: `run.samples`, but no more than the teacher's recording holds.

    Without a variant that is screened, each question has one sample: no student would learn from further ones.
    """
    if not needs_screening(run.names.variants or ["D-R"]):
        return 1
    wanted = run.config.run.samples
    return min(wanted, recorded_samples(run) or wanted)


def recorded_samples(run: Run) -> int | None:
    """Return how many samples of every question the teacher's recording holds, None for a live teacher."""
    teacher = run.models.sampler(run.names.teacher).model
    asked = (problem for key, problem in run.data.demonstrated.items() if key not in run.data.recorded)
    held = [teacher.samples(problem) for problem in asked]
    return min((count for count in held if count is not None), default=None)
