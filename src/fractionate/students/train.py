"""Train a student on examples: LoRA or full supervised fine-tuning; or say what that would take."""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fractionate.config import MOST_SEED, TrainConfig
from fractionate.errors import FractionateError, UsageError, missing_extra
from fractionate.models.local.model import best_device, load_config, load_tokenizer
from fractionate.models.local.weights import Weights, base_shapes, resolve
from fractionate.students.batching import memory_bytes
from fractionate.students.checkpoints import Checkpoints, DevSplit, GroupCheckpoints, check_steps, steps_of
from fractionate.students.group import ALONE, Group
from fractionate.students.settings import check_precision, with_rate
from fractionate.students.trainer import OnStep, Training, TrainingReport, quiet
from fractionate.students.training_data import TrainingRows, training_rows
from fractionate.types import Example


def train_student(
    base: str,
    examples: Sequence[Example],
    out: Path,
    settings: TrainConfig | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
    trust_remote_code: bool = False,
    dev: Sequence[Example] = (),
    group: Group = ALONE,
) -> TrainingReport:
    """Train a student of `base` (`local:HUB_ID_OR_PATH`) and write it to the folder `out`, with a `training.json`.

    `out` appears only when training is complete: an adapter (method "lora": name it `BASE@OUT`) or a whole model
    ("full": `local:OUT`). Until then checkpoints lie in `OUT.partial`, from which the same call goes on; the result is
    the same as of an uninterrupted run. On the CPU, equal inputs and seed give equal bytes. `on_step(step, steps,
    loss)` is called after every optimizer step (step from 1); what it raises stops training. `trust_remote_code` lets
    the base's folder run code of its own.

    With `dev` examples the loss on them is measured on the way: the student is that of the step with the lowest, and
    training stops early when it has not fallen for `settings.patience` measurements.

    Each process of a `group` calls this with the same arguments; the first one writes. It has `settings.workers`
    processes, which `fractionate.cluster.training.train_over_workers` starts.

    Raises UsageError for a base or examples that cannot be trained on, FractionateError if the work itself fails.
    """
    settings = settings or TrainConfig()
    if not 0 <= seed <= MOST_SEED:
        raise UsageError(f"the seed {seed} is out of range: give a number from 0 to {MOST_SEED}")
    if settings.workers != group.size:
        raise UsageError(f"train.workers = {settings.workers}, and {group.size} trains: train_over_workers starts them")
    weights, rows = prepare(base, examples, settings, trust_remote_code)
    settings = with_rate(settings, weights, trust_remote_code)
    judged = _dev_split(weights, dev, len(rows.rows), settings, trust_remote_code) if dev else None
    plan = _plan_digest(weights, rows, settings, seed, judged)
    partial = out.with_name(out.name + ".partial")
    checkpoints = GroupCheckpoints(partial, plan, group) if group.size > 1 else Checkpoints(partial, plan)
    training = Training(weights, rows, settings, seed, trust_remote_code, on_step, judged, group)
    report, trainer = training.resume(checkpoints)
    if group.first:
        _write(trainer, weights, report, out, trust_remote_code)
    del trainer
    gc.collect()  # a trainer and its model point at each other: a gigabyte would stay until chance collects it
    checkpoints.clear()
    return report


def estimate(
    base: str, examples: Sequence[Example], settings: TrainConfig | None = None, trust_remote_code: bool = False
) -> dict[str, int]:
    """Return what training would take: examples, left_out, tokens (of all epochs), trained_tokens, steps, memory_bytes.

    Memory is an estimate from shapes, of each worker where there are several: weights, gradients and Adam's two moments
    of what is trained, activations kept for the backward pass, logits of the targets. Raises as `train_student` does.
    """
    return estimate_each(base, examples, [settings or TrainConfig()], trust_remote_code)[0]


def estimate_each(
    base: str, examples: Sequence[Example], candidates: Sequence[TrainConfig], trust_remote_code: bool = False
) -> list[dict[str, int]]:
    """Return the same for several settings that read the same examples, tokenized once."""
    weights, rows = prepare(base, examples, candidates[0], trust_remote_code)
    return [
        {
            "examples": len(rows.rows),
            "left_out": rows.left_out,
            "tokens": round(rows.tokens * settings.epochs),
            "trained_tokens": round(rows.trained_tokens * settings.epochs),
            "steps": steps_of(len(rows.rows), settings),
            "dev_checks": len(check_steps(len(rows.rows), settings)),
            "memory_bytes": _memory_bytes(weights, rows, settings, trust_remote_code),
        }
        for settings in candidates
    ]


