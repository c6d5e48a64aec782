"""Rows of recorded outputs: what each one says it answers, and the replies that it holds.

docs/guide/your-own-data.md states the format with an example of each field. Every value is checked here, once, so that
a fault is one line that names the file and the row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fractionate.models._trees import Decomposed, Label, listed, read_decomposition, read_label, shown_label
from fractionate.rows import Row, read_turns, shown
from fractionate.types import ROLES, CallRole, Turn

FIELDS: Mapping[str, tuple[str, ...]] = {
    "id": ("id",),
    "index": ("index",),
    "question": ("question", "problem", "input"),
    "messages": ("messages",),
    "role": ("role",),
    "strategy": ("strategy",),
    "sample": ("sample", "repeat"),
    "step": ("step",),
    "subquestion": ("subquestion",),
    "decomposition": ("decomposition", "questions", "subquestions"),
    "steps": ("steps",),
    "output": ("output", "completion", "response", "answers"),
    "usage": ("usage",),
    "latency_s": ("latency_s",),
    "passages": ("passages",),
    "logprobs": ("logprobs",),
    "decomposition_usage": ("decomposition_usage",),
}
"""Our name of each field, and the names that it is looked for under."""
MOST_TOKENS = 10**9
"""No call reads or writes so many."""
MOST_SAMPLES = 10**6
_INPUT, _CACHED, _OUTPUT = ("input_tokens", "prompt_tokens"), ("cached_input_tokens",), (
    "output_tokens",
    "completion_tokens",
)  # fmt: skip


class Reply(NamedTuple):
    """One recorded reply. A count of tokens is None where the row does not tell it."""

    text: str
    input_tokens: int | None = None
    cached_input_tokens: int = 0
    output_tokens: int | None = None
    latency_s: float = 0.0
    passages: str = ""
    """What the model was shown beside the prompt: it counts as input where the row has no usage."""


class StepReply(NamedTuple):
    """The reply to one subquestion, None where the row has none; `subquestion` is "" where it is not repeated."""

    subquestion: str
    reply: Reply | None


@dataclass(frozen=True)
class Recording:
    """One recorded row.

    `decomposition` is what a solver's reply was given, "" for the question alone. `step` is the position from 1 of the
    subquestion that `output` answers, 0 where it answers the question. `steps` are replies by position, where the row
    holds them all. `history` are the turns before the question, where the row names it by a chat's messages.
    """

    place: str
    file: str
    identifier: str | None
    index: int | None
    question: str
    history: tuple[Turn, ...]
    role: CallRole | None
    strategy: str
    sample: int | None
    step: int
    subquestion: str
    decomposition: str
    decomposing: Reply | None
    output: Reply | None
    steps: tuple[StepReply | None, ...]

    def plain(self) -> tuple[Any, ...]:
        """Return the row as plain tuples, for a spool."""
        steps = tuple(one and (one.subquestion, one.reply and tuple(one.reply)) for one in self.steps)
        decomposing, output = (one and tuple(one) for one in (self.decomposing, self.output))
        return (*(getattr(self, name) for name in _NAMES), decomposing, output, steps)

    @classmethod
    def from_plain(cls, plain: tuple[Any, ...]) -> Recording:
        """Make the row of plain tuples."""
        *values, decomposing, output, steps = plain
        return cls(
            **dict(zip(_NAMES, values, strict=True)),
            decomposing=Reply(*decomposing) if decomposing else None,
            output=Reply(*output) if output else None,
            steps=tuple(one and StepReply(one[0], Reply(*one[1]) if one[1] else None) for one in steps),
        )


_NAMES = [name for name in Recording.__dataclass_fields__ if name not in ("decomposing", "output", "steps")]


def read_recording(raw: Row, file: str, names: Mapping[str, Sequence[str]]) -> Recording:
    """Read one row. `names` are the fields' names in the file. Raises UsageError naming the row and the field."""
    fields = _Fields(raw, names)
    identifier, index, (question, history) = fields.scalar("id"), fields.whole("index"), _question(fields)
    if identifier is None and index is None and not question:
        raise raw.error("the row names no question: give it an id, an index or the question's text")
    role, strategy = _role(fields), (fields.scalar("strategy") or "").strip()
    output = _reply(fields, fields.value("output"), fields.value) if fields.has("output") else None
    decomposing: Reply | None
    if role == "decomposer" and strategy != "dynamic":
        # Its output is a decomposition, which may be a list or a tree like any other.
        given = _decomposed(fields, "output" if output and output.text else "decomposition")
        decomposing = output._replace(text=given.text) if output else _reply(fields, given.text, fields.value)
        output = None
    else:
        given = _decomposed(fields, "decomposition")
        decomposing = _decomposing(fields, given, output) if role is None and given.text else None
    steps, step = _steps(fields, given), _step(fields, given)
    subquestion = " ".join((fields.scalar("subquestion") or "").split())
    if step and steps:
        raise raw.error("a row has 'step' (one reply) or 'steps' (all of them), not both")
    if step and not (given.text or subquestion or strategy == "dynamic"):
        raise raw.error(f"step {step} of what? Add the 'decomposition' it belongs to, or the 'subquestion' it answers")
    return Recording(
        place=raw.where,
        file=file,
        identifier=identifier,
        index=index,
        question=question,
        history=history,
        role=role,
        strategy=strategy or ("stepwise" if steps else ""),
        sample=fields.whole("sample", most=MOST_SAMPLES),
        step=step,
        subquestion=subquestion,
        decomposition=given.text,
        decomposing=decomposing,
        output=output,
        steps=steps,
    )


