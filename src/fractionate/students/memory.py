"""What memory a training takes, from shapes: an estimate of each worker's peak, tried by benchmarks/train_memory.py."""

from __future__ import annotations

import math
from typing import Any

from fractionate.config import TrainConfig
from fractionate.students.precision import holds_base_in_bf16, multiplies_in_bf16
from fractionate.students.reading import largest_part
from fractionate.students.training_data import TrainingRows

PROCESS = 600 << 20
"""Bytes of a process that has loaded torch, transformers and TRL and trains nothing yet."""
KEPT_AS_WIDE_AS_MODEL, KEPT_AS_WIDE_AS_MLP = 20, 5
"""Vectors that a layer keeps of a token for the way back: so many as wide as the model, so many as its MLP."""
KEPT_IN_BF16 = 0.65
"""What they take where products are made in bf16, of what they take in fp32: norms keep theirs in fp32."""
LAYERS_ANEW = 8
"""Layers' worth of activations at the most at once where one layer at a time is computed anew: its own, its gradients
and what an allocator does not give back between layers (most of it: on a CPU with glibc)."""
COPIES_OF_LOGITS = 6
"""Logits, their logarithms and gradients, in fp32, at the most at once."""
BYTES_OF_4_BITS = 0.516
"""Bytes of a weight in NF4: its 4 bits, a scale of 8 bits for 64 weights, and those scales' own."""


def memory_bytes(
    shapes: list[list[int]], config: Any, rows: TrainingRows, settings: TrainConfig, device: str
) -> dict[str, int]:
    """Return the bytes that each worker takes at its largest part, by what for.

    `shapes` are those of the base's tensors, `config` is its own, `device` is "cpu" or "cuda". The parts: `base`, its
    weights; `learning`, gradients, Adam's two moments and what is trained beside the base; `activations`, which wait
    for the way back; `logits`; `process`, which is not on a GPU.
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
    """Return the bytes of a base of `total` weights, `linear` of them in linear layers, as held and multiplied."""
    width = 2 if holds_base_in_bf16(settings) else 4
    if settings.base_bits == 4:
        return BYTES_OF_4_BITS * linear + width * (total - linear)
    # Products in bf16 take a copy of fp32 weights, which waits for the way back too.
    copied = 2 * total if multiplies_in_bf16(settings, device) and width == 4 else 0
    frozen_anew = settings.gradient_checkpointing and settings.method == "lora"
    return width * total + (copied / layers if frozen_anew else copied)


def _kept_of_a_token(config: Any, settings: TrainConfig, device: str) -> float:
    """Return the bytes that wait of each token for the way back: all layers' activations, or each layer's input."""
    number = 4 * (KEPT_IN_BF16 if multiplies_in_bf16(settings, device) else 1)
    width, layers = config.hidden_size, config.num_hidden_layers
    layer = number * (KEPT_AS_WIDE_AS_MODEL * width + KEPT_AS_WIDE_AS_MLP * config.intermediate_size)
    anew = number * layers * width + LAYERS_ANEW * layer
    return float(min(anew, layers * layer) if settings.gradient_checkpointing else layers * layer)
