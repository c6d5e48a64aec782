"""LoRA adapters of `local:` models: their files, their config, and whether they fit a base."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractionate.errors import UsageError, missing_extra

if TYPE_CHECKING:
    from fractionate.models.local.weights import Weights

LONGEST_HEADER = 100_000_000
"""Bytes of a safetensors file's header at most, as its own readers have it."""


def is_adapter(path: Path) -> bool:
    """Return whether a folder holds an adapter and no whole model."""
    return (path / "adapter_config.json").is_file() and not (path / "config.json").is_file()


def adapter_folder(name: str) -> Path:
    """Return the absolute folder of an adapter. Raises UsageError where a file of it is missing."""
    path = Path(name).expanduser()
    if not (path / "adapter_config.json").is_file():
        raise UsageError(f"no adapter in {name!r}: it has no adapter_config.json")
    if not (path / "adapter_model.safetensors").is_file():
        raise UsageError(f"no adapter weights in {name!r}: it has no adapter_model.safetensors")
    return path.resolve()


def adapter_config(adapter: Path) -> dict[str, Any]:
    """Return an adapter's `adapter_config.json`. Raises UsageError where it is no JSON object."""
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise UsageError(f"{adapter / 'adapter_config.json'} is not a JSON object: train the adapter again")
    return config


def check_adapter(adapter: Path, base: Weights) -> None:
    """Raise UsageError for an adapter of other weights, by the fingerprint in its `training.json`, else by shapes."""
    if importlib.util.find_spec("peft") is None:
        raise missing_extra("peft", "train", "an adapter")
    trained_on = adapter_config(adapter).get("base_model_name_or_path") or "another base"
    recorded = _recorded_base(adapter)
    if recorded == base.fingerprint:
        return
    if recorded:
        raise UsageError(
            f"adapter {adapter} was trained on {trained_on} (weights {recorded}), not on {base.name} "
            f"(weights {base.fingerprint}): name its own base or train it again"
        )
    if mismatch := _shape_mismatch(adapter, base.folder()):
        raise UsageError(f"adapter {adapter} was trained on {trained_on}, not on {base.name}: {mismatch}")


def _recorded_base(adapter: Path) -> str:
    try:
        return str(json.loads((adapter / "training.json").read_text(encoding="utf-8"))["base_fingerprint"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _shape_mismatch(adapter: Path, base: Path) -> str:
    """Return a sentence on a LoRA matrix that does not fit its base's layer, "" if all do. Reads headers only."""
    layers: dict[str, list[int]] = {}
    for file in base.glob("*.safetensors"):
        layers |= tensor_shapes(file)
    for name, shape in tensor_shapes(adapter / "adapter_model.safetensors").items():
        layer, _, matrix = name.removeprefix("base_model.model.").partition(".lora_")
        if matrix[:1] not in ("A", "B"):
            continue
        weight = layers.get(f"{layer}.weight")
        if weight is None:
            return f"the base has no layer {layer}"
        expected, found = (weight[-1], shape[-1]) if matrix[0] == "A" else (weight[0], shape[0])
        if expected != found:
            return f"{layer} is {expected} wide in the base, {found} in the adapter"
    return ""


def tensor_shapes(file: Path) -> dict[str, list[int]]:
    """Return name → shape of a safetensors file from its header (https://github.com/huggingface/safetensors#format)."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, LONGEST_HEADER)))
        return {name: list(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error):
        raise UsageError(f"{file} is not a safetensors file: it may be cut off") from None
