"""The exported chat template produces exactly the tokens of training, for any template of the base."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the 'local' extra is not installed")

from fractionate.errors import FractionateError
from fractionate.export.chat_form import asks_alike, chat_form
from fractionate.export.parity import own_prompt
from fractionate.export.write import write_tokenizer
from fractionate.models.local.chat import end_of_turn, render
from fractionate.models.local.model import load_tokenizer
from fractionate.types import Message

LOOP = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
REPLY = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
DEFAULT = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe 'tiny'.<|im_end|>\n{% endif %}"
TEMPLATES = {
    "a default system message": DEFAULT + LOOP + REPLY,
    "none": LOOP + REPLY,
    "a beginning token and trimmed words": "{{ bos_token }}" + DEFAULT + LOOP.replace("] }}<", "] | trim }}<") + REPLY,
    "no system message allowed": "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    + LOOP
    + REPLY,
    "no template": "",
}
QUESTIONS = ["What is it?", "A passage.\n\nIt's \"odd\"\\n, isn't it?\n1. #1?\n2. <b>?", "Wo liegt Zürich, 東京?"]


def tokenizer_with(template: str, model: Path, folder: Path) -> object:
    tokenizer = load_tokenizer(model)
    own, begin = tokenizer.chat_template, tokenizer.bos_token
    tokenizer.chat_template, tokenizer.bos_token = template or None, "Z" if "bos_token" in template else begin
    tokenizer.save_pretrained(folder)
    tokenizer.chat_template, tokenizer.bos_token = own, begin
    return load_tokenizer(folder)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_the_written_template_asks_with_the_tokens_of_training(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_with(TEMPLATES[kind], tiny_model, tmp_path / "base")
    form = chat_form(tokenizer)
    write_tokenizer(tokenizer, form, tmp_path / "out")
    written = load_tokenizer(tmp_path / "out")
    for question in QUESTIONS:
        messages = [Message("user", question)]
        assert own_prompt(written, messages) == render(tokenizer, messages, "student")  # type: ignore[arg-type]
    assert form.end == "<|im_end|>"
    assert end_of_turn(written) == end_of_turn(tokenizer)  # type: ignore[arg-type]


def test_a_template_that_already_asks_so_is_left_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    plain = tokenizer_with(TEMPLATES["none"], tiny_model, tmp_path / "plain")
    default = tokenizer_with(TEMPLATES["a default system message"], tiny_model, tmp_path / "default")
    assert asks_alike(plain)
    assert not asks_alike(default)
    write_tokenizer(plain, chat_form(plain), tmp_path / "out")
    assert load_tokenizer(tmp_path / "out").chat_template == TEMPLATES["none"]


def test_a_conversation_with_a_system_message_is_that_of_the_base(tiny_model: Path, tmp_path: Path) -> None:
    base = tokenizer_with(TEMPLATES["a default system message"], tiny_model, tmp_path / "base")
    write_tokenizer(base, chat_form(base), tmp_path / "out")
    talk = [Message("system", "S"), Message("user", "U"), Message("assistant", "A"), Message("user", "V")]
    assert own_prompt(load_tokenizer(tmp_path / "out"), talk) == own_prompt(base, talk)


def test_a_template_that_says_its_user_turn_otherwise_before_a_reply_is_refused(
    tiny_model: Path, tmp_path: Path
) -> None:
    odd = DEFAULT + LOOP + "{% if add_generation_prompt %}" + REPLY + "{% else %}end{% endif %}"
    tokenizer = tokenizer_with(odd, tiny_model, tmp_path / "odd")
    with pytest.raises(FractionateError, match="cannot be taken apart"):
        chat_form(tokenizer)


def test_the_template_for_ollama_holds_line_breaks_as_escapes_and_no_beginning_token(
    tiny_model: Path, tmp_path: Path
) -> None:
    tokenizer = tokenizer_with(TEMPLATES["a beginning token and trimmed words"], tiny_model, tmp_path / "base")
    written = chat_form(tokenizer).go()
    assert "\n" not in written
    assert "Z" not in written
    assert '{{ else if eq .Role "user" }}{{ "<|im_start|>user\\n" }}{{ .Content }}{{ "<|im_end|>\\n" }}' in written
    assert written.endswith('{{ "<|im_start|>assistant\\n" }}')


@pytest.mark.skipif(shutil.which("go") is None, reason="Go, whose templates Ollama's are, is not installed")
@pytest.mark.parametrize("kind", ["a default system message", "no system message allowed", "no template"])
def test_ollama_s_template_says_what_training_said(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_with(TEMPLATES[kind], tiny_model, tmp_path / "base")
    (tmp_path / "template").write_text(chat_form(tokenizer).go())
    for question in QUESTIONS:
        messages = json.dumps([{"Role": "user", "Content": question}])
        command = [
            "go",
            "run",
            str(Path(__file__).with_name("ollama_template.go")),
            str(tmp_path / "template"),
            messages,
        ]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        ids = tokenizer(said, add_special_tokens=False).input_ids  # type: ignore[operator]
        assert ids == render(tokenizer, [Message("user", question)], "student")
