"""A student as one GGUF file, the form of llama.cpp and Ollama, and its check by llama.cpp itself.

The weights are written by models/local/gguf_file.py; this file adds the vocabulary, the special tokens and the chat
template. What cannot be written says so: llama.cpp's converter takes the safetensors folder.

The check runs llama.cpp's server (compiled, in the package xllamacpp) in this process. Its tokenizer and template
engine are not those of transformers, so the tokens that it makes of a prompt are compared too.
"""

from __future__ import annotations

import importlib.util
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fractionate.errors import FractionateError, UsageError
from fractionate.export.chat_form import ChatForm
from fractionate.export.parity import Parity, Reference, check_prompts
from fractionate.models.local import gguf_file
from fractionate.models.local.chat import end_of_turn
from fractionate.types import Message

TYPES = ("f16", "f32", "q8_0")
"""How matrices can be stored; vectors are fp32 in each."""
_INSTEAD = "export --format safetensors and give that folder to llama.cpp's convert_hf_to_gguf.py"
_LLAMA3_SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"


def check_can_write(config: Any, tokenizer: Any) -> None:
    """Raise UsageError for a model that cannot be written as GGUF here, with the reason and the way round."""
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


_TIMEOUT_S = 600.0


def has_llamacpp() -> bool:
    """Return whether llama.cpp is installed (extra `llamacpp`)."""
    return importlib.util.find_spec("xllamacpp") is not None


def check_llamacpp(reference: Reference, file: Path, stored: str) -> Parity:
    """Generate replies to the reference's prompts with llama.cpp from a GGUF file, and compare them."""
    longest = max(map(len, reference.prompts)) + reference.max_tokens
    with _server(file, longest + 8) as post:

        def tokens_of(messages: Sequence[Message]) -> list[int]:
            turns = [{"role": role, "content": content} for role, content in messages]
            text = post("/apply-template", {"messages": turns})["prompt"]
            found = post("/tokenize", {"content": text, "parse_special": True, "add_special": True})
            return [int(token) for token in found["tokens"]]

        check_prompts(reference, tokens_of, f"llama.cpp with {file.name}")
        replies = [_reply(post, prompt, reference) for prompt in reference.prompts]
    return reference.compare(replies, file.name, "llama.cpp", stored)


def _reply(post: Any, prompt: list[int], reference: Reference) -> list[int]:
    body = {"prompt": prompt, "n_predict": reference.max_tokens, "temperature": 0, "return_tokens": True}
    tokens = [int(token) for token in post("/completion", body)["tokens"]]
    return tokens[:-1] if tokens and tokens[-1] in reference.eos_ids else tokens


@contextmanager
def _server(file: Path, context: int) -> Iterator[Any]:
    """Run llama.cpp's server on a free port of this machine, its key/value cache in fp32."""
    import torch
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.n_gpu_layers = context, 1, 0
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.cpuparams.n_threads = torch.get_num_threads()
    params.warmup, params.verbosity = False, -1
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise FractionateError(f"llama.cpp cannot load {file.name}: {' '.join(str(error).split())[:200]}") from None
    address = server.listening_address

    def post(path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:
                return json.load(reply)
        except (urllib.error.URLError, ValueError) as error:
            raise FractionateError(f"llama.cpp failed on {file.name} ({path}): {error}") from None

    try:
        yield post
    finally:
        del server
