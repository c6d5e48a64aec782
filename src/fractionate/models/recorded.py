"""`recorded:PATH`: replay of recorded outputs, such as a user's logs: a file that `rows` reads, or a folder of them.

A row names its question by `id`, `index`, `question` or a chat's `messages`, and says what it answers by `strategy`,
`step` and `sample`; solver rows are matched by the decomposition that they answered as well. A request that no row
answers, or several rows with different replies, is an error that names both: a guess would be a wrong figure.
docs/guide/your-own-data.md states the format; `_recorded_rows` reads it.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from fractionate.config import ModelOptions
from fractionate.errors import UsageError
from fractionate.models._recorded_rows import FIELDS, Recording, Reply, read_recording
from fractionate.models.base import SingleModel
from fractionate.models.tokens import reference_counter
from fractionate.rows import SUFFIXES, read_rows
from fractionate.spool import Spool, SpoolIndex
from fractionate.types import CallRole, Completion, Origin, Problem, Prompt, Request, Role, Usage

_REMEMBERED = 8192
"""Questions whose rows stay in memory: a call looks for them several times."""
_CACHED_PROMPT = 4096
"""Characters of the longest prompt whose count of tokens stays in memory."""
_SAME_QUESTION, _COMPARED = 0.6, 1000
"""Similarity (difflib ratio) of their beginnings, so many characters of them, under which a row is taken for another
question: difflib's time grows with the square of the length."""
_PROMPTS: tuple[Prompt, ...] = ("", "decompose", "single", "single-cot", "static", "step", "final", "follow-up")
_ANSWERING: dict[Prompt, tuple[str, ...]] = {
    "single": ("single",),
    "single-cot": ("single-cot",),
    "static": ("static",),
    "step": ("stepwise",),
    "final": ("stepwise",),
}
"""The strategies whose rows answer a prompt, beside those of the strategy that asks: a static run without subquestions
falls back to the prompt of `single`, and a vote of self-consistency is a chain of thought."""


class _Numbered(NamedTuple):
    """A row and its number in the recording."""

    number: int
    row: Recording


class _Match(NamedTuple):
    """A reply that answers a request, and the row that holds it."""

    number: int
    row: Recording
    reply: Reply


