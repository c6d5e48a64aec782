"""How often the whole rule of docs/verdict.md recommends falsely, and how often correctly, by simulation.

    python benchmarks/verdict_operating.py [--runs 100] [--seed 0] [--only NAME] [--jobs 1] [--json FILE]
                                           [--markdown] [--confidence 0.95] [--read FILE]

Every repeat simulates the cells of a run with a known truth (attempts, prices, calibrated speeds) and judges them by
`fractionate.analysis.verdict` like a real run: intervals, controls, costs, candidates, interim analyses. The nominal
rate of false recommendations is .025 for each case; brackets hold the 95 % interval (Wilson) of the simulated rate. A
case draws its random numbers from the seed and its name, so its result does not depend on the other cases. 100
runs of every case take 460 CPU seconds; the tables of docs/verdict-operating.md state their number of runs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
from simulated_looks import recommends_after_looks
from simulated_outcomes import Random
from simulated_runs import World, first_questions, pricing_of, run_of
from verdict_scenarios import SCENARIOS, Scenario

from fractionate.analysis.contrasts import mean
from fractionate.analysis.findings import CLAIMS, Judgement, untrained_in_place
from fractionate.analysis.matrix import Matrix, matrices
from fractionate.analysis.rule import Rule
from fractionate.analysis.test_sets import stack
from fractionate.analysis.verdict import across, judge
from fractionate.statistics import wilson
from fractionate.types import Cell

NOMINAL = 0.025
ACCEPTED = 0.03


@dataclass(frozen=True)
class Result:
    """A case judged `repeats` times: the number of recommendations, and the seconds it took."""

    name: str
    true: str
    is_power: bool
    n: int
    recommended: int
    repeats: int
    seconds: float
    is_covered: bool = True

    @property
    def rate(self) -> float:
        """The share of repeats with a recommendation."""
        return self.recommended / self.repeats


def judgements(world: World, random: Random) -> Iterator[Judgement]:
    """Simulate one run and judge it, at every interim analysis in turn."""
    cells, pricing = run_of(world, random), pricing_of(world, random)
    sizes = world.looks or (world.n,)
    for place, size in enumerate(sizes):
        (matrix,) = matrices(first_questions(cells, size))
        rule = world.rule(sizes[:place])
        if may_pass(matrix, rule):
            yield judge(matrix, pricing, rule)


def may_pass(matrix: Matrix, rule: Rule) -> bool:
    """Return whether a configuration may pass by its estimates: no interval's bound is better than its estimate.

    This skips half of the runs on a boundary and changes no result. A corrected difference is no difference of
    estimates: then every run is judged.
    """
    if matrix.cells[0].columns.gold("exact_match") is not None:
        return True
    reference = matrix.undistilled("static", rule)
    least = -math.inf
    if rule.usd_per_correct is None and reference is not None:
        least = mean(reference.values()) - rule.margin / 100 - 1e-9

    def may(cell: Cell) -> bool:
        value = mean(cell.values())
        bases = [base for claim in CLAIMS for base in untrained_in_place(matrix, cell, claim)]
        return bool(bases) and value >= least and all(value > mean(base.values()) for base in bases)

    return any(may(cell) for cell in matrix.cells)


def recommends(world: World, random: Random) -> bool:
    """Return whether any interim analysis of one run ends in a recommendation."""
    if world.history:
        return recommends_after_looks(world, random, may_pass)
    if world.others:
        return recommends_over_sets(world, random)
    found = any(judgement.chosen is not None for judgement in judgements(world, random))
    # The worst of the trainings that were judged is within the margin where none of them collapsed.
    return found and (world.of_seeds == "mean" or any(world.trained))


def recommends_over_sets(world: World, random: Random) -> bool:
    """Return whether a run over several test sets ends in a recommendation over all of them."""
    worlds = (world, *world.others)
    measured = matrices([cell for one in worlds for cell in run_of(one, random)])
    pricing, rule = pricing_of(world, random), world.rule()
    stacked = stack(measured)
    # What passes on every test set has estimates that pass on each, and so over all questions too.
    if stacked is None or not may_pass(stacked, rule):
        return False
    judged = [judge(matrix, pricing, rule) for matrix in measured]
    return across(measured, judged, pricing, rule).distill in ("decomposer", "solver", "both")


def simulate(scenario: Scenario, repeats: int, seed: int) -> Result:
    """Judge a case many times; a quarter as often for power."""
    repeats = max(repeats // 4, 1) if scenario.is_power else repeats
    started = time.process_time()
    random = np.random.default_rng([seed, *scenario.name.encode()])
    recommended = sum(recommends(scenario.world, random) for _ in range(repeats))
    seconds = time.process_time() - started
    return Result(
        scenario.name,
        scenario.true,
        scenario.is_power,
        scenario.world.n,
        recommended,
        repeats,
        round(seconds, 1),
        scenario.is_covered,
    )


def table(results: Sequence[Result]) -> str:
    """Return the rates as two Markdown tables: false recommendations, and power."""
    parts = []
    for is_power, counted in ((False, "false recommendations"), (True, "recommended")):
        lines = [line for line in results if line.is_power == is_power]
        if lines:
            rows = [f"| case | what is true | questions | {counted} |", "|---|---|---:|---:|"]
            rows += [f"| {one.name} | {one.true} | {one.n:,} | {_rate(one)} |" for one in lines]
            parts.append("\n".join(rows))
    return "\n\n".join(parts)


def _rate(result: Result) -> str:
    found = wilson(result.recommended, result.repeats)
    over = " **over .03**" if not result.is_power and result.rate > ACCEPTED else ""
    over = over if result.is_covered else " *not covered*"
    return f"{_share(result.rate)} ({_share(found.low)}–{_share(found.high)}){over}"


def _share(value: float) -> str:
    return f"{value:.3f}".removeprefix("0") if value < 0.9995 else "1"


def chosen(names: Sequence[str] | None, scenarios: Sequence[Scenario]) -> list[Scenario]:
    """Return the scenarios whose names begin with any of `names`; all without names."""
    return [one for one in scenarios if not names or any(one.name.startswith(name) for name in names)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", "--repeats", dest="repeats", type=int, default=100, help="runs judged for each case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", metavar="NAME", help="cases whose name starts so; repeatable")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    parser.add_argument("--confidence", type=float, help="judge at another confidence, to see how the rates change")
    parser.add_argument("--json", metavar="FILE", help="write each count to FILE as soon as it is available")
    parser.add_argument("--read", metavar="FILE", help="simulate nothing: print the tables from a file of --json")
    parser.add_argument("--markdown", action="store_true", help="print only the Markdown tables of the docs")
    arguments = parser.parse_args()
    if arguments.read:
        with open(arguments.read, encoding="utf-8") as file:
            print(table([Result(**row) for row in json.load(file)]))
        return
    scenarios = chosen(arguments.only, SCENARIOS)
    if not scenarios or arguments.repeats < 1:
        parser.error("nothing to judge: --only names no case, or --repeats is below 1")
    if arguments.confidence:
        scenarios = [replace(one, world=replace(one.world, confidence=arguments.confidence)) for one in scenarios]
    results = []
    for result in _results(
        partial(simulate, repeats=arguments.repeats, seed=arguments.seed), scenarios, arguments.jobs
    ):
        results.append(result)
        print(f"{result.seconds:6.1f} s  {result.name}: {_rate(result)}", file=sys.stderr, flush=True)
        if arguments.json:
            with open(arguments.json, "w", encoding="utf-8") as file:
                json.dump([asdict(one) for one in results], file, indent=1)
    if not arguments.markdown:
        print(f"{arguments.repeats:,} runs of each case, seed {arguments.seed}, nominal {NOMINAL:g}\n")
    print(table(results))


def _results(of: Callable[[Scenario], Result], scenarios: Sequence[Scenario], jobs: int) -> Iterator[Result]:
    if jobs == 1:
        yield from map(of, scenarios)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(of, scenarios)


if __name__ == "__main__":
    main()