class _Fields:
    """The fields of one row under our names."""

    def __init__(self, raw: Row, names: Mapping[str, Sequence[str]]) -> None:
        self.raw = raw
        self._names = names

    def value(self, ours: str) -> Any:
        values = (self.raw.values.get(name) for name in self._names[ours])
        return next((value for value in values if value is not None), None)

    def has(self, ours: str) -> bool:
        return any(name in self.raw.values for name in self._names[ours])

    def scalar(self, ours: str) -> str | None:
        """Return a field that must be text or a number, as text; None where there is none."""
        value = self.value(ours)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.raw.error(f"{ours!r} must be text, not {shown(value)}")
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # a table with gaps writes ids as 2.0
        return sound(str(value))

    def whole(self, ours: str, most: int = MOST_TOKENS) -> int | None:
        return whole(self.raw, ours, self.value(ours), most)


def whole(raw: Row, name: str, value: Any, most: int = MOST_TOKENS) -> int | None:
    """Return a whole number of at least 0, which a CSV cell writes as text; None where the row has none."""
    if value is None or value == "":
        return None
    try:
        number = float(value)
        if isinstance(value, bool) or not number.is_integer():
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise raw.error(f"{name!r} must be a whole number, not {shown(value)}") from None
    if not 0 <= number < most:
        raise raw.error(f"{name!r} must be at least 0 and below {most:,}, not {shown(value)}")
    return int(number)


def sound(text: str) -> str:
    """Replace lone surrogates (half an emoji in a log's JSON), which neither UTF-8 nor a tokenizer takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _question(fields: _Fields) -> tuple[str, tuple[Turn, ...]]:
    """Return the question's text and the turns before it: of a chat, the last thing that the user says."""
    asked = fields.scalar("question") or ""
    if asked or fields.value("messages") is None:
        return asked, ()
    try:
        turns = [(role, sound(text)) for role, text in read_turns(fields.value("messages"))]
    except ValueError as error:
        raise fields.raw.error(f"messages: {error}") from None
    if not turns or turns[-1][0] != "user":
        raise fields.raw.error("messages: they end with the user's question; the reply to it is the row's 'output'")
    return turns[-1][1], tuple(turns[:-1])


def _role(fields: _Fields) -> CallRole | None:
    value = fields.value("role")
    if value in (None, ""):
        return None
    for role in ROLES:
        if value == role:
            return role
    raise fields.raw.error(f"role is 'decomposer' or 'solver', not {shown(value)}")


def _decomposed(fields: _Fields, name: str) -> Decomposed:
    value = fields.value(name)
    if value is None:
        return Decomposed("")
    try:
        given = read_decomposition(value)
    except ValueError as error:
        raise fields.raw.error(f"{name!r} {error}") from None
    return Decomposed(sound(given.text), given.labels, given.nodes)


def _decomposing(fields: _Fields, given: Decomposed, output: Reply | None) -> Reply:
    """Return the decomposer's reply. A row's plain `usage` and `latency_s` are the solver's where it has an output."""
    names = {"usage": "decomposition_usage" if output else "usage", "latency_s": "" if output else "latency_s"}
    return _reply(fields, given.text, lambda name: fields.value(names[name]) if names.get(name) else None)


def _reply(fields: _Fields, value: Any, beside: Any) -> Reply:
    """Return a reply and what the row tells about it. `beside(name)` is the value of a field that belongs to it."""
    raw = fields.raw
    usage = _object(raw, beside("usage"))
    inputs, cached, outputs = (_count(raw, usage, names) for names in (_INPUT, _CACHED, _OUTPUT))
    if cached is not None and inputs is not None and cached > inputs:
        raise raw.error(f"{cached} cached input tokens are more than the {inputs} input tokens that they are part of")
    tokens = _logprobs(raw, beside("logprobs"))
    return Reply(
        _text(raw, value),
        inputs,
        cached or 0,
        tokens if outputs is None else outputs,
        _seconds(raw, beside("latency_s")),
        _passages(raw, beside("passages")),
    )


