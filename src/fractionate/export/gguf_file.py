"""Weights of the Llama architecture as one GGUF file, the form of llama.cpp and Ollama.

Names, the order of rotary halves and the keys of the vocabulary follow llama.cpp's own converter
(https://github.com/ggml-org/llama.cpp, conversion/llama.py). What this cannot write says so: that converter takes the
safetensors folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fractionate.errors import UsageError
from fractionate.export.chat_form import ChatForm
from fractionate.models.local.chat import end_of_turn

TYPES = ("f16", "f32", "q8_0")
"""How matrices are stored; vectors are fp32 in each."""
_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7}
_INSTEAD = "export --format safetensors and give that folder to llama.cpp's convert_hf_to_gguf.py"
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_LLAMA3_SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"


def check_can_write(config: Any, tokenizer: Any) -> None:
    """Raise UsageError, naming what cannot be had and the way round, for a model that this writes no GGUF of."""
    kind = config.model_type
    if kind != "llama":
        raise UsageError(f"GGUF of the architecture {kind!r} cannot be had here (only llama): {_INSTEAD}")
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    scaling = rope.get("rope_type", rope.get("type", "default"))
    if scaling != "default":
        raise UsageError(f"GGUF of a llama with rotary scaling {scaling!r} cannot be had here: {_INSTEAD}")
    if getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False):
        raise UsageError(f"GGUF of a llama with biases cannot be had here: {_INSTEAD}")
    _pre_tokenizer(tokenizer)


def write_gguf(model: Any, tokenizer: Any, form: ChatForm, kind: str, name: str, path: Path) -> None:
    """Write a model in memory (fp32) as a GGUF file of one of `TYPES`, with its vocabulary and the student's template.

    `name` is what the file says it holds. Raises UsageError as `check_can_write` does.
    """
    from gguf import GGUFWriter

    check_can_write(model.config, tokenizer)
    writer = GGUFWriter(path, "llama")
    writer.add_type("model")
    writer.add_name(name)
    _add_shape(writer, model.config)
    writer.add_file_type(_FILE_TYPES[kind])
    if kind == "q8_0":
        writer.add_quantization_version(2)
    _add_vocabulary(writer, tokenizer, model.config.vocab_size, form)
    for tensor_name, values in _tensors(model):
        stored, stored_as = _stored(values, kind)
        writer.add_tensor(tensor_name, stored, raw_dtype=stored_as)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: Any, config: Any) -> None:
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads or heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(_rope_theta(config)))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _rope_theta(config: Any) -> float:
    rope = getattr(config, "rope_parameters", None) or {}
    return float(rope.get("rope_theta") or getattr(config, "rope_theta", None) or 10_000.0)


def _add_vocabulary(writer: Any, tokenizer: Any, size: int, form: ChatForm) -> None:
    from gguf import TokenType

    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    added = {token["id"]: token for token in backend["added_tokens"]}
    by_id = {at: token for token, at in tokenizer.get_vocab().items()}
    tokens, types = [], []
    for at in range(size):
        # Rows of the embedding that no token stands for keep their place.
        kind = TokenType.UNUSED if at not in by_id else TokenType.NORMAL
        if at in added:
            kind = TokenType.CONTROL if added[at]["special"] else TokenType.USER_DEFINED
        tokens.append(by_id.get(at, f"[PAD{at}]"))
        types.append(kind)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in backend["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    end = end_of_turn(tokenizer)
    writer.add_eos_token_id(end)
    writer.add_eot_token_id(end)
    for identity, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
        (tokenizer.unk_token_id, writer.add_unk_token_id),
    ):
        if identity is not None:
            add(identity)
    writer.add_add_bos_token(bool(form.begin))
    writer.add_add_space_prefix(False)
    writer.add_chat_template(form.jinja())


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


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield every weight under llama.cpp's name, as fp32 arrays."""
    config = model.config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads or config.num_attention_heads
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.detach().float().cpu().numpy()
        module = name.removesuffix(".weight")
        if module in _NAMES:
            yield f"{_NAMES[module]}.weight", values
            continue
        layer, _, rest = module.removeprefix("model.layers.").partition(".")
        if rest not in _LAYER_NAMES or not layer.isdigit():
            raise UsageError(f"GGUF of a model with the weight {name} cannot be had here: {_INSTEAD}")
        if rest in ("self_attn.q_proj", "self_attn.k_proj"):
            values = _paired(values, heads if rest == "self_attn.q_proj" else kv_heads)
        yield f"blk.{layer}.{_LAYER_NAMES[rest]}.weight", values


def _paired(values: Any, heads: int) -> Any:
    """Put the rows of each head in the order in which llama.cpp turns them: neighbours in pairs, not halves."""
    rows, columns = values.shape
    halves = values.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def _stored(values: Any, kind: str) -> tuple[Any, Any]:
    """Return an array as the file holds it, and the type that it is then of."""
    import numpy as np
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    values = np.ascontiguousarray(values)
    if values.ndim < 2 or kind == "f32":
        return values.astype(np.float32), GGMLQuantizationType.F32
    if kind == "q8_0" and values.shape[-1] % 32 == 0:  # blocks of 32: other rows stay as they are in f16
        return quantize(values, GGMLQuantizationType.Q8_0), GGMLQuantizationType.Q8_0
    return values.astype(np.float16), GGMLQuantizationType.F16
