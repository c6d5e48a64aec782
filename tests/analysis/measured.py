"""Seeded makers of measured cells: outcomes of a stated accuracy, correlated over the questions as real ones are."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fractionate.config import Config, parse_config
from fractionate.types import Attempt, Cell, Decomposition, Problem, Score, Strategy, Usage

TEACHER = "openai:gpt-4o-mini"
STUDENT = "local:org/Tiny-1B@runs/demo/adapters/"
PRICES = {TEACHER: {"input_per_million": 0.15, "output_per_million": 0.60}}


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


def model_of(name: str) -> str:
    if name in ("none", "gold", ""):
        return ""
    if name == "teacher":
        return TEACHER
    return name if ":" in name else STUDENT + name


def cell_of(
    outcomes: Sequence[float],
    strategy: Strategy = "static",
    decomposer: str = "teacher",
    solver: str = "teacher",
    *,
    decomposer_tokens: int = 60,
    solver_tokens: int = 120,
    metric: str = "exact_match",
    dataset: str = "atlas",
    split: str = "test",
    first: int = 0,
) -> Cell:
    """Make a cell with these outcomes (0 to 1). Tokens vary a little by question, alike in every cell."""
    attempts = []
    for position, outcome in enumerate(outcomes):
        asked = problem(first + position, dataset, split)
        wobble = position % 7
        two_stage = decomposer != "none"
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
        decomposer=decomposer,
        solver=solver,
        metric=metric,  # type: ignore[arg-type]
        attempts=tuple(attempts),
        decomposer_model=model_of(decomposer),
        solver_model=model_of(solver),
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
            strategy,  # type: ignore[arg-type]
            decomposer,
            solver,
            metric=metric,
            dataset=dataset,
        )
        for rank, ((strategy, decomposer, solver), accuracy) in enumerate(accuracies.items())
    ]
