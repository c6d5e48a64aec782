"""A GGUF file asked by llama.cpp itself (the package xllamacpp brings it compiled), in a server of this process.

Its vocabulary and its template engine are others than transformers', so what it makes of a prompt is compared too.
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

from fractionate.errors import FractionateError
from fractionate.export.parity import Parity, Reference, check_prompts
from fractionate.types import Message

_TIMEOUT_S = 600.0


def is_there() -> bool:
    """Whether llama.cpp is installed (extra `llamacpp`)."""
    return importlib.util.find_spec("xllamacpp") is not None


def check_llamacpp(reference: Reference, file: Path, stored: str) -> Parity:
    """Ask a GGUF file the reference's prompts through llama.cpp, and compare what it replied."""
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
    """Run llama.cpp's server on a free port of this machine, its cache of keys and values in fp32."""
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
