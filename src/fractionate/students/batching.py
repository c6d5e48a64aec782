"""How examples become the batches of a step: their order, their micro-batches, the loss and memory of one.

Examples are padded one a row, or packed behind their common passages. Both give the same losses, and so the same
gradient.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from fractionate.config import TrainConfig
from fractionate.students.packing import inputs_of, pack, packed_losses, packs_exactly, passage_groups, shared_attention
from fractionate.students.settings import holds_base_in_bf16, in_fp32, multiplies_in_bf16
from fractionate.students.training_data import IGNORED, Collator, TrainingRows, check_mask

PASSAGE_SHARE = 0.5
"""The share of a step's examples taken from one passage where passages are shared. A larger share saves
more tokens and makes a step's examples less varied: docs/experiments/packed_training.py compares shares."""


class PassageSampler:
    """A sampler in random order that keeps `adjacent` examples (1 or more) of a passage next to each other.

    Each pass cuts every passage's examples into new lots and shuffles the lots; an example without a shared passage is
    a lot of one. The seed and the number of the pass alone decide the order: the trainer would draw it from whatever
    state its generator is in, which a resumed training cannot reach again.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], seed: int, adjacent: int) -> None:
        self.seed = seed
        self.adjacent = adjacent
        self.epoch = 0
        self._passages = passage_groups([row["input_ids"] for row in rows])
        self._length = len(rows)

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next pass, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        draw = random.Random(f"{self.seed} {self.epoch}")
        lots = []
        for members in self._passages:
            mixed = draw.sample(members, len(members))
            lots += [mixed[at : at + self.adjacent] for at in range(0, len(mixed), self.adjacent)]
        draw.shuffle(lots)
        return iter([at for lot in lots for at in lot])


def adjacent_examples(batch_size: int) -> int:
    """Return how many examples of a passage stand next to each other for steps of `batch_size`."""
    return max(1, round(batch_size * PASSAGE_SHARE))


def length_sampler(rows: Sequence[dict[str, Any]], seed: int, batch_size: int) -> Any:
    """Return a sampler that puts examples of similar length into a batch, so that little is padded."""
    import torch
    from transformers.trainer_pt_utils import LengthGroupedSampler

    class LengthOrder(LengthGroupedSampler):  # type: ignore[misc]
        """Draws every pass from the seed and its number; the first one as the trainer itself draws it."""

        def set_epoch(self, epoch: int) -> None:
            mixed = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
            drawn = int.from_bytes(mixed[:8], "big") >> 1
            self.generator = torch.Generator().manual_seed(drawn) if epoch else None

    return LengthOrder(batch_size, lengths=[len(row["input_ids"]) for row in rows])


PART_TOKENS = {"cpu": 600, "cuda": 16_000}
"""Tokens of a micro-batch, by device. Activations of SmolLM2-135M take about 1.5 MB a token, and a CPU is no faster on
more (steps of 1,700 tokens took as long in micro-batches of 550 as in one, with 2.3 instead of 5.7 GB)."""

MicroBatch = dict[str, Any]
"""The inputs of one forward pass: tensors and, packed, the row's layout."""


class Batcher(Protocol):
    """How rows become micro-batches, and a micro-batch a loss."""

    def parts(self, rows: Sequence[dict[str, Any]]) -> list[MicroBatch]:
        """Return the micro-batches of rows (`input_ids`, `labels`)."""

    def loss(self, model: Any, part: MicroBatch) -> tuple[Any, int]:
        """Return the summed cross-entropy over the targets (nats, a scalar tensor with its graph) and their number."""

    def prepared(self, model: Any) -> AbstractContextManager[None]:
        """Prepare a model for such micro-batches inside the block."""

    def sort_key(self, row: dict[str, Any]) -> Any:
        """Return the key to sort many rows by so that their forward passes take little."""


