"""What a run will take, before it takes it: its stages walked with stand-in replies, every call counted and priced.

The very work that the engine carries out later is walked here, answered by stored completions where there are any and
by stand-ins where not; so the forecast knows prompts exactly, and guesses only what depends on replies that nobody has
seen yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from fractionate.calls.drive import Call, run_with
from fractionate.calls.forecast import Forecast, Stage, forecast, plan_stage
from fractionate.calls.stages import walk
from fractionate.models.base import Model, SingleModel
from fractionate.run.lesson import settings_for
from fractionate.run.names import Student
from fractionate.run.run import Run
from fractionate.run.training import examples_for
from fractionate.run.work import demonstrating, evaluating
from fractionate.strategies.base import Sampler
from fractionate.strategies.prompting import final_line
from fractionate.students.demonstrate import Demonstration, demonstrate
from fractionate.types import Completion, Example, Problem, Request

FIRST_CHANCE = 3, 2
"""Of 3 questions, 2 are taken to pass the screen at the first chance (paper: 63 % of DROP, 65 % of Bamboogle)."""
STAND_IN_SUBQUESTION = "What has to be known about thing {} before the question can be answered?"

Reply = Callable[[Call], Completion]


def forecast_run(run: Run) -> Forecast:
    """Return the calls, tokens, dollars and seconds of every stage. Opens models and calls none."""
    stages: list[Stage] = []
    if run.names.students:
        _, calls = walk(demonstrating(run), _replying(run, _Screened()))
        stages += _stages(run, "demonstrate", calls)
    measured: list[Call] = []
    for stage in evaluating(run, run.models.stand_in, lambda *_: _Nothing()):
        measured += walk(stage, _replying(run, lambda call: True))[1]
    stages += _stages(run, "evaluate", measured)
    return forecast(stages, run.config.limits, run.pricing)


def training_examples(run: Run, student: Student) -> list[Example]:
    """Return examples shaped like those a student will get, before there are any demonstrations."""
    demonstrations = _stand_in_demonstrations(run, run.data.train_of(student).values())
    return examples_for(run, student, demonstrations, demonstrations)[0]


def _stand_in_demonstrations(run: Run, problems: Iterable[Problem]) -> list[Demonstration]:
    nobody = Sampler(_Nobody())
    return [
        demonstration
        for problem in problems
        for dataset in (run.data.dataset(problem.dataset),)
        for demonstration in run_with(
            demonstrate(problem, dataset, nobody, nobody, run.data.settings(dataset), 1),
            lambda call: _stand_in(call, right=True),
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


def _stages(run: Run, name: str, calls: Iterable[Call]) -> list[Stage]:
    by_model: dict[tuple[str, str], tuple[Model, list[Request]]] = {}
    for call in calls:
        by_model.setdefault((call.model.name, call.request.role), (call.model, []))[1].append(call.request)
    return [plan_stage(name, model, requests, run.store) for model, requests in by_model.values()]


class _Screened:
    """Says of a teacher's first solution whether it passes the screen: those of so many questions in a row do."""

    def __init__(self) -> None:
        self._seen: dict[str, bool] = {}

    def __call__(self, call: Call) -> bool:
        assert call.request.origin is not None, "strategies say what each call is for"
        of, pass_at_once = FIRST_CHANCE
        return self._seen.setdefault(call.request.origin.problem.id, len(self._seen) % of < pass_at_once)


def _replying(run: Run, right: Callable[[Call], bool]) -> Reply:
    def reply(call: Call) -> Completion:
        if call.model.replays and isinstance(call.model, SingleModel):
            return _at_once(call.model.complete(call.request))  # free, and what will really be said
        stored = run.store.get(call.model.key(call.request)) or run.store.find(call.model.other_keys(call.request))
        return stored or _stand_in(call, right=right(call))

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


def _stand_in(call: Call, *, right: bool) -> Completion:
    """Reply as a plausible model would: three subquestions; short sub-answers and the right answer, or a wrong one."""
    if call.request.role == "decomposer":
        thing = _thing(call)
        return Completion("\n".join(f"{number}. {STAND_IN_SUBQUESTION.format(thing)}" for number in (1, 2, 3)))
    origin = call.request.origin
    assert origin is not None, "strategies say what each call is for"
    answer = origin.problem.answers[0] if right else ("a wrong answer",)
    steps = "\n".join(f"{number}. A short answer to it." for number, _ in enumerate(origin.subquestions, 1))
    return Completion(f"{steps}\n{final_line(answer)}")


def _thing(call: Call) -> str:
    """Return three letters that tell the subquestions of one decomposer from another's.

    Were stand-ins alike, the calls of a solver that answers two decomposers would be counted once for both.
    """
    asked = repr((call.model.name, call.request.messages, call.request.max_tokens))
    number = int.from_bytes(hashlib.sha256(asked.encode()).digest()[:4], "big")
    return "".join(chr(ord("a") + number // 26**place % 26) for place in range(3))


class _Nothing:
    """Gathers nothing: only the calls count."""

    def append(self, value: object) -> None:
        pass


class _Nobody(Model):
    """A model that is only named in calls that nobody sends."""
