"""Seeded generators of measured cells: outcomes with a stated accuracy, correlated over the questions."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fractionate.config import SOLVER_VARIANTS, STUDENTS, Config, parse_config
from fractionate.types import Attempt, Cell, Component, Decomposition, Problem, Role, Score, Usage

TEACHER = "openai:gpt-4o-mini"
STUDENT = "local:org/Tiny-1B"
"""The base of every student, whose name their calls are priced by."""
PRICES = {
    TEACHER: {"input_per_million": 0.15, "output_per_million": 0.60},
    STUDENT: {"per_hour": 0.0},
}


def config_of(**sections: object) -> Config:
    table: dict[str, object] = {
        "data": {"test": "atlas"},
        "models": {"teacher": TEACHER, "solvers": ["teacher", "E-A"], "decomposers": ["none", "teacher", "D-R"]},
        "prices": PRICES,
    }
    return parse_config({**table, **sections})


def problem(index: int, dataset: str = "atlas", split: str = "test") -> Problem:
    return Problem(
        id=f"{dataset}-{index}",
        question=f"Which river of country {index} is the longest?",
        answers=((str(index),),),
        context=f"Country {index} has two rivers.",
        dataset=dataset,
        split=split,
        index=index,
    )


def component_of(name: str, role: Role = "decomposer", learnt_from: tuple[str, ...] = ()) -> Component:
    """Return what a name stands for, as names are resolved: a role, a student by its variant, a model by its name."""
    if name in ("none", "gold"):
        return Component(name, "none" if name == "none" else "gold", role)
    if name in ("teacher", TEACHER):
        return Component(name, "teacher", role, TEACHER)
    if name in ("solver", "student"):
        return Component(
            name, "solver" if name == "solver" else "base", role, STUDENT if name == "student" else TEACHER
        )
    if name in STUDENTS:
        trained_for: Role = "solver" if name in SOLVER_VARIANTS else "decomposer"
        return Component(name, "student", role, STUDENT, name, trained_for, learnt_from)
    return Component(name, "model", role, name)


def cell_of(
    outcomes: Sequence[float],
    strategy: str = "static",
    decomposer: str | Component = "teacher",
    solver: str | Component = "teacher",
    *,
    decomposer_tokens: int = 60,
    solver_tokens: int = 120,
    metric: str = "exact_match",
    dataset: str = "atlas",
    split: str = "test",
    first: int = 0,
) -> Cell:
    """Make a cell with these outcomes (0 to 1). Tokens vary a little by question, alike in every cell."""
    decomposer = component_of(decomposer) if isinstance(decomposer, str) else decomposer
    solver = component_of(solver, "solver") if isinstance(solver, str) else solver
    attempts = []
    for position, outcome in enumerate(outcomes):
        asked = problem(first + position, dataset, split)
        wobble = position % 7
        two_stage = decomposer.kind != "none"
        attempts.append(
            Attempt(
                problem=asked,
                prediction=asked.answers[0] if outcome else ("wrong",) if position % 11 else None,
                score=Score(float(outcome == 1) if metric == "f1" else float(outcome), float(outcome)),
                output=f"The answer is: {asked.answers[0][0] if outcome else 'wrong'}",
                decomposition=Decomposition(("What are its rivers?", "Which is longest?")) if two_stage else None,
                decomposer_usage=Usage(1, 200 + wobble, 0, decomposer_tokens + wobble) if two_stage else Usage(),
                solver_usage=Usage(1, 300 + wobble, 0, solver_tokens + wobble),
                latency_s=0.5 + position % 5 / 10,
            )
        )
    return Cell(
        dataset=dataset,
        split=split,
        strategy=strategy,
        stages="single" if strategy.startswith("single") else "dynamic" if strategy == "dynamic" else "two-stage",
        decomposer=decomposer,
        solver=solver,
        metric=metric,  # type: ignore[arg-type]
        attempts=tuple(attempts),
    )


def correlated(accuracy: float, n: int, seed: int, difficulty_seed: int = 0, noise: float = 0.15) -> list[float]:
    """Return right/wrong outcomes of about this accuracy; cells of one `difficulty_seed` agree on most questions."""
    hard = random.Random(difficulty_seed)
    own = random.Random(seed * 7919 + 1)
    return [
        float((own.random() if own.random() < noise else shared) < accuracy)
        for shared in (hard.random() for _ in range(n))
    ]


def matrix(n: int = 120, seed: int = 0, dataset: str = "atlas", metric: str = "exact_match") -> list[Cell]:
    """Make the cells of a small run: two solvers, four decomposers, single and static."""
    accuracies = {
        ("single", "none", "teacher"): 0.45,
        ("single", "none", "E-A"): 0.20,
        ("static", "teacher", "teacher"): 0.62,
        ("static", "D-T", "teacher"): 0.58,
        ("static", "D-R", "teacher"): 0.62,
        ("static", "teacher", "E-A"): 0.30,
        ("static", "D-T", "E-A"): 0.28,
        ("static", "D-R", "E-A"): 0.30,
    }
    return [
        cell_of(
            correlated(accuracy, n, seed + rank, difficulty_seed=seed),
            strategy,
            decomposer,
            solver,
            metric=metric,
            dataset=dataset,
        )
        for rank, ((strategy, decomposer, solver), accuracy) in enumerate(accuracies.items())
    ]
