"""What a run will take, before it takes it: the stages walked with stand-in replies, every call counted and priced.

The very programs that run later are driven here, sent stored completions where there are any and stand-ins where not;
so the forecast knows prompts exactly, and guesses only what depends on replies that nobody has seen yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from fractionate.distill.demonstrate import demonstrate
from fractionate.distill.examples import VARIANTS, build_examples, needs_solutions
from fractionate.engine.drive import Call, Program
from fractionate.engine.forecast import Forecast, Stage, forecast, plan_stage
from fractionate.models.base import Model
from fractionate.models.echo import EchoModel
from fractionate.models.recorded import RecordedModel
from fractionate.pipeline.run import Run
from fractionate.reasoning.decompose import decompose
from fractionate.reasoning.program import Asker, Task
from fractionate.reasoning.prompting import final_line
from fractionate.reasoning.strategies import PROGRAMS, SINGLE_STAGE
from fractionate.types import Completion, Decomposition, Example, Request

FIRST_CHANCE = 3, 2
"""Of 3 questions, 2 are taken to pass the screen at the first chance (paper: 63 % of DROP, 65 % of Bamboogle)."""
STAND_IN_SUBQUESTION = "What has to be known about thing {} before the question can be answered?"


def forecast_run(run: Run) -> Forecast:
    """Return the calls, tokens, dollars and seconds of every stage. Opens models and calls none."""
    stages: list[Stage] = []
    if run.students:
        stages += _stages(run, "demonstrate", _demonstrating(run))
    stages += _stages(run, "evaluate", _evaluating(run))
    return forecast(stages, run.config.limits, run.pricing)


def training_examples(run: Run, student: str) -> list[Example]:
    """Return examples shaped like those a student will get, before there are any demonstrations."""
    problems = run.train_of(student)
    dataset_of = {problem.dataset: run.dataset(problem.dataset) for problem in problems.values()}
    demonstrations = []
    for problem in problems.values():
        dataset = dataset_of[problem.dataset]
        asker = Asker("", _Nobody(), 0.0, 0)
        program = demonstrate(problem, dataset, asker, asker, run.settings(dataset), 1)
        demonstrations += _walk(program, lambda call: _stand_in(call, right=True))[0]
    forms = {name: dataset.answer_form for name, dataset in dataset_of.items()}
    variant, with_context = run.config.variant(student), run.config.run.decomposer_context
    examples = build_examples(variant, problems, forms, demonstrations, with_context=with_context)[0]
    return examples[: run.student(student).max_examples or None]


def training_lines(run: Run) -> list[str]:
    """Return a line a student: examples, tokens, steps and memory, as far as they are known before demonstrating."""
    from fractionate.distill.train import estimate

    lines = []
    for name in run.students:
        needs = estimate(run.student(name).base, training_examples(run, name), run.config.train)
        lines.append(
            f"train {name} ({VARIANTS[run.config.variant(name)].role}): up to {needs['examples']} examples, "
            f"{needs['tokens']:,} tokens, {needs['steps']} steps, "
            f"about {needs['memory_bytes'] / 2**30:.1f} GiB of memory"
        )
    return lines


def _demonstrating(run: Run) -> list[Call]:
    teacher = run.asker("teacher")
    solve = needs_solutions(run.variants)
    solver = run.asker(run.config.models.screen_solver or "teacher") if solve else None
    calls: list[Call] = []
    of, pass_at_once = FIRST_CHANCE
    for number, problem in enumerate(run.train.values()):
        dataset = run.dataset(problem.dataset)
        program = demonstrate(problem, dataset, teacher, solver, run.settings(dataset), run.config.run.samples)
        right = number % of < pass_at_once
        calls += _walk(program, _replying(run, right=right))[1]
    return calls


def _evaluating(run: Run) -> list[Call]:
    calls: list[Call] = []
    players = {name for pair in run.pairs for name in (pair.decomposer, pair.solver)} - {"none", "gold"}
    askers = {name: _asker(run, name) for name in players}
    # Decomposers differ: were their stand-ins alike, their solver's calls would be counted once for all of them.
    things = {name: place for place, name in enumerate(dict.fromkeys(pair.decomposer for pair in run.pairs))}
    for test in run.tests:
        for problem in test.problems:
            decomposed: dict[str, Decomposition] = {}
            for pair in run.pairs:
                if pair.strategy not in (*SINGLE_STAGE, "dynamic") and pair.decomposer not in decomposed:
                    decomposed[pair.decomposer] = Decomposition(problem.subquestions)
                    if pair.decomposer != "gold":
                        program = decompose(problem, askers[pair.decomposer], test.settings_of(pair.decomposer))
                        reply = _replying(run, right=True, thing=things[pair.decomposer])
                        (decomposed[pair.decomposer], _), made = _walk(program, reply)
                        calls += made
                task = Task(
                    problem,
                    test.dataset.answer_form,
                    askers[pair.solver],
                    askers.get(pair.decomposer),
                    decomposed.get(pair.decomposer),
                    test.settings_of(pair.decomposer),
                )
                reply = _replying(run, right=True, thing=things[pair.decomposer])
                calls += _walk(PROGRAMS[pair.strategy](task), reply)[1]
    return calls


def _stages(run: Run, name: str, calls: Iterable[Call]) -> list[Stage]:
    by_model: dict[tuple[str, str], tuple[Model, list[Request]]] = {}
    for call in calls:
        by_model.setdefault((call.model.name, call.request.role), (call.model, []))[1].append(call.request)
    return [plan_stage(name, model, requests, run.store) for model, requests in by_model.values()]


def _asker(run: Run, name: str) -> Asker:
    """Return who will be asked; a student that is not trained yet is stood in for by its base, asked in its form."""
    if not run.config.variant(name) or run.is_trained(name):
        return run.asker(name)
    stand_in = run.untrained(name)
    stand_in.model.name = f"{stand_in.model.name}@{name}"  # what two students are asked is two calls
    return stand_in


def _replying(run: Run, *, right: bool, thing: int = 0) -> Any:
    def reply(call: Call) -> Completion:
        if isinstance(call.model, RecordedModel | EchoModel):
            return asyncio.run(call.model.complete(call.request))  # free, and what will really be said
        stored = run.store.get(call.model.key(call.request))
        return stored or _stand_in(call, right=right, thing=thing)

    return reply


def _stand_in(call: Call, *, right: bool, thing: int = 0) -> Completion:
    """Reply as a plausible model would: three subquestions; short sub-answers and the right answer, or a wrong one.

    `thing` tells the subquestions of one decomposer from those of another.
    """
    if call.request.role == "decomposer":
        return Completion("\n".join(f"{number}. {STAND_IN_SUBQUESTION.format(thing)}" for number in (1, 2, 3)))
    origin = call.request.origin
    assert origin is not None, "strategies say what each call is for"
    answer = origin.problem.answers[0] if right else ("a wrong answer",)
    steps = "\n".join(f"{number}. A short answer to it." for number, _ in enumerate(origin.subquestions, 1))
    return Completion(f"{steps}\n{final_line(answer)}")


def _walk(program: Program[Any], reply: Any) -> tuple[Any, list[Call]]:
    """Drive a program by hand. Returns its value and the calls it made."""
    made: list[Call] = []
    sent: Any = None
    while True:
        try:
            wanted = program.send(sent)
        except StopIteration as stop:
            return stop.value, made
        several = wanted if isinstance(wanted, list) else [wanted]
        made += several
        replies = [reply(call) for call in several]
        sent = replies if isinstance(wanted, list) else replies[0]


class _Nobody(Model):
    """A model that is only named in calls that nobody sends."""
