"""Training a student: tokens with a loss, reproducibility, interruption, refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="the 'train' extra is not installed")

from fractionate.config import ModelOptions, TrainConfig
from fractionate.errors import FractionateError, UsageError
from fractionate.models.local.model import LocalModel, load_tokenizer
from fractionate.students import trainer as trainer_module
from fractionate.students.demonstrate import Demonstration
from fractionate.students.examples import build_examples
from fractionate.students.train import dry_run, estimate, train_student
from fractionate.students.training_data import IGNORED, Collator, check_mask, training_rows
from fractionate.types import Decomposition, Example, Message, Problem, Request


def examples(count: int = 12) -> list[Example]:
    return [
        Example((Message("user", f"How old is {'x' * (at % 5)}{at}?"),), f"Q1: When was {at} born?", str(at))
        for at in range(count)
    ]


QUICK = TrainConfig(batch_size=4, lora_rank=2, learning_rate=5e-3)
THREE_PASSES = QUICK.model_copy(update={"epochs": 3.0})


@pytest.fixture
def _every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step leaves a checkpoint."""
    monkeypatch.setattr(trainer_module, "CHECKPOINT_STEPS", {"lora": 1, "full": 1})


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of trainings that others are compared with: `one` pass, `three` passes, and `cut` in its third step."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "CHECKPOINT_STEPS", {"lora": 1, "full": 1})
        train_student(str(tiny_model), examples(), folder / "one", QUICK)
        with pytest.raises(KeyboardInterrupt):
            train_student(str(tiny_model), examples(), folder / "cut", QUICK, on_step=cut_at(3))
        losses: list[float] = []
        report = train_student(
            str(tiny_model), examples(11), folder / "three", THREE_PASSES, 5, lambda _, __, loss: losses.append(loss)
        )
    assert (losses[0], losses[-1]) == (report.loss_first, report.loss_last)
    (folder / "losses.json").write_text(json.dumps(losses))
    return folder


def adapter(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def trained_text(tokenizer: Any, labels: list[int]) -> str:
    return str(tokenizer.decode([label for label in labels if label != IGNORED]))


def test_the_golden_mask_is_target_and_end_of_turn_exactly(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    rows = training_rows(tokenizer, examples(), 512).rows
    batch = Collator(tokenizer)(rows)
    for row, example in zip(batch["labels"].tolist(), examples(), strict=True):
        assert trained_text(tokenizer, row) == example.target + "<|im_end|>"
    read = tokenizer.decode([t for t, on in zip(batch["input_ids"][0], batch["attention_mask"][0], strict=True) if on])
    assert read == "<|im_start|>user\nHow old is 0?<|im_end|>\n<|im_start|>assistant\nQ1: When was 0 born?<|im_end|>"
    assert batch["position_ids"][0].max() == batch["attention_mask"][0].sum() - 1


def test_a_student_of_chats_sees_the_earlier_turns_and_learns_its_own_alone(tiny_model: Path) -> None:
    """As TRL makes it of a conversational prompt and completion: the template over both, loss on the completion."""
    tokenizer = load_tokenizer(tiny_model)
    turns = (("system", "Be brief."), ("user", "Ann had 20."), ("assistant", "Noted."))
    problem = Problem("p", "How many are left?", (("9",),), dataset="d", history=turns)
    shown = Demonstration("p", 0, Decomposition(("How many had she?",), "ok", "1. How many had she?"))
    (example,), _ = build_examples("D-T", {"p": problem}, {"d": "number"}, [shown], [])
    (row,) = training_rows(tokenizer, [example], 512).rows
    prompt = [{"role": role, "content": text} for role, text in (*turns, ("user", problem.question))]
    reply = {"role": "assistant", "content": "1. How many had she?"}
    whole = tokenizer.apply_chat_template([*prompt, reply], tokenize=False)
    assert tokenizer.decode(row["input_ids"]) == whole.rstrip("\n")
    before = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    assert row["labels"].count(IGNORED) == len(tokenizer(before, add_special_tokens=False).input_ids)
    assert trained_text(tokenizer, row["labels"]) == "1. How many had she?<|im_end|>"


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([IGNORED, IGNORED, IGNORED], "no token that bears loss"),
        ([IGNORED, 5, 6], "end of turn"),
        ([4, 5, 1], "on its prompt"),
    ],
)
def test_a_lost_mask_is_an_error(labels: list[int], says: str) -> None:
    with pytest.raises(FractionateError, match=says):
        check_mask([[IGNORED, 7, 1], labels], end=1)


