"""Which cells there are, decomposer × solver × strategy on every test set, and how one is worked through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fractionate.averages import mean_attempt
from fractionate.datasets.base import Dataset, Metric
from fractionate.engine.stages import Stage, Work
from fractionate.errors import UsageError
from fractionate.reasoning.decompose import decompose
from fractionate.reasoning.program import Sampler, Settings, Solution, Strategy, Task
from fractionate.reasoning.prompting import numbered_lines
from fractionate.types import Attempt, Cell, Completion, Component, Decomposition, Problem, Usage

Decomposed = tuple[Decomposition, Completion | None]
"""A decomposition and the call that made it (None for reference decompositions, which cost nothing)."""
SamplerOf = Callable[[Component], Sampler]


@dataclass(frozen=True)
class Pair:
    """One cell to be measured."""

    strategy: Strategy
    decomposer: Component
    solver: Component


@dataclass(frozen=True)
class TestSet:
    """A test set as the user named it: its problems, how they are scored, the settings of its calls.

    `own_settings` are those of decomposers that are asked in a way of their own, by name.
    """

    __test__ = False  # the name is the field's, not pytest's

    reference: str
    name: str
    split: str
    problems: Sequence[Problem]
    dataset: Dataset
    metric: Metric
    settings: Settings
    own_settings: Mapping[str, Settings] = field(default_factory=dict)
    repeats: int = 1
    """How often each question is answered."""

    def asked(self) -> Iterator[tuple[Problem, int]]:
        """Yield every question as often as it is answered, with the number of the repeat from 0."""
        yield from ((problem, repeat) for problem in self.problems for repeat in range(self.repeats))

    def settings_of(self, decomposer: Component) -> Settings:
        """Return how a decomposer is asked."""
        return self.own_settings.get(decomposer.name, self.settings)


@dataclass(frozen=True)
class Worked:
    """What working through one cell gave: a solution per question and repeat, and its decomposition, if any."""

    test: TestSet
    pair: Pair
    solutions: Sequence[Solution]
    given: Sequence[Decomposed | None]


def plan_pairs(
    strategies: Sequence[Strategy],
    direct: Strategy,
    decomposers: Sequence[Component],
    solvers: Sequence[Component],
) -> list[Pair]:
    """Return the cells of a matrix: single-stage strategies with "none", the others with every other decomposer.

    "none" asks for a single-stage baseline even where no such strategy is named: `direct`.
    """
    none = next((one for one in decomposers if one.kind == "none"), Component("none", "none", "decomposer"))
    single = [strategy for strategy in strategies if strategy.stages == "single"]
    if none in decomposers and not single:
        single = [direct]
    pairs = [Pair(strategy, none, solver) for strategy in single for solver in solvers]
    pairs += [
        Pair(strategy, decomposer, solver)
        for strategy in strategies
        if strategy.stages != "single"
        for decomposer in decomposers
        if decomposer != none
        for solver in solvers
    ]
    return list(dict.fromkeys(pairs))


def measure(
    tests: Sequence[TestSet], pairs: Sequence[Pair], sampler_of: SamplerOf
) -> Iterator[tuple[TestSet, Pair, Stage[Worked]]]:
    """Yield every cell as a stage, one after another; a decomposer's subquestions are made once for all solvers.

    Each stage is to be carried out (or walked) before the next is asked for.
    """
    for test in tests:
        decomposed: dict[Component, list[Decomposed]] = {}
        for pair in pairs:
            yield test, pair, _work_through(test, pair, sampler_of, decomposed)


def score(worked: Worked) -> Cell:
    """Read and score the outputs of a cell that was worked through: one attempt a question, the mean of its repeats."""
    test, pair = worked.test, worked.pair
    outputs = [
        _attempt(problem, solution, given[1] if given else None, test.dataset)
        for (problem, _), solution, given in zip(test.asked(), worked.solutions, worked.given, strict=True)
    ]
    starts = range(0, len(outputs), test.repeats)
    return Cell(
        dataset=test.name,
        split=test.split,
        strategy=pair.strategy.name,
        stages=pair.strategy.stages,
        decomposer=pair.decomposer,
        solver=pair.solver,
        metric=test.metric,
        attempts=tuple(mean_attempt(outputs[start : start + test.repeats]) for start in starts),
        reference=test.reference,
        label=pair.strategy.label,
    )


def _work_through(
    test: TestSet, pair: Pair, sampler_of: SamplerOf, decomposed: dict[Component, list[Decomposed]]
) -> Stage[Worked]:
    given: Sequence[Decomposed | None] = [None] * (len(test.problems) * test.repeats)
    # A dynamic cell asks its follow-ups itself: another strategy's decompositions are neither used nor charged.
    if pair.strategy.stages == "two-stage":
        if pair.decomposer not in decomposed:
            decomposed[pair.decomposer] = yield from _decompose_all(test, pair.decomposer, sampler_of)
        given = decomposed[pair.decomposer]
    solver = sampler_of(pair.solver)
    decomposer = sampler_of(pair.decomposer) if pair.decomposer.kind not in ("none", "gold") else None
    settings, form = test.settings_of(pair.decomposer), test.dataset.answer_form
    programs = (
        pair.strategy.program(
            Task(
                problem,
                form,
                solver,
                decomposer,
                one[0] if one else None,
                replace(settings, sample=repeat),
                test.dataset,
            )
        )
        for (problem, repeat), one in zip(test.asked(), given, strict=True)
    )
    label = f"{test.reference}: {pair.strategy.name}, {pair.decomposer.name} → {pair.solver.name}"
    solutions = yield Work(label, programs)
    return Worked(test, pair, solutions, given)


def _decompose_all(test: TestSet, decomposer: Component, sampler_of: SamplerOf) -> Stage[list[Decomposed]]:
    if decomposer.kind == "gold":
        return [(_gold(problem, test.settings.cap), None) for problem, _ in test.asked()]
    sampler, settings = sampler_of(decomposer), test.settings_of(decomposer)
    programs = (
        decompose(problem, sampler, replace(settings, sample=_sample(sampler, problem, repeat)))
        for problem, repeat in test.asked()
    )
    made = yield Work(f"{test.reference}: {decomposer.name} decomposes {len(test.problems)} questions", programs)
    return list(made)


def _sample(sampler: Sampler, problem: Problem, repeat: int) -> int:
    """Return which sample of a decomposition a repeat takes.

    A recorded decomposer's samples take turns. A live one at temperature 0 would say the same: it is asked once.
    """
    held = sampler.model.samples(problem)
    if held:
        return repeat % held
    return repeat if sampler.temperature or sampler.model.replays else 0


def _gold(problem: Problem, cap: int | None) -> Decomposition:
    if not problem.subquestions:
        raise UsageError(f"{problem.id} has no reference decomposition: leave 'gold' out of models.decomposers")
    kept = problem.subquestions[:cap]
    return Decomposition(kept, "ok", numbered_lines(problem.subquestions), len(problem.subquestions) - len(kept))


def _attempt(problem: Problem, solution: Solution, decomposing: Completion | None, dataset: Dataset) -> Attempt:
    prediction = dataset.extract(solution.output)
    calls = list(solution.calls)
    if decomposing is not None:
        calls.insert(0, ("decomposer", decomposing))
    usage = {"decomposer": Usage(), "solver": Usage()}
    for role, completion in calls:
        usage[role] += completion.usage
    latencies = [completion.latency_s for _, completion in calls]
    cut_off = dict.fromkeys(role for role, completion in calls if completion.finish_reason == "length")
    return Attempt(
        problem=problem,
        prediction=prediction,
        score=dataset.score(prediction, problem.answers),
        output=solution.output,
        decomposition=solution.decomposition,
        fell_back=solution.fell_back,
        decomposer_usage=usage["decomposer"],
        solver_usage=usage["solver"],
        latency_s=max(latencies) if solution.side_by_side else sum(latencies),
        failures=tuple(
            completion.error or completion.finish_reason
            for _, completion in calls
            if completion.finish_reason != "stop"
        ),
        cut_off=tuple(cut_off),
        lenient=dataset.score(dataset.lenient(solution.output), problem.answers) if dataset.lenient else None,
    )
