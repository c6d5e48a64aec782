"""The dev split in one training: what is measured when, which step is kept, early stopping, and resuming."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="the 'train' extra is not installed")

from test_train import QUICK, cut_at, cut_short, examples

from fractionate.config import TrainConfig
from fractionate.models.local.model import load_tokenizer
from fractionate.students import trainer as trainer_module
from fractionate.students.checkpoints import DevLoss, DevSplit, TrainingDivergedError, best_of, check_steps, steps_of
from fractionate.students.settings import default_rate
from fractionate.students.train import train_student
from fractionate.students.trainer import TrainingReport
from fractionate.students.training_data import Collator, TrainingRows, training_rows
from fractionate.types import Example, Message

SOME = examples(12)
WATCHED = QUICK.model_copy(update={"epochs": 4.0, "patience": 0})
OTHERS = [
    Example((Message("user", f"How tall is {at} {'y' * at}?"),), f"Q1: Who is {at}?" + " And why?" * (at % 3), str(at))
    for at in range(5)
]
RISING = WATCHED.model_copy(update={"epochs": 8.0, "learning_rate": 0.3, "patience": 2})
"""The loss on OTHERS soon rises at this rate."""


def losses(*values: float) -> list[DevLoss]:
    return [DevLoss(step, value) for step, value in enumerate(values, 1)]


def weights_of(student: Path) -> bytes:
    return next(student.glob("*.safetensors")).read_bytes()


@pytest.mark.parametrize(
    ("patience", "values", "stops"),
    [
        (2, (), False),
        (2, (3.0, 2.0, 2.5), False),
        (2, (3.0, 2.0, 2.5, 2.0), True),  # an equal loss is no lower one
        (2, (3.0, 2.0, 2.5, 1.9), False),
        (1, (3.0, 3.1), True),
        (0, (1.0, 2.0, 3.0, 4.0, 5.0), False),
    ],
)
def test_training_stops_after_so_many_measurements_without_a_lower_loss(
    patience: int, values: Sequence[float], stops: bool
) -> None:
    split = DevSplit(TrainingRows([], 0, ""), frozenset(), patience)
    assert split.stops(losses(*values)) is stops


def test_the_first_of_equal_losses_is_the_best() -> None:
    assert best_of(losses(2.0, 1.0, 1.0)).step == 2


@pytest.mark.parametrize(
    ("epochs", "checks", "steps"),
    [
        (3, 1, {3, 6, 9}),
        (1, 1, {3}),
        (2, 2, {2, 3, 4, 6}),  # every 1.5 steps, halves to the even one
        (1, 3, {1, 2, 3}),
        (1, 50, {1, 2, 3}),
        (1.5, 1, {3, 5}),  # and after the last step of all
        (0.3, 1, {1}),
    ],
)
def test_the_loss_is_measured_evenly_and_after_the_last_step(epochs: float, checks: int, steps: set[int]) -> None:
    settings = TrainConfig(batch_size=4, epochs=epochs, dev_checks=checks)
    assert check_steps(11, settings) == steps
    assert max(steps) == steps_of(11, settings)


def whole(model: Path, out: Path, settings: TrainConfig = RISING) -> TrainingReport:
    return train_student(str(model), SOME, out, settings, dev=OTHERS)


@pytest.fixture(scope="module")
def rising(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingReport]:
    """A student of a training that stopped early, and its report."""
    out = tmp_path_factory.mktemp("rising") / "s"
    return out, whole(tiny_model, out)


def test_the_student_is_that_of_its_best_step(
    tiny_model: Path, tmp_path: Path, rising: tuple[Path, TrainingReport]
) -> None:
    """Its loss on dev, computed here by transformers from what was written, is the lowest that was measured."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder, report = rising
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), str(folder)).eval()
    tokenizer = load_tokenizer(tiny_model)
    total, tokens = 0.0, 0
    for row in training_rows(tokenizer, OTHERS, 512).rows:
        batch = Collator(tokenizer)([row])
        count = int((batch["labels"] != -100).sum())
        with torch.no_grad():
            total += float(model(**batch).loss) * count  # transformers' own mean over target tokens
        tokens += count
    best = best_of(report.dev_losses)
    assert total / tokens == pytest.approx(best.loss, rel=1e-4)
    assert report.best_step == best.step < report.steps
    assert max(one.loss for one in report.dev_losses) > best.loss * 1.01, "another step would show"


def test_training_stops_early_and_says_so(rising: tuple[Path, TrainingReport]) -> None:
    folder, report = rising
    assert report.planned_steps == 24
    assert report.steps < 24
    steps = [one.step for one in report.dev_losses]
    assert steps == list(range(3, report.steps + 1, 3))
    assert steps.index(report.best_step) == len(steps) - 1 - RISING.patience
    written = json.loads((folder / "training.json").read_text())
    assert written["dev_losses"] == [list(one) for one in report.dev_losses]
    assert written["dev_examples"] == len(OTHERS)
    assert {path.name for path in folder.parent.iterdir()} == {"s"}


def test_being_watched_changes_no_step(tiny_model: Path, tmp_path: Path) -> None:
    """The same losses as of an unwatched training, and the same bytes where the last step is the best."""
    seen: dict[str, list[float]] = {"alone": [], "watched": []}
    settings = QUICK.model_copy(update={"epochs": 2.0, "patience": 0, "dev_checks": 3})
    alone = train_student(
        str(tiny_model), SOME, tmp_path / "alone", settings, 0, lambda *at: seen["alone"].append(at[2])
    )
    watched = train_student(
        str(tiny_model), SOME, tmp_path / "watched", settings, 0, lambda *at: seen["watched"].append(at[2]), dev=SOME
    )
    assert seen["alone"] == seen["watched"]
    assert watched.best_step == alone.steps, "on what it learns from, the last step is the best"
    assert weights_of(tmp_path / "alone") == weights_of(tmp_path / "watched")


