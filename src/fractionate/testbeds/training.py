"""Train a model on a testbed: an endless stream or a fixed set, checkpoints, exact resume, honest final figures.

A run's folder holds `settings.json`, `curve.csv` (one row per look at the validation samples), `checkpoint.pt` until
the run is complete, then `model.pt` and `result.json`. Which samples a step sees follows from its number alone, so a
run that was cut off goes on exactly where its checkpoint left it. On the CPU, equal settings and threads give equal
weights.

Accuracies are of samples that are never trained on: the curve's of the split "validation", the final one of the split
"test", which is looked at once, after the last step. Nothing is chosen by either, save that `stop_at` ends a run by its
validation accuracy.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fractionate.errors import FractionateError, UsageError, missing_extra
from fractionate.files import write_text
from fractionate.testbeds.ceilings import stage
from fractionate.testbeds.tasks import PRECISIONS, TEACH, Batch, Task, TrainResult, TrainSettings

Say = Callable[[str], None]
Tensor = Any


def train(task: Task, settings: TrainSettings, out: Path, say: Say = lambda line: None) -> TrainResult:
    """Train as settings say, in the folder `out`, or go on with what is there; a complete run is only read.

    `say` is told how far it is, now and then. Raises UsageError for settings that cannot be and for a folder that holds
    another run, FractionateError where the loss is no number or a file cannot be written.
    """
    _check(task, settings)
    run = _Run(task, settings, out, say)
    if (out / "result.json").is_file():
        say(f"{out} holds the complete run")
        return TrainResult(**json.loads((out / "result.json").read_text(encoding="utf-8")))
    run.resume()
    with _interrupt_between_steps() as interrupted:
        run.train(interrupted)
    return run.finish()


@contextmanager
def _interrupt_between_steps() -> Iterator[Callable[[], bool]]:
    """Delay Ctrl-C until the end of a step, so that a checkpoint never holds half a step."""
    came = False

    def note(*_: object) -> None:
        nonlocal came
        came = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, before)


def _check(task: Task, settings: TrainSettings) -> None:
    if importlib.util.find_spec("torch") is None:
        raise missing_extra("torch", "testbeds", "training on a testbed")
    for name in ("samples", "batch", "validate_every", "validation", "test"):
        if getattr(settings, name) < 1:
            raise UsageError(f"{name} must be 1 or more, not {getattr(settings, name)}")
    if settings.model not in task.models:
        raise UsageError(f"unknown model {settings.model!r}: choose one of {', '.join(task.models)}")
    if settings.teach not in TEACH:
        raise UsageError(f"teach must be one of {', '.join(TEACH)}, not {settings.teach!r}")
    if settings.precision not in PRECISIONS:
        raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}, not {settings.precision!r}")
    if not 0 <= settings.decay <= 1:
        raise UsageError(f"decay must be in [0, 1], not {settings.decay}")
    if settings.device.partition(":")[0] == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UsageError(
                f"device {settings.device!r} is not there: torch sees no GPU; leave --device out for the CPU"
            )


class _Run:
    """One run under way."""

    def __init__(self, task: Task, settings: TrainSettings, out: Path, say: Say) -> None:
        import torch

        self._torch, self._task, self._settings, self._out, self._say = torch, task, settings, out, say
        self._plan = _plan(task, settings)
        self._claim_folder()
        if settings.threads:
            torch.set_num_threads(settings.threads)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            model = task.model(settings.model, **settings.model_options)
        if settings.teach != "none" and not hasattr(model, "loss"):
            raise UsageError(f"model {settings.model!r} cannot be taught by hints: give --teach none")
        self._model = model.to(settings.device)
        if settings.channels_last:
            self._model = self._model.to(memory_format=torch.channels_last)
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=settings.learning_rate)
        self._forward = torch.compile(self._model) if settings.compile else self._model
        self._step = 0
        self._curve: list[dict[str, float]] = []
        # Steps, loss and right answers since the last look.
        self._since_check = torch.zeros(3, dtype=torch.float64, device=settings.device)
        self._spent, self._cpu_spent = 0.0, 0.0
        self._fixed: Batch | None = None
        self._order: tuple[int, Tensor] | None = None

    # ------------------------------------------------------------ the loop

    def train(self, interrupted: Callable[[], bool]) -> None:
        """Take the steps that are left. Raises KeyboardInterrupt, with all kept, once `interrupted` says so."""
        settings = self._settings
        self._start_clock()
        said = saved = time.monotonic()
        while self._step * settings.batch < settings.samples and not self._stops():
            self._take_step()
            self._step += 1
            samples = self._step * settings.batch
            if samples // settings.validate_every > (samples - settings.batch) // settings.validate_every:
                self._look()
            now = time.monotonic()
            if now - said > 10:
                said = now
                speed = samples / max(self._elapsed(), 1e-9)
                loss = self._mean_loss()
                self._say(f"{samples:,} of {settings.samples:,} samples, {speed:,.0f} per second, loss {loss:.4f}")
            if now - saved > settings.checkpoint_s or interrupted():
                saved = now
                self.checkpoint()
            if interrupted():
                raise KeyboardInterrupt

    def _take_step(self) -> None:
        torch, settings = self._torch, self._settings
        for group in self._optimizer.param_groups:
            group["lr"] = settings.learning_rate * self._share()
        batch = self._training_batch()
        self._model.train()
        with torch.autocast(settings.device.partition(":")[0], torch.bfloat16, enabled=settings.precision == "bf16"):
            if settings.teach == "none":
                logits = self._forward(batch.images)
                loss = torch.nn.functional.cross_entropy(logits.float(), batch.labels)
            else:
                loss, logits = self._model.loss(batch.images, batch.labels, batch.hints, settings.teach)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        # Kept on the device: to read them here would make a GPU wait at every step.
        right = (logits.argmax(1) == batch.labels).sum()
        self._since_check += torch.stack([torch.ones_like(loss), loss.detach(), right]).double()

    def _mean_loss(self) -> float:
        """Return the mean loss since the last look at validation samples."""
        steps, loss, _ = self._since_check.tolist()
        if not math.isfinite(loss):
            raise FractionateError(f"the loss is {loss} after {self._step} steps: lower the learning rate")
        return float(loss / max(steps, 1))

    def _share(self) -> float:
        """Return the share of the learning rate that this step takes."""
        left = 1 - self._step * self._settings.batch / self._settings.samples
        return min(1.0, left / self._settings.decay) if self._settings.decay else 1.0

    def _training_batch(self) -> Batch:
        settings = self._settings
        start = self._step * settings.batch
        if not settings.train_size:
            return self._task.batch("train", start, settings.batch, settings.device)
        if self._fixed is None:
            self._fixed = self._task.batch("train", 0, settings.train_size, settings.device)
        # A batch may span two passes over the set.
        places, wanted = [], settings.batch
        while wanted:
            turn, place = divmod(start, settings.train_size)
            some = self._shuffled(turn)[place : place + wanted]
            places.append(some)
            start, wanted = start + len(some), wanted - len(some)
        chosen = self._torch.cat(places)
        hints = None if self._fixed.hints is None else self._fixed.hints[chosen]
        return Batch(self._fixed.images[chosen], self._fixed.labels[chosen], hints)

    def _shuffled(self, turn: int) -> Tensor:
        if self._order is None or self._order[0] != turn:
            generator = self._torch.Generator().manual_seed(1_000_003 * (self._settings.seed + 1) + turn)
            order = self._torch.randperm(self._settings.train_size, generator=generator)
            self._order = turn, order.to(self._settings.device)
        return self._order[1]

    def _look(self) -> None:
        loss = self._mean_loss()
        steps, _, right = self._since_check.tolist()
        accuracy = self._accuracy("validation", self._settings.validation)
        row = {
            "samples": self._step * self._settings.batch,
            "seconds": round(self._elapsed(), 2),
            "train_loss": loss,
            "train_accuracy": right / steps / self._settings.batch,
            "validation_accuracy": accuracy,
        }
        self._curve.append(row)
        self._since_check.zero_()
        low, high = wilson(accuracy, self._settings.validation)
        where = stage(self._task.ceilings(), low, high)
        self._say(f"{row['samples']:,} samples, {row['seconds']:.0f} s: validation accuracy {accuracy:.4f}, {where}")

    def _stops(self) -> bool:
        at, after = self._settings.stop_at, self._settings.stop_after_s
        if after is not None and self._elapsed() >= after:
            return True
        last = [row["validation_accuracy"] for row in self._curve[-2:]]
        return at is not None and len(last) == 2 and min(last) >= at

    def _accuracy(self, split: str, count: int) -> float:
        torch, settings = self._torch, self._settings
        self._measure_statistics()
        self._model.eval()
        right, size = 0, min(1000, max(settings.batch, 250))
        with (
            torch.no_grad(),
            torch.autocast(settings.device.partition(":")[0], torch.bfloat16, enabled=settings.precision == "bf16"),
        ):
            for start in range(0, count, size):
                batch = self._task.batch(split, start, min(size, count - start), settings.device)
                right += int((self._model(batch.images).argmax(1) == batch.labels).sum())
        return right / count

    def _measure_statistics(self) -> None:
        torch, settings = self._torch, self._settings
        norms = [part for part in self._model.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
        if not norms or not settings.statistics:
            return
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over all batches
        self._model.train()
        with torch.no_grad():
            for start in range(0, settings.statistics, settings.batch):
                self._model(self._task.batch("statistics", start, settings.batch, settings.device).images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    # ------------------------------------------------------------ what a run leaves

    def checkpoint(self) -> None:
        """Write weights, optimizer and curve, all or nothing."""
        state = {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self._step,
            "curve": self._curve,
            "stretch": self._since_check,
            "seconds": self._elapsed(),
            "cpu_seconds": self._cpu_elapsed(),
        }
        _save(state, self._out / "checkpoint.pt")

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        path = self._out / "checkpoint.pt"
        if not path.is_file():
            return
        state = self._torch.load(path, map_location=self._settings.device, weights_only=True)
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._step, self._curve, self._since_check = state["step"], state["curve"], state["stretch"]
        self._spent, self._cpu_spent = state["seconds"], state["cpu_seconds"]
        self._say(f"going on at {self._step * self._settings.batch:,} samples")

    def finish(self) -> TrainResult:
        """Measure the test accuracy, write everything and return the result."""
        seconds, cpu_seconds = self._elapsed(), self._cpu_elapsed()
        accuracy = self._accuracy("test", self._settings.test)
        low, high = wilson(accuracy, self._settings.test)
        last = self._curve[-1]["validation_accuracy"] if self._curve else math.nan
        result = TrainResult(
            self._task.name,
            asdict(self._settings),
            sum(weights.numel() for weights in self._model.parameters()),
            self._step * self._settings.batch,
            accuracy,
            low,
            high,
            self._settings.test,
            stage(self._task.ceilings(), low, high),
            last,
            round(seconds, 2),
            round(cpu_seconds, 2),
        )
        _save(self._model.state_dict(), self._out / "model.pt")
        write_text(_csv(self._curve), self._out / "curve.csv")
        write_text(json.dumps(asdict(result), indent=2) + "\n", self._out / "result.json")
        (self._out / "checkpoint.pt").unlink(missing_ok=True)
        return result

    def _claim_folder(self) -> None:
        note = self._out / "settings.json"
        if note.is_file():
            found = json.loads(note.read_text(encoding="utf-8"))
            if found["plan"] != self._plan:
                raise UsageError(f"{self._out} holds a run with other settings: give another --out, or remove it")
            return
        write_text(
            json.dumps({"plan": self._plan, "task": self._task.name, **asdict(self._settings)}, indent=2) + "\n", note
        )

    def _start_clock(self) -> None:
        self._started, self._cpu_started = time.monotonic(), time.process_time()

    def _elapsed(self) -> float:
        return self._spent + (time.monotonic() - self._started if hasattr(self, "_started") else 0.0)

    def _cpu_elapsed(self) -> float:
        return self._cpu_spent + (time.process_time() - self._cpu_started if hasattr(self, "_cpu_started") else 0.0)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of `count` independent samples."""
    z = 1.959963984540054
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def _plan(task: Task, settings: TrainSettings) -> str:
    """Return what must be equal for a run to go on: all settings but how often it says or saves something."""
    kept = {key: value for key, value in asdict(settings).items() if key not in ("checkpoint_s", "threads")}
    if settings.stop_after_s is None:
        del kept["stop_after_s"]  # so that runs begun before there was such a setting go on
    return hashlib.sha256(json.dumps([task.name, kept], sort_keys=True).encode()).hexdigest()


def _csv(rows: list[dict[str, float]]) -> str:
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _save(state: Any, path: Path) -> None:
    import torch

    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:  # named by path, the archive would hold that name
            torch.save(state, file)
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:
        beside.unlink(missing_ok=True)
        raise FractionateError(f"{path} cannot be written: {error}") from None
