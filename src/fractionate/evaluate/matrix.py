"""Every decomposer × solver × strategy on every test set: which cells there are, and how one is worked through."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fractionate.datasets.base import Dataset, Metric
from fractionate.engine.drive import run_all
from fractionate.engine.engine import Engine
from fractionate.errors import UsageError
from fractionate.reasoning.decompose import decompose
from fractionate.reasoning.program import Asker, Program, Settings, Solution, Task
from fractionate.reasoning.prompting import numbered_lines
from fractionate.reasoning.strategies import PROGRAMS, SINGLE_STAGE
from fractionate.types import Attempt, Cell, Completion, Decomposition, Problem, Strategy, Usage

Decomposed = tuple[Decomposition, Completion | None]
"""A decomposition and the call that made it (None for reference decompositions, which cost nothing)."""


@dataclass(frozen=True)
class Pair:
    """One cell to be measured."""

    strategy: Strategy
    decomposer: str
    solver: str


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

    def settings_of(self, decomposer: str) -> Settings:
        """Return how a decomposer of the matrix is asked."""
        return self.own_settings.get(decomposer, self.settings)


def plan_pairs(strategies: Sequence[Strategy], decomposers: Sequence[str], solvers: Sequence[str]) -> list[Pair]:
    """Return the cells of a matrix: single-stage strategies with "none", two-stage ones with every other decomposer.

    "none" asks for a single-stage baseline even where only two-stage strategies are named.
    """
    single: list[Strategy] = [strategy for strategy in strategies if strategy in SINGLE_STAGE]
    if "none" in decomposers and not single:
        single = ["single"]
    two_stage = [strategy for strategy in strategies if strategy not in SINGLE_STAGE]
    pairs = [Pair(strategy, "none", solver) for strategy in single for solver in solvers]
    pairs += [
        Pair(strategy, decomposer, solver)
        for strategy in two_stage
        for decomposer in decomposers
        if decomposer != "none"
        for solver in solvers
    ]
    return list(dict.fromkeys(pairs))


async def run_matrix(
    test: TestSet,
    pairs: Sequence[Pair],
    asker: Callable[[str], Asker],
    engine: Engine,
    on_stage: Callable[[str], None] = lambda text: None,
) -> AsyncIterator[Cell]:
    """Work through the cells one after another; a decomposer's subquestions are made once and shared by all solvers."""
    decomposed: dict[str, list[Decomposed]] = {}
    for pair in pairs:
        two_stage = pair.strategy not in SINGLE_STAGE and pair.strategy != "dynamic"
        if two_stage and pair.decomposer not in decomposed:
            on_stage(f"{test.reference}: {pair.decomposer} decomposes {len(test.problems)} questions")
            decomposed[pair.decomposer] = await _decompose_all(test, pair.decomposer, asker, engine)
        on_stage(f"{test.reference}: {pair.strategy}, {pair.decomposer} → {pair.solver}")
        # A dynamic cell asks its follow-ups itself: another strategy's decompositions are neither used nor charged.
        yield await _run_cell(test, pair, decomposed[pair.decomposer] if two_stage else None, asker, engine)


async def _decompose_all(
    test: TestSet, decomposer: str, asker: Callable[[str], Asker], engine: Engine
) -> list[Decomposed]:
    if decomposer == "gold":
        return [(_gold(problem, test.settings.cap), None) for problem in test.problems]
    chosen = asker(decomposer)
    settings = test.settings_of(decomposer)
    made = await run_all((decompose(problem, chosen, settings) for problem in test.problems), engine)
    return list(made)


def _gold(problem: Problem, cap: int | None) -> Decomposition:
    if not problem.subquestions:
        raise UsageError(f"{problem.id} has no reference decomposition: leave 'gold' out of models.decomposers")
    kept = problem.subquestions[:cap]
    return Decomposition(kept, "ok", numbered_lines(problem.subquestions), len(problem.subquestions) - len(kept))


async def _run_cell(
    test: TestSet, pair: Pair, decomposed: list[Decomposed] | None, asker: Callable[[str], Asker], engine: Engine
) -> Cell:
    solver = asker(pair.solver)
    decomposer = asker(pair.decomposer) if pair.decomposer not in ("none", "gold") else None
    given: Sequence[Decomposed | None] = decomposed or [None] * len(test.problems)

    def programs() -> list[Program[Solution]]:
        strategy = PROGRAMS[pair.strategy]
        settings = test.settings_of(pair.decomposer)
        form = test.dataset.answer_form
        return [
            strategy(Task(problem, form, solver, decomposer, one[0] if one else None, settings))
            for problem, one in zip(test.problems, given, strict=True)
        ]

    solutions = await run_all(programs(), engine)
    attempts = [
        _attempt(problem, solution, one[1] if one else None, test.dataset)
        for problem, solution, one in zip(test.problems, solutions, given, strict=True)
    ]
    return Cell(
        dataset=test.name,
        split=test.split,
        strategy=pair.strategy,
        decomposer=pair.decomposer,
        solver=pair.solver,
        metric=test.metric,
        attempts=tuple(attempts),
        decomposer_model=decomposer.name if decomposer else "",
        solver_model=solver.name,
        reference=test.reference,
    )


def _attempt(problem: Problem, solution: Solution, decomposing: Completion | None, dataset: Dataset) -> Attempt:
    prediction = dataset.extract(solution.output)
    calls = list(solution.calls)
    if decomposing is not None:
        calls.insert(0, ("decomposer", decomposing))
    usage = {"decomposer": Usage(), "solver": Usage()}
    for role, completion in calls:
        usage[role] += completion.usage
    return Attempt(
        problem=problem,
        prediction=prediction,
        score=dataset.score(prediction, problem.answers),
        output=solution.output,
        decomposition=solution.decomposition,
        fell_back=solution.fell_back,
        decomposer_usage=usage["decomposer"],
        solver_usage=usage["solver"],
        latency_s=sum(completion.latency_s for _, completion in calls),
        failures=tuple(
            completion.error or completion.finish_reason
            for _, completion in calls
            if completion.finish_reason != "stop"
        ),
    )
