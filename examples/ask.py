"""Ask a served pair by the official client: `python examples/ask.py [MODEL] [URL] [QUESTION]`."""

import sys
import time

from openai import APIConnectionError, OpenAI

GIVEN = [
    "fractionate/best",
    "http://127.0.0.1:8000/v1",
    "What is the currency of the country whose capital is Lisbon?",
]
MODEL, URL, QUESTION = [*sys.argv[1:4], *GIVEN[len(sys.argv) - 1 :]]

client = OpenAI(base_url=URL, api_key="none")
for _ in range(60):  # the server may still be starting
    try:
        measured = client.models.retrieve(MODEL).fractionate["outcomes"][0]
        break
    except APIConnectionError:
        time.sleep(1)
else:
    sys.exit(f"no server at {URL}: start fractionate serve first")

stream = client.chat.completions.create(
    model=MODEL,
    messages=[{"role": "user", "content": QUESTION}],
    stream=True,
    stream_options={"include_usage": True},
)
for chunk in stream:
    for choice in chunk.choices:
        print(getattr(choice.delta, "reasoning", None) or choice.delta.content or "", end="", flush=True)

facts = chunk.fractionate
print(f"\n\nanswer read: {facts['answer']}")
print(f"tokens: {chunk.usage.total_tokens}, dollars: {facts['usd']['total']}")
print(
    f"measured on {measured['n']} questions of {measured['test_set']}: {measured['metric']} {measured['value']:.1%} "
    f"({measured['ci_low']:.1%} to {measured['ci_high']:.1%})"
)