class RecordedModel(SingleModel):
    """A model whose replies were recorded."""

    replays = True

    def __init__(self, name: str, options: ModelOptions) -> None:
        self.name = name
        self.style = options.style or "instruct"
        path = Path(name.partition(":")[2])
        files = _files(path)
        self.identity = f"recorded:{_digest(files)}"
        unknown = set(options.format) - set(FIELDS)
        if unknown:
            raise UsageError(f"{name}: format maps {', '.join(FIELDS)}, not {sorted(unknown)[0]!r}")
        self._names = {**FIELDS, **{ours: (theirs,) for ours, theirs in options.format.items()}}
        self._recordings = Spool(Recording.plain, Recording.from_plain)
        self._by_id, self._by_index, self._by_question = SpoolIndex(), SpoolIndex(), SpoolIndex()
        self._decomposes = False
        for file in files:
            self._read(file)
        if not len(self._recordings):
            raise UsageError(f"{path} holds no recorded rows")
        # What each row that names no strategy was taken for, as a place in _PROMPTS: it may answer one prompt alone.
        self._taken_for = bytearray(len(self._recordings))
        self._rows = lru_cache(_REMEMBERED)(self._rows_of)

    def key(self, request: Request) -> str:
        """Return the store key: the very reply that is replayed. Raises UsageError as `replay` does."""
        found = self._find(request)
        step = request.origin.step if request.origin else 0
        body = (self.identity, found.row.place, request.role, str(step), found.reply.text)
        return hashlib.sha256("\n".join(body).encode()).hexdigest()

    def replay(self, request: Request) -> str:
        """Return the recorded text alone. Raises UsageError where no row answers, or several differ."""
        return self._find(request).reply.text

    async def complete(self, request: Request) -> Completion:
        """Replay the reply. Tokens that the row does not report are counted with a tokenizer and flagged."""
        reply = self._find(request).reply
        return Completion(reply.text, usage=_usage(reply, request), latency_s=reply.latency_s)

    def samples(self, problem: Problem, role: Role = "decomposer") -> int | None:
        """Return how many independent outputs of a role were recorded for a problem; 0 where none was.

        None where the question was recorded without a decomposition: each sample is then a fallback. Raises UsageError
        where a sample between two others is missing.
        """
        rows = [one.row for one in self._rows(problem)]
        if role == "decomposer":
            held = [row for row in rows if row.decomposing is not None and row.decomposing.text]
            if rows and not held and self._decomposes:
                return None
        else:
            held = [row for row in rows if row.output is not None or row.steps]
        numbers = {row.sample or 0 for row in held}
        missing = next((number for number in range(len(numbers)) if number not in numbers), None)
        if missing is not None:
            raise UsageError(
                f"{self.name}: {problem.id} has a {role} output of sample {max(numbers)} and none of sample {missing} "
                f"({_shown_rows(held)}): number the samples 0, 1, … without a gap"
            )
        return len(numbers)

    def lacks_decomposition(self, problem: Problem) -> bool:
        """Whether the question was recorded without a decomposition, so that it falls back to single stage."""
        rows = self._rows(problem)
        return bool(rows) and not any(one.row.decomposing and one.row.decomposing.text for one in rows)

    @property
    def counts_tokens_with(self) -> str:
        """The tokenizer that stands in for the unknown one."""
        return f"with {reference_counter()[1]}"

    def _find(self, request: Request) -> _Match:
        origin = request.origin
        if origin is None:
            raise UsageError(f"{self.name} replays outputs for known questions only: it cannot answer a new prompt")
        rows = self._rows(origin.problem)
        asks_decomposition = request.role == "decomposer" and origin.prompt in ("", "decompose")
        matches = _decompositions(rows) if asks_decomposition else _answers(rows, request.role, origin)
        if asks_decomposition and not matches and rows and self._decomposes:
            # The question was asked without being decomposed: the strategy falls back, and the cell counts it.
            return _Match(rows[0].number, rows[0].row, Reply(""))
        found = [one for one in matches if (one.row.sample or 0) == request.sample]
        named = self._of_named_strategy(found, request.role, origin)
        # Two decomposers may have written the same text and got different recorded answers: each keeps its own.
        stem = Path(origin.decomposer.partition(":")[2]).name
        own = [one for one in named if request.role == "solver" and one.row.file == stem] or named
        if not own:
            raise UsageError(self._lacks(request, origin, rows, matches))
        first = own[0]
        for other in own[1:]:
            if other.reply.text != first.reply.text:
                raise UsageError(self._several(request, origin, first, other))
        if not first.row.strategy and not asks_decomposition:
            self._take(first, origin)
        return first

    def _of_named_strategy(self, found: list[_Match], role: CallRole, origin: Origin) -> list[_Match]:
        """Keep the rows that name the strategy asked for; without any, those that name none."""
        if role == "decomposer" and origin.prompt in ("", "decompose"):
            return found
        for strategy in _strategies(origin):
            if named := [one for one in found if one.row.strategy == strategy]:
                return named
        # A follow-up depends on those before it: a row that names no strategy cannot be matched to one.
        return [] if origin.strategy == "dynamic" else [one for one in found if not one.row.strategy]

    def _take(self, match: _Match, origin: Origin) -> None:
        """Note the prompt that a row without a strategy answers. Raises UsageError where it answered another one."""
        wanted = _PROMPTS.index(origin.prompt)
        taken = self._taken_for[match.number]
        if wanted and taken and taken != wanted:
            before, now = (_ANSWERING.get(_PROMPTS[one], (origin.strategy,))[0] for one in (taken, wanted))
            raise UsageError(
                f"{match.row.place}: the row does not say which strategy it answers, and this run asks {self.name} for "
                f'{before} and for {now}: add "strategy": "{before}" (or "{now}") to the rows (for a whole file: '
                f"'fractionate import FILE --strategy {before} --out NEW'), or leave one out of run.strategies"
            )
        self._taken_for[match.number] = wanted

    def _rows_of(self, problem: Problem) -> list[_Numbered]:
        """Return a question's rows, however each names it."""
        by_id = [one for one in self._at(self._by_id, problem.id) if one.row.identifier == problem.id]
        by_index = [one for one in self._at(self._by_index, str(problem.index)) if one.row.index == problem.index]
        asked = _normal(problem.question)
        by_text = [
            one
            for one in self._at(self._by_question, asked)
            if _normal(one.row.question) == asked and _is_of_chat(one.row, problem)
        ]
        if by_id:
            # Where ids are known, an index or a text speaks for a row that has nothing better.
            by_index = [one for one in by_index if one.row.identifier is None]
        for one in (*by_id, *by_index):
            same = _same_question(one.row.question, problem.question) and _is_of_chat(one.row, problem)
            if one.row.question and not same:
                how = f"id {problem.id}" if one in by_id else f"index {problem.index}"
                raise UsageError(
                    f"{one.row.place}: {how} is another question than {problem.id}: "
                    "the recorded rows belong to another data set or split"
                )
        if by_id or by_index:
            by_text = [one for one in by_text if one.row.identifier is None and one.row.index is None]
        return sorted({one.number: one for one in (*by_id, *by_index, *by_text)}.values(), key=lambda one: one.number)

    def _at(self, places: SpoolIndex, key: str) -> list[_Numbered]:
        return [_Numbered(place, self._recordings[place]) for place in places.of(key)]

    def _lacks(self, request: Request, origin: Origin, rows: Sequence[_Numbered], matches: Sequence[_Match]) -> str:
        what = f"{self.name} has no {request.role} output for {origin.problem.id}"
        asked = _asked(request.role, origin)
        if not rows:
            return f"{what} ({origin.problem.question[:60]!r}): leave the question out of the data or add its row"
        if request.role == "decomposer" and not self._decomposes:
            return f"{self.name} holds no decomposition at all: name another model as decomposer"
        there = _shown_rows(one.row for one in rows)
        if request.sample and matches:
            asked_by = "run.samples, or run.repeats and run.votes"
            return f"{what}, {asked}, sample {request.sample}: ask for as many as were recorded ({asked_by}; {there})"
        named = sorted({one.row.strategy for one in matches if one.row.strategy})
        if named:
            return f"{what}, {asked}: its rows answer {', '.join(named)} ({there}); add a row that answers {asked}"
        if request.role == "solver" and origin.prompt not in ("step", "follow-up"):
            given = "these subquestions" if origin.decomposition else "the question alone"
            return (
                f"{what}, {asked}, given {given}: recorded solvers answer only what they were asked; pair them as "
                f"recorded ({there})"
            )
        return f"{what}, {asked} ({there}): record the steps ('steps', or rows with 'step'), or leave the strategy out"

    def _several(self, request: Request, origin: Origin, first: _Match, other: _Match) -> str:
        return (
            f"{self.name} has several outputs for {origin.problem.id}, {_asked(request.role, origin)}, sample "
            f"{request.sample}, and they differ: {first.row.place} and {other.row.place}. Keep one, or let each row "
            "say what it answers ('strategy', 'step', 'sample')"
        )

    def _read(self, file: Path) -> None:
        for raw in read_rows(file):
            row = read_recording(raw, file.name, self._names)
            number = len(self._recordings)
            self._recordings.append(row)
            self._decomposes |= row.strategy == "dynamic" or bool(row.decomposing and row.decomposing.text)
            if row.identifier is not None:
                self._by_id.add(row.identifier, number)
            if row.index is not None:
                self._by_index.add(str(row.index), number)
            if row.question:
                self._by_question.add(_normal(row.question), number)


