"""For any server reply, a call is a completion or a counted fault, or the run ends in one line; no key is kept."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest
from attack_size import TIMES
from helpers import ask
from hostile import ECHOES, KEY, STREAMED_ECHOES, Behaviour, Hostile, behaviour, behaviours

from fractionate.calls.engine import Engine
from fractionate.calls.store import Store
from fractionate.config import LimitsConfig, ModelOptions
from fractionate.errors import FractionateError
from fractionate.models.openai.api import OpenAIModel
from fractionate.types import Completion

AT_ONCE = 32
CORE = (KEY[4:16], KEY[16:])
"""Parts of the key: half of it is too much already."""
LETTERS = re.sub(r"[^0-9A-Za-z]", "", KEY)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def meet(store: Store, known: list[Behaviour]) -> tuple[list[Completion | str], list[str]]:
    """Ask each behaviour a question of its own; return what each call came to, and all that a person was told."""
    told: list[str] = []

    async def one(server: Hostile, number: int, gate: asyncio.Semaphore) -> Completion | str:
        async with gate:
            model = OpenAIModel("openai:test", ModelOptions(base_url=server.base_url(number), reply_mb=0.25))
            patience_s = 0.5 if known[number].timing == "stalled" else 60.0
            limits = LimitsConfig(attempts=2, timeout_s=patience_s, concurrency=1)
            engine = Engine(store, limits, on_event=told.append, backoff_s=0.001)
            try:
                return await asyncio.wait_for(engine.complete(model, ask(f"question {number}")), 150)
            except FractionateError as error:
                return str(error)
            finally:
                await model.close()

    async def work() -> list[Completion | str]:
        gate = asyncio.Semaphore(AT_ONCE)
        async with Hostile(known) as server:
            return await asyncio.gather(*(one(server, number, gate) for number in range(len(known))))

    return asyncio.run(work()), told


def test_every_behaviour_is_a_completion_or_one_line(store: Store, tmp_path: Path) -> None:
    known = list(behaviours(250 * TIMES, seed=TIMES))
    outcomes, told = meet(store, known)
    for how, outcome in zip(known, outcomes, strict=True):
        lines = [outcome] if isinstance(outcome, str) else [outcome.error]
        for line in lines:
            assert line.isprintable(), how.name
            assert len(line) < 1000, how.name
        if isinstance(outcome, Completion):
            assert outcome.finish_reason in ("stop", "length", "content_filter", "refusal", "error"), how.name
            assert 0 <= outcome.usage.input_tokens < 10**6, how.name
            assert 0 <= outcome.usage.output_tokens < 2 * 10**6, how.name
        for part in CORE:
            assert part not in repr(outcome), how.name
    for line in told:
        assert line.isprintable()
        assert not any(part in line for part in CORE)
    store.close()
    with Store(store.path, read_only=True) as again:
        assert len(list(again.calls())) > 50
    for file in tmp_path.iterdir():
        assert not any(part.encode() in file.read_bytes() for part in CORE)


@pytest.mark.parametrize("name", [*ECHOES, *STREAMED_ECHOES])
def test_a_key_that_comes_back_is_blotted_out_in_every_disguise(store: Store, name: str) -> None:
    streamed = name in STREAMED_ECHOES
    body, headers = (f"echo in a stream: {name}", "stream") if streamed else (f"echo: {name}", "plain")
    known = [behaviour(b"200 OK", headers, body, "at once"), behaviour(b"400 Bad", headers, body, "at once")]
    outcomes, told = meet(store, known)
    store.close()
    connection = sqlite3.connect(store.path)
    kept = repr(connection.execute("SELECT * FROM calls").fetchall()) + repr(outcomes) + repr(told)
    connection.close()
    plain = kept.replace("\\x00", "").replace("\\\\", "\\").replace("\\\\", "\\")
    letters = re.sub(r"[^0-9A-Za-z]", "", re.sub(r"\\[nrtx]", "", plain))
    assert not any(part in letters for part in (LETTERS[3:13], LETTERS[12:], LETTERS[:12:-1], LETTERS[12:2:-1]))
    for part in CORE:
        for form in (part, part.encode().hex(), "".join(f"\\u{ord(letter):04x}" for letter in part)):
            assert form not in plain
        assert "".join(f"&#{ord(letter)};" for letter in part) not in plain
        assert "".join(f"%{ord(letter):02X}" for letter in part) not in plain


@pytest.mark.parametrize("timing", ["cut in the middle", "at once"])
@pytest.mark.parametrize("headers", ["cookie", "key"])
def test_a_key_that_is_cut_off_in_a_header_is_not_shown(store: Store, headers: str, timing: str) -> None:
    """Wherever the connection ends within the headers: what is left of the key is no key that could be blotted out."""
    whole = behaviour(b"200 OK", headers, "nothing", timing)
    known = [Cut(whole.name, whole.status, whole.headers, whole.body, timing, at) for at in range(20, 75, 5)]
    outcomes, told = meet(store, known)
    for part in CORE:
        assert part not in repr(outcomes)
        assert part not in repr(told)


@dataclass(frozen=True)
class Cut(Behaviour):
    """An answer that ends after so many bytes."""

    length: int

    def raw(self) -> bytes:
        return super().raw()[: self.length * (2 if self.timing == "cut in the middle" else 1)]


def test_a_server_that_was_given_no_key_is_sent_none(store: Store) -> None:
    async def work() -> list[str]:
        async with Hostile([behaviour(b"200 OK", "plain", "good", "at once")]) as server:
            plain = OpenAIModel(f"{server.base_url(0)}#m")
            named = OpenAIModel(f"{server.base_url(0)}#n", ModelOptions(api_key_env="OPENAI_API_KEY"))
            for model in (plain, named):
                assert (await Engine(store).complete(model, ask("q"))).text == "It is four."
                await model.close()
            return server.authorizations

    assert asyncio.run(work()) == ["", f"Bearer {KEY}"]
