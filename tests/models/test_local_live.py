"""A live model: rows that join and leave between tokens give the same replies as alone."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="the 'local' extra is not installed")

from fractionate.config import ModelOptions
from fractionate.errors import FractionateError
from fractionate.models.local import model as local_module
from fractionate.models.local.batch import Batch, generate
from fractionate.models.local.live import LiveModel, LiveStats
from fractionate.models.local.model import LocalModel, load_model, load_tokenizer
from fractionate.models.local.rows import Prompt, Row
from fractionate.models.local.weights import resolve
from fractionate.types import Completion, Message, Request


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> tuple[Any, Any]:
    return load_model(resolve(str(tiny_model)), "cpu"), load_tokenizer(tiny_model)


@pytest.fixture(scope="module")
def local(tiny_model: Path) -> LocalModel:
    return LocalModel(f"local:{tiny_model}", ModelOptions(device="cpu"))


def request(text: str, **more: Any) -> Request:
    return Request((Message("user", text),), "decomposer", **{"max_tokens": 12, **more})


def live(local: LocalModel, use: Callable[[LiveModel], Coroutine[Any, Any, Any]], **more: Any) -> Any:
    """Run `use` with a live model and close it."""

    async def whole() -> Any:
        model = LiveModel(local, **more)
        try:
            return await asyncio.wait_for(use(model), 120)
        finally:
            await model.close()

    return asyncio.run(whole())


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.001)


class Gate:
    """Holds back every step of a batch until it is opened, so that who runs and who waits is no matter of time."""

    def __init__(self, local: LocalModel, patch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        open_batch = local.open_batch
        patch.setattr(local, "open_batch", lambda: self._gated(open_batch()))

    def _gated(self, batch: Any) -> Any:
        step = batch.step

        def wait_and_step() -> None:
            assert self.opened.wait(100)
            step()

        batch.step = wait_and_step
        return batch


# ---------------------------------------------------------------- rows that join a batch


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(1, 60), st.integers(1, 14), st.booleans()), min_size=2, max_size=7
    ),
    st.sampled_from([0.0, 0.9]),
)
def test_rows_that_join_between_tokens_say_what_they_say_alone(
    tiny: tuple[Any, Any], coming: list[tuple[int, int, int, bool]], temperature: float
) -> None:
    model, tokenizer = tiny
    draw = random.Random(str(coming))
    passage = [draw.randrange(2, 250) for _ in range(40)]
    due = [
        (
            step,
            Row(
                Prompt(
                    (passage if shared else []) + [draw.randrange(2, 250) for _ in range(length)],
                    max_tokens,
                    temperature,
                    at,
                ),
                tokenizer,
            ),
        )
        for at, (step, length, max_tokens, shared) in enumerate(coming)
    ]
    batch, step = Batch(model, {1}), 0
    while batch.rows or any(at >= step for at, _ in due):
        if newcomers := [row for at, row in due if at == step]:
            batch.join(newcomers)
        if batch.rows:
            batch.step()
            if batch.mask is not None:
                # The longest row may have left since rows joined; what is masked for all does not pile up.
                assert batch.mask.shape[1] <= 2 * (40 + 60 + 14)
        step += 1
    for _, row in due:
        assert row.finish().tokens == generate(model, tokenizer, [row.prompt], {1})[0].tokens


def test_a_batch_that_goes_on_and_on_does_not_widen(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    batch = Batch(model, set())
    for at in range(60):
        batch.join([Row(Prompt([5 + at, 6, 7], 5), tokenizer)])
        batch.step()
    assert batch.mask.shape[1] <= 3 + 5
    assert batch.cache.layers[0].keys.shape[2] == batch.mask.shape[1]


def test_a_newcomer_that_cannot_be_read_leaves_the_others_as_they_were(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    good = Row(Prompt([5, 6, 7], 6), tokenizer)
    batch = Batch(model, set())
    batch.join([good])
    batch.step()
    with pytest.raises(IndexError):
        batch.join([Row(Prompt([10**6], 6), tokenizer)])
    while batch.rows:
        batch.step()
    assert good.finish().tokens == generate(model, tokenizer, [good.prompt], set())[0].tokens


# ---------------------------------------------------------------- the live model


def test_answers_together_are_those_of_a_planned_batch(local: LocalModel) -> None:
    asked = [request("word " * at + "?", sample=at, temperature=(at % 2) * 0.8) for at in range(9)]
    alone = [local.complete_batch([one])[0] for one in asked]

    async def use(model: LiveModel) -> list[Completion]:
        return await asyncio.gather(*(model.complete(one) for one in asked))

    done = live(local, use, rows=4)
    assert [(c.text, c.finish_reason) for c in done] == [(c.text, c.finish_reason) for c in alone]
    assert [c.usage.output_tokens for c in done] == [c.usage.output_tokens for c in alone]
    assert all(c.usage.compute_s > 0 and c.latency_s >= c.usage.compute_s for c in done)


def test_pieces_join_to_the_text_and_come_before_the_end(local: LocalModel) -> None:
    asked = [request("tell " + "x" * at, max_tokens=40) for at in range(4)]
    alone = [local.complete_batch([one])[0].text for one in asked]

    async def use(model: LiveModel) -> list[tuple[str, list[str]]]:
        async def one(at: int) -> tuple[str, list[str]]:
            pieces: list[str] = []
            done = await model.stream(asked[at], pieces.append)
            return done.text, pieces

        return await asyncio.gather(*map(one, range(4)))

    for (text, pieces), whole in zip(live(local, use), alone, strict=True):
        assert "".join(pieces) == text == whole
        assert len(pieces) > 3


def test_a_stop_string_never_leaks_though_its_letters_come_one_by_one(local: LocalModel) -> None:
    free = local.complete_batch([request("tell", max_tokens=60)])[0].text
    start = next(at for at in range(8, len(free) - 3) if free[at : at + 3] not in free[: at + 2] and free[at].isascii())
    stop = free[start : start + 3]
    asked = request("tell", max_tokens=60, stop=(stop, "never said"))

    async def use(model: LiveModel) -> tuple[Completion, list[str]]:
        pieces: list[str] = []
        return await model.stream(asked, pieces.append), pieces

    done, pieces = live(local, use)
    assert done.text == "".join(pieces) == free[: free.index(stop)]
    assert done.finish_reason == "stop"


def test_bytes_of_one_character_and_letters_of_a_stop_string_are_held_back(tiny: tuple[Any, Any]) -> None:
    _, tokenizer = tiny
    row = Row(Prompt([5], 99, stop=("END",)), tokenizer)
    said = ""
    seen = []
    for token in tokenizer("aé E√ EN ENDxx", add_special_tokens=False).input_ids:
        row.take(token, ())
        text = row.finish().text if row.ended else row.stable_text()
        assert text.startswith(said)
        said = text
        seen.append(text)
    assert seen[:5] == ["a", "a", "aé", "aé ", "aé "]
    assert said == "aé E√ EN "
    assert row.reply.finish_reason == "stop"


def test_one_who_goes_away_frees_a_row_for_the_next(local: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(local, monkeypatch)

    async def use(model: LiveModel) -> Completion:
        first = asyncio.create_task(model.complete(request("first", max_tokens=1900)))
        await until(lambda: model.stats.running == 1)
        second, third = (asyncio.create_task(model.complete(request(name, max_tokens=3))) for name in "23")
        await until(lambda: model.stats.waiting == 2)
        third.cancel()
        await until(lambda: model.stats.waiting == 1)
        first.cancel()
        await asyncio.sleep(0)
        gate.opened.set()
        done = await second
        assert (model.stats.running, model.stats.waiting) == (0, 0)
        assert model.stats.tokens <= 1 + done.usage.output_tokens
        return done

    done = live(local, use, rows=1)
    monkeypatch.undo()
    assert done.text == local.complete_batch([request("2", max_tokens=3)])[0].text


def test_nobody_overtakes(local: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, order = Gate(local, monkeypatch), list[str]()

    async def use(model: LiveModel) -> None:
        async def one(name: str, max_tokens: int) -> None:
            await model.complete(request(name, max_tokens=max_tokens))
            order.append(name)

        tasks = []
        for name, length in (("a", 30), ("long", 400), ("b", 2), ("c", 2)):
            tasks.append(asyncio.create_task(one(name, length)))
            await until(lambda: model.stats.running + model.stats.waiting == len(tasks))
        assert model.stats == LiveStats(waiting=3, running=1, tokens=0)
        gate.opened.set()
        await asyncio.gather(*tasks)

    # Room for two short rows or one long: "b" and "c" would fit beside "a", but "long" came first.
    monkeypatch.setattr(local_module, "CACHE_BYTES", {"cpu": 2 * 2 * 2 * 8 * 4 * 500, "cuda": 0})
    live(local, use)
    assert order[:2] == ["a", "long"]
    assert sorted(order[2:]) == ["b", "c"]


def test_a_prompt_over_the_context_fails_alone(local: LocalModel) -> None:
    async def use(model: LiveModel) -> list[Completion]:
        return await asyncio.gather(model.complete(request("long " * 1000)), model.complete(request("short")))

    bad, good = live(local, use)
    assert bad == local.complete_batch([request("long " * 1000)])[0]
    assert bad.finish_reason == "error"
    assert good.finish_reason in ("stop", "length")


def test_an_error_in_one_row_does_not_end_the_others(local: LocalModel) -> None:
    def burst(text: str) -> None:
        raise ValueError("the reader broke")

    async def use(model: LiveModel) -> list[Any]:
        calls = [model.complete(request("one")), model.stream(request("two"), burst), model.complete(request("three"))]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert (await model.complete(request("after"))).finish_reason in ("stop", "length")
        return found

    one, two, three = live(local, use)
    assert isinstance(two, ValueError)
    assert [one.text, three.text] == [c.text for c in local.complete_batch([request("one"), request("three")])]


def test_weights_that_cannot_be_loaded_are_an_error_of_each_request(
    local: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        raise FractionateError("the weights cannot be loaded")

    async def use(model: LiveModel) -> None:
        monkeypatch.setattr(local, "open_batch", broken)
        with pytest.raises(FractionateError, match="cannot be loaded"):
            await model.complete(request("hi"))
        monkeypatch.undo()
        assert (await model.complete(request("hi"))).usage.output_tokens > 0

    live(local, use)


def test_closing_ends_what_is_under_way_and_takes_no_more(local: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(local, monkeypatch)

    async def use() -> None:
        model = LiveModel(local, rows=1)
        assert model.stats == LiveStats(0, 0, 0)
        tasks = [asyncio.create_task(model.complete(request(f"{at}", max_tokens=1900))) for at in range(2)]
        await until(lambda: model.stats.running == 1 and model.stats.waiting == 1)
        closing = asyncio.create_task(model.close())
        await until(lambda: model._worker._closing)
        gate.opened.set()
        await closing
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, FractionateError) and "closed" in str(end) for end in ends)
        with pytest.raises(FractionateError, match="was closed"):
            await model.complete(request("late"))

    asyncio.run(use())
