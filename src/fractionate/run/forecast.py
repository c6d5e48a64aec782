"""What a run will take, before it takes it: its stages walked with stand-in replies, every call counted and priced.

The very work that the engine carries out later is walked here, answered by stored completions where there are any and
by stand-ins where not. It is walked twice: with plausible stand-ins (the model's own stored replies to such prompts,
where there are any) for what is expected, and with replies of full length, as many subquestions as the cap allows and a
screen that nothing passes for what it can be at most.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from fractionate.calls.budget import Budget
from fractionate.calls.drive import run_with
from fractionate.calls.forecast import (
    EXPECTED_SHARE,
    Forecast,
    Stage,
    forecast,
    plan_stage,
)
from fractionate.calls.stages import walk
from fractionate.files import utf8
from fractionate.models.base import Call, Model, SingleModel
from fractionate.models.tokens import FILLER, FILLER_BYTES, REPLY_BYTES
from fractionate.run.cells import discard
from fractionate.run.names import Student
from fractionate.run.run import Run
from fractionate.run.training import examples_for
from fractionate.run.tuning import settings_for
from fractionate.run.work import demonstrating, evaluating
from fractionate.strategies.base import Sampler
from fractionate.strategies.decompose import MOST_REFERENCES, parse_decomposition
from fractionate.strategies.prompting import final_line, numbered_lines
from fractionate.strategies.structured import as_text
from fractionate.students.demonstrate import Demonstration, demonstrate
from fractionate.types import Completion, Example, Problem, Request

FIRST_SAMPLE = 3, 2
"""Of 3 questions, 2 are expected to pass the screen at the first sample (paper: 63 % of DROP, 65 % of Bamboogle)."""
STAND_IN_SUBQUESTION = "What has to be known about thing {} before the question can be answered?"
LEARNT_FROM = 500
"""Stored replies of a model in a role, the newest ones, that expectations are learnt from."""
MOST_ITEMS = 25_000
"""Subquestions that one reply can hold: as many as there are lines in what is read of it."""

Reply = Callable[[Call], Completion]


def forecast_run(run: Run) -> Forecast:
    """Return the calls, tokens, dollars and seconds of every stage. Opens models and calls none."""
    learnt, most_items = _Learnt(run), _most_subquestions(run)
    longest = _replying(run, partial(_longest, most_items))
    stages: list[Stage] = []
    if run.names.students:
        _, calls = walk(demonstrating(run), _replying(run, partial(_plausible, learnt, _Screened())))
        stages += _stages(run, "demonstrate", calls, walk(demonstrating(run), longest)[1], learnt)
    measured: list[Call] = []
    most: list[Call] = []
    for found, reply in ((measured, _replying(run, partial(_plausible, learnt, lambda call: True))), (most, longest)):
        for stage in evaluating(run, run.models.stand_in, discard):
            found += walk(stage, reply)[1]
    stages += _stages(run, "evaluate", measured, most, learnt)
    return forecast(stages, run.config.limits, run.pricing)


def spent_before(run: Run) -> Budget | None:
    """Return what counts against a run's caps already, None where nothing was stored yet. Writes nothing."""
    return None if run.stored is None else Budget(run.config.budget, run.pricing, run.stored, run.identity)


def training_examples(run: Run, student: Student) -> list[Example]:
    """Return examples shaped like those a student will get, before there are any demonstrations."""
    demonstrations = _stand_in_demonstrations(run, run.data.train_of(student).values())
    return examples_for(run, student, demonstrations, demonstrations)[0]


def _stand_in_demonstrations(run: Run, problems: Iterable[Problem]) -> list[Demonstration]:
    unsent = Sampler(_Unsent())
    return [
        demonstration
        for problem in problems
        for dataset in (run.data.dataset_of(problem),)
        for demonstration in run_with(
            demonstrate(problem, dataset, unsent, unsent, run.data.settings(dataset), 1),
            partial(_stand_in, right=True),
        )
    ]


def training_lines(run: Run) -> list[str]:
    """Return a line per student: examples, tokens, steps and memory, as far as they are known before demonstrating."""
    from fractionate.students.train import estimate_each

    lines = []
    for student in run.names.students:
        needs = estimate_each(student.base, training_examples(run, student), settings_for(run, student).candidates())
        tokens, steps, checks = (sum(one[what] for one in needs) for what in ("tokens", "steps", "dev_checks"))
        each = f"{len(needs)} candidates on " if len(needs) > 1 else ""
        dev = len(run.data.dev_of(student))
        workers = run.config.train.workers
        lines.append(
            f"train {student.name} ({student.role}): {each}up to {needs[0]['examples']} examples, "
            f"{tokens:,} tokens, {steps} steps, "
            f"about {max(one['memory_bytes'] for one in needs) / 2**30:.1f} GiB of memory"
            + (f" in each of {workers} processes" if workers > 1 else "")
            + (f"; loss on up to {dev} dev examples, measured up to {checks} times" if dev else "")
        )
    return lines


def _stages(run: Run, name: str, calls: Iterable[Call], most: Iterable[Call], learnt: _Learnt) -> list[Stage]:
    by_model: dict[tuple[str, str], tuple[Model, list[Request], list[Request]]] = {}
    for place, several in enumerate((calls, most), 1):
        for call in several:
            entry = by_model.setdefault((call.model.name, call.request.role), (call.model, [], []))
            entry[place].append(call.request)  # type: ignore[union-attr]
    return [
        plan_stage(
            name, model, expected, run.stored, longest=longest, expected_output=partial(learnt.output_tokens, model)
        )
        for model, expected, longest in by_model.values()
    ]


