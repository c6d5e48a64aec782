"""Batched generation: sharing, batching or joint sampling changes no reply."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="the 'local' extra is not installed")

from fractionate.config import ModelOptions
from fractionate.errors import UsageError
from fractionate.models.local import model as local_module
from fractionate.models.local.batch import generate
from fractionate.models.local.model import LocalModel, load_model, load_tokenizer
from fractionate.models.local.rows import InterruptedBatchError, Prompt, Row, share_groups
from fractionate.models.local.weights import resolve
from fractionate.types import Message, Request


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> tuple[Any, Any]:
    return load_model(resolve(str(tiny_model)), "cpu"), load_tokenizer(tiny_model)


def prompts(seed: int, passages: int = 3, questions: int = 3, max_tokens: int = 12, **more: Any) -> list[Prompt]:
    """Prompts of several passages with several questions each, and one alone, shuffled."""
    stream = random.Random(seed)
    rows = []
    for _ in range(passages):
        passage = [stream.randrange(2, 250) for _ in range(stream.randrange(40, 90))]
        rows += [passage + [stream.randrange(2, 250) for _ in range(stream.randrange(1, 30))] for _ in range(questions)]
    rows.append([stream.randrange(2, 250) for _ in range(stream.randrange(2, 120))])
    stream.shuffle(rows)
    return [Prompt(row, max_tokens, seed=at, **more) for at, row in enumerate(rows)]


def tokens(replies: Sequence[Any]) -> list[list[int]]:
    return [reply.tokens for reply in replies]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_sharing_and_batching_change_no_reply(tiny: tuple[Any, Any], seed: int, temperature: float) -> None:
    model, tokenizer = tiny
    asked = prompts(seed, temperature=temperature)
    alone = [generate(model, tokenizer, [prompt], {1})[0] for prompt in asked]
    shared, apart = (generate(model, tokenizer, asked, {1}, share=share) for share in (True, False))
    assert tokens(shared) == tokens(apart) == tokens(alone)
    assert sum(reply.shared for reply in shared) > 100
    assert not any(reply.shared for reply in apart)


def test_greedy_replies_are_those_of_transformers_own_generation(tiny: tuple[Any, Any]) -> None:
    import torch

    model, tokenizer = tiny
    asked = prompts(7)
    for prompt, reply in zip(asked, generate(model, tokenizer, asked, {1}), strict=True):
        ids = torch.tensor([list(prompt.tokens)])
        theirs = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert reply.tokens == [token for token in theirs[0, ids.shape[1] :].tolist() if token != 1]


def test_rows_that_finish_early_leave_and_the_others_are_as_alone(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    asked = [Prompt(p.tokens, 2 + 7 * (at % 4)) for at, p in enumerate(prompts(3))]
    alone = [generate(model, tokenizer, [prompt], {1})[0] for prompt in asked]
    together = generate(model, tokenizer, asked, {1})
    assert tokens(together) == tokens(alone)
    assert all(len(reply.tokens) <= prompt.max_tokens for reply, prompt in zip(together, asked, strict=True))


def test_replies_longer_than_the_cache_s_room_are_whole(tiny: tuple[Any, Any]) -> None:
    import torch

    model, tokenizer = tiny
    prompt = Prompt([5, 6, 7, 8], 200)
    reply = generate(model, tokenizer, [prompt], set())[0]
    theirs = model.generate(
        torch.tensor([[5, 6, 7, 8]]), max_new_tokens=200, do_sample=False, eos_token_id=-1, pad_token_id=1
    )
    assert reply.tokens == theirs[0, 4:].tolist()
    assert reply.finish_reason == "length"


def test_an_end_token_stops_and_is_counted_not_spoken(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    prompt = prompts(1)[0]
    free = generate(model, tokenizer, [prompt], set())[0]
    end = free.tokens[5]
    stopped = generate(model, tokenizer, [prompt], {end})[0]
    first = free.tokens.index(end)
    assert stopped.finish_reason == "stop"
    assert stopped.tokens == free.tokens[:first]
    assert stopped.generated == first + 1


def test_a_stop_string_ends_a_reply_and_is_cut_off(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    prompt = Prompt(prompts(1)[0].tokens, 40)
    free = generate(model, tokenizer, [prompt], set())[0].text
    stop = free[6:8]
    reply = generate(model, tokenizer, [Prompt(prompt.tokens, 40, stop=(stop,))], set())[0]
    assert reply.text == free[: free.index(stop)]
    assert reply.finish_reason == "stop"
    assert len(reply.tokens) < 40


def test_other_seeds_sample_other_replies(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    row = prompts(1)[0].tokens
    replies = generate(model, tokenizer, [Prompt(row, 12, 1.0, seed) for seed in range(6)], {1})
    assert len({tuple(reply.tokens) for reply in replies}) > 3


def test_rows_sampled_together_are_drawn_as_one_by_one(tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from fractionate.models.local import batch as batch_module

    monkeypatch.setattr(batch_module, "_SAMPLED_AT_ONCE", 2)  # so that five rows take three rounds
    model, tokenizer = tiny
    asked = [Prompt([5], 4, temperature=[0.5, 0.0, 1.0, 3.0, 0.01][at], seed=at) for at in range(5)]
    batch = batch_module.Batch(model, {1}, share=False)
    batch.rows = [Row(prompt, tokenizer) for prompt in asked]
    logits = torch.randn(5, 300, generator=torch.Generator().manual_seed(0))

    expected = logits.argmax(dim=-1).tolist()
    for at, prompt in enumerate(asked):
        if prompt.temperature:
            heaped = torch.softmax(logits[at].double() / prompt.temperature, dim=-1).cumsum(0)
            draw = random.Random(prompt.seed).random() * float(heaped[-1])
            expected[at] = int(torch.searchsorted(heaped, draw, right=True))
    assert batch._choose(logits) == expected
    assert expected != logits.argmax(dim=-1).tolist()


def test_an_interrupted_batch_stops_at_once(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    with pytest.raises(InterruptedBatchError):
        generate(model, tokenizer, prompts(0), {1}, stopped=lambda: True)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=14), st.integers(1, 6))
def test_groups_hold_every_prompt_once_and_what_they_share_is_common(rows: list[list[int]], minimum: int) -> None:
    groups = share_groups(rows, minimum)
    assert sorted(at for _, members in groups for at in members) == list(range(len(rows)))
    for common, members in groups:
        assert common == 0 or (common >= minimum and len(members) > 1)
        assert len({tuple(rows[at][:common]) for at in members}) == 1
        assert all(common < len(rows[at]) or not common for at in members)


def test_a_shared_instruction_does_not_hide_the_shared_passages() -> None:
    instruction, passages = [1] * 40, [[2] * 50, [3] * 60]
    rows = [instruction + passage + [question] for passage in passages for question in range(4, 8)]
    assert sorted(common for common, _ in share_groups(rows)) == [90, 100]


# ---------------------------------------------------------------- the model


def request(text: str, **more: Any) -> Request:
    return Request((Message("user", text),), "solver", **{"max_tokens": 8, **more})


def test_completions_come_in_order_with_their_usage(tiny_model: Path) -> None:
    model = LocalModel(f"local:{tiny_model}", ModelOptions(device="cpu"))
    asked = [request("A passage that is long enough to be shared. " * 2 + q) for q in ("one", "two?", "three??")]
    done = model.complete_batch(asked)
    alone = [model.complete_batch([one])[0] for one in asked]
    assert [c.text for c in done] == [c.text for c in alone]
    assert sum(c.usage.cached_input_tokens > 80 for c in done) == 2
    assert all(c.usage.calls == 1 and 0 < c.usage.output_tokens <= 8 and c.usage.compute_s > 0 for c in done)
    assert sum(c.usage.compute_s for c in done) == pytest.approx(done[0].latency_s)


def test_samples_of_one_prompt_differ_and_repeat(tiny_model: Path) -> None:
    model = LocalModel(f"local:{tiny_model}", ModelOptions(device="cpu"))
    asked = [request("hello", temperature=1.0, sample=sample) for sample in range(4)]
    first, again = model.complete_batch(asked), model.complete_batch(asked[::-1])[::-1]
    assert [c.text for c in first] == [c.text for c in again]
    assert len({c.text for c in first}) > 1


def test_a_limit_beyond_the_context_lets_a_reply_go_on_to_its_end(tiny_model: Path) -> None:
    model = LocalModel(f"local:{tiny_model}", ModelOptions(device="cpu"))
    asked = request("long " * 390, max_tokens=8192)
    assert model.plan([asked]) == [[0]]
    (done,) = model.complete_batch([asked])
    room = 2048 - done.usage.input_tokens
    assert 0 < room < 100
    assert done.usage.output_tokens == room if done.finish_reason == "length" else done.usage.output_tokens <= room
    assert done.finish_reason in ("length", "stop")


def test_a_prompt_over_the_context_fails_alone(tiny_model: Path) -> None:
    model = LocalModel(f"local:{tiny_model}", ModelOptions(device="cpu"))
    good, bad = model.complete_batch([request("short"), request("long " * 1000)])
    assert good.finish_reason in ("stop", "length")
    assert bad.finish_reason == "error"
    assert "2048" in bad.error


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.text("abc ", min_size=1, max_size=40)), min_size=1, max_size=40))
def test_a_plan_holds_every_request_once_within_its_limits(
    tiny_model: Path, asked: list[tuple[int, str]]
) -> None:  # fmt: skip
    model = LocalModel(f"local:{tiny_model}", ModelOptions(device="cpu", batch_size=5))
    requests = [request(f"passage {passage} " * 9 + question) for passage, question in asked]
    plan = model.plan(requests)
    assert plan == model.plan(requests)
    assert sorted(at for batch in plan for at in batch) == list(range(len(requests)))
    assert all(len(batch) <= 5 for batch in plan)


def test_a_plan_cuts_by_memory(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LocalModel(f"local:{tiny_model}", ModelOptions(device="cpu", batch_size=64))
    monkeypatch.setattr(local_module, "CACHE_BYTES", {"cpu": 2 * 2 * 2 * 8 * 4 * 300, "cuda": 0})
    plan = model.plan([request("x" * 50 + str(at)) for at in range(8)])
    assert 1 < len(plan) < 8


def test_a_gpu_s_numbers_take_half_the_room(tiny_model: Path) -> None:
    config = local_module.load_config(tiny_model)
    on_cpu, on_gpu = (local_module._cache_bytes_per_token(config, device) for device in ("cpu", "cuda"))
    assert (on_cpu, on_gpu) == (2 * 2 * 2 * 8 * 4, 2 * 2 * 2 * 8 * 2)


def test_two_models_of_the_same_weights_load_once(tiny_model: Path) -> None:
    local_module.unload()
    for _ in range(2):
        LocalModel(f"local:{tiny_model}", ModelOptions(device="cpu")).complete_batch([request("hi")])
    assert len(local_module._loaded) == 1


def test_making_a_model_loads_nothing(tiny_model: Path) -> None:
    local_module.unload()
    LocalModel(f"local:{tiny_model}")
    assert not local_module._loaded


def test_an_unknown_device_is_refused(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="no device"):
        LocalModel(f"local:{tiny_model}", ModelOptions(device="tpu")).plan([request("hi")])
