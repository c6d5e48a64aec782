"""`echo:`: a deterministic fake for tests and docs. It calls nothing and knows nothing.

`echo:` decomposes every question into two subquestions and answers with the question's last word; `echo:0.7` gives a
reference answer for about 70 % of the questions, chosen by a hash of the whole prompt, and a wrong one for the rest.
Its numbers are the fake's, never a model's.
"""

from __future__ import annotations

import hashlib

from fractionate.config import ModelOptions
from fractionate.errors import UsageError
from fractionate.models.base import SingleModel, request_key
from fractionate.types import Completion, Request, Usage


class EchoModel(SingleModel):
    """A fake model: the same request always gets the same reply."""

    replays = True
    takes = frozenset({"max_tokens", "stop", "temperature", "seed"})  # the last two change nothing in what it says

    def __init__(self, name: str, options: ModelOptions) -> None:
        self.name = name
        self.identity = name
        self.style = options.style or "instruct"
        share = name.partition(":")[2]
        try:
            self._share = float(share) if share else 0.0
        except ValueError:
            self._share = -1.0
        if not 0 <= self._share <= 1:
            raise UsageError(
                f"unknown model {name!r}: echo: takes a share of right answers from 0 to 1, such as echo:0.7"
            )

    async def complete(self, request: Request) -> Completion:
        """Reply at once."""
        whole = self._decompose(request) if request.role == "decomposer" else self._solve(request)
        text, finish = (whole, "stop") if request.role == "decomposer" else _bounded(whole, request)
        words = sum(len(message.content.split()) for message in request.messages)
        usage = Usage(calls=1, input_tokens=words, output_tokens=len(text.split()), counted=1)
        return Completion(text, finish, usage)

    def _decompose(self, request: Request) -> str:
        question = _question(request)
        return f"1. What is known about this: {question}\n2. Given #1, {question}"

    def _solve(self, request: Request) -> str:
        problem = request.origin.problem if request.origin else None
        if problem is not None and problem.answers and self._share and self._lucky(request):
            return f"The answer is: {'; '.join(problem.answers[0])}"
        words = _question(request).rstrip("?.! ").split()
        return f"The answer is: {words[-1] if words else 'nothing'}"

    def _lucky(self, request: Request) -> bool:
        digest = hashlib.sha256(request_key(self.identity, request).encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64 < self._share


def _bounded(text: str, request: Request) -> tuple[str, str]:
    """Return an answer up to the first stop string and of `max_tokens` words at most, and why it ended."""
    for stop in request.stop:
        text = text.partition(stop)[0]
    words = text.split(" ")
    return (text, "stop") if len(words) <= request.max_tokens else (" ".join(words[: request.max_tokens]), "length")


def _question(request: Request) -> str:
    if request.origin is not None:
        return request.origin.problem.question
    return request.messages[-1].content.strip().splitlines()[-1]
