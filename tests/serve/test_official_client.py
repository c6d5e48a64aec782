"""The official client, unchanged, against a gateway over a real run and a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from serving import Measured, through, timeless

from fractionate.serve.gateway import Gateway


def client(url: str, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", **{"api_key": "none", "max_retries": 0, **options})


def ask(run: Measured, model: str, question: Any = "How far is it to 7?", **options: Any) -> Any:
    """Return what one request comes to."""

    async def work(url: str, gateway: Gateway) -> Any:
        async with client(url) as openai_client:
            messages = question if isinstance(question, list) else [{"role": "user", "content": question}]
            return await openai_client.chat.completions.create(model=model, messages=messages, **options)

    return through(run, work)


async def collect(stream: Any) -> tuple[str, str, list[Any]]:
    """Return (content, reasoning, chunks) of a stream."""
    chunks = [chunk async for chunk in stream]
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    reasoning = [getattr(delta, "reasoning_content", None) or "" for delta in deltas]
    assert reasoning == [getattr(delta, "reasoning", None) or "" for delta in deltas]
    return "".join(delta.content or "" for delta in deltas), "".join(reasoning), chunks


def test_a_whole_answer_has_the_sum_of_all_calls(run: Measured) -> None:
    reply = ask(run, run.pair("stepwise", "teacher"))
    assert reply.choices[0].message.content == "The answer is: 7."
    assert reply.choices[0].finish_reason == "stop"
    facts = reply.fractionate
    assert facts["answer"] == "7"
    assert len(facts["subquestions"]) == 2
    assert (
        facts["sub_answers"] == ["7", "7"] == [line[-1] for line in reply.choices[0].message.reasoning.splitlines()[2:]]
    )
    assert (facts["usage"]["decomposer"]["calls"], facts["usage"]["solver"]["calls"]) == (1, 3)
    by_role = facts["usage"].values()
    assert reply.usage.prompt_tokens == sum(usage["input_tokens"] for usage in by_role)
    assert reply.usage.completion_tokens == sum(usage["output_tokens"] for usage in by_role)
    solver = facts["usage"]["solver"]
    assert facts["usd"]["decomposer"] == 0.0
    assert facts["usd"]["solver"] == pytest.approx((solver["input_tokens"] + 2 * solver["output_tokens"]) / 1e6)
    assert facts["measured"] is True
    assert facts["outcome"]["n"] == 3


@pytest.mark.parametrize("strategy", ["single", "single-cot", "static", "stepwise", "dynamic", "self-consistency"])
def test_a_stream_says_what_a_whole_answer_says(run: Measured, strategy: str) -> None:
    model = run.pair(
        strategy, "none" if strategy.startswith("s") and strategy not in ("static", "stepwise") else "teacher"
    )

    async def work(url: str, gateway: Gateway) -> None:
        async with client(url) as openai_client:
            messages = [{"role": "user", "content": "Context: The road is long.\n\nQuestion: How far is it to 7?"}]
            whole = await openai_client.chat.completions.create(model=model, messages=messages)
            stream = await openai_client.chat.completions.create(
                model=model, messages=messages, stream=True, stream_options={"include_usage": True}
            )
            content, reasoning, chunks = await collect(stream)
        assert content == whole.choices[0].message.content == "The answer is: 7."
        assert reasoning == getattr(whole.choices[0].message, "reasoning", "")
        assert chunks[-1].usage == whole.usage
        assert chunks[-1].choices == []
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].fractionate == chunks[-2].fractionate
        assert timeless(chunks[-1].fractionate) == timeless(whole.fractionate)
        assert [chunk.choices[0].delta.role for chunk in chunks if chunk.choices].count("assistant") == 1

    through(run, work)


def test_words_arrive_while_the_solver_still_writes(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with client(url) as openai_client:
            stream = await openai_client.chat.completions.create(
                model=run.pair("static", "teacher"),
                messages=[{"role": "user", "content": "[slow] How far is 7?"}],
                stream=True,
            )
            seen = ""
            async for chunk in stream:
                delta = chunk.choices[0].delta
                seen += getattr(delta, "reasoning", None) or delta.content or ""
                if delta.content:
                    break  # the solver waits for the gate, so its end has not come
            assert seen.startswith("1. ")
            assert seen.endswith("T")
            assert not run.server.gate.is_set()
            await stream.close()

    through(run, work)


def test_without_include_usage_no_chunk_has_any(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with client(url) as openai_client:
            stream = await openai_client.chat.completions.create(
                model=run.pair("single"), messages=[{"role": "user", "content": "How far is 7?"}], stream=True
            )
            _, _, chunks = await collect(stream)
        assert all(chunk.usage is None and chunk.choices for chunk in chunks)

    through(run, work)


def test_several_choices_are_several_samples(run: Measured) -> None:
    reply = ask(run, run.pair("static", run.solver), n=3, temperature=0.5)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert reply.fractionate["usage"]["solver"]["calls"] == 3
    assert reply.fractionate["usage"]["decomposer"]["calls"] == 3  # each choice asks; at temperature 0 all the same
    assert [choice.fractionate["answer"] for choice in reply.choices] == ["7", "7", "7"]


def test_several_choices_in_a_stream(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with client(url) as openai_client:
            stream = await openai_client.chat.completions.create(
                model=run.pair("single"), messages=[{"role": "user", "content": "How far is 7?"}], stream=True, n=2
            )
            said = {0: "", 1: ""}
            async for chunk in stream:
                for choice in chunk.choices:
                    said[choice.index] += choice.delta.content or ""
        assert said == {0: "The answer is: 7.", 1: "The answer is: 7."}

    through(run, work)


def test_sampling_fields_reach_the_final_call_and_no_other(run: Measured) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    reply = ask(
        run,
        run.pair("stepwise", "teacher"),
        temperature=0.5,
        top_p=0.9,
        seed=3,
        stop=[": "],
        max_tokens=9,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        response_format=schema,
    )
    *steps, final = run.server.bodies
    assert len(steps) == 2
    for body in steps:
        assert body["temperature"] == 0.0
        assert not {"top_p", "seed", "stop", "response_format", "presence_penalty"} & body.keys()
    assert (final["temperature"], final["top_p"], final["seed"], final["stop"]) == (0.5, 0.9, 3, [": "])
    assert (final["presence_penalty"], final["frequency_penalty"], final["max_tokens"]) == (0.1, 0.2, 9)
    assert final["response_format"] == schema
    assert reply.choices[0].message.content == "The answer is"
    assert reply.fractionate["measured"] is False
    assert {"temperature", "top_p", "stop", "max_tokens"} <= set(reply.fractionate["deviations"])


def test_a_higher_limit_than_the_measured_one_changes_nothing(run: Measured) -> None:
    reply = ask(run, run.pair("single"), max_completion_tokens=5000, temperature=0)
    assert run.server.bodies[0]["max_tokens"] == 64
    assert reply.fractionate["measured"] is True


def test_a_field_that_the_solver_rejects_is_an_error_and_not_left_out(run: Measured) -> None:
    run.server.refused_fields = ("temperature", "top_p")

    async def work(url: str, gateway: Gateway) -> None:
        async with client(url) as openai_client:
            ask = openai_client.chat.completions.create
            messages = [{"role": "user", "content": "How far is 7?"}]
            for field in ({"temperature": 0.5}, {"top_p": 0.5}):
                with pytest.raises(openai.BadRequestError, match=next(iter(field))):
                    await ask(model=run.pair("single"), messages=messages, **field)
            # Asked as measured, the solver's own default stands in for a temperature that it does not take.
            assert (await ask(model=run.pair("single"), messages=messages)).choices[0].message.content

    through(run, work)


def test_system_text_and_history_stand_in_every_call(run: Measured) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "How far is it to 7?"},
    ]
    for solver in (run.solver, run.short):
        run.server.bodies.clear()
        reply = ask(run, run.pair("stepwise", run.solver, solver), messages)
        assert reply.fractionate["deviations"] == ["history", "system"]
        for body in run.server.bodies:
            system, *rest = body["messages"]
            assert system["role"] == "system"
            assert system["content"].endswith("Be brief.")
            assert [one["content"] for one in rest[:2]] == ["Hello", "Hi"]
            assert len(rest) == 3
        student = [body for body in run.server.bodies if body["model"] == "short"]
        assert all(body["messages"][0]["content"] == "Be brief." for body in student)


def test_models_are_listed_with_what_was_measured(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with client(url) as openai_client:
            listed = (await openai_client.models.list()).data
            one = await openai_client.models.retrieve(run.pair("static", "teacher"))
        assert listed[0].id == "fractionate/best"
        assert listed[0].fractionate["stands_for"] in {model.id for model in listed}
        assert listed[0].fractionate["because"]
        assert {"fractionate/single", "fractionate/static", run.pair("static", run.solver, run.short)} <= {
            m.id for m in listed
        }
        assert one in listed
        (outcome,) = one.fractionate["outcomes"]
        assert outcome["n"] == 3
        assert outcome["ci_low"] <= outcome["value"] <= outcome["ci_high"]
        assert outcome["usd_per_1000"] > 0
        assert {"because", "action", "effect", "next"} <= one.fractionate["verdict"].keys()

    through(run, work)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("fractionate/bset", "did you mean fractionate/best"),
        ("gpt-4o", "no model 'gpt-4o'"),
        ("fractionate/static:gold+teacher", "did you mean"),
        ("fractionate/static:local:/etc+teacher", "no model"),
    ],
)
def test_an_unknown_model_names_the_nearest(run: Measured, model: str, said: str) -> None:
    with pytest.raises(openai.NotFoundError, match=said) as caught:
        ask(run, model)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


def test_an_unmeasured_pair_needs_leave(measured_run: Measured, tmp_path: Any) -> None:
    import json
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(measured_run.folder, folder)
    results = json.loads((folder / "results.json").read_text())
    kept = [cell for cell in results["cells"] if cell["strategy"] != "stepwise"]
    (folder / "results.json").write_text(json.dumps({**results, "cells": kept}))
    part = Measured(folder, measured_run.server, [])
    model = part.pair("stepwise", "teacher", "teacher")

    async def work(url: str, gateway: Gateway) -> Any:
        async with client(url) as openai_client:
            messages = [{"role": "user", "content": "How far is 7?"}]
            return await openai_client.chat.completions.create(model=model, messages=messages)

    with pytest.raises(openai.NotFoundError, match="was not measured in this run"):
        through(part, work)
    reply = through(part, work, allow_unmeasured=True)
    assert reply.fractionate["outcome"] is None
    assert reply.fractionate["deviations"] == ["pair"]


def test_timeouts_of_the_client_are_its_own(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with client(url, timeout=0.3) as openai_client:
            with pytest.raises(openai.APITimeoutError):
                await openai_client.chat.completions.create(
                    model=run.pair("single"), messages=[{"role": "user", "content": "[hang] How far is 7?"}]
                )
        while gateway.admission.inside:
            await asyncio.sleep(0.01)

    through(run, work)


def test_the_example_client_runs(run: Measured) -> None:
    import subprocess
    import sys
    from pathlib import Path

    script = Path(__file__).resolve().parents[2] / "examples" / "ask.py"

    async def work(url: str, gateway: Gateway) -> str:
        command = [sys.executable, str(script), run.pair("stepwise", "teacher"), f"{url}/v1"]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = through(run, work)
    assert said.startswith("1. What is known about this:")
    assert "answer read: Lisbon" in said
    assert "measured on 3 questions of jsonl" in said