def _strategies(origin: Origin) -> list[str]:
    """Return the strategies whose rows answer a call, the best first."""
    return [name for name in dict.fromkeys((origin.strategy, *_ANSWERING.get(origin.prompt, ()))) if name]


def _decompositions(rows: Sequence[_Numbered]) -> list[_Match]:
    return [_Match(*one, one.row.decomposing) for one in rows if one.row.decomposing is not None]


def _answers(rows: Sequence[_Numbered], role: CallRole, origin: Origin) -> list[_Match]:
    """Return the replies to what a call asks, whatever strategy or sample their rows name."""
    found = ((one, _answer(one.row, role, origin)) for one in rows)
    return [_Match(*one, reply) for one, reply in found if reply is not None]


def _answer(row: Recording, role: CallRole, origin: Origin) -> Reply | None:
    """Return a row's reply to what a call asks: a step, a follow-up, or the question itself."""
    if origin.strategy == "dynamic":
        return _dynamic_answer(row, role, origin)
    if role == "decomposer" or row.role == "decomposer":
        return None
    same = _normal(row.decomposition) == _normal(origin.decomposition)
    if origin.prompt != "step":
        return row.output if same and not row.step else None
    if same and origin.step <= len(row.steps):
        held = row.steps[origin.step - 1]
        return held.reply if held else None
    if row.step != origin.step:
        return None
    unfilled = origin.subquestions[origin.step - 1] if origin.step <= len(origin.subquestions) else ""
    named = not row.decomposition and _normal(row.subquestion) in (_normal(origin.subquestion), _normal(unfilled))
    return row.output if same or named else None