def _most_subquestions(run: Run) -> int:
    """Return how many subquestions a decomposition of this run can have: the widest cap."""
    names = {one.dataset for one in run.data.demonstrated.values()} if run.names.students else set()
    tests = [test.dataset for test in run.data.tests]
    sets = [*tests, *(run.data.dataset(name) for name in names)]
    caps = [run.data.settings(one, decomposer).cap for one in sets for decomposer in ("", *run.config.decomposers)]
    return max((MOST_ITEMS if cap is None else cap for cap in caps), default=MOST_ITEMS)


class _Learnt:
    """What a run's models have replied to prompts of each kind, as far as the store holds it."""

    def __init__(self, run: Run) -> None:
        self._store = run.stored
        self._replies: dict[tuple[str, str], dict[object, list[Completion]]] = {}

    def replies(self, model: Model, request: Request) -> list[Completion]:
        """Return stored replies of a model to prompts of a request's kind: its instruction, its `max_tokens`."""
        of_role = self._replies.get((model.identity, request.role))
        if of_role is None:
            of_role = defaultdict(list)
            found = self._store.newest(model.identity, request.role, LEARNT_FROM) if self._store else ()
            for stored, completion in found:
                of_role[_kind(stored)].append(completion)
            self._replies[model.identity, request.role] = of_role
        return of_role.get(_kind(request), [])

    def output_tokens(self, model: Model, request: Request) -> float:
        """Return the tokens that a reply to a request is expected to have."""
        replies = self.replies(model, request)
        if not replies:
            return EXPECTED_SHARE * request.max_tokens
        return sum(reply.usage.output_tokens for reply in replies) / len(replies)


def _kind(request: Request) -> object:
    first = request.messages[0]
    instruction = first.content if first.role == "system" else ""
    # A tool's list of functions is no reply to a question.
    return first.role, instruction, request.max_tokens, request.response_format


class _Screened:
    """Says of a teacher's first solution whether it passes the screen: a fixed share of the questions does."""

    def __init__(self) -> None:
        self._seen: dict[str, bool] = {}

    def __call__(self, call: Call) -> bool:
        assert call.request.origin is not None, "strategies say what each call is for"
        of, pass_at_once = FIRST_SAMPLE
        return self._seen.setdefault(call.request.origin.problem.id, len(self._seen) % of < pass_at_once)


def _replying(run: Run, stand_in: Reply) -> Reply:
    store = run.stored

    def reply(call: Call) -> Completion:
        if call.model.replays and isinstance(call.model, SingleModel):
            return _at_once(call.model.complete(call.request))  # free, and what will really be said
        if store is None:
            return stand_in(call)
        stored = store.get(call.model.key(call.request)) or store.find(call.model.other_keys(call.request))
        return stored or stand_in(call)

    return reply


def _at_once(work: Coroutine[Any, Any, Completion]) -> Completion:
    """Return the reply of a model that waits for nothing, without an event loop for every one."""
    try:
        work.send(None)
    except StopIteration as stop:
        completion: Completion = stop.value
        return completion
    work.close()
    raise AssertionError("a model that replays has its replies at hand")


def _plausible(learnt: _Learnt, right: Callable[[Call], bool], call: Call) -> Completion:
    """Reply as the model did to such a prompt before, else as a plausible one would."""
    replies = learnt.replies(call.model, call.request)
    if not replies and call.expected is not None:
        return call.expected
    if not replies:
        return _stand_in(call, right=right(call))
    thing = _thing(call)
    reply = replies[int(thing, 16) % len(replies)]
    if call.request.role != "decomposer" or call.model.style == "tool" or reply.finish_reason == "tool_calls":
        return reply
    # Another decomposer may take its turn with the same reply: the calls that follow are not the same for that.
    found = parse_decomposition(as_text(reply.text)).subquestions
    return Completion(numbered_lines([f"{one} ({thing})" for one in found]) or reply.text)


def _stand_in(call: Call, *, right: bool) -> Completion:
    """Reply as a plausible model would: three subquestions; short sub-answers and the right answer, or a wrong one."""
    if call.request.role == "decomposer":
        return Completion(numbered_lines([STAND_IN_SUBQUESTION.format(_thing(call))] * 3))
    origin = call.request.origin
    assert origin is not None, "strategies say what each call is for"
    answer = next(iter(origin.problem.answers), ("an answer",)) if right else ("a wrong answer",)
    steps = "\n".join(f"{number}. A short answer to it." for number, _ in enumerate(origin.subquestions, 1))
    return Completion(f"{steps}\n{final_line(answer)}")


def _longest(most_items: int, call: Call) -> Completion:
    """Reply with all that `max_tokens` allows.

    A decomposer's first subquestion holds all bytes that a reply can have, since it is in every later prompt and no cap
    cuts it off; the others are short, as many as there can be, and refer to the first answer as often as is filled in
    (two tokens each).
    """
    if call.longest is not None:
        return call.longest
    tokens = call.request.max_tokens
    whole = FILLER * -(-tokens * REPLY_BYTES // FILLER_BYTES)
    if call.request.role == "solver":
        return Completion(whole)
    thing, references = _thing(call), tokens // 2
    items = [f"{whole} {thing}?"]
    for _ in range(min(most_items, tokens, MOST_ITEMS) - 1):
        filled = min(references, MOST_REFERENCES)
        references -= filled
        items.append(f"{thing}{' #1' * filled}?")
    return Completion(numbered_lines(items))


def _thing(call: Call) -> str:
    """Return eight letters that tell the subquestions of one decomposer from another's.

    Were stand-ins alike, the calls of a solver that answers two decomposers would be counted once for both.
    """
    request = call.request
    return hashlib.sha256(utf8(repr((call.model.name, request.messages, request.max_tokens)))).hexdigest()[:8]


class _Unsent(Model):
    """A model of calls that are counted and never sent."""