def dry_run(
    base: str, examples: Sequence[Example], settings: TrainConfig | None = None, trust_remote_code: bool = False
) -> dict[str, float]:
    """Take two real steps on the longest examples and keep nothing: fails now if training would fail later.

    Returns seconds_per_step, tokens_per_second (padding not counted) and peak_rss_mb.
    """
    settings = settings or TrainConfig()
    weights, rows = prepare(base, examples, settings, trust_remote_code)
    settings = with_rate(settings, weights, trust_remote_code)
    settings = settings.model_copy(update={"batch_size": settings.share, "workers": 1})  # as one of the workers
    longest = sorted(rows.rows, key=lambda row: -len(row["input_ids"]))[: 2 * settings.batch_size]
    few = TrainingRows(longest, rows.left_out, rows.digest)
    short = settings.model_copy(update={"epochs": 2.0 / math.ceil(len(longest) / settings.batch_size)})
    with tempfile.TemporaryDirectory(prefix="fractionate-dry-run-") as folder:
        training = Training(weights, few, short, 0, trust_remote_code, None)
        report, trainer = training.resume(Checkpoints(Path(folder) / "steps", "dry run"))
        del trainer
        gc.collect()
    return {
        "seconds_per_step": report.seconds / report.steps,
        "tokens_per_second": few.tokens * short.epochs / report.seconds,
        "peak_rss_mb": report.peak_rss_mb,
    }


# ---------------------------------------------------------------- before


def prepare(base: str, examples: Sequence[Example], settings: TrainConfig, trust: bool) -> tuple[Weights, TrainingRows]:
    """Return a base's weights and the examples as tokens. Raises UsageError for what cannot be trained on."""
    for package in ("trl", "peft", "datasets", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package, "train", "training a student")
    check_precision(settings, best_device("").partition(":")[0])
    weights = resolve(base)
    if weights.adapter is not None:
        raise UsageError(f"{base} has an adapter: a student is trained from a base model, so name that alone")
    used = examples[: settings.max_examples] if settings.max_examples else examples
    return weights, _rows(weights, used, settings, trust)


def _rows(weights: Weights, examples: Sequence[Example], settings: TrainConfig, trust: bool) -> TrainingRows:
    folder = weights.folder()
    tokenizer, vocabulary = load_tokenizer(folder, trust), load_config(folder, trust).vocab_size
    return training_rows(tokenizer, examples, settings.max_length, vocabulary=vocabulary)


def _dev_split(weights: Weights, dev: Sequence[Example], examples: int, settings: TrainConfig, trust: bool) -> DevSplit:
    rows = _rows(weights, dev, settings, trust)
    return DevSplit(rows, check_steps(examples, settings), settings.patience)


def _memory_bytes(weights: Weights, rows: TrainingRows, settings: TrainConfig, trust: bool) -> int:
    config, device = load_config(weights.folder(), trust), best_device("").partition(":")[0]
    return sum(memory_bytes(base_shapes(weights), config, rows, settings, device).values())


def _plan_digest(weights: Weights, rows: TrainingRows, settings: TrainConfig, seed: int, dev: DevSplit | None) -> str:
    plan = [weights.fingerprint, rows.digest, settings.decisive(with_dev=dev is not None), seed]
    plan += [dev.rows.digest] if dev else []
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


# ---------------------------------------------------------------- after


def _write(trainer: Any, weights: Weights, report: TrainingReport, out: Path, trust: bool) -> None:
    """Write the student beside `out` and rename it there, so that `out` is whole or not there at all."""
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        with quiet():
            if report.settings["method"] == "lora":
                name = str(weights.source) if weights.source.is_dir() and Path(weights.name).exists() else weights.name
                trainer.model.peft_config["default"].base_model_name_or_path = name
                trainer.model.save_pretrained(fresh)
            else:
                trainer.model.save_pretrained(fresh)
                load_tokenizer(weights.folder(), trust).save_pretrained(fresh)
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