def test_the_trainer_s_loss_is_the_models_own_on_target_tokens(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    some = examples(4)
    report = train_student(str(tiny_model), some, tmp_path / "s", QUICK.model_copy(update={"batch_size": 4}))
    tokenizer = load_tokenizer(tiny_model)
    batch = Collator(tokenizer)(training_rows(tokenizer, some, 512).rows)
    with torch.no_grad():
        loss = AutoModelForCausalLM.from_pretrained(tiny_model)(**batch).loss
    assert report.loss_first == pytest.approx(float(loss), rel=1e-4)


def test_a_student_learns_and_is_written_with_its_report(tiny_model: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    settings = QUICK.model_copy(update={"epochs": 4.0})
    report = train_student(
        f"local:{tiny_model}", examples(), tmp_path / "s", settings, on_step=lambda at, of, _: seen.append((at, of))
    )
    assert seen == [(at, 12) for at in range(1, 13)]
    assert report.loss_last < report.loss_first
    assert json.loads((tmp_path / "s/training.json").read_text())["data_digest"] == report.data_digest
    assert {path.name for path in tmp_path.iterdir()} == {"s"}
    assert not list(tmp_path.rglob("README.md"))
    student = LocalModel(f"local:{tiny_model}@{tmp_path / 's'}", ModelOptions(device="cpu"))
    assert student.style == "student"
    reply = student.complete_batch([Request(examples()[0].messages, "decomposer", max_tokens=24)])[0]
    base = LocalModel(f"local:{tiny_model}", ModelOptions(device="cpu", style="student"))
    assert reply.text != base.complete_batch([Request(examples()[0].messages, "decomposer", max_tokens=24)])[0].text


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tiny_model: Path, tmp_path: Path, whole: Path) -> None:
    for name, seed in (("same", 0), ("other", 1)):
        train_student(str(tiny_model), examples(), tmp_path / name, QUICK, seed)
    assert adapter(tmp_path / "same") == adapter(whole / "one") != adapter(tmp_path / "other")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_an_interrupted_training_goes_on_to_the_same_student(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(trainer_module, "CHECKPOINT_STEPS", {"lora": 2, "full": 2})
    settings = QUICK.model_copy(update={"epochs": 2.0, "method": method})
    train_student(str(tiny_model), examples(), tmp_path / "whole", settings)

    def cut(at: int, of: int, loss: float) -> None:
        if at == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_student(str(tiny_model), examples(), tmp_path / "cut", settings, on_step=cut)
    assert not (tmp_path / "cut").exists()
    steps: list[int] = []
    train_student(str(tiny_model), examples(), tmp_path / "cut", settings, on_step=lambda at, *_: steps.append(at))
    assert steps == [3, 4, 5, 6]
    file = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "cut"}


def cut_at(last: int) -> Callable[[int, int, float], None]:
    def on_step(at: int, of: int, loss: float) -> None:
        if at == last:
            raise KeyboardInterrupt

    return on_step


@pytest.mark.parametrize("last", [4, 5, 9])
@pytest.mark.usefixtures("_every_step")
def test_a_training_of_several_passes_goes_on_to_the_same_student(
    tiny_model: Path, tmp_path: Path, whole: Path, last: int
) -> None:
    """Cut off in any step of the second and third pass, at their borders too: the same bytes, the same report."""
    train = (str(tiny_model), examples(11), tmp_path / "cut", THREE_PASSES, 5)
    with pytest.raises(KeyboardInterrupt):
        train_student(*train, on_step=cut_at(last))
    seen: list[float] = []
    resumed = train_student(*train, on_step=lambda _, __, loss: seen.append(loss))
    losses = json.loads((whole / "losses.json").read_text())
    assert len(losses) == 9
    assert seen == losses[last - 1 :]
    assert (resumed.loss_first, resumed.loss_last) == (losses[0], losses[-1])
    assert adapter(tmp_path / "cut") == adapter(whole / "three")


def test_every_pass_has_an_order_of_its_own(tiny_model: Path, tmp_path: Path) -> None:
    losses: list[float] = []
    settings = QUICK.model_copy(update={"epochs": 3.0, "learning_rate": 1e-12})  # so that only the order counts
    train_student(str(tiny_model), examples(12), tmp_path / "s", settings, 0, lambda _, __, loss: losses.append(loss))
    passes = [tuple(round(loss, 5) for loss in losses[at : at + 3]) for at in (0, 3, 6)]
    assert len(set(passes)) > 1


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def delete(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("adapter_model.safetensors", flip),
        ("optimizer.pt", cut_short),
        ("trainer_state.json", delete),
        ("seal.json", flip),
    ],
)
@pytest.mark.usefixtures("_every_step")
def test_a_damaged_checkpoint_is_set_aside(
    tiny_model: Path, tmp_path: Path, whole: Path, name: str, damage: Callable[[Path], None]
) -> None:
    """The one before it is gone on from, to the same student."""
    shutil.copytree(whole / "cut.partial", tmp_path / "cut.partial")
    damage(tmp_path / "cut.partial" / "checkpoint-2" / name)
    steps: list[int] = []
    train_student(str(tiny_model), examples(), tmp_path / "cut", QUICK, on_step=lambda at, *_: steps.append(at))
    assert steps == [2, 3]
    assert adapter(tmp_path / "cut") == adapter(whole / "one")
    assert {path.name for path in tmp_path.iterdir()} == {"cut"}


