"""A passage is encoded once: the gradient equals that of examples computed alone."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="the 'train' extra is not installed")

from test_train import QUICK as SINGLE
from test_train import adapter, cut_at

from fractionate.config import TrainConfig
from fractionate.models.local.model import load_model, load_tokenizer
from fractionate.models.local.weights import SMOLLM2, resolve
from fractionate.students import trainer as trainer_module
from fractionate.students.batching import Batcher, PackedBatcher, PaddedBatcher, PassageSampler, adjacent_examples
from fractionate.students.packing import Segment, pack, packs_exactly, passage_groups
from fractionate.students.train import train_student
from fractionate.students.training_data import training_rows
from fractionate.types import Example, Message

Rows = list[dict[str, Any]]
QUICK = SINGLE.model_copy(update={"share_passages": True})

PASSAGES = [
    "Abra has 5 thousand people and lies in Babria by the sea.",
    "Dodo has 9 thousand people; its river is called the Elbor.",
    "In Fara, café and cafè are two words for one old house.",
]


def example(passage: str, question: str, target: str = "1. It is 5.\nThe answer is: 5") -> Example:
    return Example((Message("user", f"{passage}\n\n{question}"),), target)


def on_passages(each: int = 4) -> list[Example]:
    return [
        example(passage, f"What is {'re' * at}d in number {at}?", f"The answer is: {at}{place}")
        for at in range(each)
        for place, passage in enumerate(PASSAGES)
    ]


BATCHES: dict[str, list[Example]] = {
    "one passage": [example(PASSAGES[0], f"{word} people?") for word in ("How many", "Which", "Why")],
    "several passages": on_passages(3),
    "some share nothing": [*on_passages(2), example("", "Who?", "No one"), example("Other words.", "What?", "None")],
    "nothing is shared": [example(word * 9, f"{word}?", word) for word in ("Ai", "Bu", "Ce")],
    "one alone": [example(PASSAGES[0], "Where is Abra?")],
    "shared up to the middle of a word": [example(PASSAGES[1], f"Is it re{end}?") for end in ("d", "al", "gal")],
    "shared up to the middle of a character": [example(PASSAGES[2], f"Is it caf{end}?") for end in "éèê"],
    "one prompt, several targets": [example(PASSAGES[0], "Where?", f"The answer is: By {x}") for x in ("x", "yy", "z")],
    "the same twice": [example(PASSAGES[0], "Where?")] * 2,
}


def gradient(model: Any, reading: Batcher, rows: Rows) -> tuple[float, Any]:
    """Return the mean loss over the targets of a step, and the gradient of all that is trained."""
    import torch

    model.train()
    model.zero_grad()
    targets = sum(label != -100 for row in rows for label in row["labels"])
    loss, counted = 0.0, 0
    with reading.prepared(model):
        for part in reading.parts(rows):
            total, count = reading.loss(model, part)
            (total / targets).backward()
            loss, counted = loss + float(total.detach()) / targets, counted + count
    assert counted == targets
    return loss, torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])


def student(folder: Path, method: str, layers: int | None = None) -> Any:
    """Return a model, or its first layers, as it is after some training: LoRA matrices are not zero."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = load_model(resolve(str(folder)), "cpu", exact=True)
    if layers is not None:
        model.model.layers = model.model.layers[:layers]
        model.config.num_hidden_layers = layers
    if method == "lora":
        torch.manual_seed(0)
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        for name, each in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(each, std=0.05)
    return model


def check_equal(model: Any, tokenizer: Any, rows: Rows, most: int) -> None:
    loss, alone = gradient(model, PaddedBatcher(tokenizer, 1), rows)
    shared_loss, shared = gradient(model, PackedBatcher(tokenizer, most), rows)
    assert shared_loss == pytest.approx(loss, abs=1e-5)
    assert float(alone.abs().max()) > 1e-2, "there is a gradient to compare"
    assert float((shared - alone).abs().max()) < 1e-5


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("batch", BATCHES)
def test_the_gradient_is_that_of_examples_read_alone(tiny_model: Path, method: str, batch: str) -> None:
    tokenizer = load_tokenizer(tiny_model)
    rows = training_rows(tokenizer, BATCHES[batch], 512).rows
    model = student(tiny_model, method)
    for most in (600, 150, 1):  # all in one row, some rows, a row each
        check_equal(model, tokenizer, rows, most)


