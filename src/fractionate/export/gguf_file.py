"""A student as one GGUF file, the form of llama.cpp and Ollama: the weights' file with all that it takes to read text.

The weights are written by `models/local/gguf_file.py`. What cannot be written says so: llama.cpp's converter takes the
safetensors folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fractionate.errors import UsageError
from fractionate.export.chat_form import ChatForm
from fractionate.models.local import gguf_file
from fractionate.models.local.chat import end_of_turn

TYPES = ("f16", "f32", "q8_0")
"""How matrices can be stored; vectors are fp32 in each."""
_INSTEAD = "export --format safetensors and give that folder to llama.cpp's convert_hf_to_gguf.py"
_LLAMA3_SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"


def check_can_write(config: Any, tokenizer: Any) -> None:
    """Raise UsageError, naming what cannot be had and the way round, for a model that this writes no GGUF of."""
    if reason := gguf_file.why_no_gguf(config, tokenizer):
        raise UsageError(f"GGUF of {reason} cannot be had here: {_INSTEAD}")
    _pre_tokenizer(tokenizer)


def write_gguf(model: Any, tokenizer: Any, form: ChatForm, kind: str, name: str, path: Path) -> None:
    """Write a model in memory (fp32) as a GGUF file of one of `TYPES`, with its vocabulary and the student's template.

    `name` is what the file says it holds. Raises UsageError as `check_can_write` does.
    """
    check_can_write(model.config, tokenizer)

    def more(writer: Any) -> None:
        if kind == "q8_0":
            writer.add_quantization_version(2)
        writer.add_eot_token_id(end_of_turn(tokenizer))
        for identity, add in (
            (tokenizer.bos_token_id, writer.add_bos_token_id),
            (tokenizer.pad_token_id, writer.add_pad_token_id),
            (tokenizer.unk_token_id, writer.add_unk_token_id),
        ):
            if identity is not None:
                add(identity)
        writer.add_add_bos_token(bool(form.begin))
        writer.add_chat_template(form.jinja())

    gguf_file.write_gguf(model, tokenizer, name, path, kind, _pre_tokenizer(tokenizer), more)


def _pre_tokenizer(tokenizer: Any) -> str:
    """Return llama.cpp's name of the rule that cuts text before byte pairs are merged."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if state["model"]["type"] != "BPE" or state["model"].get("byte_fallback") or state.get("normalizer"):
        raise UsageError(f"GGUF with a tokenizer that is no byte-level BPE cannot be had here: {_INSTEAD}")
    rule = state["pre_tokenizer"] or {}
    parts = rule["pretokenizers"] if rule.get("type") == "Sequence" else [rule]
    kinds = [part.get("type") for part in parts]
    if not any(part.get("add_prefix_space") for part in parts):
        if kinds == ["ByteLevel"]:
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and parts[0]["individual_digits"]:
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and _LLAMA3_SPLIT in parts[0]["pattern"].get("Regex", ""):
            return "llama-bpe"
    raise UsageError(f"GGUF with this tokenizer's way of cutting text ({kinds}) cannot be had here: {_INSTEAD}")
