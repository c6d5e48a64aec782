"""In which numbers a student is trained: those that products are made in, and those that hold the weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fractionate.config import TrainConfig
from fractionate.errors import UsageError, missing_extra


def check_precision(settings: TrainConfig, device: str) -> None:
    """Raise UsageError where settings ask for numbers that this machine ("cpu", "cuda") cannot work with."""
    if settings.base_bits == 4 and importlib.util.find_spec("bitsandbytes") is None:
        raise missing_extra("bitsandbytes", "quantised", "train.base_bits = 4")
    if settings.precision == "bf16" and device == "cuda" and not _gpu_has_bf16():
        raise UsageError('train.precision = "bf16": this GPU has no bf16: take "fp32"')


def multiplies_in_bf16(settings: TrainConfig, device: str) -> bool:
    """Return whether products are made in bf16 on a device ("cpu", "cuda")."""
    if settings.precision == "auto":
        return device == "cuda" and _gpu_has_bf16()
    return settings.precision == "bf16"


def holds_base_in_bf16(settings: TrainConfig) -> bool:
    """Return whether the base's weights are held in bf16: frozen ones may be, since no small update is lost on them."""
    return settings.precision == "bf16" and settings.method == "lora"


def held(settings: TrainConfig, device: str) -> Mapping[str, Any]:
    """Return how the base is held while a student is trained, as transformers is told when it loads it.

    4 bits are NF4 with scales that are quantised in turn, as QLoRA has it (arXiv 2305.14314). What is not the weight of
    a linear layer stays as it would be without them.
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


def learn_in_fp32(model: Any) -> None:
    """Hold what is trained in fp32: TRL makes an adapter bf16 over a quantised base, where small updates are lost."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


@contextmanager
def exact(model: Any) -> Iterator[None]:
    """Hold a model's bf16 weights in fp32 for a while, so that rounding hides no difference; none of it is lost."""
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
