"""Hugging Face folders: a student merged into its base, or its adapter alone, with the template it is asked by."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from fractionate.errors import UsageError
from fractionate.export.chat_form import ChatForm, asks_alike
from fractionate.export.student import Student
from fractionate.models.local.model import ends_of
from fractionate.models.local.weights import quiet_transformers
from fractionate.run.records import TRAINING


def write_merged(student: Student, model: Any, tokenizer: Any, form: ChatForm, out: Path) -> None:
    """Write merged weights (safetensors, fp32), config, generation config, tokenizer and chat template to a folder.

    `model` is the student in memory, its adapter merged in. It is to answer greedily, and to end where it did here.
    """
    model.generation_config = _generation(model, tokenizer)
    with quiet_transformers():
        model.save_pretrained(out)
    _forget_where(out / "config.json")
    write_tokenizer(tokenizer, form, out)
    _write_record(student, out)


def write_adapter(student: Student, tokenizer: Any, form: ChatForm, out: Path) -> None:
    """Write the adapter, with the tokenizer and the template that whoever serves it needs.

    Raises UsageError for a student of full training.
    """
    if student.weights.adapter is None:
        raise UsageError(f"{student.name} was trained with all its weights and has no adapter: --format safetensors")
    shutil.copyfile(student.folder / "adapter_model.safetensors", out / "adapter_model.safetensors")
    config = json.loads((student.folder / "adapter_config.json").read_text(encoding="utf-8"))
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_tokenizer(tokenizer, form, out)
    _write_record(student, out)


def write_tokenizer(tokenizer: Any, form: ChatForm, out: Path) -> None:
    """Write a tokenizer whose template asks as training did: its own where that does, else one that is written here."""
    own = tokenizer.chat_template
    try:
        if not asks_alike(tokenizer):
            tokenizer.chat_template = form.jinja()
        tokenizer.save_pretrained(out)
    finally:
        tokenizer.chat_template = own


def adapter_rank(folder: Path) -> int:
    """Return the highest rank of an adapter's matrices, which vLLM must be told."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])


def _generation(model: Any, tokenizer: Any) -> Any:
    from transformers import GenerationConfig

    ends = sorted(ends_of(model, tokenizer))
    pad = ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return GenerationConfig(do_sample=False, eos_token_id=ends, pad_token_id=pad, bos_token_id=tokenizer.bos_token_id)


def _forget_where(config: Path) -> None:
    """Take out of a config what it says about where the base lay on this machine."""
    fields = json.loads(config.read_text(encoding="utf-8"))
    kept = {key: value for key, value in fields.items() if not key.endswith("name_or_path")}
    config.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def _write_record(student: Student, out: Path) -> None:
    # `local:FOLDER` knows by this file that the weights are a student's; where the base lay here is nobody's business.
    record = {**student.training, "base": student.base}
    (out / TRAINING).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