class PaddedBatcher:
    """Every example is a row, padded on the left to the longest of its micro-batch."""

    def __init__(self, tokenizer: Any, at_once: int) -> None:
        self._collate = Collator(tokenizer)
        self._at_once = at_once

    def parts(self, rows: Sequence[dict[str, Any]]) -> list[MicroBatch]:
        """Return padded micro-batches."""
        return [self._collate(rows[at : at + self._at_once]) for at in range(0, len(rows), self._at_once)]

    def loss(self, model: Any, part: MicroBatch) -> tuple[Any, int]:
        """Return the summed loss and the number of targets."""
        from torch.nn.functional import cross_entropy

        # Padded on the left, all targets stand at the end, so the last logits suffice: over a prompt of 200 tokens and
        # a vocabulary of 49,152, TRL's own loss computes six times as many.
        labels = part["labels"]
        keep = int((labels != IGNORED).sum(1).max()) + 1
        inputs = {name: part[name] for name in ("input_ids", "attention_mask", "position_ids")}
        logits = model(**inputs, use_cache=False, logits_to_keep=keep).logits[:, :-1].float()
        wanted = labels[:, -keep + 1 :]
        total = cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum")
        return total, int((wanted != IGNORED).sum())

    def prepared(self, model: Any) -> AbstractContextManager[None]:
        """Change nothing: every model takes padded rows."""
        return nullcontext()

    def sort_key(self, row: dict[str, Any]) -> int:
        """By length: rows of similar length are padded little."""
        return len(row["input_ids"])


class PackedBatcher:
    """Examples stand one after another in rows of at most `most` tokens, behind their common prefix (packing.py)."""

    def __init__(self, tokenizer: Any, most: int) -> None:
        self._end = Collator(tokenizer).end
        self._most = most

    def parts(self, rows: Sequence[dict[str, Any]]) -> list[MicroBatch]:
        """Return packed rows. Raises FractionateError where a row's mask was lost."""
        check_mask([row["labels"] for row in rows], self._end)
        return [inputs_of(one) for one in pack(rows, self._most)]

    def loss(self, model: Any, part: MicroBatch) -> tuple[Any, int]:
        """Return the summed loss and the number of targets."""
        losses = packed_losses(model, part)
        return losses.sum(), losses.numel()

    def prepared(self, model: Any) -> AbstractContextManager[None]:
        """Let the model attend within segments."""
        return shared_attention(model)

    def sort_key(self, row: dict[str, Any]) -> list[int]:
        """By tokens: rows with a common prefix are neighbours."""
        return list(row["input_ids"])


def batcher_for(model: Any, tokenizer: Any, sets: Sequence[TrainingRows], settings: TrainConfig) -> Batcher:
    """Return how sets of rows are batched: packed where settings ask for it and a trial shows that the model can."""
    device = model.device.type
    if settings.share_passages:
        with in_fp32(model):
            packable = packs_exactly(model, [row for rows in sets for row in rows.rows])
        if packable:
            return PackedBatcher(tokenizer, part_tokens(device))
    return PaddedBatcher(tokenizer, min(examples_at_once(rows, settings, device) for rows in sets))


def part_tokens(device: str) -> int:
    """Return the tokens of a micro-batch on a device ("cpu", "cuda")."""
    return PART_TOKENS.get(device, 16_000)


