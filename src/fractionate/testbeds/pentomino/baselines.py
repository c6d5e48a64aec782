"""The published comparison on Knowledge Matters: what off-the-shelf learners make of the same pixels.

The figures are test errors of arXiv 1301.4083 as far as they could be had; the rest of its table lies at 45 to 50 %.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fractionate.errors import UsageError, missing_extra
from fractionate.testbeds.pentomino.generator import TEST_SIZE, TRAIN_SIZES, Pentomino
from fractionate.testbeds.training import wilson

PUBLISHED_ERROR = {
    ("two-tier", "none"): {20_000: 0.486, 40_000: 0.360, 80_000: 0.124},
    ("two-tier", "divide"): {20_000: 0.307, 40_000: 0.031, 80_000: 0.0001},
}
"""Test error of the structured network without and with hints, by training images."""

PUBLISHED_OTHERS = (0.45, 0.50)
"""Where SVM, nearest neighbours, trees and plain networks are reported."""

LEARNERS: dict[str, Callable[[int], Any]] = {
    "svm-rbf": lambda seed: _sklearn("svm", "SVC", kernel="rbf", cache_size=2000),
    "svm-linear": lambda seed: _sklearn("svm", "LinearSVC", C=1e-3, random_state=seed),
    "knn": lambda seed: _sklearn("neighbors", "KNeighborsClassifier", n_neighbors=5, algorithm="brute"),
    "tree": lambda seed: _sklearn("tree", "DecisionTreeClassifier", random_state=seed),
    "forest": lambda seed: _sklearn(
        "ensemble", "RandomForestClassifier", n_estimators=100, random_state=seed, n_jobs=1
    ),
}


@dataclass(frozen=True, slots=True)
class Baseline:
    """A learner's test error in [0, 1] with Wilson's 95 % interval over the test images, and seconds of CPU time."""

    learner: str
    train_size: int
    test_size: int
    error: float
    ci_low: float
    ci_high: float
    fit_s: float
    test_s: float


def run_baseline(learner: str, train_size: int, test_size: int = TEST_SIZE, seed: int = 0) -> Baseline:
    """Fit a learner of scikit-learn on the first `train_size` training images and measure it on test images."""
    if learner not in LEARNERS:
        raise UsageError(f"unknown learner {learner!r}: choose one of {', '.join(LEARNERS)}")
    if importlib.util.find_spec("sklearn") is None:
        raise missing_extra("scikit-learn", "testbeds", "the published comparison")
    train, test = Pentomino(seed, "train").take(0, train_size), Pentomino(seed, "test").take(0, test_size)
    model = LEARNERS[learner](seed)
    started = time.process_time()
    model.fit(_pixels(train), train.labels)
    fitted = time.process_time()
    error = float((model.predict(_pixels(test)) != test.labels).mean())
    low, high = wilson(error, test_size)
    return Baseline(learner, train_size, test_size, error, low, high, fitted - started, time.process_time() - fitted)


def _pixels(batch: Any) -> Any:
    # Under one pixel in a hundred is lit: sparse rows make the same fits many times faster.
    from scipy.sparse import csr_matrix

    return csr_matrix(batch.images.reshape(len(batch.images), -1).astype("float32"))


def _sklearn(module: str, name: str, **options: Any) -> Any:
    from importlib import import_module

    return getattr(import_module(f"sklearn.{module}"), name)(**options)


__all__ = ["LEARNERS", "PUBLISHED_ERROR", "PUBLISHED_OTHERS", "TRAIN_SIZES", "Baseline", "run_baseline"]
