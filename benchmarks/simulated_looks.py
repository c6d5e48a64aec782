"""Users that look again and again at one test set, each in a way of its own, until a verdict recommends something.

For `verdict_operating.py`. Each kind draws its runs and yields the cells of one look after another; what the rule makes
of them depends on the ledger alone, never on the folder that a user chose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from simulated_outcomes import Random
from simulated_runs import World, first_questions, pricing_of, run_of, runs_again

from fractionate.analysis.looks import Judged, Ledger
from fractionate.analysis.matrix import Matrix, matrices, pool_cells
from fractionate.analysis.rule import Rule
from fractionate.analysis.verdict import candidates_of, judge
from fractionate.types import Cell


def descending(world: World, random: Random) -> Iterator[list[Cell]]:
    """Fewer questions each time: all, a half, a quarter."""
    cells = run_of(world, random)
    yield from (first_questions(cells, world.n // share) for share in (1, 2, 4))


def another_folder(world: World, random: Random) -> Iterator[list[Cell]]:
    """More questions each time, each time with another --out."""
    cells = run_of(world, random)
    yield from (first_questions(cells, world.n // share) for share in (4, 2, 1))


def other_questions(world: World, random: Random) -> Iterator[list[Cell]]:
    """The same students at five sets of questions."""
    yield from (run_of(replace(world, first=world.n * place), random) for place in range(5))


def trained_again(world: World, random: Random) -> Iterator[list[Cell]]:
    """Eight trainings of a student, each judged on the same questions."""
    yield from runs_again(world, random, 8)


def best_of_all(world: World, random: Random) -> Iterator[list[Cell]]:
    """All candidates, then the best of them alone."""
    cells = run_of(world, random)
    yield cells
    (matrix,) = matrices(cells)
    reference = matrix.undistilled("static", Rule())
    assert reference is not None
    found = [cell for _, cell in candidates_of(matrix, reference)]
    best = max(found, key=lambda cell: float(np.mean(cell.values())))
    yield [cell for cell in cells if cell is best or cell not in found]


def references_in_turn(world: World, random: Random) -> Iterator[list[Cell]]:
    """Four undistilled pairs in turn, all as good."""
    yield from runs_again(world, random, 4, references=True)


def seeds_added(world: World, random: Random) -> Iterator[list[Cell]]:
    """Pooled reports of ever more seeds, up to six."""
    runs = runs_again(world, random, 6)
    for count in range(2, 7):
        yield pool_cells({str(seed): cells for seed, cells in enumerate(runs[:count])})[0]


def always(world: World, random: Random) -> Iterator[list[Cell]]:
    """A look after every 25 questions from 50 on."""
    cells = run_of(world, random)
    yield from (first_questions(cells, size) for size in range(50, world.n + 1, 25))


KINDS: dict[str, Callable[[World, Random], Iterator[list[Cell]]]] = {
    kind.__name__: kind
    for kind in (
        descending,
        another_folder,
        other_questions,
        trained_again,
        best_of_all,
        references_in_turn,
        seeds_added,
        always,
    )
}


def recommends_after_looks(world: World, random: Random, may_pass: Callable[[Matrix, Rule], bool]) -> bool:
    """Return whether any look of a user ends in a recommendation; with `world.forgets` no ledger is kept."""
    ledger, pricing, rule = Ledger(), pricing_of(world, random), world.rule()
    for cells in KINDS[world.history](world, random):
        (matrix,) = matrices(cells)
        reference = matrix.undistilled("static", rule)
        assert reference is not None
        at = rule
        if not world.forgets:
            judged = Judged(matrix, rule, reference, reference.columns.ids)
            at = replace(rule, standings={matrix.label: ledger.standing(judged)})
            ledger.add(judged)
        if may_pass(matrix, at) and judge(matrix, pricing, at).chosen is not None:
            return True
    return False
