"""The lines that serve an export elsewhere, and one request that it understands."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from fractionate.export.folders import adapter_rank
from fractionate.export.student import Student
from fractionate.types import Message

_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM takes for --max-lora-rank (its LoRAConfig)."""
VLLM, OLLAMA = "http://localhost:8000/v1", "http://localhost:11434/v1"


def serve_line(student: Student, kind: str, folder: Path, name: str) -> str:
    """Return the command that serves an export of a kind from its folder, under a name."""
    if kind == "gguf":
        return f"ollama create {shlex.quote(name)} -f {shlex.quote(str(folder / 'Modelfile'))}"
    if kind == "safetensors":
        return f"vllm serve {shlex.quote(str(folder))} --served-model-name {shlex.quote(name)}"
    rank = adapter_rank(student.folder)
    most = next((one for one in _LORA_RANKS if one >= rank), rank)
    base = student.base if student.base_is_public else str(student.weights.source)
    parts = ["vllm", "serve", base, "--enable-lora", "--lora-modules", f"{name}={folder}", "--max-lora-rank", str(most)]
    # The base's own template may open with a system message that the student was trained without.
    return shlex.join([*parts, "--chat-template", str(folder / "chat_template.jinja")])


def request_line(kind: str, name: str, messages: tuple[Message, ...], max_tokens: int) -> str:
    """Return a curl command that asks a served export one question in the form it was trained on."""
    body = {
        "model": name,
        "messages": [{"role": role, "content": content} for role, content in messages],
        "temperature": 0,
        "max_tokens": max_tokens,
    }
    address = OLLAMA if kind == "gguf" else VLLM
    text = shlex.quote(json.dumps(body, ensure_ascii=False))
    return f"curl {address}/chat/completions -H 'Content-Type: application/json' -d {text}"
