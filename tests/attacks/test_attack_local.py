"""Local models: a folder's own code does not run unasked; bad names and damaged files end in one line."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attack_size import TIMES

pytest.importorskip("transformers", reason="the 'local' extra is not installed")

from fractionate.config import ModelOptions
from fractionate.errors import FractionateError
from fractionate.models import open_model
from fractionate.models.local.adapters import tensor_shapes
from fractionate.models.local.model import LocalModel, unload
from fractionate.models.local.weights import resolve
from fractionate.types import Message, Request

ASK = Request((Message("user", "How many?"),), "solver", max_tokens=4)
OWN_CODE = """
import pathlib
pathlib.Path({marker!r}).write_text("ran")
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

class OwnConfig(PretrainedConfig):
    model_type = "own"

class OwnModel(PreTrainedModel):
    config_class = OwnConfig

class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("FRACTIONATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    unload()


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def use(name: str, **options: Any) -> str:
    """Open a model and ask it; return what was refused, "" if it answered."""
    try:
        model = open_model(name, ModelOptions(device="cpu", **options))
        assert isinstance(model, LocalModel)
        model.plan([ASK])
        model.complete_batch([ASK])
    except FractionateError as error:
        return str(error)
    return ""


def edit(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.mark.parametrize("part", ["config", "tokenizer"])
def test_a_folder_s_own_code_runs_only_where_the_config_allows_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    marker = tmp_path / "ran"
    (folder / "own.py").write_text(OWN_CODE.format(marker=str(marker)))
    if part == "config":
        auto = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
        edit(folder / "config.json", model_type="own", auto_map=auto)
    else:
        tokenizer = {"AutoTokenizer": [None, "own.OwnTokenizer"]}
        edit(folder / "tokenizer_config.json", tokenizer_class="OwnTokenizer", auto_map=tokenizer)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 20))
    said = use(f"local:{folder}")
    assert not marker.exists(), "standard input said yes, and the config had not"
    assert said.isprintable()
    if part == "config":
        assert "trust_remote_code = true" in said
    use(f"local:{folder}", trust_remote_code=True)
    assert marker.exists()


NAMES = [
    *("bad name", "", "@", "x@", "@x", "a/b/c", "../..", ".", "..", "/", "-x", "x-", "a--b/c", "org/..", "org/.git"),
    *("~nobody-here/model", "~", "\0", "a\0b", "x" * 5000, "y/" * 3000, "é/ü", "a\nb", "\x1b[2J", "c:\\models\\x"),
    *("no/such", "no-such.gguf", "a@b@c@d", "org/name@", "%2e%2e", "x y/z", "*", "?", "{}", "nul\x7f"),
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_bad_name_is_one_line(name: str) -> None:
    said = use(f"local:{name}")
    assert said
    assert said.isprintable()
    assert len(said) < 600


TEMPLATES = {
    "broken": "{% for m in messages %}{{ m.content",
    "unknown filter": "{{ messages | nonsense }}",
    "raises": "{{ raise_exception('no\nsuch turn') }}",
    "undefined": "{{ nothing.at.all }}",
    "divides": "{{ 1 // 0 }}",
    "escapes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "long loop": "{% for i in range(10**9) %}x{% endfor %}",
    "silent": "",
    "number": 5,
    "list": [{"name": "default", "template": "{{ 1 // 0 }}"}],
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_broken_template_is_one_line(folder: Path, name: str) -> None:
    for file in folder.glob("chat_template*"):
        file.unlink()
    edit(folder / "tokenizer_config.json", chat_template=TEMPLATES[name])
    said = use(f"local:{folder}")
    assert said.isprintable()
    if name != "silent":
        assert str(folder) in said


def flipped(data: bytes, draw: random.Random) -> bytes:
    edited = bytearray(data)
    for _ in range(8):
        edited[draw.randrange(len(edited))] = draw.randrange(256)
    return bytes(edited)


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def emptied(data: bytes, draw: random.Random) -> bytes:
    return b""


def nonsense(data: bytes, draw: random.Random) -> bytes:
    return draw.randbytes(1000)


def deep(data: bytes, draw: random.Random) -> bytes:
    return b"[" * 100_000


def another_json(data: bytes, draw: random.Random) -> bytes:
    return draw.choice([b"null", b"[]", b'"text"', b"5", b"{}", b'{"model_type": 5}', b'{"model_type": "no-such"}'])


def huge_header(data: bytes, draw: random.Random) -> bytes:
    return b"\xff" * 8 + data


Damage = Callable[[bytes, random.Random], bytes]
DAMAGES: list[Damage] = [flipped, cut, emptied, nonsense, deep, another_json, huge_header]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_a_damaged_file_is_one_line_or_harmless(folder: Path, name: str, damage: Damage) -> None:
    file = folder / name
    if not file.exists():
        pytest.skip(f"this version of transformers writes no {name}")
    whole = file.read_bytes()
    for number in range(TIMES):
        file.write_bytes(damage(whole, random.Random(number)))
        said = use(f"local:{folder}")
        assert said.isprintable()
        assert len(said) < 1500


@pytest.mark.parametrize(
    "fields",
    [
        {"num_hidden_layers": 0},
        {"num_hidden_layers": "two"},
        {"hidden_size": -1},
        {"num_attention_heads": 0},
        {"num_key_value_heads": 10**30},
        {"vocab_size": 10**12},
        {"max_position_embeddings": "many"},
        {"architectures": 5},
        {"quantization_config": {"quant_method": "nonsense"}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_an_odd_config_is_one_line(folder: Path, fields: dict[str, Any]) -> None:
    edit(folder / "config.json", **fields)
    assert use(f"local:{folder}").isprintable()


@pytest.mark.parametrize(
    "data", [b"", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 16, b"GGUF\x03\x00\x00\x00" + bytes(64), b"x" * 1000]
)
def test_a_broken_gguf_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.gguf").write_bytes(data)
    said = use(f"local:{tmp_path / 'model.gguf'}")
    assert "model.gguf" in said
    assert said.isprintable()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "generation_config.json"])
def test_a_pipe_in_a_model_s_folder_is_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert use(f"local:{folder}").isprintable()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "training.json"])
def test_a_damaged_adapter_is_one_line_or_harmless(folder: Path, tmp_path: Path, name: str, damage: Damage) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "x", "r": 2}')
    shutil.copy(folder / "model.safetensors", adapter / "adapter_model.safetensors")
    (adapter / "training.json").write_text("{}")
    (adapter / name).write_bytes(damage((adapter / name).read_bytes(), random.Random(0)))
    assert use(f"local:{folder}@{adapter}").isprintable()


def test_the_header_of_a_weight_file_is_never_trusted(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    for header in (b"[]", b'{"a": 5}', b'{"a": {}}', b'{"a": {"shape": 5}}', b"[" * 10_000):
        file.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(FractionateError, match="not a safetensors file"):
            tensor_shapes(file)
    with pytest.raises(FractionateError):
        resolve(f"local:{tmp_path}")
