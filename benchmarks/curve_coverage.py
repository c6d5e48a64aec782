"""Empirical coverage of a learning curve's intervals at twice the demonstrations, the most that it predicts.

    python benchmarks/curve_coverage.py [--worlds 200] [--bootstrap 20] [--tuned-on] [--json OUT.json]

In each simulated world, students are trained on 1/8, 1/4, 1/2 and all of the demonstrations and answer the same
questions, whose difficulties differ. The error is a power law with or without a floor, or another curve; trainings
differ by a normal of the stated standard deviation. From the four cells the curve predicts, at 90 %, the outcome of a
training on twice as many on the same questions ("curve"), and the mean over trainings and questions ("its mean"); where
it refuses to, the world counts as refused and in no coverage. Plateaus begin, and late rises are half-way, where nobody
can see it yet. The comparison is the percentile interval of the least-squares power law over paired resamples of the
questions ("bootstrap"; for the first --bootstrap worlds of each row, since it is slow). The curve's priors were chosen
on other worlds (--tuned-on).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import ndtr, ndtri

from fractionate.errors import UsageError
from fractionate.planning.curve import learning_curve

Array = NDArray[np.float64]
AMOUNTS = np.array([100.0, 200.0, 400.0, 800.0])
FACTORS = (2,)
CONFIDENCE = 0.90
DIFFICULTY = 1.5


def power_law(floor: float, exponent: float, last: float) -> Callable[[float], float]:
    return lambda x: last * (floor + (1 - floor) * (x / AMOUNTS[-1]) ** -exponent)


def s_shaped(x: float) -> float:
    return 0.25 + 0.5 / (1 + (x / 400) ** 1.5)


def plateau(x: float) -> float:
    return 0.2 + 0.4 * (min(x, AMOUNTS[-1]) / AMOUNTS[0]) ** -0.6


def late_rise(steepness: float) -> Callable[[float], float]:
    return lambda x: 0.9 - 0.5 / (1 + (2 * AMOUNTS[-1] / x) ** steepness)


def exponential(x: float) -> float:
    return 0.2 + 0.45 * np.exp(-x / 500)


WORLDS: dict[str, Callable[[float], float]] = {
    "no floor, b = 0.35": power_law(0.0, 0.35, 0.4),
    "a third is floor, b = 0.7": power_law(1 / 3, 0.7, 0.25),
    "two thirds are floor, b = 0.3": power_law(2 / 3, 0.3, 0.45),
    "a fifth is floor, b = 0.15": power_law(0.2, 0.15, 0.55),
    "not a power law: exponential": exponential,
    "a plateau from the last amount on": plateau,
    "a late rise, mild": late_rise(1.0),
    "a late rise, steep": late_rise(2.0),
}
TUNED_ON: dict[str, Callable[[float], float]] = {
    "no floor, b = 0.2": power_law(0.0, 0.2, 0.45),
    "no floor, b = 0.5": power_law(0.0, 0.5, 0.3),
    "half a floor, b = 0.5": power_law(0.5, 0.5, 0.3),
    "half a floor, b = 1": power_law(0.5, 1.0, 0.2),
    "nearly flat": power_law(0.9, 0.5, 0.5),
    "not a power law": s_shaped,
}


def answers(error: float, difficulty: Array, spread: float, generator: np.random.Generator) -> Array:
    """Return one training's outcomes (questions,)."""
    own = np.clip(error + spread * generator.standard_normal(), 0.002, 0.998)
    right = ndtr(ndtri(1 - own) * np.sqrt(1 + DIFFICULTY**2) + DIFFICULTY * difficulty)
    return (generator.random(len(difficulty)) < right).astype(float)