def _steps(fields: _Fields, given: Decomposed) -> tuple[StepReply | None, ...]:
    """Return the row's replies to its subquestions, by position."""
    value = listed(fields.value("steps"))
    if value in (None, "", [], {}):
        inside = [node for node in given.nodes if any(name in node for name in FIELDS["output"])]
        return tuple(_one_step(fields, node) if node in inside else None for node in given.nodes) if inside else ()
    if isinstance(value, dict):
        by_label = {_label(fields.raw, name): item for name, item in value.items()}
    elif not isinstance(value, list):
        raise fields.raw.error(f"'steps' must be a list of replies, or an object of them by label, not {shown(value)}")
    elif all(isinstance(item, dict) and "step" in item for item in value):
        by_label = {_label(fields.raw, item["step"]): item for item in value}
        if len(by_label) < len(value):
            raise fields.raw.error("'steps' answers one step twice")
    elif any(len(label) > 1 for label in given.labels):
        raise fields.raw.error('\'steps\' of a tree name their labels: write an object such as {"1.1": …, "1": …}')
    else:
        by_label = {(number,): item for number, item in enumerate(value, 1)}
    placed = {_position(fields.raw, label, given): item for label, item in by_label.items()}
    most = max(placed)
    if most > 1000:
        raise fields.raw.error(f"step {most} is out of range")
    return tuple(_one_step(fields, placed[n]) if n in placed else None for n in range(1, most + 1))


def _one_step(fields: _Fields, item: Any) -> StepReply:
    if not isinstance(item, dict):
        return StepReply("", None if item is None else _reply(fields, item, lambda name: None))
    asked = next((item[name] for name in ("subquestion", "question") if item.get(name) is not None), "")
    if not isinstance(asked, str):
        raise fields.raw.error(f"'subquestion' must be text, not {shown(asked)}")
    said = next((item[name] for name in (*FIELDS["output"], "answer") if item.get(name) is not None), None)
    reply = None if said is None else _reply(fields, said, item.get)
    return StepReply(sound(" ".join(asked.split())), reply)


def _step(fields: _Fields, given: Decomposed) -> int:
    value = fields.value("step")
    if value is None or value == "":
        return 0
    return _position(fields.raw, _label(fields.raw, value), given)


def _label(raw: Row, value: Any) -> Label:
    try:
        return read_label(value)
    except ValueError as error:
        raise raw.error(f"'step' {error}, not {shown(value)}") from None


def _position(raw: Row, label: Label, given: Decomposed) -> int:
    """Return where the step of a label stands in the order of answering, from 1."""
    if label in given.labels:
        return given.labels.index(label) + 1
    if given.labels:
        raise raw.error(f"step {shown_label(label)} is out of range: the decomposition has {len(given.labels)} steps")
    if len(label) > 1:
        raise raw.error(f"step {shown_label(label)} is a tree's: write the 'decomposition' with such labels too")
    return label[0]


def _text(raw: Row, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "\n".join(f"{number}. {_text(raw, item)}" for number, item in enumerate(value, 1))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise raw.error(f"'output' must be text, not {shown(value)}")
    return sound(str(value))


def _object(raw: Row, usage: Any) -> Mapping[str, Any]:
    """Return a usage: an object of token counts, or in a table of text one written as JSON."""
    if isinstance(usage, str) and usage.strip():
        try:
            usage = json.loads(usage)
        except (ValueError, RecursionError):
            raise raw.error(f"'usage' must be an object of token counts, not {shown(usage)}") from None
    if usage in (None, "", {}):
        return {}
    if not isinstance(usage, dict):
        raise raw.error(f"'usage' must be an object of token counts, not {shown(usage)}")
    return usage


def _count(raw: Row, usage: Mapping[str, Any], names: Sequence[str]) -> int | None:
    return next((whole(raw, name, usage[name]) for name in names if usage.get(name) is not None), None)


def _seconds(raw: Row, value: Any) -> float:
    try:
        seconds = float(value) if value not in (None, "") else 0.0
        if isinstance(value, bool) or not 0 <= seconds < 1e9:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise raw.error(f"'latency_s' must be seconds, not {shown(value)}") from None
    return seconds


def _passages(raw: Row, value: Any) -> str:
    value = listed(value)
    if value is None:
        return ""
    texts: list[str] = []
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict):
            one = next((one[name] for name in ("text", "content", "passage") if name in one), None)
        if not isinstance(one, str):
            raise raw.error(f"'passages' must be texts, or objects with 'text', not {shown(value)}")
        texts.append(one)
    return sound("\n".join(texts))


def _logprobs(raw: Row, value: Any) -> int | None:
    """Return how many tokens a reply has by its log-probabilities: numbers, or objects as OpenAI's API gives them."""
    value = listed(value)
    if isinstance(value, dict):
        value = value.get("content", value.get("token_logprobs"))
    if value in (None, "", []):
        return None
    each: list[Any] = (
        [one.get("logprob") if isinstance(one, dict) else one for one in value] if isinstance(value, list) else [""]
    )
    for one in each:
        is_number = isinstance(one, int | float) and not isinstance(one, bool)
        if one is not None and not (is_number and one <= 0):
            raise raw.error(f"'logprobs' must be a list of log-probabilities (at most 0), not {shown(one)}")
    return len(value)
