"""OpenVINO as the runtime of local weights: the same replies, for any other rows in the batch."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the 'local' extra is not installed")
pytest.importorskip("openvino_genai", reason="the 'fast' extra is not installed")

from fractionate.config import ModelOptions
from fractionate.errors import FractionateError, UsageError
from fractionate.models.local import openvino as openvino_module
from fractionate.models.local.batch import generate
from fractionate.models.local.compare_runtimes import are_alike
from fractionate.models.local.gguf_file import why_no_gguf
from fractionate.models.local.live import LiveModel
from fractionate.models.local.model import LocalModel, load_config, load_model, load_tokenizer
from fractionate.models.local.openvino import OpenVinoBatch, openvino_file
from fractionate.models.local.rows import Prompt, Row, run_to_end
from fractionate.models.local.throughput import measure_throughput
from fractionate.models.local.weights import resolve
from fractionate.types import Message, Request


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRACTIONATE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def tiny(tiny_model: Path, cache: None) -> tuple[Any, Any, Path]:
    """The tiny model on torch, its tokenizer, and the file that OpenVINO reads of it."""
    weights = resolve(str(tiny_model))
    model, tokenizer = load_model(weights, "cpu"), load_tokenizer(tiny_model)
    return model, tokenizer, openvino_file(weights, lambda: model, tokenizer)


@pytest.fixture(scope="module")
def fast(tiny_model: Path, cache: None) -> LocalModel:
    return LocalModel(f"local:{tiny_model}", ModelOptions(device="cpu", runtime="openvino"))


def prompts(seed: int, count: int = 6, **more: Any) -> list[Prompt]:
    draw = random.Random(seed)
    return [
        Prompt([draw.randrange(2, 250) for _ in range(draw.randrange(1, 90))], draw.randrange(1, 20), seed=at, **more)
        for at in range(count)
    ]


def request(text: str, **more: Any) -> Request:
    return Request((Message("user", text),), "decomposer", **{"max_tokens": 12, **more})


def alone(file: Path, tokenizer: Any, prompt: Prompt, ends: set[int]) -> list[int]:
    return run_to_end(OpenVinoBatch(file, ends, 1), [Row(prompt, tokenizer)], lambda: False)[0].tokens


@pytest.mark.parametrize("seed", range(3))
def test_greedy_replies_are_torch_s(tiny: tuple[Any, Any, Path], seed: int) -> None:
    model, tokenizer, file = tiny
    asked = prompts(seed)
    replies = run_to_end(OpenVinoBatch(file, {1}, 1), [Row(p, tokenizer) for p in asked], lambda: False)
    expected = generate(model, tokenizer, asked, {1})
    # Weights in f16: of two words that are as good as equally likely, the other may be said.
    assert sum(a.tokens == b.tokens for a, b in zip(replies, expected, strict=True)) >= 5  # of 6
    assert all(a.generated <= p.max_tokens for a, p in zip(replies, asked, strict=True))


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_rows_that_join_between_tokens_say_what_they_say_alone(
    tiny: tuple[Any, Any, Path], temperature: float
) -> None:  # fmt: skip
    _, tokenizer, file = tiny
    rows = [Row(prompt, tokenizer) for prompt in prompts(5, 8, temperature=temperature)]
    batch = OpenVinoBatch(file, {1}, 1)
    for at, row in enumerate(rows):
        batch.join([row])
        for _ in range(at % 3):
            batch.step()
    while batch.rows:
        batch.step()
    assert [row.finish().tokens for row in rows] == [alone(file, tokenizer, row.prompt, {1}) for row in rows]


def test_prompts_longer_than_what_is_read_at_once_are_read_whole(tiny: tuple[Any, Any, Path]) -> None:
    model, tokenizer, file = tiny
    draw = random.Random(3)
    asked = [Prompt([draw.randrange(2, 250) for _ in range(length)], 8) for length in (900, 3, 300)]
    replies = run_to_end(OpenVinoBatch(file, set(), 1), [Row(p, tokenizer) for p in asked], lambda: False)
    assert [r.tokens for r in replies] == [r.tokens for r in generate(model, tokenizer, asked, set())]


def test_a_row_that_is_ended_leaves_and_the_others_go_on(tiny: tuple[Any, Any, Path]) -> None:
    _, tokenizer, file = tiny
    batch = OpenVinoBatch(file, set(), 1)
    gone, stays = (Row(Prompt([5 + at, 6, 7], 30), tokenizer) for at in range(2))
    batch.join([gone, stays])
    for _ in range(4):
        batch.step()
    gone.ended = True
    batch.step()
    assert batch.rows == [stays]
    assert gone.reply.generated <= 4
    while batch.rows:
        batch.step()
    assert stays.finish().tokens == alone(file, tokenizer, stays.prompt, set())
    assert not batch._pipeline._scheduler.has_non_finished_requests()


def test_two_batches_over_one_model_do_not_mix_their_rows(tiny: tuple[Any, Any, Path]) -> None:
    _, tokenizer, file = tiny
    rows = [Row(prompt, tokenizer) for prompt in prompts(9, 4)]
    batches = [OpenVinoBatch(file, {1}, 1), OpenVinoBatch(file, {1}, 1)]
    for batch, pair in zip(batches, (rows[:2], rows[2:]), strict=True):
        batch.join(pair)
    while any(batch.rows for batch in batches):
        for batch in batches:
            batch.step()
    assert [row.finish().tokens for row in rows] == [alone(file, tokenizer, row.prompt, {1}) for row in rows]


def test_a_planned_batch_and_a_live_model_answer_alike(fast: LocalModel) -> None:
    asked = [request("word " * at + "?", sample=at, stop=("q",)) for at in range(5)]
    planned = fast.complete_batch(asked)

    async def use() -> list[tuple[str, str]]:
        live = LiveModel(fast, rows=3)

        async def one(at: int) -> tuple[str, str]:
            pieces: list[str] = []
            return (await live.stream(asked[at], pieces.append)).text, "".join(pieces)

        try:
            return await asyncio.gather(*map(one, range(5)))
        finally:
            await live.close()

    assert asyncio.run(use()) == [(done.text, done.text) for done in planned]


def test_the_runtime_is_part_of_what_a_reply_is_stored_under(fast: LocalModel, tiny_model: Path) -> None:
    plain = LocalModel(f"local:{tiny_model}", ModelOptions(device="cpu"))
    eight = LocalModel(f"local:{tiny_model}", ModelOptions(device="cpu", runtime="openvino-int8"))
    assert len({model.key(request("hi")) for model in (plain, fast, eight)}) == 3
    assert plain.identity == f"local:{plain.weights.fingerprint}:instruct"


def test_eight_bits_answer_from_a_file_of_their_own(tiny_model: Path, cache: None) -> None:
    eight = LocalModel(f"local:{tiny_model}", ModelOptions(device="cpu", runtime="openvino-int8"))
    (done,) = eight.complete_batch([request("hi", max_tokens=5)])
    assert 0 < done.usage.output_tokens <= 5
    weights = Path(os.environ["FRACTIONATE_CACHE"]) / "weights"
    sizes = {kind: next(weights.glob(f"*.{kind}.gguf")).stat().st_size for kind in ("f16", "q8_0")}
    assert sizes["q8_0"] < sizes["f16"]


def test_its_throughput_is_measured_on_it(fast: LocalModel) -> None:
    (found,) = measure_throughput([fast], rounds=1)
    assert found.input_per_s[0] > 0
    assert found.output_per_s[0] > 0


def test_auto_takes_it_once_its_replies_were_found_equal(tiny_model: Path, tmp_path: Path) -> None:
    name = f"local:{tiny_model}"

    def chosen(device: str = "cpu") -> str:
        model = LocalModel(name, ModelOptions(device=device, runtime="auto"))
        assert model.identity == LocalModel(name, ModelOptions(device=device, runtime=model.options.runtime)).identity
        return model.options.runtime

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRACTIONATE_CACHE", str(tmp_path))
        assert chosen() == "torch"
        assert are_alike(name)
        assert chosen() == "openvino"
        patch.setattr(OpenVinoBatch, "step", lambda batch: [row.take(7, ()) for row in batch.rows] and batch._leave())
        assert not are_alike(name)
        assert chosen() == "torch"


def test_what_it_cannot_run_is_refused_at_once(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, options = f"local:{tiny_model}", ModelOptions(runtime="openvino")
    with pytest.raises(UsageError, match="OpenVINO runs on the CPU, not on 'cuda'"):
        LocalModel(name, options.model_copy(update={"device": "cuda"}))
    monkeypatch.setattr(openvino_module, "why_no_gguf", lambda config, tokenizer: "the architecture 'other'")
    with pytest.raises(UsageError, match="the architecture 'other'; runtime = \"torch\" can"):
        LocalModel(name, options)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "openvino_genai" else found(name, *more)
    )
    with pytest.raises(UsageError, match=r"needs the package 'openvino_genai': pip install 'fractionate\[fast\]'"):
        LocalModel(name, options)


def test_what_cannot_be_written_as_gguf_says_why(tiny_model: Path) -> None:
    config, tokenizer = load_config(tiny_model), load_tokenizer(tiny_model)
    assert why_no_gguf(config, tokenizer) == ""
    from transformers import LlamaConfig, Qwen2Config

    assert "'qwen2'" in why_no_gguf(Qwen2Config(), tokenizer)
    assert "biases" in why_no_gguf(LlamaConfig(attention_bias=True), tokenizer)
    scaled = LlamaConfig(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4})
    assert "'linear'" in why_no_gguf(scaled, tokenizer)


def test_a_cache_that_cannot_be_written_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRACTIONATE_CACHE", str(tmp_path / "taken"))
        with pytest.raises(FractionateError, match=r"cannot write .*FRACTIONATE_CACHE"):
            openvino_file(resolve(str(tiny_model)), lambda: None, None)


def test_openvino_is_imported_without_its_telemetry() -> None:
    pytest.importorskip("openvino_genai", reason="the extra fast is not installed")
    code = (
        "from fractionate.models.local.openvino import quiet_openvino\n"
        "quiet_openvino()\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "print(telemetry_utils.tm.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
