"""Simulated runs with a known truth: every cell that the verdict's rule uses, as a run would have measured it.

For `verdict_operating.py`. A `World` states the truth, `run_of` draws one run of it (several pooled seeds if it has
them) and `pricing_of` its prices. Outcomes are drawn from a normal latent variable: a question's difficulty, shared by
all cells, plus noise of each cell, both correlated within passages. Every cell's true value therefore equals the stated
one exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from simulated_outcomes import Array, Random, f1_differences

from fractionate.analysis.matrix import pool_cells
from fractionate.analysis.pricing import Pricing
from fractionate.analysis.rule import Caps, Rule, Standing
from fractionate.columns import FIELDS, Columns, digest, is_of_gold
from fractionate.config import PriceConfig
from fractionate.types import Attempt, Cell, Component, Kind, Role, Throughput

Numbers = NDArray[Any]
Part = Literal["decomposer", "solver", "both", "alone"]
USD_PER_TOKEN = 1e-6
"""Price of the teacher's output. A student's price is this times its `price`."""
DECOMPOSING, SOLVING = 60, 120
"""Output tokens of a question, on average: of its decomposer and of its solver."""
_TOKENS = {
    "steady": ((1.0,), (1.0,)),
    "varied": ((1 / 3, 2 / 3, 1.0, 4 / 3, 5 / 3), (0.2,) * 5),
    "runs on": ((2 / 3, 22 / 3), (0.95, 0.05)),
    "rarely runs on": ((0.8, 20.8), (0.99, 0.01)),
    "hardly ever runs on": ((0.92, 27.5867), (0.997, 0.003)),
}
"""Variation of token counts by question: multiples of their mean and the probability of each; every mean is 1."""
_TAILS: dict[str, Callable[[Array], Array]] = {
    "log-normal 1.0": lambda place: np.exp(ndtri(place)),
    "log-normal 1.5": lambda place: np.exp(1.5 * ndtri(place)),
    "Pareto 2.5": lambda place: (1 - place) ** (-1 / 2.5),
}
"""Long-tailed token counts, as functions of a uniform variable."""
_NOISE = 0.05
"""The standard deviation of a measured speed over calibration rounds, as a share of it."""


@dataclass(frozen=True)
class Candidate:
    """One distilled configuration: its true value and that of the same cell with each untrained base in its place.

    `spread` is the standard deviation of its value over seeds, `token_spread` that of its mean tokens as a share.
    """

    right: float = 0.6
    untrained: float = 0.4
    part: Part = "decomposer"
    price: float = 0.1
    tokens: str = "varied"
    spread: float = 0.0
    collapses: float = 0.0
    """How much the value of one training in five is lower, and that of the others higher, so that the mean stays."""
    token_spread: float = 0.0
    false: bool = True
    """Whether its recommendation counts: as a false one or, for power, as a true one."""


@dataclass(frozen=True)
class World:
    """The truth about a run. Values are shares of 1, `margin` is in percentage points.

    `single` and `cot` are the values of the single stages. `alike` is the latent correlation of two cells; with 1 a
    candidate loses answers relative to the pair and gains none, or vice versa. `kin` is the share of the remaining
    variance that candidates have in common. `f1` names the shape of F1 differences ("" for right and wrong). `rounds`
    calibration rounds price every model by its measured speed (a student takes `price` of the teacher's time); 0:
    prices are known.
    """

    n: int = 200
    right: float = 0.6
    single: float = 0.4
    cot: float = 0.4
    candidates: tuple[Candidate, ...] = (Candidate(),)
    alike: float = 0.9
    kin: float = 0.0
    passage: int = 1
    icc: float = 0.0
    f1: str = ""
    seeds: int = 1
    rounds: int = 0
    looks: tuple[int, ...] = ()
    margin: float = 2.0
    confidence: float = 0.95
    usd_per_correct: float | None = None
    net_of_nothing: bool = False
    """Whether the value of a correct answer makes the first candidate's net value exactly 0."""
    steady: bool = False
    """Whether all models except the students use the same tokens for every question."""
    cap: float = 0.0
    """The cap of every call's output tokens, in multiples of their mean; 0: no cap is known."""
    looks_rule: Literal["", "any"] = ""
    judge: float = 0.0
    """How often a judge's score is the true one, where a judge scores the outputs; 0: every question has gold."""
    judged_apart: bool = False
    """Whether the judge errs anew on each output; else it errs alike on outputs of a question that are both right, or
    both wrong, as a judge that reads the same answer twice does."""
    flatters: float = 0.0
    """By how much the judge takes students' wrong answers for right, so that their mean is as much higher."""
    gold: int = 0
    """The questions with gold, where a judge scores the others."""
    dataset: str = "made"
    first: int = 0
    """The number of the first question: other numbers are other questions."""
    history: str = ""
    """How a user looks again and again (`simulated_looks.KINDS`); "" looks once, or at `looks`."""
    forgets: bool = False
    """Whether earlier looks are forgotten, as up to version 2 of the rule."""
    of_seeds: Literal["mean", "worst"] = "mean"
    in_order: bool = False
    trained: list[bool] = field(default_factory=list, compare=False)
    """Whether each training of the last run collapsed."""
    others: tuple[World, ...] = ()
    """Further test sets of the same run, with the same candidates by place."""

    def rule(self, earlier: tuple[int, ...] = ()) -> Rule:
        """Return the rule that judges this run, after verdicts over these numbers of questions."""
        value = self.usd_per_correct
        if self.net_of_nothing:
            first = self.candidates[0]
            value = DECOMPOSING * (1 - first.price) * USD_PER_TOKEN / (self.right - first.right)
        standings = {self.dataset: Standing(sizes=earlier)} if self.looks_rule != "any" else {}
        return Rule(
            self.margin,
            self.confidence,
            usd_per_correct=value,
            standings=standings,
            caps=self.caps(),
            looks=self.looks_rule,
            seeds=self.of_seeds,
            in_order=self.in_order,
        )

    def caps(self) -> Caps:
        """Return the most output tokens of a question, by cell and role."""
        if not self.cap:
            return {}
        most: dict[Role, int] = {
            "decomposer": math.ceil(self.cap * DECOMPOSING),
            "solver": math.ceil(self.cap * SOLVING),
        }
        names = ["teacher", *(f"student-{index}" for index in range(len(self.candidates)))]
        return {(self.dataset, "test", "static", decomposer, solver): most for decomposer in names for solver in names}


class Latent:
    """The latent difficulty of the questions, and draws of outcomes that share it."""

    def __init__(self, world: World, random: Random) -> None:
        self.world, self.random = world, random
        self.hard, self.family = self._normal(), self._normal()
        self.misjudged = random.random((2, world.n)) if world.judge else np.zeros((2, 0))

    def outcomes(self, value: float, kin: float = 0.0) -> Array:
        """Return right (1) or wrong (0) for every question; each is right with probability `value`."""
        own = math.sqrt(kin) * self.family + math.sqrt(1 - kin) * self._normal()
        place = math.sqrt(self.world.alike) * self.hard + math.sqrt(1 - self.world.alike) * own
        return (place < ndtri(min(max(value, 0.0), 1.0))).astype(np.float64)

    def beside(self, reference: Array, right: float, value: float) -> Array:
        """Return outcomes that only lose (or only gain) relative to a reference whose true value is `right`."""
        changed = (right - value) / right if value < right else (value - right) / (1 - right)
        return np.where((reference == (value < right)) & (self._normal() < ndtri(changed)), 1 - reference, reference)

    def _normal(self) -> Array:
        n, size, icc = self.world.n, self.world.passage, self.world.icc
        own = self.random.normal(size=n)
        if size == 1:
            return own
        passages = np.repeat(self.random.normal(size=math.ceil(n / size)), size)[:n]
        return math.sqrt(icc) * passages + math.sqrt(1 - icc) * own


def run_of(world: World, random: Random) -> list[Cell]:
    """Draw the cells of a run, pooled over seeds if the world has several."""
    latent = Latent(world, random)
    fixed = _fixed_outcomes(latent)
    world.trained.clear()
    if world.judge:
        return [_judged(cell, latent) for cell in _cells(latent, fixed)]
    if world.seeds == 1:
        return _cells(latent, fixed)
    pooled, _ = pool_cells({f"seed {seed}": _cells(latent, fixed) for seed in range(world.seeds)})
    return pooled


def runs_again(world: World, random: Random, count: int, *, references: bool = False) -> list[list[Cell]]:
    """Draw several runs over the same questions: students that are trained again, or several reference solvers."""
    latent = Latent(world, random)
    fixed = _fixed_outcomes(latent)
    if not references:
        return [_cells(latent, fixed) for _ in range(count)]
    first = _cells(latent, fixed)
    others = [_cells(latent, replace(fixed, reference=latent.outcomes(world.right)))[0] for _ in range(count - 1)]
    return [first, *([reference, *first[1:]] for reference in others)]


def pricing_of(world: World, random: Random) -> Pricing:
    """Return the prices of a run: known ones by the token, or a machine's, all models measured in the same rounds."""
    shares = {_teacher(world): 1.0}
    shares |= {_student(index): candidate.price for index, candidate in enumerate(world.candidates)}
    if not world.rounds:
        each = {name: share * USD_PER_TOKEN * 1e6 for name, share in shares.items()}
        return Pricing({name: PriceConfig(input_per_million=0.0, output_per_million=usd) for name, usd in each.items()})
    mood = random.lognormal(0, 0.3, world.rounds)
    rates = {
        name: tuple((50 / share * mood * (1 + random.normal(0, _NOISE, world.rounds))).tolist())
        for name, share in shares.items()
    }
    throughput = {name: Throughput(tuple(10 * rate for rate in found), found) for name, found in rates.items()}
    return Pricing({name: PriceConfig(per_hour=1.0) for name in shares}, throughput=throughput)


# --- the cells of one run ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fixed:
    """Outcomes that do not depend on the seed: the untrained cells, and F1 outcomes of the first candidate."""

    reference: Array
    single: Array
    cot: Array
    untrained: tuple[Array, ...]
    first: Array | None


def _fixed_outcomes(latent: Latent) -> _Fixed:
    world = latent.world
    reference, first = latent.outcomes(world.right), None
    if world.f1:
        truth = world.candidates[0].right - world.right
        differences = np.round(f1_differences(world.f1, world.n, truth, latent.random), 3)
        reference = np.where(differences < 0, 1.0, np.where(differences > 0, 0.0, reference))
        first = reference + differences
    return _Fixed(
        reference,
        latent.outcomes(world.single),
        latent.outcomes(world.cot),
        tuple(latent.outcomes(candidate.untrained) for candidate in world.candidates),
        first,
    )


def _cells(latent: Latent, fixed: _Fixed) -> list[Cell]:
    world, random = latent.world, latent.random
    model = _teacher(world)
    decomposer, solver = Component("teacher", "teacher", "decomposer", model), _solver("teacher", "teacher", model)
    none = Component("none", "none", "decomposer")
    cells = [
        _cell(world, random, "static", decomposer, solver, fixed.reference),
        _cell(world, random, "single", none, solver, fixed.single),
        _cell(world, random, "single-cot", none, solver, fixed.cot),
    ]
    for index, candidate in enumerate(world.candidates):
        value = candidate.right + (random.normal(0, candidate.spread) if candidate.spread else 0.0)
        if candidate.collapses:
            collapsed = random.random() < 0.2
            value += candidate.collapses * (0.2 - collapsed)
            world.trained.append(collapsed)
        longer = 1 + (random.normal(0, candidate.token_spread) if candidate.token_spread else 0.0)
        if fixed.first is not None and index == 0:
            outcomes = fixed.first
        elif world.alike == 1:
            outcomes = latent.beside(fixed.reference, world.right, value)
        else:
            outcomes = latent.outcomes(value, world.kin)
        trained, base = (_places(index, candidate, decomposer, solver, none, of_base) for of_base in (False, True))
        strategy = "single" if candidate.part == "alone" else "static"
        cells.append(_cell(world, random, strategy, *trained, outcomes, candidate.tokens, longer))
        in_place = [base]
        if candidate.part == "both":
            in_place = [(base[0], trained[1]), (trained[0], base[1])]
        cells += [_cell(world, random, strategy, *places, fixed.untrained[index]) for places in in_place]
    return cells


def _places(
    index: int, candidate: Candidate, decomposer: Component, solver: Component, none: Component, of_base: bool
) -> tuple[Component, Component]:
    """Return decomposer and solver of a candidate's cell, or of the cell with the untrained base instead."""
    name, model = f"{'base' if of_base else 'student'}-{index}", _student(index)
    kind: Kind = "base" if of_base else "student"
    variants = ("", "") if of_base else ("D-R", "S-A" if candidate.part == "alone" else "E-A")
    mine = Component(name, kind, "decomposer", model, variants[0], "" if of_base else "decomposer")
    answers = _solver(name, kind, model, variants[1])
    return {
        "decomposer": (mine, solver),
        "solver": (decomposer, answers),
        "both": (mine, answers),
        "alone": (none, answers),
    }[candidate.part]


def _solver(name: str, kind: Kind, model: str, variant: str = "") -> Component:
    trained_for: Role | Literal[""] = "solver" if kind == "student" else ""
    return Component(name, kind, "solver", model, variant, trained_for)


def _teacher(world: World) -> str:
    return "local:org/Teacher" if world.rounds else "openai:teacher"


def _student(index: int) -> str:
    return f"local:org/Student-{index}"


def _cell(
    world: World,
    random: Random,
    strategy: str,
    decomposer: Component,
    solver: Component,
    outcomes: Array,
    tokens: str = "varied",
    longer: float = 1.0,
) -> Cell:
    """Return a cell; `tokens` and `longer` are those of the student in it."""
    decomposing, solving = (
        (SOLVING if part.role == "solver" else DECOMPOSING)
        * _shares(tokens if part.is_student else "steady" if world.steady else "varied", world.n, random, world.cap)
        * (longer if part.is_student else 1.0)
        for part in (decomposer, solver)
    )
    if decomposer.kind == "none":
        decomposing = np.zeros(world.n)
    return Cell(
        dataset=world.dataset,
        split="test",
        strategy=strategy,
        stages="two-stage" if strategy == "static" else "single",
        decomposer=decomposer,
        solver=solver,
        metric="f1" if world.f1 else "exact_match",
        attempts=Rows(Drawn(_arrays(world, outcomes, np.rint(decomposing), np.rint(solving)))),
    )


def _judged(cell: Cell, latent: Latent) -> Cell:
    """Return a cell with a judge's scores in the place of the true ones, which the first questions keep as gold."""
    world, columns = latent.world, cell.columns
    outcomes, rows = columns.column("exact_match"), cell.attempts
    assert isinstance(rows, Rows)
    assert isinstance(columns, Drawn)
    own = latent.random.random((2, world.n)) if world.judged_apart else latent.misjudged
    judged = np.where(own[outcomes.astype(np.int64), np.arange(world.n)] < 1 - world.judge, 1 - outcomes, outcomes)
    if world.flatters and (cell.decomposer.is_student or cell.solver.is_student):
        kindly = latent.random.random(world.n) < world.flatters / (1 - world.candidates[0].right)
        judged = np.where((outcomes == 0) & kindly, 1.0, judged)
    gold = np.where(np.arange(world.n) < world.gold, outcomes, np.nan)
    scores = dict.fromkeys(("exact_match", "f1"), judged) | {f"gold_{name}": gold for name in ("exact_match", "f1")}
    return replace(cell, attempts=Rows(Drawn({**columns._arrays, **scores})))


def _arrays(world: World, outcomes: Array, decomposing: Array, solving: Array) -> dict[str, Numbers]:
    """Return the columns of a cell that are not all 0: what attempts of one call a role would give."""
    places = np.arange(world.first, world.first + world.n, dtype=np.uint64)
    unknown = np.full(world.n, np.nan)
    return {
        "id_digest": places,
        "cluster_digest": places // np.uint64(world.passage) + np.uint64(digest(world.dataset) % 2**32 << 32),
        "exact_match": (outcomes == 1).astype(np.float64),
        "f1": outcomes,
        "lenient_exact_match": unknown,
        "lenient_f1": unknown,
        "decomposer_calls": (decomposing > 0).astype(np.int64),
        "solver_calls": (solving > 0).astype(np.int64),
        "decomposer_output_tokens": decomposing.astype(np.int64),
        "solver_output_tokens": solving.astype(np.int64),
    }


def _shares(tokens: str, n: int, random: Random, cap: float = 0.0) -> Array:
    """Return tokens by question as multiples of their mean; long tails are cut at `cap` and keep the mean 1."""
    if tokens in _TAILS:
        scale = _scale(tokens, cap)
        return np.minimum(scale * _TAILS[tokens](random.random(n)), cap or math.inf)
    values, chances = (np.asarray(row) for row in _TOKENS[tokens])
    return values[np.searchsorted(np.cumsum(chances)[:-1], random.random(n), side="right")]


@cache
def _scale(tokens: str, cap: float) -> float:
    """Return the factor that makes the mean of a tail 1 after it is cut."""
    drawn = _TAILS[tokens]((np.arange(2_000_000) + 0.5) / 2_000_000)
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(middle * drawn, cap or math.inf).mean() < 1 else (low, middle)
    return low


class Drawn(Columns):
    """Columns that were drawn as arrays; those that were not drawn hold 0."""

    def __init__(self, arrays: Mapping[str, Numbers]) -> None:
        self._arrays = arrays

    def __len__(self) -> int:
        return len(self._arrays["id_digest"])

    def column(self, name: str) -> Numbers:
        if name in self._arrays:
            return self._arrays[name]
        if is_of_gold(name):
            return np.full(len(self), np.nan)
        return np.zeros(len(self), dtype=FIELDS[name][0] or np.int64)

    def take(self, places: Numbers) -> Columns:
        return Drawn({name: array[places] for name, array in self._arrays.items()})


class Rows(Sequence[Attempt]):
    """The attempts of drawn columns, as far as the rule asks for them: their number, and the first of them."""

    def __init__(self, columns: Drawn) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns)

    @overload
    def __getitem__(self, place: int) -> Attempt: ...
    @overload
    def __getitem__(self, place: slice) -> Rows: ...
    def __getitem__(self, place: int | slice) -> Attempt | Rows:
        if isinstance(place, int):
            raise TypeError("drawn attempts are columns only")
        return Rows(Drawn({name: array[place] for name, array in self.columns._arrays.items()}))


def first_questions(cells: list[Cell], n: int) -> list[Cell]:
    """Return the same run after its first `n` questions."""
    return [replace(cell, attempts=cell.attempts[:n]) for cell in cells] if n < len(cells[0].attempts) else cells
