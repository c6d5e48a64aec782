"""What training settings become on a base and a machine: number formats and the learning rate.

Where no learning rate is given:

LoRA:        2e-3 × (576 / width)^0.781, for students of width 576 or more; 2e-3 below
all weights: a tenth of that

2e-3 trains SmolLM2-135M (width 576) here (docs/experiments/atlas-demo.md). The power and the tenth are published:
*LoRA Without Regret* (J. Schulman and Thinking Machines Lab, 2025) found LoRA's best rate to be about ten times that
of full fine-tuning, for every rank, and to fall with the width. Its fit, in `hyperparam_utils.get_lr` of
https://github.com/thinking-machines-lab/tinker-cookbook, is 5e-5 × 10 (LoRA) × (2000 / width)^p, with p = 0.781 for
Llama models and 0.0775 for Qwen ones. From a width of 576 on the rule here is 1.5 times theirs for Llama models. It
is a start: candidates on a dev split are better.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fractionate.config import TrainConfig
from fractionate.errors import UsageError, missing_extra
from fractionate.models.local.model import load_config
from fractionate.models.local.weights import Weights, resolve


def check_precision(settings: TrainConfig, device: str) -> None:
    """Raise UsageError where settings ask for a number format that a device ("cpu", "cuda") does not have."""
    if settings.base_bits == 4 and importlib.util.find_spec("bitsandbytes") is None:
        raise missing_extra("bitsandbytes", "quantised", "train.base_bits = 4")
    if settings.precision == "bf16" and device == "cuda" and not _gpu_has_bf16():
        raise UsageError('train.precision = "bf16": this GPU has no bf16: take "fp32"')


def multiplies_in_bf16(settings: TrainConfig, device: str) -> bool:
    """Return whether matrix products are computed in bf16 on a device ("cpu", "cuda")."""
    if settings.precision == "auto":
        return device == "cuda" and _gpu_has_bf16()
    return settings.precision == "bf16"


def holds_base_in_bf16(settings: TrainConfig) -> bool:
    """Return whether the base's weights are stored in bf16. Frozen weights may be: no small update is rounded away."""
    return settings.precision == "bf16" and settings.method == "lora"


def base_loading(settings: TrainConfig, device: str) -> Mapping[str, Any]:
    """Return the arguments with which transformers loads the base for training.

    4 bits are NF4 with quantised scales, as in QLoRA (arXiv 2305.14314). Only weights of linear layers are quantised.
    """
    import torch

    dtype = torch.bfloat16 if holds_base_in_bf16(settings) else torch.float32
    if settings.base_bits == 16:
        return {"dtype": dtype}
    from transformers import BitsAndBytesConfig

    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if multiplies_in_bf16(settings, device) else torch.float32,
    )
    return {"dtype": dtype, "quantization_config": nf4, "device_map": {"": device}}


def hold_trained_in_fp32(model: Any) -> None:
    """Store trained weights in fp32: TRL makes an adapter of a quantised base bf16, which rounds small updates away."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


@contextmanager
def in_fp32(model: Any) -> Iterator[None]:
    """Store a model's bf16 weights in fp32 inside the block, so that rounding hides no difference.

    bf16 is a prefix of fp32, so converting back gives the same weights.
    """
    import torch

    rounded = [weight for weight in model.parameters() if weight.dtype == torch.bfloat16]
    for weight in rounded:
        weight.data = weight.data.float()
    try:
        yield
    finally:
        for weight in rounded:
            weight.data = weight.data.bfloat16()


def _gpu_has_bf16() -> bool:
    import torch

    return bool(torch.cuda.is_available() and torch.cuda.is_bf16_supported())


RATE, WIDTH = 2e-3, 576
"""LoRA's learning rate for a student of this hidden size, which the rule starts from."""
POWER = 0.781
FULL_SHARE = 0.1
"""The rate for training all weights, as a share of LoRA's."""


def default_rate(width: int, method: str) -> float:
    """Return the peak learning rate, to two digits, for a hidden size (`width`, 1 or more)."""
    rate = RATE * (WIDTH / max(width, WIDTH)) ** POWER * (FULL_SHARE if method == "full" else 1.0)
    return float(f"{rate:.2g}")


def with_rate(settings: TrainConfig, weights: Weights, trust: bool = False) -> TrainConfig:
    """Return the settings with a learning rate: the one given, else the default for these weights' hidden size."""
    if settings.learning_rate is not None:
        return settings
    width = int(load_config(weights.folder(), trust).hidden_size)
    return settings.model_copy(update={"learning_rate": default_rate(width, settings.method)})


def with_rate_for(settings: TrainConfig, base: str) -> TrainConfig:
    """Do as `with_rate` for a base by its name. Raises UsageError where its weights are not found."""
    return settings if settings.learning_rate is not None else with_rate(settings, resolve(base))
