"""Feedback: the client that asked marks an answer right, wrong or corrected; the last feedback counts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from serving import Measured, through
from test_official_client import client
from test_record import KEY, ask, lines, served

from fractionate.datasets.traffic import read_exchanges
from fractionate.serve import record
from fractionate.serve.gateway import Gateway
from fractionate.serve.openapi import document

OTHER = "sk-theirs-0123456789"


async def mark(url: str, body: Any, key: str = KEY) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/feedback", json=body, headers=headers) as got,
    ):
        return got.status, await got.json()


def test_the_last_mark_counts_and_an_answer_given_is_scored(run: Measured, tmp_path: Path) -> None:
    record = tmp_path / "traffic.jsonl"
    pair = run.pair("static", "teacher")

    async def work(openai_client: Any, url: str, gateway: Gateway) -> dict[str, Any]:
        ids = [(await ask(openai_client, pair, f"How far is it to {n}?")).id for n in range(4)]
        said = [
            await mark(url, {"id": ids[0], "right": True}),
            await mark(url, {"id": ids[1], "right": True}),
            await mark(url, {"id": ids[1], "right": False}),
            await mark(url, {"id": ids[2], "answer": ["two", " 2. "]}),
            await mark(url, {"id": ids[3], "answer": 4}),
            await mark(url, {"id": ids[3], "answer": 4}),  # said twice, kept once
        ]
        return {"ids": ids, "said": said, "metrics": gateway.metrics.text()}

    found = served(run, record, work, keys=f"{KEY},{OTHER}")
    ids = found["ids"]
    assert [status for status, _ in found["said"]] == [200] * 6
    assert [body["right"] for _, body in found["said"]] == [True, True, False, True, False, False]
    assert found["said"][0][1] == {"object": "feedback", "id": ids[0], "right": True}
    marks = [row for row in lines(record) if "feedback" in row]
    assert [row["feedback"] for row in marks] == [ids[0], ids[1], ids[1], ids[2], ids[3]]
    exchanges = read_exchanges(record)
    assert [one.right for one in exchanges] == [True, False, True, False]
    assert [one.answers for one in exchanges] == [(("0",),), (), (("two",), ("2.",)), (("4",),)]
    assert [one.unusable for one in exchanges] == ["", "wrong by feedback that gave no right answer", "", ""]
    assert f'fractionate_feedback_total{{pair="{pair}",right="true"}} 3' in found["metrics"]
    assert f'fractionate_feedback_total{{pair="{pair}",right="false"}} 2' in found["metrics"]


def test_only_who_asked_may_mark_even_after_a_restart(run: Measured, tmp_path: Path) -> None:
    record = tmp_path / "traffic.jsonl"

    async def asking(openai_client: Any, url: str, gateway: Gateway) -> str:
        return str((await ask(openai_client, run.pair("single"))).id)

    id = served(run, record, asking, keys=f"{KEY},{OTHER}")

    async def marking(openai_client: Any, url: str, gateway: Gateway) -> list[Any]:
        return [
            await mark(url, {"id": id, "right": False}, OTHER),
            await mark(url, {"id": id, "right": False}, "sk-nobodys"),
            await mark(url, {"id": id, "right": True}),
        ]

    (theirs, theirs_body), (nobodys, _), (mine, _) = served(run, record, marking, keys=f"{OTHER},{KEY}")
    assert (theirs, nobodys, mine) == (404, 401, 200)
    assert theirs_body["error"]["param"] == "id"
    assert id in theirs_body["error"]["message"], "it reads as for an answer that is not there"
    assert read_exchanges(record)[0].right is True


def test_what_cannot_be_marked_is_one_clear_line(run: Measured, tmp_path: Path) -> None:
    async def work(openai_client: Any, url: str, gateway: Gateway) -> list[Any]:
        two = (await ask(openai_client, run.pair("single"), n=2, temperature=1)).id
        bodies: list[Any] = [
            {"id": "chatcmpl-nothing", "right": True},
            {"id": two, "right": True},
            {"right": True},
            {"id": 7, "right": True},
            {"id": two},
            {"id": two, "right": True, "answer": "7"},
            {"id": two, "right": "yes"},
            {"id": two, "answer": []},
            {"id": two, "answer": {"is": "7"}},
            {"id": two, "answer": "x" * 10_001},
            {"id": two, "right": True, "stars": 5},
            [two],
        ]
        return [await mark(url, body, "") for body in bodies] + [await mark(url, {"id": two, "answer": "7"}, "")]

    *refused, taken = served(run, tmp_path / "traffic.jsonl", work)
    assert [(status, body["error"]["param"]) for status, body in refused] == [
        (404, "id"),
        (400, "right"),
        (400, "id"),
        (400, "id"),
        (400, "right"),
        (400, "answer"),
        (400, "right"),
        (400, "answer"),
        (400, "answer"),
        (400, "answer"),
        (400, "stars"),
        (400, None),
    ]
    assert all("\n" not in body["error"]["message"] for _, body in refused)
    assert taken[0] == 200


def test_without_a_record_a_mark_is_refused(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> Any:
        assert "/v1/feedback" in document(gateway)["paths"]
        return await mark(url, {"id": "chatcmpl-1", "right": True}, "")

    status, body = through(run, work)
    assert (status, body["error"]["code"]) == (409, "no_record")
    assert "--record FILE" in body["error"]["message"]


def test_marks_reach_back_so_far_and_no_further(run: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "KNOWN", 2)

    async def work(openai_client: Any, url: str, gateway: Gateway) -> list[int]:
        ids = [(await ask(openai_client, run.pair("single"))).id for _ in range(3)]
        return [(await mark(url, {"id": id, "right": True}, ""))[0] for id in reversed(ids)]

    assert served(run, tmp_path / "traffic.jsonl", work) == [200, 200, 404]


def test_a_mark_that_cannot_be_written_is_not_confirmed(
    run: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(openai_client: Any, url: str, gateway: Gateway) -> Any:
        id = (await ask(openai_client, run.pair("single"))).id
        first = await mark(url, {"id": id, "right": True}, "")

        def full(file: int, data: Any) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(record.os, "write", full)
        second = await mark(url, {"id": id, "right": False}, "")
        monkeypatch.undo()
        return first[0], second[0], await mark(url, {"id": id, "right": False}, "")

    first, second, third = served(run, tmp_path / "traffic.jsonl", work)
    assert (first, second, third[0]) == (200, 503, 200)


def test_a_mark_may_follow_its_answer_at_once(run: Measured, tmp_path: Path) -> None:
    """Before the answer's line is written, too: 32 clients mark what they have just been sent."""

    async def work(openai_client: Any, url: str, gateway: Gateway) -> list[int]:
        async def one(number: int) -> int:
            id = (await ask(openai_client, run.pair("single"), f"Is it {number}?")).id
            return (await mark(url, {"id": id, "right": True}, ""))[0]

        return await asyncio.gather(*(one(number) for number in range(32)))

    record = tmp_path / "traffic.jsonl"
    assert served(run, record, work) == [200] * 32
    assert all(one.right for one in read_exchanges(record))


