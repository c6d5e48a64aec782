"""The data types that stages of a run exchange.

A *problem* is a question with known answers. A *decomposer* turns it into a *decomposition* (subquestions); a *solver*
turns both into an answer. Every model call is a `Request` that comes back as a `Completion`; one problem worked through
by one decomposer, strategy and solver is an `Attempt`; a `Cell` is all attempts of one such pair on one test set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

from fractionate.columns import Columns, OfAttempts

Role = Literal["decomposer", "solver"]
ROLES: tuple[Role, Role] = ("decomposer", "solver")
"""The roles of the components of a pair."""
CallRole = Literal["decomposer", "solver", "judge"]
CALL_ROLES: tuple[CallRole, ...] = (*ROLES, "judge")
"""The roles of calls: those of a pair's components, and the judge that scores what they say."""

Stages = Literal["single", "two-stage", "dynamic"]
"""The stages of a strategy: solve only; decompose, then solve; ask follow-up questions and answer them in turn."""

Prompt = Literal["", "decompose", "single", "single-cot", "static", "step", "final", "follow-up"]
"""The kind of prompt of a call: subquestions ("decompose"); the answer at once, by chain of thought, over all
subquestions ("static") or after the steps ("final"); the answer to one subquestion ("step"); the next follow-up
question. "" where a strategy does not say."""

Kind = Literal["none", "gold", "teacher", "solver", "base", "student", "distilled", "model"]
"""The kind of component behind a name of a run; see `Component`."""

Answer: TypeAlias = tuple[str, ...]
"""One answer: its spans. Nearly always a single span; DROP has answers of several."""

Turn: TypeAlias = tuple[str, str]
"""One turn of a chat in the data: its role ("system", "user" or "assistant") and its text."""

AnswerForm = Literal[
    "number",
    "numbers",
    "money",
    "quantity",
    "date",
    "date-day-first",
    "time",
    "yes-no",
    "choice",
    "span",
    "text",
    "free",
]
"""The form of an answer. It decides how the instruction asks for the answer and how a reply is parsed and scored.

"numbers" are one or several, in any order; a "quantity" is a number with a unit; "date-day-first" reads 05/01/2021 as 5
January; "free" is the whole reply, of any length.
"""


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its known answers.

    `answers` are alternatives (several annotators): reaching any one of them is right. `id` is unique within a data
    set and stable between runs. `index` is the row's position in the file or split it came from, counted from 0.
    """

    id: str
    question: str
    answers: tuple[Answer, ...]
    context: str = ""
    dataset: str = ""
    split: str = ""
    index: int = 0
    kind: str = ""
    subquestions: tuple[str, ...] = ()
    """The reference decomposition, where the data set has one."""
    group: str = ""
    """The passage or document that the question shares with others, if the data names one; see `cluster`."""
    history: tuple[Turn, ...] = ()
    """The turns of the chat before the question, its system text among them."""

    @property
    def background(self) -> str:
        """The passage and the earlier turns as one text: what tells this question from others in the same words."""
        return "\n".join([*filter(None, [self.context]), *(f"{role}: {text}" for role, text in self.history)])

    @property
    def cluster(self) -> str:
        """The independent unit that the question belongs to: its group, else its passage, else itself."""
        return self.group or self.context or self.id


@dataclass(frozen=True, slots=True)
class Decomposition:
    """The parsed output of a decomposer.

    `status`: "ok"; "none" (the decomposer said that no decomposition is needed); "unparsed" (no subquestion could be
    read: the strategies fall back to single stage, and the cell counts it). `dropped` counts subquestions over the cap.
    """

    subquestions: tuple[str, ...]
    status: Literal["ok", "none", "unparsed"] = "ok"
    raw: str = ""
    dropped: int = 0


class Message(NamedTuple):
    """One chat message. `role` is "system", "user" or "assistant".

    Where tools are called by the OpenAI protocol, "tool_calls" is an assistant's message as JSON, and "tool" a tool's
    reply as JSON with the call's id. A call of a tool is a single message: "user" with a text, or "arguments" with
    JSON: {"name": …, "arguments": {…}}.
    """

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Origin:
    """The purpose of a request. Recorded models look up their rows by it. It is never sent and never part of a key."""

    problem: Problem
    subquestions: tuple[str, ...] = ()
    decomposer: str = ""
    """The model name (grammar form) that produced the subquestions."""
    decomposition: str = ""
    """The decomposer's raw output, which recorded solver rows are matched by."""
    strategy: str = ""
    """The strategy that the call belongs to; "" for decomposing, which strategies share."""
    prompt: Prompt = ""
    step: int = 0
    """The number of the subquestion or follow-up, from 1; 0 for calls about the question itself."""
    subquestion: str = ""
    """That subquestion as it is asked, references filled in."""


