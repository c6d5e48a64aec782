"""The whole contract of a model, as base classes with defaults.

A kind of model subclasses the one that says how it answers: one request at a time (`SingleModel`), batches in this
process (`BatchModel`) or batches at a provider (`ProviderBatchModel`). No other code asks more of a model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from fractionate.files import utf8
from fractionate.models.faults import Fault, RateHeaders
from fractionate.models.tokens import input_bound
from fractionate.types import Completion, Problem, Request, Role, Usage

if TYPE_CHECKING:
    from fractionate.config import LimitsConfig, ModelOptions

T = TypeVar("T")
Style = Literal["instruct", "student", "tool"]
"""Which prompts a model gets: full instructions, the short form that students are trained on, or the bare question."""


class Model:
    """What every model has. The defaults are those of a free model that answers at once."""

    name: str = ""
    """The name in the model grammar, as the user wrote it."""
    identity: str = ""
    """What the store keys calls by: the name without secrets and, for local weights, their fingerprint."""
    style: Style = "instruct"
    paid: bool = False
    """A call costs money at a provider, and so counts against a budget."""
    local: bool = False
    """It runs in this process, in batches that are planned over all requests."""
    replays: bool = False
    """Its replies are recorded: asking costs nothing and gives the reply of the real run."""
    takes: frozenset[str] = frozenset()
    """Sampling fields of the chat protocol that a caller may set for one request, and that the model applies."""
    made_with: ModelOptions | None = None
    """The options that it was opened with: another process opens the same model with them."""
    rate: RateHeaders | None = None
    """Its server's latest rate-limit headers."""

    @property
    def left_out(self) -> frozenset[str]:
        """Fields of requests that its server does not support, so that replies are made without them."""
        return frozenset()

    def key(self, request: Request) -> str:
        """Return the store key of a request: equal keys are the same call."""
        return request_key(self.identity, request)

    def other_keys(self, request: Request) -> Iterable[str]:
        """Return further keys under which the store may hold the same call; this model's own are not put there."""
        return ()

    async def close(self) -> None:
        """Release what the model holds."""

    def interrupt(self) -> None:
        """Ask the running batch to stop at its next safe point; it then raises FractionateError."""

    def expected_seconds(self, output_tokens: float) -> float:
        """Return a guess of the wall seconds of one call that writes so many tokens, where nothing is known yet."""
        return 0.0

    def at_once(self, limit: int) -> int:
        """Return how many calls can be under way together where the user's limit is `limit`."""
        return limit

    def most_usage(self, request: Request) -> Usage:
        """Return the most that one call can use, which a budget reserves. Raises UsageError where it has no bound."""
        return Usage(calls=1, input_tokens=input_bound(request), output_tokens=request.max_tokens)

    def limits(self, limits: LimitsConfig) -> LimitsConfig:
        """Return the limits of its calls, given the user's."""
        return limits

    def samples(self, problem: Problem, role: Role = "decomposer") -> int | None:
        """Return how many independent samples of a role's output there are; None for as many as are asked for."""
        return None

    @property
    def counts_tokens_with(self) -> str:
        """How tokens of replies without usage are counted, in words for a note."""
        return "at four bytes per token"


class SingleModel(Model):
    """A model that takes requests one by one, many at once (a server, recorded rows)."""

    @property
    def servers(self) -> Sequence[SingleModel]:
        """The endpoints that serve it, each with a limit of its own: itself, or its several servers. Never empty."""
        return (self,)

    async def complete(self, request: Request) -> Completion:
        """Send one request, once. Raises what `fractionate.models.faults` names; the engine retries."""
        raise NotImplementedError

    async def stream(self, request: Request, on_text: Callable[[str], None]) -> Completion:
        """Do as `complete`, and hand over the reply's text piece by piece as it is written.

        The pieces joined are the completion's text. A model that cannot stream hands it over in one piece. Cancelling
        stops the writing.
        """
        completion = await self.complete(request)
        if completion.text:
            on_text(completion.text)
        return completion


class BatchModel(Model):
    """A model that answers planned batches (local weights)."""

    local = True

    @property
    def beside(self) -> int:
        """How many batches run beside each other: one, where they would only share the same cores."""
        return 1

    def at_once(self, limit: int) -> int:
        """Return 1: batches run one after another."""
        return 1

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """Cut requests into batches: lists of positions. The same requests give the same batches."""
        raise NotImplementedError

    def complete_batch(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer one planned batch, in order. Called in a thread of its own, by at most `beside` of them."""
        raise NotImplementedError


class ProviderBatchModel(Model):
    """A model whose requests are handed to a provider in batches and fetched when they are done."""

    paid = True

    def complete_many(
        self, requests: Sequence[Request], on_sent: Callable[[int], None] = lambda count: None
    ) -> AsyncIterator[tuple[int, Completion | Fault]]:
        """Answer requests; yields (position, completion or fault) as they come.

        `on_sent` is called with the number of requests handed over each time.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Call:
    """A request for one completion from one model.

    `final`: the reply is the answer, or one of the votes for it. `subquestion`: the subquestion that the reply answers.
    Both serve displays of a coroutine while it runs; its value does not depend on them. `expected` and `longest` stand
    for the reply in a forecast, where the forecast cannot make up one itself.
    """

    model: Model
    request: Request
    final: bool = False
    subquestion: str = ""
    expected: Completion | None = None
    longest: Completion | None = None


CallCoroutine: TypeAlias = Generator[Sequence[Call], Sequence[Completion], T]
"""Yields lists of calls, is sent lists of completions in the same order, and returns a value."""


class CompositeModel(Model):
    """A model whose reply takes several calls of other models: one that uses tools.

    Whatever advances a coroutine puts `answer` in the place of a call, so that each of the calls is stored, replayed,
    paid for and bounded by itself.
    """

    @property
    def parts(self) -> Sequence[Model]:
        """The models that it calls, itself not among them; the one that writes the reply comes first."""
        raise NotImplementedError

    def with_parts(self, parts: Sequence[Model]) -> CompositeModel:
        """Return the same model with other parts in the place of its own, in their order."""
        raise NotImplementedError

    def answer(self, call: Call) -> CallCoroutine[Completion]:
        """Reply to a call by calls of the parts. The completion has the usage of the first part, and its tools'."""
        raise NotImplementedError


def request_key(identity: str, request: Request) -> str:
    """Return the SHA-256 (hex) of all that decides a reply: model, messages, sampling and the sample's number."""
    body = [
        identity,
        [list(message) for message in request.messages],
        request.max_tokens,
        request.temperature,
        list(request.stop),
        request.response_format,
        request.sample,
        *([request.further] if request.further else []),
    ]
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(utf8(text)).hexdigest()
