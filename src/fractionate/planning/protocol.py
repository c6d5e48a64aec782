"""The published fitting protocol: a grid of starts, the best optimum, resamples of the runs, and held-out runs.

Every start of the grid is tried. By default, starts that are behind after the first rounds are dropped, which
`whole_grid` turns off; benchmarks/law_fit.py compares the two, and both with SciPy's L-BFGS-B.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fractionate.errors import FractionateError, UsageError
from fractionate.planning.minimise import Curve, DistillationCurve, Minimum, SupervisedCurve, minimise, polished

Array = NDArray[np.float64]
Say = Callable[[str], None]

RESAMPLES = 4096
FOLDS = 5
LARGEST_SHARE = 0.2
"""The share of runs, those of most compute, that the law also predicts from the others."""
_CHUNK = 48_000
"""Runs times sets of parameters in one array operation, so that the arrays fit a core's cache."""
_STARTS_A_BLOCK, _ENDED_A_BLOCK, _RESAMPLES_A_BLOCK = 2400, 120, 256
_SCREENED_ROUNDS, _SCREENED_RUNS, _KEPT = 6, 128, 12
_HELD_OUT_STARTS = 160
_EVIDENCE_FLOOR = 1e-12


@dataclass(frozen=True)
class Options:
    """How a law is fitted."""

    resamples: int = RESAMPLES
    whole_grid: bool = False
    """Whether every start of the grid is minimised to convergence."""
    seed: int = 0
    workers: int | None = None
    """Threads; as many as there are cores if None."""
    say: Say = lambda _: None
    """Receives progress messages."""


@dataclass(frozen=True)
class Fitted:
    """Parameters of the best fit (parameters,), which of them were free, and the parameters of each resample."""

    theta: Array
    free: NDArray[np.bool_]
    loss: float
    resampled: Array


def fit_curve(curve: Curve, options: Options, journal: Journal) -> Fitted:
    """Fit a curve: the grid, the optimum, then the resamples, which begin at the optimum."""
    free = np.ones(len(curve.names), bool)
    if isinstance(curve, DistillationCurve):
        free[-1] = False  # log c1
    found = _from_grid(curve, free, options, journal)
    best = _best(curve, found, free)
    if isinstance(curve, DistillationCurve):
        freed = _best(curve, best, ~np.zeros_like(free))
        if _identify_c1(float(best.loss[0]), float(freed.loss[0]), len(curve.log_loss)):
            best, free = freed, ~np.zeros_like(free)
    theta = best.theta[0]
    return Fitted(theta, free, float(best.loss[0]), _resampled(curve, theta, free, options, journal))


def held_out_errors(curve: Curve, fitted: Fitted, size: Array, options: Options) -> tuple[Array, Array]:
    """Return relative errors (predicted over measured, minus 1) of runs that the fit did not see.

    First the errors of every run in five-fold cross-validation, then those of the runs of largest `size` (runs,),
    predicted from the others. Each fit starts from points drawn from the grid and from the fit to all runs.
    """
    generator = np.random.default_rng([options.seed, 0x666F6C64])
    runs = len(curve.log_loss)
    fold = generator.permutation(runs) % min(FOLDS, runs)
    largest = np.argsort(size, kind="stable")[-max(1, round(LARGEST_SHARE * runs)) :]
    errors = np.empty(runs)
    for number in range(fold.max() + 1):
        out = np.flatnonzero(fold == number)
        errors[out] = _errors_without(curve, fitted, out, generator)
        options.say(f"held out: {number + 1} of {fold.max() + 1} parts")
    return errors, _errors_without(curve, fitted, largest, generator)


