"""One training of a student, from its beginning or from a checkpoint. The only file that knows TRL."""

from __future__ import annotations

import contextlib
import math
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fractionate.config import TrainConfig
from fractionate.errors import FractionateError
from fractionate.models.local.model import best_device, load_model, load_tokenizer, unload
from fractionate.models.local.weights import Weights, base_shapes, quiet_transformers
from fractionate.students.batching import (
    Batcher,
    PackedBatcher,
    PassageSampler,
    adjacent_examples,
    batcher_for,
    length_sampler,
)
from fractionate.students.checkpoints import (
    Checkpoints,
    DevLoss,
    DevSplit,
    TrainingDivergedError,
    best_of,
    dev_loss,
    steps_of,
)
from fractionate.students.group import ALONE, Group, ShardedBatches
from fractionate.students.settings import base_loading, hold_trained_in_fp32, multiplies_in_bf16
from fractionate.students.training_data import IGNORED, TrainingRows

CHECKPOINT_STEPS = {"lora": 20, "full": 200}
"""Optimizer steps between checkpoints; a full one writes three times the weights, so it is rarer."""
CHECKPOINTS_KEPT = {"lora": 2, "full": 1}
"""Checkpoints on the disk at a time: where one is damaged, the one before it is gone on from."""

OnStep = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """The report of one training. `left_out` counts examples that were too long.

    `tokens` and `trained_tokens` (those that bear loss) are of one pass over the examples; losses are in nats a trained
    token, of the first and the last step; `seconds` is wall time in all processes that worked on it, `peak_rss_mb` the
    last one's peak memory, `peak_gpu_mb` that of its tensors on a GPU (0 without one). `parameters` counts the base's.
    With a dev split of `dev_examples`, `dev_losses` were measured on the way and the student is that of `best_step`;
    `steps` are fewer than `planned_steps` where training stopped early.
    """

    examples: int
    left_out: int
    tokens: int
    trained_tokens: int
    steps: int
    loss_first: float
    loss_last: float
    seconds: float
    peak_rss_mb: float
    base: str
    base_fingerprint: str
    data_digest: str
    seed: int
    settings: dict[str, Any]
    parameters: int = 0
    planned_steps: int = 0
    best_step: int = 0
    dev_examples: int = 0
    dev_losses: tuple[DevLoss, ...] = ()
    peak_gpu_mb: float = 0.0