def bootstrapped(outcomes: Array, resamples: int, generator: np.random.Generator) -> list[tuple[float, float]]:
    """Return the percentile intervals at the factors from least-squares power laws of resampled questions."""
    predicted = np.empty((resamples, len(FACTORS)))
    x = AMOUNTS / AMOUNTS[-1]
    for row in range(resamples):
        some = generator.integers(0, outcomes.shape[1], outcomes.shape[1])
        error = 1 - outcomes[:, some].mean(axis=1)

        def misfit(theta: Array, error: Array = error) -> Array:
            return np.asarray(theta[0] + theta[1] * x ** -theta[2] - error)

        begun = [max(1e-3, error[-1] / 2), max(1e-3, error[-1] / 2), 0.5]
        found = least_squares(misfit, begun, bounds=([0, 0, 0], [1, 1, 3])).x
        predicted[row] = [1 - found[0] - found[1] * factor ** -found[2] for factor in FACTORS]
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    return [(float(low), float(high)) for low, high in np.quantile(predicted, tails, axis=0).T]


def coverage(
    truth: Callable[[float], float], questions: int, spread: float, worlds: int, resamples: int, seed: int
) -> dict[str, Any]:
    """Return, by method and factor, how often the interval held, and its mean width in percentage points; and refusals.

    The share of worlds in which the curve refused to predict is "refused".
    """
    generator = np.random.default_rng(seed)
    refused = 0
    held: dict[str, list[list[bool]]] = {"curve": [], "mean": [], "bootstrap": []}
    width: dict[str, list[list[float]]] = {"curve": [], "mean": [], "bootstrap": []}
    for world in range(worlds):
        difficulty = generator.standard_normal(questions)
        outcomes = np.array([answers(truth(x), difficulty, spread, generator) for x in AMOUNTS])
        later = [answers(truth(AMOUNTS[-1] * f), difficulty, spread, generator).mean() for f in FACTORS]
        mean = [1 - truth(AMOUNTS[-1] * f) for f in FACTORS]
        try:
            predictions = learning_curve(AMOUNTS, outcomes).beyond(FACTORS, CONFIDENCE)
        except UsageError:
            refused += 1
            continue
        found = {
            "curve": ([(one.low, one.high) for one in predictions], later),
            "mean": ([(one.expected_low, one.expected_high) for one in predictions], mean),
        }
        if world < resamples:
            found["bootstrap"] = (bootstrapped(outcomes, 200, generator), later)
        for name, (intervals, shown) in found.items():
            held[name].append([low <= value <= high for (low, high), value in zip(intervals, shown, strict=True)])
            width[name].append([100 * (high - low) for low, high in intervals])
    found_rates: dict[str, Any] = {
        name: {"held": np.mean(held[name], axis=0).tolist(), "width": np.mean(width[name], axis=0).tolist()}
        for name in held
        if held[name]
    }
    return {**found_rates, "refused": refused / worlds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--bootstrap", type=int, default=60, help="number of worlds that also run the bootstrap")
    parser.add_argument("--questions", type=int, nargs="+", default=[150, 600])
    parser.add_argument("--spreads", type=float, nargs="+", default=[0.0, 0.015, 0.03])
    parser.add_argument(
        "--tuned-on", action="store_true", help="use the worlds on which the curve's priors were chosen"
    )
    parser.add_argument("--json")
    arguments = parser.parse_args()
    rows = []
    print("truth | questions | training sd | refused | 90 % interval held (width, pp): curve | its mean | bootstrap")
    for name, truth in (TUNED_ON if arguments.tuned_on else WORLDS).items():
        for questions in arguments.questions:
            for spread in arguments.spreads:
                found = coverage(
                    truth,
                    questions,
                    spread,
                    arguments.worlds,
                    arguments.bootstrap,
                    seed=7 if arguments.tuned_on else 2027,
                )
                rows.append({"truth": name, "questions": questions, "spread": spread, **found})
                cells = [
                    ", ".join(f"{100 * h:.0f} ({w:.1f})" for h, w in zip(one["held"], one["width"], strict=True))
                    for method, one in found.items()
                    if method != "refused"
                ]
                print(f"{name} | {questions} | {spread:g} | {found['refused']:.0%} | " + " | ".join(cells), flush=True)
    for method in ("curve", "mean", "bootstrap"):
        if all(method in row for row in rows):
            overall = np.mean([row[method]["held"] for row in rows], axis=0)
            print(f"{method}: {100 * overall[0]:.1f} % at 2x, over all rows")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(rows, file)


if __name__ == "__main__":
    main()