def examples_at_once(rows: TrainingRows, settings: TrainConfig, device: str) -> int:
    """Return how many padded examples a micro-batch has: a divisor of a worker's share, within PART_TOKENS."""
    longest = max(len(row["input_ids"]) for row in rows.rows)
    most = min(settings.share, part_tokens(device) // longest)
    return max((size for size in range(1, most + 1) if settings.share % size == 0), default=1)


def largest_part(rows: TrainingRows, settings: TrainConfig, device: str) -> tuple[int, int]:
    """Return the most tokens and the most targets of a micro-batch; for packed rows, an upper bound."""
    longest = max(len(row["input_ids"]) for row in rows.rows)
    targets = max(sum(label != IGNORED for label in row["labels"]) for row in rows.rows)
    if settings.share_passages:
        tokens = max(longest, min(part_tokens(device), settings.share * longest))
        return tokens, min(tokens, settings.share * targets)
    at_once = examples_at_once(rows, settings, device)
    return at_once * longest, at_once * targets


PROCESS = 600 << 20
"""Bytes of a process that has loaded torch, transformers and TRL and trains nothing yet."""
KEPT_AS_WIDE_AS_MODEL, KEPT_AS_WIDE_AS_MLP = 20, 5
"""Vectors of a token that a layer keeps for the backward pass: as wide as the model, and as wide as its MLP."""
KEPT_IN_BF16 = 0.65
"""Their size where products are computed in bf16, as a share of fp32: norms keep theirs in fp32."""
LAYERS_ANEW = 8
"""Layers' worth of activations held at once under gradient checkpointing: those of the layer that is recomputed, its
gradients, and what the allocator does not return between layers (most of it, on a CPU with glibc)."""
COPIES_OF_LOGITS = 6
"""Logits, their logarithms and gradients, in fp32, held at once."""
BYTES_OF_4_BITS = 0.516
"""Bytes of a weight in NF4: its 4 bits, an 8-bit scale for 64 weights, and the scales of the scales."""


def memory_bytes(
    shapes: list[list[int]], config: Any, rows: TrainingRows, settings: TrainConfig, device: str
) -> dict[str, int]:
    """Return the peak bytes of each worker, by purpose; benchmarks/train_memory.py compares them with measurements.

    `shapes` are those of the base's tensors, `config` is its own, `device` is "cpu" or "cuda". The parts: `base`, its
    weights; `learning`, gradients, Adam's two moments and what is trained beside the base; `activations` for the
    backward pass; `logits`; `process`, which is not on a GPU.
    """
    linear = [shape for shape in shapes if len(shape) == 2 and shape[0] < 8 * shape[1]]
    total = sum(math.prod(shape) for shape in shapes)
    lora = settings.method == "lora"
    trained = settings.lora_rank * sum(sum(shape) for shape in linear) if lora else total
    tokens, targets = largest_part(rows, settings, device)
    # Each copy in fp32: a gradient, two moments, an adapter's weights, and what workers hand each other.
    copies = 3 + lora + (settings.workers > 1)
    return {
        "base": int(_base(total, sum(map(math.prod, linear)), config.num_hidden_layers, settings, device)),
        "learning": 4 * trained * copies,
        "activations": int(tokens * _kept_of_a_token(config, settings, device)),
        "logits": 4 * COPIES_OF_LOGITS * targets * config.vocab_size,
        "process": PROCESS,
    }


def _base(total: int, linear: int, layers: int, settings: TrainConfig, device: str) -> float:
    """Return the bytes of a base of `total` weights, `linear` of them in linear layers: as stored and as multiplied."""
    width = 2 if holds_base_in_bf16(settings) else 4
    if settings.base_bits == 4:
        return BYTES_OF_4_BITS * linear + width * (total - linear)
    # Products in bf16 take a bf16 copy of fp32 weights, which autocast keeps for the backward pass.
    copied = 2 * total if multiplies_in_bf16(settings, device) and width == 4 else 0
    frozen_anew = settings.gradient_checkpointing and settings.method == "lora"
    return width * total + (copied / layers if frozen_anew else copied)


def _kept_of_a_token(config: Any, settings: TrainConfig, device: str) -> float:
    """Return the bytes kept of a token for the backward pass: all layers' activations, or each layer's input alone."""
    number = 4 * (KEPT_IN_BF16 if multiplies_in_bf16(settings, device) else 1)
    width, layers = config.hidden_size, config.num_hidden_layers
    layer = number * (KEPT_AS_WIDE_AS_MODEL * width + KEPT_AS_WIDE_AS_MLP * config.intermediate_size)
    anew = number * layers * width + LAYERS_ANEW * layer
    return float(min(anew, layers * layer) if settings.gradient_checkpointing else layers * layer)