class Training:
    """One training, from its beginning or from where it was cut off; in each process of a group its part of one."""

    def __init__(
        self,
        weights: Weights,
        rows: TrainingRows,
        settings: TrainConfig,
        seed: int,
        trust: bool,
        on_step: OnStep | None,
        dev: DevSplit | None = None,
        group: Group = ALONE,
    ) -> None:
        self.weights = weights
        self.rows = rows
        self.settings = settings
        self.seed = seed
        self.trust = trust
        self.on_step = on_step
        self.dev = dev
        self.group = group
        self.losses: list[float] = []
        self.dev_losses: list[DevLoss] = []
        self.begun = False
        self.started = time.perf_counter()

    def resume(self, checkpoints: Checkpoints) -> tuple[TrainingReport, Any]:
        """Train from the last checkpoint that can be gone on from to the end; returns the report and the trainer."""
        self.started = time.perf_counter()
        unload()  # models that answered before would only take memory that training needs
        _forget_gpu_peak()
        while True:
            checkpoint = checkpoints.last()
            try:
                trainer = self._train(checkpoints, checkpoint)
                break
            except Exception:
                # Whole, and yet it cannot be loaded: another version of a library wrote it, say.
                if checkpoint is None or self.begun:
                    raise
                checkpoints.set_aside(checkpoint)
                if self.group.size > 1:
                    raise  # others may have loaded it: all are to be started again
        if not all(map(math.isfinite, self.losses)):
            raise TrainingDivergedError
        return self._report(trainer), trainer

    @property
    def seconds(self) -> float:
        """Return the seconds of training so far, those of processes that were cut off included."""
        return time.perf_counter() - self.started

    def _train(self, checkpoints: Checkpoints, checkpoint: Path | None) -> Any:
        from transformers import PrinterCallback, set_seed

        from datasets import Dataset

        self.losses[:] = checkpoints.losses(checkpoint) if checkpoint else []
        self.started -= checkpoints.seconds(checkpoint) if checkpoint else 0.0
        self.dev_losses[:] = checkpoints.dev_losses(checkpoint) if checkpoint else []
        with quiet(), _clear_errors(checkpoints.folder):
            set_seed(self.seed)
            tokenizer = load_tokenizer(self.weights.folder(), self.trust)
            device = best_device("")
            model = load_model(self.weights, device, trust=self.trust, loading=base_loading(self.settings, device))
            batcher = batcher_for(model, tokenizer, [self.rows, *([self.dev.rows] if self.dev else [])], self.settings)
            trainer = _student_trainer(self, batcher)(
                model=model,
                args=_arguments(checkpoints.folder, self, model.device.type),
                data_collator=_collate(batcher, self.rows.rows[:1]),
                train_dataset=Dataset.from_list(self.rows.rows),
                processing_class=tokenizer,
                peft_config=_lora(self.settings) if self.settings.method == "lora" else None,
            )
            if self.settings.method == "lora":
                trainer.model.create_or_update_model_card = lambda *_: None  # `training.json` says it
            if self.settings.base_bits == 4:
                hold_trained_in_fp32(trainer.model)
            # Steps are reported by `on_step`, and standard output is for results.
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(_callback(self, checkpoints, batcher))
            if not (self.dev and self.dev.stops(self.dev_losses)):  # else it was cut off after it had stopped early
                with batcher.prepared(model):
                    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            if self.dev and self.group.first:
                trainer._load_from_checkpoint(str(checkpoints.of_step(best_of(self.dev_losses).step)))
        return trainer

    def _report(self, trainer: Any) -> TrainingReport:
        return TrainingReport(
            examples=len(self.rows.rows),
            left_out=self.rows.left_out,
            tokens=self.rows.tokens,
            trained_tokens=self.rows.trained_tokens,
            steps=len(self.losses),
            loss_first=self.losses[0] if self.losses else 0.0,
            loss_last=self.losses[-1] if self.losses else 0.0,
            seconds=self.seconds,
            peak_rss_mb=_peak_rss_mb(),
            base=self.weights.name,
            base_fingerprint=self.weights.fingerprint,
            data_digest=self.rows.digest,
            seed=self.seed,
            settings=self.settings.decisive(with_dev=self.dev is not None),
            parameters=sum(math.prod(shape) for shape in base_shapes(self.weights)),
            planned_steps=steps_of(len(self.rows.rows), self.settings),
            best_step=best_of(self.dev_losses).step if self.dev else len(self.losses),
            dev_examples=len(self.dev.rows.rows) if self.dev else 0,
            dev_losses=tuple(self.dev_losses),
            peak_gpu_mb=_peak_gpu_mb(),
        )

    def measure_dev_loss(self, model: Any, batcher: Batcher, step: int) -> bool:
        """Measure the loss on the dev split after a step at which it is due. Returns whether it was."""
        if self.dev is None or step not in self.dev.steps:
            return False
        loss = dev_loss(model, self.dev.rows, batcher, self.group)
        if not math.isfinite(loss):
            raise TrainingDivergedError
        self.dev_losses.append(DevLoss(step, loss))
        return True