def _dynamic_answer(row: Recording, role: CallRole, origin: Origin) -> Reply | None:
    """Return a row's reply in a self-ask dialogue: rows of one turn each, or one row that holds all turns as steps."""
    if row.strategy != "dynamic" or origin.prompt not in ("follow-up", "step", "final"):
        return None
    if row.steps:
        turn = row.steps[origin.step - 1] if 0 < origin.step <= len(row.steps) else None
        if origin.prompt == "step":
            same = turn and _normal(turn.subquestion) == _normal(origin.subquestion)
            return turn.reply if turn and same else None
        if origin.prompt == "follow-up" and turn:
            return Reply(f"Follow up: {turn.subquestion}") if turn.subquestion else None
        # After the last turn the decomposer states the answer.
        return row.output if origin.prompt == "final" or origin.step == len(row.steps) + 1 else None
    if row.step != origin.step or (row.role or "solver") != role:
        return None
    same = not row.subquestion or _normal(row.subquestion) == _normal(origin.subquestion)
    return row.output if origin.prompt != "step" or same else None


def _asked(role: CallRole, origin: Origin) -> str:
    """Return what a call asks for, in words: `stepwise, step 2`."""
    if role == "decomposer" and origin.prompt in ("", "decompose"):
        return "decomposition"
    strategy = next(iter(_strategies(origin)), role)
    if origin.prompt == "single" and strategy != "single":
        strategy = f"{strategy} without subquestions (as single)"
    return f"{strategy}, {'turn' if strategy == 'dynamic' else 'step'} {origin.step}" if origin.step else strategy


def _shown_rows(rows: Iterable[Recording]) -> str:
    """Return where a question's rows stand, the first three."""
    places = [row.place for row in rows]
    return ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")


def _usage(reply: Reply, request: Request) -> Usage:
    """Return a reply's usage: as recorded, and what the row does not tell counted with a tokenizer."""
    inputs, outputs = reply.input_tokens, reply.output_tokens
    counted = int(inputs is None or outputs is None)
    if inputs is None:
        prompt = "\n".join(message.content for message in request.messages)
        inputs = _prompt_tokens(f"{prompt}\n{reply.passages}" if reply.passages else prompt)
    if outputs is None:
        outputs = reference_counter()[0](reply.text)
    return Usage(1, inputs, min(reply.cached_input_tokens, inputs), outputs, counted=counted)


def _prompt_tokens(prompt: str) -> int:
    # Every solver of a matrix is asked the same prompts. Long ones are left out of the cache to bound its memory.
    return _cached_tokens(prompt) if len(prompt) <= _CACHED_PROMPT else reference_counter()[0](prompt)


@lru_cache(_REMEMBERED)
def _cached_tokens(prompt: str) -> int:
    return reference_counter()[0](prompt)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
        if not files:
            raise UsageError(f"recorded:{path} is a folder without a file of recorded outputs ({', '.join(SUFFIXES)})")
        return files
    if not path.is_file():
        raise UsageError(f"recorded:{path} is not there: name a file of recorded outputs, or their folder")
    return [path]


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode("utf-8", "surrogateescape") + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _normal(text: str) -> str:
    return " ".join(text.split())


def _is_of_chat(row: Recording, problem: Problem) -> bool:
    """Whether a row does not say what was said before its question, or that is what was said before the problem."""
    said, before = ([(role, _normal(text)) for role, text in turns] for turns in (row.history, problem.history))
    return not said or said == before


def _same_question(recorded: str, ours: str) -> bool:
    left, right = _normal(recorded), _normal(ours)
    if left == right:
        return True
    return difflib.SequenceMatcher(None, left[:_COMPARED], right[:_COMPARED]).ratio() >= _SAME_QUESTION
