"""What a training run is told, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PRECISIONS = ("float32", "bf16")


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How to train. Counts are of samples unless they say otherwise."""

    model: str
    model_options: dict[str, Any] = field(default_factory=dict)
    samples: int = 1_000_000
    """Samples to train on, those of a fixed set as often as they are seen."""
    train_size: int = 0
    """Samples of the fixed training set, reshuffled each time it is through; 0 draws new samples without end."""
    batch: int = 400
    learning_rate: float = 1e-3
    decay: float = 0.0
    """The last share of the run in which the learning rate falls linearly to zero."""
    teach: str = "none"
    """Which part the hints teach: none, divide, solve or both."""
    seed: int = 0
    """Of the initial weights and the shuffling; the task has its own."""
    validate_every: int = 50_000
    validation: int = 5_000
    test: int = 20_000
    statistics: int = 2_000
    """Unlabelled samples of their own on which batch normalisation is measured anew before each look; 0 keeps the
    running averages, which lag behind in short runs (the release looks with those)."""
    stop_at: float | None = None
    """Stop once the validation accuracy has been this high twice in a row."""
    stop_after_s: float | None = None
    """Stop after so many seconds of training and looking, over all parts of the run."""
    device: str = "cpu"
    precision: str = "float32"
    channels_last: bool = False
    compile: bool = False
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""
    checkpoint_s: float = 30.0


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run came to. Accuracies are in [0, 1] with Wilson's 95 % interval over test samples."""

    task: str
    settings: dict[str, Any]
    parameters: int
    samples: int
    accuracy: float
    ci_low: float
    ci_high: float
    n: int
    stage: str
    validation_accuracy: float
    seconds: float
    """Wall time of training and of looking at validation samples, over all parts of the run."""
    cpu_seconds: float