@pytest.mark.model
@pytest.mark.parametrize("method", ["lora", "full"])
def test_smollm2_s_gradient_is_that_of_examples_read_alone(method: str) -> None:
    """In double precision: in single, two ways to batch the same examples unpacked differ by more than 1e-5 here.

    Only the first two layers are taken, so that the test takes little memory and time.
    """
    weights = resolve(SMOLLM2)
    tokenizer = load_tokenizer(weights.folder())
    long = [example(" ".join(PASSAGES), f"{word} people?") for word in ("How many", "Which")]
    batch = [*BATCHES["one passage"], BATCHES["nothing is shared"][0], *long]
    model = student(weights.folder(), method, layers=2).double()
    rows = training_rows(tokenizer, batch, 512).rows
    assert packs_exactly(model, rows)
    check_equal(model, tokenizer, rows, 300)


def test_another_gradient_would_show(tiny_model: Path) -> None:
    """Rests that see one another, or begin at another position, are told from examples alone by the same check."""
    tokenizer = load_tokenizer(tiny_model)
    rows = training_rows(tokenizer, BATCHES["one passage"], 512).rows
    model = student(tiny_model, "lora")
    _, alone = gradient(model, PaddedBatcher(tokenizer, 1), rows)

    def broken(reading: PackedBatcher, change: Any) -> Any:
        parts = reading.parts(rows)
        change(parts[0])
        reading.parts = lambda _: parts  # type: ignore[method-assign]
        return gradient(model, reading, rows)[1]

    def see_all(part: dict[str, Any]) -> None:
        first, second, *others = part["layout"].segments
        third = others[0]
        part["layout"].segments = [first, second, Segment(third.start, third.end, 0, second.end), *others[1:]]

    def go_on(part: dict[str, Any]) -> None:
        # A turn by a fixed angle changes nothing that is seen, so only the last rest is moved.
        part["position_ids"][0, part["layout"].segments[-1].start :] += 3

    for change in (see_all, go_on):
        assert float((broken(PackedBatcher(tokenizer, 600), change) - alone).abs().max()) > 1e-4


def test_a_passage_is_read_once(tiny_model: Path) -> None:
    rows = training_rows(load_tokenizer(tiny_model), BATCHES["one passage"], 512).rows
    (one,) = pack(rows, 600)
    common = one.segments[0].end
    assert common >= len(PASSAGES[0])
    assert len(one.tokens) == common + sum(len(row["input_ids"]) - common for row in rows)
    assert len(one.segments) == 1 + len(rows)


def test_a_group_too_large_for_a_row_is_cut_and_no_row_is_larger(tiny_model: Path) -> None:
    rows = training_rows(load_tokenizer(tiny_model), on_passages(6), 512).rows
    longest = max(len(row["input_ids"]) for row in rows)
    packs = pack(rows, longest + 60)
    assert all(len(one.tokens) <= longest + 60 for one in packs)
    assert sum(len(one.targets) for one in packs) == sum(label != -100 for row in rows for label in row["labels"])
    assert any(len(one.segments) > 2 for one in packs), "something is still shared"
    assert max(len(one.tokens) for one in pack(rows, 1)) == longest


# ---------------------------------------------------------------- models that do not read so


