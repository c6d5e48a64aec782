"""The work of a run's stages, as the engine carries it out and as the forecaster walks through it: the same work."""

from __future__ import annotations

from collections.abc import Iterator

from fractionate.distill.demonstrate import Demonstration, demonstrate, flatten
from fractionate.distill.examples import needs_screening, needs_solutions
from fractionate.engine.stages import Stage, Work
from fractionate.evaluate.cells import Pair, SamplerOf, TestSet, Worked, measure
from fractionate.pipeline.run import Run


def demonstrating(run: Run) -> Stage[list[Demonstration]]:
    """Let the teacher decompose (and, where a variant needs it, solve) the training questions and the dev split's."""
    variants = run.names.variants or ["D-R"]
    teacher = run.models.sampler(run.names.teacher)
    solver = run.models.sampler(run.names.screen_solver) if needs_solutions(variants) else None
    samples = chances(run)
    programs = (
        demonstrate(problem, dataset, teacher, solver, run.data.settings(dataset), samples)
        for problem in run.data.demonstrated.values()
        for dataset in (run.data.dataset(problem.dataset),)
    )
    each = f", up to {samples} chances each" if samples > 1 else ""
    said = f"demonstrate: {run.names.teacher.model} on {len(run.data.demonstrated)} questions{each}"
    return flatten((yield Work(said, programs)))


def evaluating(run: Run, sampler_of: SamplerOf) -> Iterator[tuple[TestSet, Pair, Stage[Worked]]]:
    """Yield every cell of the run, to be worked through one after another."""
    return measure(run.data.tests, run.pairs(), sampler_of)


def chances(run: Run) -> int:
    """Return the chances per question: those asked for, or as many as the teacher's recording holds.

    Without a variant that is screened each question has one: further ones would never be learnt from.
    """
    if not needs_screening(run.names.variants or ["D-R"]):
        return 1
    wanted = run.config.run.samples
    return min(wanted, recorded_chances(run) or wanted)


def recorded_chances(run: Run) -> int | None:
    """Return how many samples of every question the teacher's recording holds, None for a live teacher."""
    teacher = run.models.sampler(run.names.teacher).model
    recorded = [teacher.samples(problem) for problem in run.data.demonstrated.values()]
    return min((count for count in recorded if count is not None), default=None)
