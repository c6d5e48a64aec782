"""The Responses API by the official client: whole, streamed, and refused stateful features."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import openai
import pytest
from serving import Measured, through, timeless

from fractionate.serve.errors import Refusal
from fractionate.serve.gateway import Gateway
from fractionate.serve.requests import read_response

ASKED = "Context: The road is long.\n\nQuestion: How far is it to 7?"


def read(**fields: Any) -> Any:
    return read_response(json.dumps({"model": "m", "input": "How far?", **fields}).encode(), 10_000)


def with_client(run: Measured, work: Any) -> Any:
    async def inside(url: str, gateway: Gateway) -> Any:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            return await work(client, url)

    return through(run, inside)


@pytest.mark.parametrize("strategy", ["single", "static", "stepwise", "dynamic"])
def test_it_says_what_a_chat_completion_says(run: Measured, strategy: str) -> None:
    model = run.pair(strategy, "none" if strategy == "single" else "teacher")

    async def work(client: openai.AsyncOpenAI, url: str) -> None:
        chat: Any = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": ASKED}])
        whole: Any = await client.responses.create(model=model, input=ASKED)
        assert whole.output_text == chat.choices[0].message.content
        assert whole.status == "completed"
        assert (whole.usage.input_tokens, whole.usage.output_tokens) == (
            chat.usage.prompt_tokens,
            chat.usage.completion_tokens,
        )
        assert timeless(whole.fractionate) == timeless(chat.fractionate)
        reasoning = "".join(part.text for item in whole.output if item.type == "reasoning" for part in item.content)
        assert reasoning == getattr(chat.choices[0].message, "reasoning", "")
        events: list[Any] = []
        async with client.responses.stream(model=model, input=ASKED) as stream:  # the client checks their order itself
            async for event in stream:
                events.append(event)
            final: Any = await stream.get_final_response()
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
        assert events[-1].type == "response.completed"
        assert final.output_text == whole.output_text
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(deltas) == whole.output_text
        thought = [event.delta for event in events if event.type == "response.reasoning_text.delta"]
        assert "".join(thought) == reasoning
        assert timeless(final.fractionate) == timeless(whole.fractionate)
        assert [item.type for item in final.output] == [item.type for item in whole.output]

    with_client(run, work)


def test_a_limit_that_cuts_makes_it_incomplete(run: Measured) -> None:
    async def work(client: openai.AsyncOpenAI, url: str) -> None:
        reply = await client.responses.create(model="fractionate/single:none+teacher", input=ASKED, max_output_tokens=2)
        assert (reply.status, reply.output_text) == ("incomplete", "The answer")
        assert reply.incomplete_details is not None
        assert reply.incomplete_details.reason == "max_output_tokens"

    with_client(run, work)


def test_a_conversation_is_sent_as_input(run: Measured) -> None:
    async def work(client: openai.AsyncOpenAI, url: str) -> None:
        first: Any = await client.responses.create(model=run.pair("static", "teacher"), input=ASKED)
        sent: Any = [{"role": "user", "content": ASKED}, *first.output, {"role": "user", "content": "How far to 8?"}]
        run.server.bodies.clear()
        await client.responses.create(model=run.pair("single"), instructions="Be brief.", input=sent)
        system, *rest = run.server.bodies[0]["messages"]
        assert system["content"].endswith("Be brief.")
        assert [one["role"] for one in rest] == ["user", "assistant", "user"]
        assert rest[1]["content"] == first.output_text

    with_client(run, work)


def test_a_refusal_and_a_stream_that_breaks_off(run: Measured) -> None:
    async def work(client: openai.AsyncOpenAI, url: str) -> None:
        refused: Any = await client.responses.create(model=run.pair("single"), input="[refusal] How far?")
        assert refused.output[0].content[0].refusal == "I cannot help with that."
        async with client.responses.stream(model=run.pair("single"), input="[refusal] How far again?") as stream:
            final: Any = await stream.get_final_response()
        assert final.output[0].content[0].refusal == "I cannot help with that."
        asked = {"model": run.pair("single"), "input": "[sse-cut] How far?", "stream": True}
        async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/responses", json=asked) as reply:
            last = (await reply.text()).strip().split("\n\n")[-1]
        assert last.startswith("event: error\n")
        assert json.loads(last.partition("data: ")[2])["code"] == "solver_failed"

    with_client(run, work)


def test_fields_are_heeded_under_their_names_here(run: Measured) -> None:
    schema = {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": True}
    asked = read(
        temperature=0.5,
        top_p=0.9,
        text={"format": schema, "verbosity": "low"},
        reasoning={"effort": "low"},
        max_output_tokens=9,
    )
    assert asked.given["response_format"]["json_schema"] == {"name": "a", "schema": {"type": "object"}, "strict": True}
    assert (asked.given["verbosity"], asked.given["reasoning_effort"], asked.given["max_tokens"]) == ("low", "low", 9)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"include": ["reasoning.encrypted_content"]}, "include"),
        ({"truncation": "auto"}, "truncation"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"messages": []}, "messages"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]}, "input[1].role"),
        ({"input": [{"type": "reasoning"}, {"role": "user", "content": 1}], "instructions": "x"}, "input[1].content"),
        ({"input": [{"type": "reasoning"}]}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"colour": 1}}, "text.colour"),
        ({"reasoning": "high"}, "reasoning"),
        ({"instructions": 7}, "instructions"),
        ({"temperature": 3}, "temperature"),
    ],
)
def test_what_cannot_be_heeded_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Refusal) as caught:
        read(**fields)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_nothing_is_kept_to_be_fetched(run: Measured) -> None:
    async def work(client: openai.AsyncOpenAI, url: str) -> None:
        with pytest.raises(openai.NotFoundError, match="keeps no responses"):
            await client.responses.retrieve("resp_1")
        await asyncio.sleep(0)

    with_client(run, work)