@dataclass(frozen=True, slots=True)
class Request:
    """One model call. `sample` tells independent samples at the same prompt apart (each is a stored row of its own)."""

    messages: tuple[Message, ...]
    role: CallRole
    max_tokens: int = 256
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    sample: int = 0
    response_format: str | None = None
    """Canonical JSON of an OpenAI `response_format`, passed through to servers that take one."""
    further: str = ""
    """Canonical JSON of further fields that the caller sets (`top_p`, `seed`, …): a server that rejects one of
    them rejects the request. Part of the store key only where it is set."""
    origin: Origin | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Usage:
    """Raw usage of one or more calls; dollars are computed from it when reported. Tokens are counts.

    `cached_input_tokens` are part of `input_tokens`, `reasoning_tokens` part of `output_tokens`. `compute_s` is machine
    time in seconds (a local batch's time divided over its rows), 0 for remote models. `counted` calls had their tokens
    counted here with a tokenizer because the provider reported none.
    """

    calls: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    compute_s: float = 0.0
    counted: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.compute_s + other.compute_s,
            self.counted + other.counted,
        )


class ToolUse(NamedTuple):
    """What one tool was used for one reply or one question: counts, seconds, and tokens of its replies (estimated)."""

    tool: str
    calls: int = 0
    errors: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def plus(self, other: ToolUse) -> ToolUse:
        """Return both uses of the tool together."""
        return ToolUse(
            self.tool,
            self.calls + other.calls,
            self.errors + other.errors,
            self.tokens + other.tokens,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's reply to one request.

    `finish_reason`: "stop", "length", "content_filter", "refusal" or "error" (a permanent failure of this one call:
    `text` is empty and `error` says why; it counts as a wrong answer and is shown apart), or "tool_calls" (the model
    asks for tools: `text` is the JSON of its message). `latency_s` is wall seconds
    from sending to the last byte, for a local batch the time of the batch.
    """

    text: str
    finish_reason: str = "stop"
    usage: Usage = field(default_factory=lambda: Usage(calls=1))
    latency_s: float = 0.0
    reasoning: str = ""
    """A reasoning model's thoughts (`reasoning_content`, `<think>` blocks), kept apart from the answer."""
    error: str = ""
    tools: tuple[ToolUse, ...] = ()
    """What tools were used for it, where it was put together from several calls; never stored with a call."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """How fast a local model runs, measured apart from any run, once per round: tokens per second of one core.

    `input_per_s` is of reading prompts, `output_per_s` of writing replies in batches of `batch_size` rows. `cores` is
    how many a machine of this kind has, which its price by the hour is shared out over. A GPU counts as one core.
    """

    input_per_s: tuple[float, ...]
    output_per_s: tuple[float, ...]
    device: str = "cpu"
    cores: int = 1
    batch_size: int = 1

    def hours(self, usage: Usage) -> float:
        """Return the machine hours of a usage, by the mean time per token. Tokens read for a neighbour count too."""
        reading = sum(1 / rate for rate in self.input_per_s) / len(self.input_per_s)
        writing = sum(1 / rate for rate in self.output_per_s) / len(self.output_per_s)
        return (usage.input_tokens * reading + usage.output_tokens * writing) / self.cores / 3600


class Score(NamedTuple):
    """Exact match (0 or 1) and F1 (0 to 1) of one prediction against the best of the alternatives."""

    exact_match: float
    f1: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One problem worked through: its prediction, its score, and its usage by role."""

    problem: Problem
    prediction: Answer | None
    """The extracted answer; None when nothing could be extracted (scored 0 and counted apart)."""
    score: Score
    output: str
    decomposition: Decomposition | None = None
    fell_back: bool = False
    """Whether a two-stage strategy fell back to single stage for lack of a decomposition."""
    decomposer_usage: Usage = field(default_factory=Usage)
    solver_usage: Usage = field(default_factory=Usage)
    latency_s: float = 0.0
    """Wall seconds of the attempt's calls: one after another, or the longest of those that wait for none."""
    failures: tuple[str, ...] = ()
    """Finish reasons other than "stop", and errors, of the attempt's calls."""
    cut_off: tuple[Role, ...] = ()
    """Roles with a reply that reached `max_tokens` before it ended."""
    lenient: Score | None = None
    """The score under the lenient reader; None where it was not computed."""
    gold: Score | None = None
    """The score by a known answer or a person, where `score` is a cheap one (a judge's, a proxy's, a mark's)."""
    tools: Mapping[Role, tuple[ToolUse, ...]] = field(default_factory=dict)
    """What each role used of the tools that it may use; an entry a tool, in the order of the model's name."""
    judge_usage: Usage = field(default_factory=Usage)
    """What scoring it took where a judge scores it: no part of what the pair costs."""


@dataclass(frozen=True, slots=True)
class Component:
    """One decomposer or solver of a run: what its name stands for, resolved once and carried by every cell.

    `kind` is "none" (no decomposer), "gold" (the data set's own decompositions), "teacher", "solver" (the model that
    `models.solver` names), "base" (the student's model before any training), "student" (trained by a run), "distilled"
    (a student from elsewhere, by `models.distilled`) or "model" (any other). `model` is the name in the model grammar
    that its calls are priced by: a student's base, "" where no model stands behind the name. `trained_for` is the role
    that it was trained in, "" for what was not.
    """

    name: str
    kind: Kind
    role: Role
    model: str = ""
    variant: str = ""
    trained_for: Role | Literal[""] = ""
    learnt_from: tuple[str, ...] = ()
    """The data references that a student learnt from."""
    share: float = 1.0
    """The share of the demonstrations that a student learnt from. Below 1, it belongs to a learning curve: it is
    measured like any other student, and no verdict judges it."""
    base: str = ""
    """The untrained model of a student from elsewhere, where it is known. A run's own student has it as `model`."""

    @property
    def is_student(self) -> bool:
        """Whether a run trained it."""
        return self.kind == "student"


@dataclass(frozen=True)
class Cell:
    """All attempts of one decomposer × strategy × solver on one test set, one a question, in the order of the set.

    `attempts` holds objects in memory, or reads them from the run's store of attempts as they are asked for; statistics
    read `columns`. Where a question has several attempts (repeats, pooled runs) its entry is their mean, and
    `outputs_at` has every single one.
    """

    dataset: str
    split: str
    strategy: str
    stages: Stages
    decomposer: Component
    solver: Component
    metric: Literal["exact_match", "f1"]
    attempts: Sequence[Attempt]
    reference: str = ""
    """The test set as the config names it."""
    label: str = ""
    """The strategy in words."""
    judge: str = ""
    """The identity of the judge that scored it: model, version, scale and a digest of its prompt. "" for none."""

    def values(self) -> list[float]:
        """Return the metric of each attempt, 0 to 1, in the order of the test set."""
        found: list[float] = self.columns.column(self.metric).tolist()
        return found

    def outputs_at(self, question: int) -> Sequence[Attempt]:
        """Return every single attempt at a question, counted from 0: its repeats, run after run."""
        several = getattr(self.attempts, "outputs_at", None)
        return several(question) if several else (self.attempts[question],)

    @cached_property
    def columns(self) -> Columns:
        """The attempts as arrays, an entry a question."""
        stored = getattr(self.attempts, "columns", None)
        return stored if isinstance(stored, Columns) else OfAttempts(self.attempts)


@dataclass(frozen=True, slots=True)
class Example:
    """One training example of a student: the prompt's messages and the completion it learns (loss on this alone)."""

    messages: tuple[Message, ...]
    target: str
    problem_id: str = ""