def test_the_streamed_answer_has_an_id_to_mark(run: Measured, tmp_path: Path) -> None:
    async def work(url: str, gateway: Gateway) -> Any:
        from fractionate.serve.traffic import Traffic

        gateway.traffic = Traffic(gateway, tmp_path / "traffic.jsonl")
        async with client(url) as openai_client:
            stream = await ask(openai_client, run.pair("single"), stream=True)
            ids = {chunk.id async for chunk in stream}
        (id,) = ids
        return await mark(url, {"id": id, "answer": "7"}, "")

    status, body = through(run, work)
    assert (status, body["right"]) == (200, True)
    assert json.loads((tmp_path / "traffic.jsonl").read_text().splitlines()[1])["answers"] == [["7"]]


def test_a_response_is_recorded_and_marked_as_a_chat_completion_is(run: Measured, tmp_path: Path) -> None:
    record = tmp_path / "traffic.jsonl"

    async def work(openai_client: Any, url: str, gateway: Gateway) -> list[Any]:
        pair = run.pair("static", "teacher")
        whole = await openai_client.responses.create(model=pair, input="How far is it to 7?")
        stream = await openai_client.responses.create(model=pair, input="And to 8?", stream=True)
        streamed = [event async for event in stream][-1].response.id
        await openai_client.responses.create(model=pair, input="And to 9?", store=False)
        return [await mark(url, {"id": id, "answer": "7"}, "") for id in (whole.id, streamed)]

    assert [(status, body["right"]) for status, body in served(run, record, work)] == [(200, True), (200, False)]
    assert [(one.question, one.right) for one in read_exchanges(record)] == [
        ("How far is it to 7?", True),
        ("And to 8?", False),
    ]
