"""The tasks of a training run: batches of tensors by sample number, models by name, ceilings, settings, results."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol

from fractionate.errors import UsageError

Tensor = Any
_BLOCK = {"cpu": 512, "gpu": 8192}
TEACH = ("none", "divide", "solve", "both")


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors on the run's device: images (n, side, side) of uint8, labels (n,) of int64, hints if there are any."""

    images: Tensor
    labels: Tensor
    hints: Tensor | None = None


class Task(Protocol):
    """A testbed as a stream of samples."""

    @property
    def name(self) -> str:
        """The digest that distinguishes its samples from those of other tasks."""
        ...

    @property
    def models(self) -> tuple[str, ...]:
        """The names of models that it can be learnt with."""
        ...

    def batch(self, split: str, start: int, count: int, device: str) -> Batch:
        """Return samples start … start + count − 1 of a split."""
        ...

    def model(self, name: str, **options: Any) -> Any:
        """Return an untrained model."""
        ...

    def ceilings(self) -> dict[str, Fraction]:
        """Return the Bayes ceilings by what is known."""
        ...


class AllPairsTask:
    """All-Pairs k-m."""

    models = ("type-net", "resnet-18", "resnet-34")

    def __init__(self, pairs: int, types: int, seed: int = 0, side: int | None = None) -> None:
        from fractionate.testbeds.allpairs.generator import AllPairs

        self._settings = {"pairs": pairs, "types": types, "seed": seed, "side": AllPairs(pairs, types, side=side).side}
        self.name = "allpairs " + " ".join(f"{key}={value}" for key, value in self._settings.items())
        self._streams: dict[tuple[str, str], _Stream] = {}

    def batch(self, split: str, start: int, count: int, device: str) -> Batch:
        """Return samples start … start + count − 1 of a split, made on the device (NumPy where that is the CPU)."""
        from fractionate.testbeds.allpairs.generator import AllPairs

        if (split, device) not in self._streams:
            self._streams[split, device] = _Stream(
                AllPairs(**self._settings, split=split, device=_maker(device)), ("images", "labels"), device
            )
        return Batch(*self._streams[split, device].take(start, count))

    def model(self, name: str, **options: Any) -> Any:
        """Return an untrained model."""
        from fractionate.testbeds.allpairs.models import ResNet, TypeNet

        builders = {"type-net": TypeNet, "resnet-18": lambda: ResNet(18), "resnet-34": lambda: ResNet(34)}
        return _built(name, builders, options)

    def ceilings(self) -> dict[str, Fraction]:
        """Return the Bayes ceilings by what is known."""
        from fractionate.testbeds.ceilings import allpairs_ceilings

        return allpairs_ceilings(int(self._settings["pairs"]), int(self._settings["types"]))


class PentominoTask:
    """Knowledge Matters."""

    models = ("block-types", "conv-types", "two-tier", "mlp")

    def __init__(self, seed: int = 0) -> None:
        self.seed, self.name = seed, f"pentomino seed={seed}"
        self._streams: dict[tuple[str, str], _Stream] = {}

    def batch(self, split: str, start: int, count: int, device: str) -> Batch:
        """Return samples start … start + count − 1 of a split, made on the device (NumPy where that is the CPU)."""
        from fractionate.testbeds.pentomino.generator import Pentomino

        if (split, device) not in self._streams:
            self._streams[split, device] = _Stream(
                Pentomino(self.seed, split, device=_maker(device)), ("images", "labels", "hints"), device
            )
        return Batch(*self._streams[split, device].take(start, count))

    def model(self, name: str, **options: Any) -> Any:
        """Return an untrained model."""
        from fractionate.testbeds.pentomino import nets

        builders = {
            "block-types": nets.BlockTypes,
            "conv-types": nets.ConvTypes,
            "two-tier": nets.TwoTier,
            "mlp": nets.PixelMLP,
        }
        return _built(name, builders, options)

    def ceilings(self) -> dict[str, Fraction]:
        """Return the Bayes ceilings by what is known."""
        from fractionate.testbeds.ceilings import pentomino_ceilings

        return pentomino_ceilings()


class _Stream:
    """A generator's samples as tensors, made a block at a time: a batch alone would be too few to keep a GPU busy."""

    def __init__(self, source: Any, fields: tuple[str, ...], device: str) -> None:
        self._source, self._fields = source, fields
        self._block = _BLOCK["cpu" if device == "cpu" else "gpu"]
        self._held: tuple[int, list[Tensor]] | None = None

    def take(self, start: int, count: int) -> list[Tensor]:
        """Return the fields of samples start … start + count − 1; a sample is the same in whatever block."""
        import torch

        parts = []
        while count:
            number, skip = divmod(start, self._block)
            some = min(count, self._block - skip)
            if self._held is None or self._held[0] != number:
                made = self._source.take(number * self._block, self._block)
                self._held = number, [torch.as_tensor(getattr(made, field)) for field in self._fields]
            parts.append([tensor[skip : skip + some] for tensor in self._held[1]])
            start, count = start + some, count - some
        return [torch.cat(list(tensors)) for tensors in zip(*parts, strict=True)] if len(parts) > 1 else parts[0]


def _built(name: str, builders: dict[str, Any], options: dict[str, Any]) -> Any:
    if name not in builders:
        raise UsageError(f"unknown model {name!r}: choose one of {', '.join(builders)}")
    try:
        return builders[name](**options)
    except TypeError:
        raise UsageError(f"model {name!r} does not take all of the options {', '.join(sorted(options))}") from None


def _maker(device: str) -> str | None:
    return None if device == "cpu" else device


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
    """The part that hints teach: none, divide, solve or both."""
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
    """The result of a run. Accuracies are in [0, 1] with Wilson's 95 % interval over test samples."""

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