def _callback(training: Training, checkpoints: Checkpoints, batcher: Batcher) -> Any:
    """Return the callback that starts the clock, marks checkpoints as complete and keeps the best one.

    Every measurement on the dev split is saved at once: a checkpoint is all that has to be kept of the best step.
    """
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]  # transformers is not followed: to mypy its class is Any
        def on_train_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            training.begun = True
            self._protect_best(state)

        def on_step_end(self, _: Any, state: Any, control: Any, *, model: Any, **__: Any) -> None:
            if training.measure_dev_loss(model, batcher, int(state.global_step)):
                assert training.dev is not None
                self._protect_best(state)
                control.should_save = True
                control.should_training_stop |= training.dev.stops(training.dev_losses)

        def on_save(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            checkpoints.mark_complete(
                checkpoints.of_step(state.global_step), training.losses, training.dev_losses, training.seconds
            )

        def _protect_best(self, state: Any) -> None:
            """Name the best checkpoint so that it is not deleted to make room for later ones."""
            best = best_of(training.dev_losses) if training.dev_losses else None
            state.best_model_checkpoint = str(checkpoints.of_step(best.step)) if best else None

    return Watch()


def _collate(batcher: Batcher, stand_in: list[dict[str, Any]]) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """Return what makes a step's examples into `parts` to read, and `labels`, by which the trainer counts targets.

    A process that has no example in a step reads a stand-in, of which nothing counts: it has to take the step too.
    """

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        targets = [label for row in rows for label in row["labels"] if label != IGNORED]
        return {"parts": batcher.parts(rows or stand_in), "labels": torch.tensor([IGNORED, *targets])}

    return collate


def _student_trainer(training: Training, batcher: Batcher) -> type[Any]:
    """Return TRL's SFTTrainer with four changes.

    A step is read in parts, in which logits are computed for targets only; every step is reported; the order of the
    examples depends on the seed and on how many passes there were alone; and a group takes the batches of one process.
    """
    from torch.utils.data import DataLoader
    from trl import SFTTrainer

    settings, group = training.settings, training.group

    class StudentTrainer(SFTTrainer):  # type: ignore[misc]  # TRL is not followed: to mypy its class is Any
        def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
            model.train()
            inputs = self._prepare_inputs(inputs)
            counts, parts, loss = float(len(inputs["labels"]) > 1), inputs["parts"], 0.0
            for number, part in enumerate(parts, 1):
                # A group's gradients are averaged on the way back from the last part.
                alone = self.accelerator.no_sync(model) if number < len(parts) else contextlib.nullcontext()
                with alone:
                    with self.compute_loss_context_manager():
                        total, _ = batcher.loss(model, part)
                    # The loss of a step is summed over its parts: each is divided by the targets of the whole step.
                    mean = total * counts / num_items_in_batch
                    self.accelerator.backward(mean * group.size)
                loss += float(mean.detach())
            [loss] = group.sum(loss)
            training.losses.append(loss)
            if training.on_step is not None:
                training.on_step(int(self.state.global_step) + 1, int(self.state.max_steps), loss)
            return mean.new_tensor(loss)

        def get_train_dataloader(self) -> Any:
            if group.size == 1:
                return super().get_train_dataloader()
            shares = ShardedBatches(self._get_train_sampler(), settings.batch_size, group)
            return DataLoader(training.rows.rows, batch_sampler=shares, collate_fn=self.data_collator)

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            if isinstance(batcher, PackedBatcher):
                return PassageSampler(training.rows.rows, training.seed, adjacent_examples(settings.batch_size))
            return length_sampler(training.rows.rows, training.seed, settings.batch_size)

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Write none: `training.json` says it."""

    return StudentTrainer


def _arguments(folder: Path, training: Training, device: str) -> Any:
    from trl import SFTConfig

    settings, seed = training.settings, training.seed
    # Without that, what is kept for the way back would be computed anew in another way than on the way there.
    anew = {"use_reentrant": False} if settings.gradient_checkpointing else None
    kept = CHECKPOINTS_KEPT[settings.method] + (training.dev is not None)  # and the best
    arguments = SFTConfig(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.share,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0.05,
        weight_decay=0.0,
        max_length=None,
        gradient_checkpointing=settings.gradient_checkpointing,
        gradient_checkpointing_kwargs=anew,
        bf16=multiplies_in_bf16(settings, device),
        use_cpu=device == "cpu",
        seed=seed,
        data_seed=seed,
        save_strategy="steps",
        save_steps=CHECKPOINT_STEPS[settings.method],
        save_total_limit=kept,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # a process trains on one GPU; more of them take a worker each
    return arguments


def _lora(settings: TrainConfig) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=2 * settings.lora_rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


@contextlib.contextmanager
def _clear_errors(folder: Path) -> Iterator[None]:
    """Turn what a full disk or too little memory makes of a training into one line; checkpoints are kept."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        fix = "lower train.batch_size or train.max_length, or take a smaller base"
        raise FractionateError(f"training does not fit the GPU's memory: {fix}") from None
    except (OSError, RuntimeError) as error:
        words = " ".join(str(error).split())
        if isinstance(error, OSError) or "PytorchStreamWriter" in words or "inline_container" in words:
            raise FractionateError(
                f"cannot write to {folder}: {words[:200]}: free some room and run the same command again to go on"
            ) from None
        raise


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back the notes and progress bars of four libraries; what goes wrong is raised, and steps are reported."""
    from datasets.utils import disable_progress_bars

    disable_progress_bars()
    with warnings.catch_warnings(), quiet_transformers():
        warnings.simplefilter("ignore")
        yield


def _forget_gpu_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_gpu_mb() -> float:
    import torch

    return torch.cuda.max_memory_allocated() / (1 << 20) if torch.cuda.is_available() else 0.0


def _peak_rss_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / (1 << 10)
