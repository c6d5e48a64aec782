"""Duration of the published way to fit the distillation law, and its agreement with SciPy's L-BFGS-B.

    python benchmarks/law_fit.py [--runs 700] [--workers 2] [--scipy 40] [--whole-grid] [--json OUT.json]

Runs are drawn from the published law with 0.3 % noise. Timed: all 216,000 starts of the grid, 4,096 resamples and the
held-out runs, as `fractionate plan fit` does them; with --whole-grid also every start followed to its end. Compared on
the same runs: the loss of the fit; the law's losses at runs that were not fitted; L-BFGS-B with analytic derivatives
from starts drawn from the same grid, and its extrapolated time for all of them; and L-BFGS-B from the optimum on
resamples.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from fractionate.planning import SETS, DistillationRuns
from fractionate.planning.minimise import DistillationCurve, minimise, polished
from fractionate.planning.protocol import RESAMPLES, Journal, Options, fit_curve, held_out_errors, starts

PAPER = SETS["paper-corrected"]
NOISE = 0.003
SIZES = [1.434e8, 1.983e8, 5.46e8, 9.755e8, 1.821e9, 2.718e9, 4.823e9, 7.747e9]
LENGTHS = [4e9, 8e9, 1.6e10, 3.2e10, 6.4e10, 1.28e11, 2.56e11, 5.12e11]
TEACHERS = [1.8953, 1.9735, 2.0837, 2.1784, 2.2665, 2.3705, 2.5038, 2.7545]


def drawn(count: int, noise: float, seed: int) -> DistillationRuns:
    generator = np.random.default_rng(seed)
    n, d, t = (generator.choice(levels, count) for levels in (SIZES, LENGTHS, TEACHERS))
    loss = PAPER.distilled.loss(n, d, t, PAPER.supervised.loss(n, d)) * np.exp(noise * generator.standard_normal(count))
    return DistillationRuns(n, d, t, loss)


def curve_of(runs: DistillationRuns) -> DistillationCurve:
    alone = PAPER.supervised.loss(runs.params, runs.tokens)
    return DistillationCurve(*(np.log(one) for one in (runs.params, runs.tokens, runs.teacher_loss, alone, runs.loss)))


def timed(name: str, curve: DistillationCurve, options: Options) -> dict[str, Any]:
    began, cpu = time.monotonic(), time.process_time()
    fitted = fit_curve(curve, options, Journal(None, ""))
    held_out, largest = held_out_errors(curve, fitted, curve.log_params + curve.log_tokens, options)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    fresh = drawn(500, 0.0, seed=99)
    own = PAPER.supervised.loss(fresh.params, fresh.tokens)
    errors = curve.law(fitted.theta).loss(fresh.params, fresh.tokens, fresh.teacher_loss, own) / fresh.loss - 1
    rms, most = float(np.sqrt(np.mean(errors**2))), float(np.abs(errors).max())
    print(
        f"{name}: {seconds:.0f} s ({cpu:.0f} s of processor), loss {fitted.loss:.6e}; new runs: rms {rms:.3%}, at most "
        f"{most:.3%}; held out {np.sqrt(np.mean(held_out**2)):.3%}, largest {np.sqrt(np.mean(largest**2)):.3%}",
        flush=True,
    )
    return {"name": name, "seconds": seconds, "cpu_s": cpu, "loss": fitted.loss, "new_rms": rms, "new_max": most,
            "theta": fitted.theta, "free": fitted.free}  # fmt: skip


def against_scipy(curve: DistillationCurve, found: dict[str, Any], count: int) -> dict[str, float]:
    free, generator = found["free"], np.random.default_rng(5)
    grid = starts(curve)
    some = grid[generator.integers(0, len(grid), count)]
    began = time.process_time()
    theirs = np.array([float(polished(curve, start, free).loss[0]) for start in some])
    each = (time.process_time() - began) / count
    began = time.process_time()
    ours = minimise(curve, some, free=free, rounds=200).loss
    own = (time.process_time() - began) / count
    best = found["loss"]
    print(
        f"L-BFGS-B, {count} starts, {np.mean(theirs < best * 1.001):.0%} reach the optimum; best "
        f"{theirs.min() / best - 1:+.1e} of ours; {1e3 * each:.0f} ms each, {each * len(grid) / 3600:.1f} h for all. "
        f"Ours, from the same: {np.mean(ours < best * 1.001):.0%}, {1e3 * own:.0f} ms each"
    )
    runs = len(curve.log_loss)
    weights = generator.multinomial(runs, np.full(runs, 1 / runs), size=12)
    warm = minimise(curve, np.repeat(found["theta"][None], 12, axis=0), weights.astype(float), free, rounds=100).loss
    ratios = [
        float(polished(curve.over(np.repeat(np.arange(runs), row)), found["theta"], free).loss[0]) / loss
        for row, loss in zip(weights, warm, strict=True)
    ]
    print(f"resamples, L-BFGS-B over ours: {min(ratios):.6f} to {max(ratios):.6f}")
    return {"scipy_ms": 1e3 * each, "ours_ms": 1e3 * own, "scipy_best": float(theirs.min() / best - 1),
            "resample_low": min(ratios), "resample_high": max(ratios)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=700)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--scipy", type=int, default=40, help="number of starts for L-BFGS-B")
    parser.add_argument("--whole-grid", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    curve = curve_of(drawn(arguments.runs, NOISE, arguments.seed))
    found = [timed("as plan fit does it", curve, Options(RESAMPLES, workers=arguments.workers))]
    if arguments.whole_grid:
        whole = Options(RESAMPLES, whole_grid=True, workers=arguments.workers)
        found.append(timed("every start to its end", curve, whole))
    compared = against_scipy(curve, found[0], arguments.scipy) if arguments.scipy else {}
    if arguments.json:
        rows = [{name: value for name, value in row.items() if name not in ("theta", "free")} for row in found]
        arguments.json.write_text(json.dumps({"fits": rows, **compared}), encoding="utf-8")


if __name__ == "__main__":
    main()
