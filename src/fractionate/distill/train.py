"""Train a student on examples: LoRA or full supervised fine-tuning. The only file that knows TRL."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib.util
import json
import math
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fractionate.config import TrainConfig
from fractionate.distill.training_data import IGNORED, Collator, TrainingRows, training_rows
from fractionate.errors import FractionateError, UsageError, missing_extra
from fractionate.models.local.model import best_device, load_model, load_tokenizer, unload
from fractionate.models.local.weights import Weights, quiet_transformers, resolve, tensor_shapes
from fractionate.types import Example

CHECKPOINT_STEPS = {"lora": 20, "full": 200}
"""Optimizer steps between checkpoints; a full one writes three times the weights, so it is rarer."""

MICRO_BATCH_TOKENS = {"cpu": 600, "cuda": 16_000}
"""Tokens read at once on the way to a step, by device: activations of SmolLM2-135M take about 1.5 MB a token, and a CPU
is no faster on more (steps of 1,700 tokens took as long read in parts of 550 as whole, in 2.3 instead of 5.7 GB)."""

OnStep = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What was trained, on what, and what it took. `left_out` counts examples that were too long.

    `tokens` and `trained_tokens` (those that bear loss) are of one pass over the examples; losses are in nats a trained
    token, of the first and the last step; `seconds` is wall time of this process's part, `peak_rss_mb` its peak memory.
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


def train_student(
    base: str,
    examples: Sequence[Example],
    out: Path,
    settings: TrainConfig | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> TrainingReport:
    """Train a student of `base` (`local:HUB_ID_OR_PATH`) and write it to the folder `out`, with a `training.json`.

    `out` appears only when training is complete: an adapter (method "lora": name it `BASE@OUT`) or a whole model
    ("full": `local:OUT`). Until then checkpoints lie in `OUT.partial`, from which the same call goes on; the result is
    the same as of an uninterrupted run. On the CPU, equal inputs and seed give equal bytes. `on_step(step, steps,
    loss)` is called after every optimizer step (step from 1); what it raises stops training.

    Raises UsageError for a base or examples that cannot be trained on, FractionateError if the work itself fails.
    """
    settings = settings or TrainConfig()
    weights, rows = _prepare(base, examples, settings)
    partial = out.with_name(out.name + ".partial")
    checkpoint = _resumable(partial, _plan_digest(weights, rows, settings, seed))
    report, trainer = _train(weights, rows, partial, settings, seed, on_step, checkpoint)
    _write(trainer, weights, report, out)
    del trainer
    gc.collect()  # a trainer and its model point at each other: a gigabyte would stay until chance collects it
    shutil.rmtree(partial, ignore_errors=True)
    return report


def estimate(base: str, examples: Sequence[Example], settings: TrainConfig | None = None) -> dict[str, int]:
    """Return what training would take: examples, left_out, tokens (of all epochs), trained_tokens, steps, memory_bytes.

    Memory is an estimate from shapes, of the largest batch: weights, gradients and Adam's two moments of what is
    trained, activations kept for the backward pass, logits of the targets. Raises as `train_student` does.
    """
    settings = settings or TrainConfig()
    weights, rows = _prepare(base, examples, settings)
    steps = _steps(rows, settings)
    return {
        "examples": len(rows.rows),
        "left_out": rows.left_out,
        "tokens": round(rows.tokens * settings.epochs),
        "trained_tokens": round(rows.trained_tokens * settings.epochs),
        "steps": steps,
        "memory_bytes": _memory_bytes(weights, rows, settings),
    }


def dry_run(base: str, examples: Sequence[Example], settings: TrainConfig | None = None) -> dict[str, float]:
    """Take two real steps on the longest examples and keep nothing: fails now if training would fail later.

    Returns seconds_per_step, tokens_per_second (padding not counted) and peak_rss_mb.
    """
    settings = settings or TrainConfig()
    weights, rows = _prepare(base, examples, settings)
    longest = sorted(rows.rows, key=lambda row: -len(row["input_ids"]))[: 2 * settings.batch_size]
    few = TrainingRows(longest, rows.left_out, rows.digest)
    short = settings.model_copy(update={"epochs": 2.0 / math.ceil(len(longest) / settings.batch_size)})
    with tempfile.TemporaryDirectory(prefix="fractionate-dry-run-") as folder:
        report, trainer = _train(weights, few, Path(folder), short, 0, None, None)
        del trainer
        gc.collect()
    return {
        "seconds_per_step": report.seconds / report.steps,
        "tokens_per_second": few.tokens * short.epochs / report.seconds,
        "peak_rss_mb": report.peak_rss_mb,
    }


# ---------------------------------------------------------------- before


def _prepare(base: str, examples: Sequence[Example], settings: TrainConfig) -> tuple[Weights, TrainingRows]:
    for package in ("trl", "peft", "datasets", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package, "train", "training a student")
    weights = resolve(base)
    if weights.adapter is not None:
        raise UsageError(f"{base} has an adapter: a student is trained from a base model, so name that alone")
    used = examples[: settings.max_examples] if settings.max_examples else examples
    folder = weights.folder()
    return weights, training_rows(
        load_tokenizer(folder), used, settings.max_length, vocabulary=_config(folder).vocab_size
    )


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder).get_text_config(decoder=True)


def _steps(rows: TrainingRows, settings: TrainConfig) -> int:
    batches = math.ceil(len(rows.rows) / settings.batch_size)
    return max(1, math.ceil(batches * settings.epochs))


def _memory_bytes(weights: Weights, rows: TrainingRows, settings: TrainConfig) -> int:
    shapes = [shape for file in weights.folder().glob("*.safetensors") for shape in tensor_shapes(file).values()]
    total = sum(math.prod(shape) for shape in shapes)
    linear = [shape for shape in shapes if len(shape) == 2 and shape[0] < 8 * shape[1]]
    trained = total if settings.method == "full" else sum(settings.lora_rank * sum(shape) for shape in linear)
    config = _config(weights.folder())
    at_once = _micro_batch(rows, settings, best_device("").partition(":")[0])
    tokens = at_once * max(len(row["input_ids"]) for row in rows.rows)
    targets = at_once * max(sum(x != IGNORED for x in row["labels"]) for row in rows.rows)
    # Per layer and token: about 16 vectors as wide as the model and 4 as wide as the MLP are kept for going backward.
    kept = config.num_hidden_layers * (16 * config.hidden_size + 4 * config.intermediate_size)
    return 4 * int(total + 3 * trained + tokens * kept + 3 * targets * config.vocab_size) + (600 << 20)


def _plan_digest(weights: Weights, rows: TrainingRows, settings: TrainConfig, seed: int) -> str:
    plan = [weights.fingerprint, rows.digest, settings.model_dump(), seed]
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


def _resumable(partial: Path, digest: str) -> Path | None:
    """Return the last checkpoint of the same training, if there is one; clear away what another training left."""
    note = partial / "plan.txt"
    if not note.is_file() or note.read_text() != digest:
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            note.write_text(digest)
        except OSError as error:
            raise FractionateError(f"cannot write to {partial}: {error.strerror}") from None
        return None
    # The trainer writes its state last, so a checkpoint without one was cut off while it was written.
    whole = [path for path in partial.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


# ---------------------------------------------------------------- the training itself


def _train(
    weights: Weights,
    rows: TrainingRows,
    folder: Path,
    settings: TrainConfig,
    seed: int,
    on_step: OnStep | None,
    checkpoint: Path | None,
) -> tuple[TrainingReport, Any]:
    from transformers import PrinterCallback, set_seed

    from datasets import Dataset

    started = time.perf_counter()
    unload()  # models that answered before would only take memory that training needs
    with _quiet():
        set_seed(seed)
        tokenizer = load_tokenizer(weights.folder())
        model = load_model(weights, best_device(""), exact=True)
        device = model.device.type
        losses: list[float] = []
        trainer = _student_trainer(losses, on_step)(
            model=model,
            args=_arguments(folder, settings, seed, device, _micro_batch(rows, settings, device)),
            data_collator=Collator(tokenizer),
            train_dataset=Dataset.from_list(rows.rows),
            processing_class=tokenizer,
            peft_config=_lora(settings) if settings.method == "lora" else None,
        )
        trainer.remove_callback(PrinterCallback)  # steps are reported by `on_step`, and standard output is for results
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if not all(loss == loss and abs(loss) != float("inf") for loss in losses):
        raise FractionateError("training diverged (its loss is not a number): lower train.learning_rate")
    return TrainingReport(
        examples=len(rows.rows),
        left_out=rows.left_out,
        tokens=rows.tokens,
        trained_tokens=rows.trained_tokens,
        steps=int(trainer.state.global_step),
        loss_first=losses[0] if losses else 0.0,
        loss_last=losses[-1] if losses else 0.0,
        seconds=time.perf_counter() - started,
        peak_rss_mb=_peak_rss_mb(),
        base=weights.name,
        base_fingerprint=weights.fingerprint,
        data_digest=rows.digest,
        seed=seed,
        settings=settings.model_dump(),
    ), trainer


def _student_trainer(losses: list[float], on_step: OnStep | None) -> type[Any]:
    """Return TRL's SFTTrainer with two changes: logits are computed for targets only, and every step is reported."""
    from torch.nn.functional import cross_entropy
    from trl import SFTTrainer

    class StudentTrainer(SFTTrainer):  # type: ignore[misc]  # TRL is not followed: to mypy its class is Any
        def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, num_items_in_batch: Any = None) -> Any:
            # Targets end together (the collator pads on the left), so the last logits are all that is needed: over a
            # prompt of 200 tokens and a vocabulary of 49,152, TRL's own loss computes six times as many on a CPU.
            labels = inputs.pop("labels")
            keep = int((labels != IGNORED).sum(1).max()) + 1
            logits = model(**inputs, use_cache=False, logits_to_keep=keep).logits[:, :-1].float()
            wanted = labels[:, -keep + 1 :]
            total = cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum")
            return total / ((wanted != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            # The loss of a step is summed over its micro-batches: each is divided by the targets of the whole step.
            loss = super().training_step(*args, **kwargs)
            self.step_loss = getattr(self, "step_loss", 0.0) + float(loss)
            if not self.accelerator.sync_gradients:
                return loss
            losses.append(self.step_loss)
            self.step_loss = 0.0
            if on_step is not None:
                on_step(int(self.state.global_step) + 1, int(self.state.max_steps), losses[-1])
            return loss

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Write none: `training.json` says it."""

    return StudentTrainer


def _micro_batch(rows: TrainingRows, settings: TrainConfig, device: str) -> int:
    """Return how many examples are read at once: a divisor of the batch that keeps activations within bounds."""
    longest = max(len(row["input_ids"]) for row in rows.rows)
    divisors = [size for size in range(1, settings.batch_size + 1) if settings.batch_size % size == 0]
    return max((size for size in divisors if size * longest <= MICRO_BATCH_TOKENS.get(device, 16_000)), default=1)


def _arguments(folder: Path, settings: TrainConfig, seed: int, device: str, micro_batch: int) -> Any:
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=settings.batch_size // micro_batch,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0.05,
        weight_decay=0.0,
        max_length=None,
        gradient_checkpointing=False,
        bf16=device == "cuda",
        use_cpu=device == "cpu",
        seed=seed,
        data_seed=seed,
        train_sampling_strategy="group_by_length",
        save_strategy="steps",
        save_steps=CHECKPOINT_STEPS[settings.method],
        save_total_limit=1,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def _lora(settings: TrainConfig) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=2 * settings.lora_rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the notes and progress bars of four libraries; what goes wrong is raised, and steps are reported."""
    from datasets.utils import disable_progress_bars

    disable_progress_bars()
    with warnings.catch_warnings(), quiet_transformers():
        warnings.simplefilter("ignore")
        yield


def _peak_rss_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / (1 << 10)


# ---------------------------------------------------------------- after


def _write(trainer: Any, weights: Weights, report: TrainingReport, out: Path) -> None:
    """Write the student beside `out` and rename it there, so that `out` is whole or not there at all."""
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        with _quiet():
            if report.settings["method"] == "lora":
                name = str(weights.source) if weights.source.is_dir() and Path(weights.name).exists() else weights.name
                trainer.model.peft_config["default"].base_model_name_or_path = name
                trainer.model.save_pretrained(fresh)
            else:
                trainer.model.save_pretrained(fresh)
                load_tokenizer(weights.folder()).save_pretrained(fresh)
        (fresh / "README.md").unlink(missing_ok=True)
        (fresh / "training.json").write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
        fresh.chmod(0o755)
        old = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
        if out.exists():
            out.rename(old / "student")
        fresh.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise FractionateError(f"cannot write the student to {out}: {error}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