def test_a_checkpoint_that_cannot_be_loaded_is_set_aside_and_training_begins_anew(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, and yet unreadable: as another version of a library may have left it."""
    from fractionate.students.checkpoints import Checkpoints

    monkeypatch.setattr(trainer_module, "CHECKPOINT_STEPS", {"lora": 2, "full": 2})
    with pytest.raises(KeyboardInterrupt):
        train_student(str(tiny_model), examples(), tmp_path / "s", QUICK, on_step=cut_at(3))
    checkpoint = tmp_path / "s.partial" / "checkpoint-2"
    (checkpoint / "optimizer.pt").write_bytes(b"of another age")
    Checkpoints(tmp_path / "s.partial", (tmp_path / "s.partial" / "plan.txt").read_text()).mark_complete(
        checkpoint, [1.0, 1.0]
    )
    steps: list[int] = []
    report = train_student(str(tiny_model), examples(), tmp_path / "s", QUICK, on_step=lambda at, *_: steps.append(at))
    assert steps == [1, 2, 3]
    assert report.loss_first != 1.0


@pytest.mark.parametrize("seed", [-1, 2**32, 2**70])
def test_a_seed_that_no_library_takes_is_refused(tiny_model: Path, tmp_path: Path, seed: int) -> None:
    with pytest.raises(UsageError, match="from 0 to 4294967295"):
        train_student(str(tiny_model), examples(), tmp_path / "s", QUICK, seed)
    assert not list(tmp_path.iterdir())


def test_the_largest_seed_is_taken(tiny_model: Path, tmp_path: Path) -> None:
    assert train_student(str(tiny_model), examples(4), tmp_path / "s", QUICK, 2**32 - 1).steps == 1


def test_what_another_training_left_is_not_gone_on_from(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "CHECKPOINT_STEPS", {"lora": 1, "full": 1})

    def cut(at: int, of: int, loss: float) -> None:
        if at == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_student(str(tiny_model), examples(), tmp_path / "s", QUICK, seed=0, on_step=cut)
    steps: list[int] = []
    train_student(str(tiny_model), examples(), tmp_path / "s", QUICK, seed=1, on_step=lambda at, *_: steps.append(at))
    assert steps == [1, 2, 3]


def test_a_full_student_is_a_model_of_its_own(tiny_model: Path, tmp_path: Path) -> None:
    train_student(str(tiny_model), examples(), tmp_path / "s", QUICK.model_copy(update={"method": "full"}))
    model = LocalModel(f"local:{tmp_path / 's'}", ModelOptions(device="cpu"))
    assert model.style == "student"
    assert model.complete_batch([Request(examples()[0].messages, "decomposer", max_tokens=4)])[0].text


def test_retraining_at_the_same_path_is_another_model(tiny_model: Path, tmp_path: Path) -> None:
    names = set()
    for seed in (0, 1):
        train_student(str(tiny_model), examples(), tmp_path / "s", QUICK, seed)
        names.add(LocalModel(f"local:{tiny_model}@{tmp_path / 's'}").identity)
    assert len(names) == 2


def test_long_examples_are_left_out_and_counted(tiny_model: Path, tmp_path: Path) -> None:
    some = [*examples(4), Example((Message("user", "long " * 99),), "yes")]
    report = train_student(str(tiny_model), some, tmp_path / "s", QUICK.model_copy(update={"max_length": 128}))
    assert (report.examples, report.left_out) == (4, 1)


def test_no_more_than_max_examples_are_used(tiny_model: Path) -> None:
    assert estimate(str(tiny_model), examples(12), QUICK.model_copy(update={"max_examples": 5}))["examples"] == 5


@pytest.mark.parametrize(
    ("make", "settings", "says"),
    [
        (lambda: [], QUICK, "no examples"),
        (lambda: examples(2), QUICK.model_copy(update={"max_length": 16}), "max_length = 16"),
        (lambda: [Example((Message("user", "q"),), "  ", "p7")], QUICK, "p7 has an empty target"),
    ],
)
def test_examples_that_cannot_be_trained_on_are_refused(
    tiny_model: Path, tmp_path: Path, make: Callable[[], list[Example]], settings: TrainConfig, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        train_student(str(tiny_model), make(), tmp_path / "s", settings)
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_of_another_model_is_refused(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="does not belong to the model"):
        training_rows(load_tokenizer(tiny_model), examples(), 512, vocabulary=100)


def test_an_adapter_is_no_base_to_train_from(tiny_model: Path, tmp_path: Path) -> None:
    train_student(str(tiny_model), examples(4), tmp_path / "s", QUICK)
    with pytest.raises(UsageError, match="has an adapter"):
        estimate(f"local:{tiny_model}@{tmp_path / 's'}", examples(4), QUICK)


def test_training_that_diverges_leaves_no_student(tiny_model: Path, tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"learning_rate": 1e30, "epochs": 3.0})
    with pytest.raises(FractionateError, match="diverged"):
        train_student(str(tiny_model), examples(), tmp_path / "s", settings)
    assert not (tmp_path / "s").exists()


def test_the_estimate_s_steps_and_tokens_are_those_of_the_training(tiny_model: Path, tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"epochs": 1.5})
    told = estimate(str(tiny_model), examples(11), settings)
    report = train_student(str(tiny_model), examples(11), tmp_path / "s", settings)
    assert told["steps"] == report.steps
    assert told["tokens"] == round(1.5 * report.tokens)
    assert told["memory_bytes"] > 0


def test_a_dry_run_takes_two_steps_and_leaves_nothing(tiny_model: Path, tmp_path: Path) -> None:
    took = dry_run(str(tiny_model), examples(9), QUICK)
    assert took["seconds_per_step"] > 0
    assert took["peak_rss_mb"] > 0
    assert not list(tmp_path.iterdir())