def tiny(kind: str, **settings: Any) -> Any:
    """Return a random model of another architecture, with weights large enough that everything shows."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **sizes, num_attention_heads=4, **settings)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for each in model.parameters():
            each.mul_(8 if each.dim() > 1 else 1)
    return model


@pytest.mark.parametrize(
    ("kind", "settings", "alike"),
    [
        ("llama", {"num_key_value_heads": 2}, True),
        ("qwen2", {"num_key_value_heads": 2}, True),
        ("mistral", {"num_key_value_heads": 2, "sliding_window": 4096}, True),
        ("mistral", {"num_key_value_heads": 2, "sliding_window": 8}, False),
        ("llama", {"attention_dropout": 0.2}, False),
        ("gemma2", {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4096}, False),  # its scores are capped
        ("lfm2", {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]}, False),
        ("bloom", {}, False),  # positions stand in its mask
        ("mamba", {"state_size": 4}, False),
    ],
)
def test_a_model_is_tried_before_it_is_relied_on(kind: str, settings: dict[str, Any], alike: bool) -> None:
    import torch

    model = tiny(kind, **settings).eval()
    rows = [{"input_ids": [5 + (7 * at * at) % 290 for at in range(length)]} for length in (20, 60, 40)]
    before, state = model.config._attn_implementation, torch.random.get_rng_state()
    assert packs_exactly(model, rows) == alike
    assert model.config._attn_implementation == before
    assert not model.training
    assert torch.equal(torch.random.get_rng_state(), state), "a try draws nothing from what the training draws from"


def test_a_model_that_reads_otherwise_is_trained_as_without_sharing(tiny_model: Path, tmp_path: Path) -> None:
    """A sliding window shorter than the examples: the same bytes as with `share_passages` off."""
    shutil.copytree(tiny_model, tmp_path / "sliding")
    config = json.loads((tmp_path / "sliding/config.json").read_text())
    config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 8}
    (tmp_path / "sliding/config.json").write_text(json.dumps(config))
    some = on_passages()
    for name, share in (("on", True), ("off", False)):
        settings = QUICK.model_copy(update={"share_passages": share})
        train_student(str(tmp_path / "sliding"), some, tmp_path / name, settings)
        train_student(str(tiny_model), some, tmp_path / f"llama-{name}", settings)
    assert adapter(tmp_path / "on") == adapter(tmp_path / "off")
    assert adapter(tmp_path / "llama-on") != adapter(tmp_path / "llama-off"), "a model that shares takes another order"


# ---------------------------------------------------------------- the order


def test_every_pass_takes_every_example_once_those_of_a_passage_in_lots(tiny_model: Path) -> None:
    rows = training_rows(load_tokenizer(tiny_model), [*on_passages(8), *BATCHES["nothing is shared"]], 512).rows
    groups = passage_groups([row["input_ids"] for row in rows])
    assert sorted(map(len, groups)) == [1, 1, 1, 8, 8, 8]
    passage = {at: number for number, group in enumerate(groups) for at in group}
    order = PassageSampler(rows, seed=0, adjacent=4)
    passes = []
    for epoch in range(3):
        order.set_epoch(epoch)
        taken = list(order)
        assert sorted(taken) == list(range(len(rows)))
        lots = Counter(_runs([passage[at] for at in taken]))
        assert all(length % 4 == 0 or length == 1 for length in lots)
        passes.append(taken)
    assert passes[0] != passes[1] != passes[2]
    order.set_epoch(1)
    assert list(order) == passes[1]
    assert list(PassageSampler(rows, seed=1, adjacent=4)) != passes[0]


def _runs(values: Sequence[int]) -> list[int]:
    """Return how long each stretch of equal values is."""
    lengths = [1]
    for before, after in pairwise(values):
        lengths[-1:] = [lengths[-1] + 1] if before == after else [lengths[-1], 1]
    return lengths


def test_what_all_examples_begin_with_is_no_passage() -> None:
    system = list(range(100))
    rows = [[*system, *[200 + passage] * 40, at] for passage in range(3) for at in range(2)]
    assert sorted(map(len, passage_groups(rows))) == [2, 2, 2]
    assert sorted(map(len, passage_groups([[*system, at] for at in range(4)]))) == [1, 1, 1, 1]
    assert passage_groups([[1, 2, 3]]) == [[0]]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_at_least_one_example_of_a_passage_is_in_a_step(batch_size: int) -> None:
    assert 1 <= adjacent_examples(batch_size) <= batch_size


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_training_on_passages_goes_on_to_the_same_student(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Cut off in its second pass."""
    monkeypatch.setattr(trainer_module, "CHECKPOINT_STEPS", {"lora": 1, "full": 1})
    settings = QUICK.model_copy(update={"epochs": 2.0, "method": method})
    train = (str(tiny_model), on_passages())
    train_student(*train, tmp_path / "whole", settings, dev=on_passages(1))
    with pytest.raises(KeyboardInterrupt):
        train_student(*train, tmp_path / "cut", settings, on_step=cut_at(5), dev=on_passages(1))
    steps: list[int] = []
    train_student(*train, tmp_path / "cut", settings, on_step=lambda at, *_: steps.append(at), dev=on_passages(1))
    assert steps == [5, 6]
    written = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    assert (tmp_path / "cut" / written).read_bytes() == (tmp_path / "whole" / written).read_bytes()
    if method == "full":
        assert "fractionate" not in (tmp_path / "whole/config.json").read_text(), "its attention is the stock one"


def test_sharing_is_part_of_what_decides_a_student() -> None:
    shared, single = (TrainConfig(share_passages=share).decisive(with_dev=False) for share in (True, False))
    assert shared != single
