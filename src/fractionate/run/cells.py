"""The cells of a run (decomposer × solver × strategy, on every test set), and the work of one cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar

from fractionate.calls.stages import Gathering, Stage, Work
from fractionate.datasets.base import Dataset, Metric
from fractionate.errors import UsageError
from fractionate.scoring.metrics import ZERO
from fractionate.spool import Spool, collect
from fractionate.strategies.base import CallCoroutine, Sampler, Settings, Solution, Strategy, Task
from fractionate.strategies.decompose import decompose
from fractionate.strategies.judge import Graded, Grader
from fractionate.strategies.prompting import numbered_lines
from fractionate.tools.using import used_tools
from fractionate.types import Attempt, Completion, Component, Decomposition, Problem, ToolUse, Usage

Decomposed = tuple[Decomposition, Completion | None]
"""A decomposition and the call that made it (None for reference decompositions, which cost nothing)."""
_DECOMPOSITION, _COMPLETION, _USAGE = (
    attrgetter(*(each.name for each in fields(kind))) for kind in (Decomposition, Completion, Usage)
)
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
    grader: Grader | None = None
    """What scores the outputs, where calls do."""

    def asked(self) -> Iterator[tuple[Problem, int]]:
        """Yield every question as often as it is answered, with the number of the repeat from 0."""
        yield from ((problem, repeat) for problem in self.problems for repeat in range(self.repeats))

    def settings_of(self, decomposer: Component) -> Settings:
        """Return how a decomposer is asked."""
        return self.own_settings.get(decomposer.name, self.settings)


G = TypeVar("G", bound=Gathering)
Take = Callable[[TestSet, Pair], G]
"""Makes the collector of a cell's attempts. It is given a question's repeats one after another."""


class Discard:
    """A collector that drops solutions: where only calls are counted, nothing is scored."""

    def append(self, value: object) -> None:
        """Drop a solution."""


def discard(test: TestSet, pair: Pair) -> Discard:
    """Return the collector of a cell where only calls are counted, as in a forecast."""
    return Discard()


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
    tests: Sequence[TestSet], pairs: Sequence[Pair], sampler_of: SamplerOf, take: Take[G]
) -> Iterator[Stage[G]]:
    """Yield every cell as a stage, one after another; a decomposer's subquestions are made once for all solvers.

    Each stage has to be carried out (or walked) before the next is requested. It returns the collector of its attempts.
    """
    for test in tests:
        decomposed: dict[Component, Sequence[Decomposed]] = {}
        for pair in pairs:
            yield _work_through(test, pair, sampler_of, decomposed, take)


def _work_through(
    test: TestSet,
    pair: Pair,
    sampler_of: SamplerOf,
    decomposed: dict[Component, Sequence[Decomposed]],
    take: Take[G],
) -> Stage[G]:
    given: Sequence[Decomposed | None] = [None] * (len(test.problems) * test.repeats)
    # A dynamic cell asks its follow-ups itself: another strategy's decompositions are neither used nor charged.
    if pair.strategy.stages == "two-stage":
        if pair.decomposer not in decomposed:
            decomposed[pair.decomposer] = yield from _decompose_all(test, pair.decomposer, sampler_of)
        given = decomposed[pair.decomposer]
    solver, decomposer = samplers(pair, sampler_of)
    bare = replace(test, problems=())  # a coroutine may be sent to another process
    # Where only calls are counted, scoring matters only if it makes calls too.
    work = solve if take is discard and test.grader is None else attempt
    factories = (
        partial(work, bare, pair, problem, repeat, one, solver, decomposer)
        for (problem, repeat), one in zip(test.asked(), given, strict=True)
    )
    label = f"{test.reference}: {pair.strategy.name}, {pair.decomposer.name} → {pair.solver.name}"
    taken: G = yield Work(label, factories, partial(take, test, pair), len(test.problems) * test.repeats)
    return taken


def attempt(
    test: TestSet,
    pair: Pair,
    problem: Problem,
    repeat: int,
    given: Decomposed | None,
    solver: Sampler,
    decomposer: Sampler | None,
) -> CallCoroutine[Attempt]:
    """Work one problem through, then read and score the output: a coroutine, so that it is scored where it runs.

    `given` is its decomposition with the call that made it; that call's usage is part of the attempt's.
    """
    solution = yield from solve(test, pair, problem, repeat, given, solver, decomposer)
    graded = (yield from test.grader.grade(problem, solution.output)) if test.grader else None
    return _scored(problem, solution, given[1] if given else None, test.dataset, graded)


def solve(
    test: TestSet,
    pair: Pair,
    problem: Problem,
    repeat: int,
    given: Decomposed | None,
    solver: Sampler,
    decomposer: Sampler | None,
) -> CallCoroutine[Solution]:
    """Work one problem through without scoring it."""
    settings = replace(test.settings_of(pair.decomposer), sample=repeat)
    decomposition = given[0] if given else None
    form, name = test.dataset.answer_form, pair.strategy.name
    task = Task(problem, form, solver, decomposer, decomposition, settings, test.dataset, name)
    return (yield from pair.strategy.coroutine(task))


def _decompose_all(test: TestSet, decomposer: Component, sampler_of: SamplerOf) -> Stage[Sequence[Decomposed]]:
    if decomposer.kind == "gold":
        return collect(((_gold(problem, test.settings.cap), None) for problem, _ in test.asked()), _spool())
    sampler, bare = sampler_of(decomposer), replace(test, problems=())
    factories = (
        partial(decompose_once, bare, decomposer, sampler, problem, repeat) for problem, repeat in test.asked()
    )
    said = f"{test.reference}: {decomposer.name} decomposes {len(test.problems)} questions"
    made: Sequence[Decomposed] = yield Work(said, factories, _spool, len(test.problems) * test.repeats)
    return made


def decompose_once(
    test: TestSet, decomposer: Component, sampler: Sampler | None, problem: Problem, repeat: int
) -> CallCoroutine[Decomposed]:
    """Return the decomposition of a problem for one of its repeats."""
    if sampler is None:
        return _gold(problem, test.settings.cap), None
    settings = replace(test.settings_of(decomposer), sample=_sample(sampler, problem, repeat))
    return (yield from decompose(problem, sampler, settings))


def samplers(pair: Pair, sampler_of: SamplerOf) -> tuple[Sampler, Sampler | None]:
    """Return the samplers of the solver and of the decomposer (None for "none" and "gold")."""
    asked = pair.decomposer.kind not in ("none", "gold")
    return sampler_of(pair.solver), sampler_of(pair.decomposer) if asked else None


def _spool() -> Spool[Decomposed]:
    return Spool(_plain, _decomposed)


def _plain(one: Decomposed) -> tuple[object, ...]:
    decomposition, completion = one
    if completion is None:
        return _DECOMPOSITION(decomposition), None
    text, finish_reason, usage, *rest, tools = _COMPLETION(completion)
    return _DECOMPOSITION(decomposition), (text, finish_reason, _USAGE(usage), *rest, tuple(map(tuple, tools)))


def _decomposed(plain: tuple[Any, Any]) -> Decomposed:
    decomposition, completion = plain
    if completion is None:
        return Decomposition(*decomposition), None
    text, finish_reason, usage, *rest, tools = completion
    used = tuple(ToolUse(*use) for use in tools)
    return Decomposition(*decomposition), replace(Completion(text, finish_reason, Usage(*usage), *rest), tools=used)


def _sample(sampler: Sampler, problem: Problem, repeat: int) -> int:
    """Return which sample of a decomposition a repeat takes.

    The samples of a recorded decomposer take turns. A live decomposer at temperature 0 is called once: every sample
    would be the same.
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


def _scored(
    problem: Problem, solution: Solution, decomposing: Completion | None, dataset: Dataset, graded: Graded | None
) -> Attempt:
    prediction = dataset.extract(solution.output)
    if graded is None:
        score = dataset.score(prediction, problem.answers)
    else:  # without a verdict an output counts as unparsed
        prediction, score = (prediction, graded.score) if graded.score is not None else (None, ZERO)
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
        score=score,
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
        )
        + ((graded.failure,) if graded and graded.failure else ()),
        cut_off=tuple(cut_off),
        lenient=None if graded else dataset.lenient_score(solution.output, problem.answers, prediction, score),
        tools=used_tools(calls),
        judge_usage=graded.usage if graded else Usage(),
    )