@pytest.mark.parametrize("last", [5, 7, 10])
def test_a_watched_training_goes_on_to_the_same_student(
    tiny_model: Path, tmp_path: Path, rising: tuple[Path, TrainingReport], last: int
) -> None:
    """Cut off between two measurements and right after one: the same best step, the same stop, the same bytes."""
    folder, report = rising
    assert last <= report.steps
    with pytest.raises(KeyboardInterrupt):
        train_student(str(tiny_model), SOME, tmp_path / "cut", RISING, on_step=cut_at(last), dev=OTHERS)
    steps: list[int] = []
    resumed = train_student(
        str(tiny_model), SOME, tmp_path / "cut", RISING, on_step=lambda at, *_: steps.append(at), dev=OTHERS
    )
    assert steps[0] == 1 + (last - 1) // 3 * 3, "from the last measurement on"
    assert resumed.dev_losses == report.dev_losses
    assert (resumed.steps, resumed.best_step) == (report.steps, report.best_step)
    assert weights_of(tmp_path / "cut") == weights_of(folder)


def test_a_training_cut_off_after_it_stopped_early_takes_no_further_step(
    tiny_model: Path, tmp_path: Path, rising: tuple[Path, TrainingReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, report = rising

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("fractionate.students.train._write", killed)
        with pytest.raises(KeyboardInterrupt):
            whole(tiny_model, tmp_path / "cut")
    steps: list[int] = []
    resumed = train_student(
        str(tiny_model), SOME, tmp_path / "cut", RISING, on_step=lambda at, *_: steps.append(at), dev=OTHERS
    )
    assert steps == []
    assert resumed.dev_losses == report.dev_losses
    assert weights_of(tmp_path / "cut") == weights_of(folder)


def test_where_the_best_checkpoint_is_damaged_later_ones_are_not_gone_on_from(
    tiny_model: Path, tmp_path: Path, rising: tuple[Path, TrainingReport]
) -> None:
    folder, report = rising
    with pytest.raises(KeyboardInterrupt):
        train_student(str(tiny_model), SOME, tmp_path / "cut", RISING, on_step=cut_at(report.steps), dev=OTHERS)
    cut_short(tmp_path / "cut.partial" / f"checkpoint-{report.best_step}" / "adapter_model.safetensors")
    steps: list[int] = []
    train_student(str(tiny_model), SOME, tmp_path / "cut", RISING, on_step=lambda at, *_: steps.append(at), dev=OTHERS)
    assert steps[0] <= report.best_step
    assert weights_of(tmp_path / "cut") == weights_of(folder)


def test_the_best_checkpoint_outlives_later_ones(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every weight trained, and one checkpoint kept: many are written after the best one."""
    monkeypatch.setattr(trainer_module, "CHECKPOINT_STEPS", {"lora": 1, "full": 1})
    settings = RISING.model_copy(update={"method": "full", "learning_rate": 0.02, "patience": 0, "epochs": 4.0})
    report = whole(tiny_model, tmp_path / "s", settings)
    assert report.steps == 12
    assert report.best_step < 8
    stopped = settings.model_copy(update={"patience": 1})
    again = whole(tiny_model, tmp_path / "again", stopped)
    assert again.best_step == report.best_step
    assert weights_of(tmp_path / "again") == weights_of(tmp_path / "s")


def test_another_dev_split_is_another_training(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_student(str(tiny_model), SOME, tmp_path / "s", WATCHED, on_step=cut_at(5), dev=OTHERS)
    steps: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        train_student(str(tiny_model), SOME, tmp_path / "s", WATCHED, 0, lambda at, *_: stop(at, steps), dev=OTHERS[1:])
    assert steps == [1]


def stop(at: int, steps: list[int]) -> None:
    steps.append(at)
    raise KeyboardInterrupt


def test_a_loss_that_is_no_number_ends_a_watched_training(tiny_model: Path, tmp_path: Path) -> None:
    settings = WATCHED.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingDivergedError, match=r"lower train\.learning_rate"):
        whole(tiny_model, tmp_path / "s", settings)
    assert not (tmp_path / "s").exists()


# ---------------------------------------------------------------- the learning rate


def published_rate(width: int) -> float:
    """What tinker-cookbook's get_lr gives for a Llama model under LoRA."""
    return 5e-5 * 10.0 * (2000 / width) ** 0.781


@pytest.mark.parametrize("width", [576, 960, 2048, 4096, 8192])
def test_the_default_rate_falls_with_the_width_as_published(width: int) -> None:
    ratio = default_rate(width, "lora") / published_rate(width)
    assert ratio == pytest.approx(1.51, rel=0.04)
    assert default_rate(width, "full") == pytest.approx(default_rate(width, "lora") / 10, rel=0.04)


def test_the_default_rate_of_smollm2_is_what_it_has_always_been() -> None:
    assert default_rate(576, "lora") == 2e-3
    assert default_rate(32, "lora") == 2e-3, "narrower students get no more"


def test_a_student_without_a_given_rate_is_trained_with_the_one_for_its_width(tiny_model: Path, tmp_path: Path) -> None:
    settings = TrainConfig(batch_size=4, lora_rank=2)
    assert settings.learning_rate is None
    report = train_student(str(tiny_model), SOME[:4], tmp_path / "auto", settings)
    assert report.settings["learning_rate"] == 2e-3
    given = settings.model_copy(update={"learning_rate": 2e-3})
    train_student(str(tiny_model), SOME[:4], tmp_path / "given", given)
    assert weights_of(tmp_path / "auto") == weights_of(tmp_path / "given")
    assert math.isfinite(report.loss_last)