def _from_grid(curve: Curve, free: NDArray[np.bool_], options: Options, journal: Journal) -> Minimum:
    grid = starts(curve)
    # Neighbours of the grid go to different blocks, so that the best of a block are not all alike.
    grid = grid[np.random.default_rng([options.seed, 0x67726964]).permutation(len(grid))]
    blocks = -(-len(grid) // _STARTS_A_BLOCK)

    def begin(number: int, stop: threading.Event) -> Minimum:
        mine = grid[number * _STARTS_A_BLOCK : (number + 1) * _STARTS_A_BLOCK].astype(np.float32)
        if options.whole_grid:
            return _in_chunks(curve.cast(np.float32), mine, None, free, 80, stop).best(_KEPT)
        few = _thinned(curve, options.seed).cast(np.float32)
        return _in_chunks(few, mine, None, free, _SCREENED_ROUNDS, stop).best(_KEPT)

    begun = Minimum.joined(run_blocks("grid of starts", blocks, begin, journal, options.say, options.workers))

    def end(number: int, stop: threading.Event) -> Minimum:
        mine = begun.theta[number * _ENDED_A_BLOCK : (number + 1) * _ENDED_A_BLOCK]
        return _in_chunks(curve, mine, None, free, 200, stop).best(2)

    blocks = -(-len(begun.theta) // _ENDED_A_BLOCK)
    return Minimum.joined(run_blocks("best starts", blocks, end, journal, options.say, options.workers))


def _best(curve: Curve, found: Minimum, free: NDArray[np.bool_]) -> Minimum:
    """Return the best of the sets after L-BFGS-B and a further run of our own minimiser, whichever is lowest."""
    near = minimise(curve, found.best(8).theta, free=free, rounds=400).best()
    last = polished(curve, near.theta[0], free)
    return Minimum.joined([near, last, minimise(curve, last.theta, free=free, rounds=400)]).best()


def _identify_c1(fixed: float, freed: float, runs: int) -> bool:
    """Whether the runs identify c1, by the Bayesian information criterion with Laplace-distributed errors."""
    fixed, freed = max(fixed, _EVIDENCE_FLOOR), max(freed, _EVIDENCE_FLOOR)
    return bool(2 * runs * np.log(fixed / freed) > np.log(runs))


def _resampled(curve: Curve, theta: Array, free: NDArray[np.bool_], options: Options, journal: Journal) -> Array:
    if options.resamples == 0:
        return np.empty((0, len(theta)))
    runs = len(curve.log_loss)

    def work(number: int, stop: threading.Event) -> Minimum:
        count = min(_RESAMPLES_A_BLOCK, options.resamples - number * _RESAMPLES_A_BLOCK)
        generator = np.random.default_rng([options.seed, 0x626F6F74, number])
        weights = generator.multinomial(runs, np.full(runs, 1 / runs), size=count).astype(np.float64)
        return _in_chunks(curve, np.repeat(theta[None], count, axis=0), weights, free, 100, stop)

    blocks = -(-options.resamples // _RESAMPLES_A_BLOCK)
    name = "resamples with c1 free" if free[-1] and isinstance(curve, DistillationCurve) else "resamples"
    return Minimum.joined(run_blocks(name, blocks, work, journal, options.say, options.workers)).theta


def _errors_without(curve: Curve, fitted: Fitted, out: NDArray[np.intp], generator: np.random.Generator) -> Array:
    """Return the relative errors at the runs `out` of the best fit to the others."""
    weights = np.ones((1, len(curve.log_loss)))
    weights[0, out] = 0
    grid = starts(curve)
    begun = np.concatenate([grid[generator.integers(0, len(grid), _HELD_OUT_STARTS)], fitted.theta[None]])
    if fitted.free.all() and isinstance(curve, DistillationCurve):
        begun[:, -1] = fitted.theta[-1]
    first = _in_chunks(curve, begun, weights, fitted.free, 40, threading.Event()).best(6)
    best = minimise(curve, first.theta, weights, fitted.free, rounds=300).best()
    residuals, _ = curve.residuals(best.theta)
    return np.asarray(np.expm1(residuals[0, out]))


def _thinned(curve: Curve, seed: int) -> Curve:
    """Return the curve over a sample of its runs, enough to detect a hopeless start."""
    runs = len(curve.log_loss)
    if runs <= _SCREENED_RUNS:
        return curve
    some = np.random.default_rng([seed, 0x7468696E]).choice(runs, _SCREENED_RUNS, replace=False)
    return curve.over(some)


def _in_chunks(
    curve: Curve,
    begun: NDArray[np.floating],
    weights: Array | None,
    free: NDArray[np.bool_],
    rounds: int,
    stop: threading.Event,
) -> Minimum:
    """Minimise the sets in chunks. Raises StoppedError once `stop` is set."""
    parts, size = [], max(16, _CHUNK // len(curve.log_loss))
    for first in range(0, len(begun), size):
        if stop.is_set():
            raise StoppedError
        some = slice(first, first + size)
        own = weights if weights is None or len(weights) == 1 else weights[some]
        parts.append(minimise(curve, begun[some], own, free, rounds))
    return Minimum.joined(parts)


PUBLISHED_C1 = 522.6
"""The value of c1 if the runs do not identify it."""
_INSTEAD_OF_ZERO = 0.1
"""Replaces zeros of the grid: f1 = 0 divides by zero, and c1 = 0 removes the term that f1 and d1 belong to."""


def starts(curve: Curve) -> Array:
    """Return every start of the curve's grid, (starts, parameters): 9,600 supervised, 216,000 of distillation."""
    return _supervised() if isinstance(curve, SupervisedCurve) else _distillation()


def _supervised() -> Array:
    logs, exponents = [0.0, 5, 10, 15, 20], [0, 0.5, 1, 1.5]
    return _product([-1, -0.5, 0, 0.5, 1, 1.5], logs, logs, exponents, exponents, exponents)


def _distillation() -> Array:
    logs, exponents, breaks = [0.0, 5, 10, 15, 20], [0, 0.5, 1], [0, 0.5, 1, 1.5]
    grid = _product(logs, logs, exponents, exponents, exponents, breaks, breaks, breaks, [-1, -0.5, 0, 0.5, 1])
    c1, f1 = (np.where(column == 0, _INSTEAD_OF_ZERO, column) for column in (grid[:, 6], grid[:, 7]))
    log_k = np.log(c1) + np.log(f1) - grid[:, 8] / f1
    return np.column_stack([grid[:, :6], log_k, np.log(f1), np.full(len(grid), np.log(PUBLISHED_C1))])


def _product(*levels: list[float]) -> Array:
    return np.stack(np.meshgrid(*levels, indexing="ij"), axis=-1).reshape(-1, len(levels)).astype(np.float64)


Work = Callable[[int, threading.Event], Minimum]
"""Computes the block of that number; polls the event and raises StoppedError once it is set."""


class StoppedError(Exception):
    """The work was interrupted between two parts of a block."""


class Journal:
    """A file of JSON lines, one per finished block. Blocks of other data or options are ignored.

    Without a path nothing is stored.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self._path = path
        self._blocks: dict[str, Minimum] = {}
        if path is not None and path.is_file():
            self._read(path, key)
        if path is not None and not self._blocks:
            self._append({"key": key}, "w")

    def __len__(self) -> int:
        return len(self._blocks)

    def get(self, name: str) -> Minimum | None:
        """Return the block of that name, None if it is not finished."""
        return self._blocks.get(name)

    def put(self, name: str, block: Minimum) -> None:
        """Store a finished block. Raises FractionateError where the file cannot be written."""
        self._blocks[name] = block
        if self._path is not None:
            self._append({"block": name, "theta": block.theta.tolist(), "loss": block.loss.tolist()}, "a")

    def discard(self) -> None:
        """Remove the file: the work is done."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _append(self, record: dict[str, object], mode: str) -> None:
        assert self._path is not None
        try:
            with self._path.open(mode, encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise FractionateError(
                f"{self._path} cannot be written ({error.strerror or error}): name another place with --state, or "
                f"'none'"
            ) from None

    def _read(self, path: Path, key: str) -> None:
        # A killed process may leave half a line. A line that cannot be read is computed again.
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or [json.dumps({"key": ""})]
        for number, line in enumerate(lines):
            try:
                record = json.loads(line)
                if number == 0 and record["key"] != key:
                    return  # other data or options: the file is overwritten
                if number:
                    theta, loss = np.array(record["theta"], float), np.array(record["loss"], float)
                    self._blocks[record["block"]] = Minimum(theta, loss)
            except (ValueError, KeyError, TypeError):
                if number == 0:
                    raise UsageError(
                        f"{path} exists already and holds no blocks of a fit: name another file with --state"
                    ) from None


def digest(*parts: object) -> str:
    """Return a key of data and options: arrays by their bytes, everything else by its text."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.tobytes() if isinstance(part, np.ndarray) else str(part).encode())
        whole.update(b"\0")
    return whole.hexdigest()


def run_blocks(
    name: str, count: int, work: Work, journal: Journal, say: Callable[[str], None], workers: int | None = None
) -> list[Minimum]:
    """Compute the blocks that the journal lacks, and return all `count` of them in order.

    NumPy releases the interpreter lock while it computes, so threads use all cores. Ctrl-C keeps every finished block.
    """
    done: list[Minimum | None] = [journal.get(f"{name} {number}") for number in range(count)]
    missing = [number for number in range(count) if done[number] is None]
    if len(missing) < count and missing:
        say(f"{name}: {count - len(missing)} of {count} parts were done before")
    stop = threading.Event()
    executor = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        running: dict[Future[Minimum], int] = {executor.submit(work, number, stop): number for number in missing}
        while running:
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                number = running.pop(future)
                block = future.result()
                done[number] = block
                journal.put(f"{name} {number}", block)
            say(f"{name}: {count - len(running)} of {count} parts")
    finally:
        stop.set()
        executor.shutdown(wait=True, cancel_futures=True)
    return [block for block in done if block is not None]
