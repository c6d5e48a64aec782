"""Writes weights of the Llama architecture as one GGUF file, for runtimes other than transformers.

Names, the order of rotary halves and the keys of the vocabulary follow llama.cpp's own converter
(https://github.com/ggml-org/llama.cpp, `convert_hf_to_gguf.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fractionate.errors import UsageError
from fractionate.models.local.chat import end_of_turn

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
TYPES = {"f32": 0, "f16": 1, "q8_0": 7}
"""The storage types of matrices, and their numbers in a file. Vectors are always fp32."""


def why_no_gguf(config: Any, tokenizer: Any) -> str:
    """Return the reason why a model cannot be written as GGUF here, "" if it can."""
    if config.model_type != "llama":
        return f"the architecture {config.model_type!r} (only llama)"
    if _rope(config).get("rope_type", "default") != "default":
        return f"a llama with rotary scaling {_rope(config)['rope_type']!r}"
    if getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False):
        return "a llama with biases"
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"] if tokenizer.is_fast else {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        return "a tokenizer that is no byte-level BPE"
    return ""


def write_gguf(
    model: Any,
    tokenizer: Any,
    name: str,
    path: Path,
    kind: str = "f16",
    cut: str = "gpt-2",
    more: Callable[[Any], None] = lambda writer: None,
) -> None:
    """Write a model in memory, its matrices as one of `TYPES`, with its vocabulary. The file says that it holds `name`.

    `cut` is llama.cpp's name of the pre-tokenizer; a runtime that is given tokens does not need it. `more`
    is called with gguf's writer and may add further keys. Raises UsageError for a weight that GGUF has no name for.
    """
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(TYPES[kind])
    _add_shape(writer, model.config)
    _add_vocabulary(writer, tokenizer, model.config.vocab_size, cut)
    more(writer)
    for tensor, values in _tensors(model):
        stored, stored_as = _stored(values, kind)
        writer.add_tensor(tensor, stored, raw_dtype=stored_as)
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
    writer.add_rope_freq_base(float(_rope(config).get("rope_theta") or getattr(config, "rope_theta", None) or 1e4))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _rope(config: Any) -> dict[str, Any]:
    return dict(getattr(config, "rope_parameters", None) or {})


def _add_vocabulary(writer: Any, tokenizer: Any, size: int, cut: str) -> None:
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
    writer.add_tokenizer_pre(cut)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges or [" ".join(tokens[-2:])])  # an empty list has no type to be written with
    writer.add_eos_token_id(end_of_turn(tokenizer))
    writer.add_add_space_prefix(False)


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
            raise UsageError(f"a model with the weight {name} cannot be written as GGUF here")
        if rest in ("self_attn.q_proj", "self_attn.k_proj"):
            values = _paired(values, heads if rest == "self_attn.q_proj" else kv_heads)
        yield f"blk.{layer}.{_LAYER_NAMES[rest]}.weight", values


def _paired(values: Any, heads: int) -> Any:
    """Put the rows of each head in the order in which llama.cpp turns them: neighbours in pairs, not halves."""
    rows, columns = values.shape
    halves = values.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def _stored(values: Any, kind: str) -> tuple[Any, Any]:
    """Return an array in the form of the file, and its type there."""
    import numpy as np
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    values = np.ascontiguousarray(values)
    if values.ndim < 2 or kind == "f32":
        return values.astype(np.float32), GGMLQuantizationType.F32
    if kind == "q8_0" and values.shape[-1] % 32 == 0:  # blocks of 32: other rows stay as they are in f16
        return quantize(values, GGMLQuantizationType.Q8_0), GGMLQuantizationType.Q8_0
    return values.astype(np.float16), GGMLQuantizationType.F16
