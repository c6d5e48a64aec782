"""A question to the endpoint makes exactly the calls of the measured run."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import openai
from serving import ROWS, Measured, through

from fractionate.serve.gateway import Gateway


def without_transport(body: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in body.items() if not name.startswith("stream")}, sort_keys=True)


def forms_of(row: dict[str, str]) -> list[dict[str, Any]]:
    """Return every way in which a client may ask a question about a passage."""
    question, context = row["question"], row.get("context", "")
    if not context:
        return [
            {"messages": [{"role": "user", "content": question}]},
            {"messages": [{"role": "user", "content": f"Question: {question}"}]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": question}]}]},
        ]
    parts = [{"type": "text", "text": context}, {"type": "text", "text": question}]
    return [
        {"messages": [{"role": "user", "content": f"Context: {context}\n\nQuestion: {question}"}]},
        {"messages": [{"role": "user", "content": parts}]},
        {"messages": [{"role": "user", "content": question}], "extra_body": {"fractionate": {"context": context}}},
    ]


def test_served_calls_are_those_of_the_run(run: Measured) -> None:
    measured = {without_transport(body) for body in run.sent}
    assert {json.loads(body)["model"] for body in measured} == {"test", "short"}  # instructions, and the student's form

    async def work(url: str, gateway: Gateway) -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            for number in range(3):
                run.server.bodies.clear()
                for row in ROWS:
                    form = forms_of(row)[number]
                    for model in gateway.catalog.pairs:
                        stream = number == 1
                        reply: Any = await client.chat.completions.create(model=model, stream=stream, **form)
                        if stream:
                            async for _ in reply:
                                pass
                asked = Counter(without_transport(body) for body in run.server.bodies)
                assert set(asked) == measured

    through(run, work)
