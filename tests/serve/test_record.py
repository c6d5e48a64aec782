"""Recorded answers: one line each, with decomposition and without keys, and without delaying answers."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from serving import Measured, through
from test_official_client import client

from fractionate.datasets.traffic import read_exchanges
from fractionate.errors import UsageError
from fractionate.serve.gateway import Gateway
from fractionate.serve.record import RecordFile
from fractionate.serve.traffic import Traffic

KEY = "sk-mine-0123456789"


def served(run: Measured, record: Path, work: Any, **options: Any) -> Any:
    """Let a gateway with a record answer while `work(client, url, gateway)` is done."""

    async def inside(url: str, gateway: Gateway) -> Any:
        gateway.traffic = Traffic(gateway, record)
        async with client(url, api_key=KEY) as openai_client:
            return await work(openai_client, url, gateway)

    return through(run, inside, **options)


def lines(record: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in record.read_text("utf-8").splitlines()]


async def ask(openai_client: Any, model: str, question: str = "How far is it to 7?", **options: Any) -> Any:
    messages = options.pop("messages", [{"role": "user", "content": question}])
    return await openai_client.chat.completions.create(model=model, messages=messages, **options)


def test_an_answer_is_kept_with_how_it_came_about(run: Measured, tmp_path: Path) -> None:
    record = tmp_path / "traffic.jsonl"

    async def work(openai_client: Any, url: str, gateway: Gateway) -> Any:
        whole = await ask(
            openai_client, run.pair("stepwise", "teacher"), extra_body={"fractionate": {"context": "A 7."}}
        )
        stream = await ask(openai_client, run.pair("static", "teacher"), "And to 8?", stream=True, temperature=0.5)
        chunks = [chunk async for chunk in stream]
        return whole, chunks

    whole, chunks = served(run, record, work, keys=f"{KEY},sk-other")
    first, second = lines(record)
    assert (first["id"], first["question"], first["context"]) == (whole.id, "How far is it to 7?", "A 7.")
    assert first["pair"] == run.pair("stepwise", "teacher")
    assert first["decomposer"] == {"name": "teacher", "kind": "teacher", "model": "echo:"}
    (reply,) = first["replies"]
    assert reply["output"] == whole.choices[0].message.content == "The answer is: 7."
    assert (reply["answer"], reply["sub_answers"]) == (["7"], ["7", "7"])
    assert reply["decomposition"]["subquestions"] == whole.fractionate["subquestions"]
    assert reply["decomposition"]["status"] == "ok"
    assert reply["decomposition"]["raw"].startswith("1. What is known")
    assert first["usd"] == whole.fractionate["usd"]
    for role, usage in whole.fractionate["usage"].items():
        assert usage.items() <= first["usage"][role].items()
    assert 0 < first["latency_s"] < 60
    assert (first["measured"], first["deviations"], first["degraded"]) == (True, [], False)
    assert (second["id"], second["asked"], second["deviations"]) == (
        chunks[0].id,
        {"temperature": 0.5},
        ["temperature"],
    )
    assert second["ownership_token"] != first["ownership_token"], "two answers to one key have nothing in common"

    text = record.read_text()
    assert KEY not in text
    assert "Bearer" not in text
    assert "key-" not in text, "no name of an account"
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    exchange = read_exchanges(record)[0]
    assert (exchange.id, exchange.dataset, exchange.right, exchange.unusable) == (
        whole.id,
        "jsonl",
        None,
        "without feedback",
    )
    assert exchange.answering.replies[0].decomposition


def test_a_record_that_was_readable_by_all_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "traffic.jsonl"
    path.touch()
    path.chmod(0o644)
    RecordFile(path, lambda count, why: None).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_conversations_choices_and_degraded_answers_are_kept_as_what_they_are(run: Measured, tmp_path: Path) -> None:
    record = tmp_path / "traffic.jsonl"

    async def work(openai_client: Any, url: str, gateway: Gateway) -> None:
        said = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": "How far is it to 7?"},
        ]
        await ask(openai_client, run.pair("static", "teacher"), messages=said, n=2, temperature=1)
        broken = f"fractionate/static:{run.solver}+teacher"
        await ask(openai_client, broken, "[400] Is it 9?")

    served(run, record, work)
    conversation, degraded = lines(record)
    assert (conversation["system"], conversation["history"]) == (
        "Be brief.",
        [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}],
    )
    assert len(conversation["replies"]) == 2
    assert {"history", "system"} <= set(conversation["deviations"])
    assert "ownership_token" not in conversation, "who needs no key has none"
    assert (degraded["degraded"], degraded["replies"][0]["degraded"], degraded["measured"]) == (True, True, False)
    assert degraded["replies"][0]["decomposition"] is None
    assert read_exchanges(record)[0].unusable == "asked within a conversation or under a system message"


def test_refused_and_failed_requests_and_those_not_to_be_stored_are_not_kept(run: Measured, tmp_path: Path) -> None:
    record = tmp_path / "traffic.jsonl"

    async def work(openai_client: Any, url: str, gateway: Gateway) -> None:
        import openai

        with pytest.raises(openai.BadRequestError):
            await ask(openai_client, run.pair("single"), "[400] no")
        with pytest.raises(openai.NotFoundError):
            await ask(openai_client, "fractionate/none")
        await ask(openai_client, run.pair("single"), store=False)
        assert 'fractionate_record_left_out_total{why="store_false"} 1' in gateway.metrics.text()

    served(run, record, work)
    assert record.read_bytes() == b""


def test_a_restart_adds_and_mends_half_a_line(run: Measured, tmp_path: Path) -> None:
    record = tmp_path / "traffic.jsonl"

    async def work(openai_client: Any, url: str, gateway: Gateway) -> str:
        return str((await ask(openai_client, run.pair("single"))).id)

    first = served(run, record, work)
    whole = record.read_bytes()
    record.write_bytes(whole + b'{"id":"chatcmpl-torn","quest')
    assert [one.id for one in read_exchanges(record)] == [first], "whoever reads it now passes over the half"
    second = served(run, record, work)
    record.write_bytes(record.read_bytes().rstrip(b"\n"))  # only the end of the line is missing: nothing is lost
    third = served(run, record, work)
    assert [row["id"] for row in lines(record)] == [first, second, third]
    assert record.read_bytes().startswith(whole)


def test_one_file_is_one_servers(tmp_path: Path) -> None:
    record = tmp_path / "traffic.jsonl"
    file = RecordFile(record, lambda count, why: None)
    with pytest.raises(UsageError, match="in use by another server"):
        RecordFile(record, lambda count, why: None)
    file.close()
    RecordFile(record, lambda count, why: None).close()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.txt", "", r"must end in .jsonl"),
        ("train.jsonl", '{"question": "Mine?", "answer": "yes"}', "is no record"),
        ("missing/traffic.jsonl", None, "cannot be opened: No such file"),
    ],
)
def test_a_file_of_another_kind_is_left_alone(
    run: Measured, tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    done = subprocess.run(
        [sys.executable, "-m", "fractionate", "serve", str(run.folder), "--port", "0", "--record", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1
    assert said.replace("\\", "") in done.stderr
    if content is not None:
        assert path.read_text() == content


def test_a_full_disk_stops_no_answer_and_is_counted(
    run: Measured, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel refuses to let files grow past a limit, as it does on a full disk."""
    record = tmp_path / "traffic.jsonl"

    async def work(openai_client: Any, url: str, gateway: Gateway) -> list[str]:
        ids = [(await ask(openai_client, run.pair("single"))).id]
        while not record.stat().st_size:
            await asyncio.sleep(0.01)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (record.stat().st_size + 100, hard))
        try:
            ids += [(await ask(openai_client, run.pair("single"))).id for _ in range(3)]
            while 'fractionate_record_left_out_total{why="disk"} 3' not in gateway.metrics.text():
                await asyncio.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        ids.append((await ask(openai_client, run.pair("single"))).id)
        return ids

    ids = served(run, record, work)
    assert len(ids) == 5, "every request was answered"
    assert [row["id"] for row in lines(record)] == [ids[0], ids[-1]], (
        "whole lines only, and on as soon as there is room"
    )
    assert sum("cannot be written" in message for message in caplog.messages) == 1
    assert not any("How far" in message for message in caplog.messages)


def test_a_disk_that_hangs_delays_no_answer(run: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write waits until the answers are there; at the end all of them stand in the file."""
    record = tmp_path / "traffic.jsonl"
    pipe_out, pipe_in = os.pipe()
    real = os.write

    def slow(file: int, data: Any) -> int:
        if file != pipe_in and bytes(data[:6]) == b'{"id":':
            os.read(pipe_out, 1)
        return real(file, data)

    monkeypatch.setattr("fractionate.serve.record.os.write", slow)

    async def work(openai_client: Any, url: str, gateway: Gateway) -> list[str]:
        ids = [(await ask(openai_client, run.pair("single"))).id for _ in range(20)]
        assert record.stat().st_size == 0
        real(pipe_in, b"." * 20)
        return ids

    ids = served(run, record, work)
    assert [row["id"] for row in lines(record)] == ids
