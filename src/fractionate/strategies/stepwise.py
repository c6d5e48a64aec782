"""Stepwise two-stage: one solver call a subquestion, earlier answers filled in for `#k`, then the final answer."""

from __future__ import annotations

from fractionate.scoring.final import extract_final
from fractionate.strategies.base import (
    DIRECT_TOKENS,
    STEP_TOKENS,
    CallCoroutine,
    MostCalls,
    Settings,
    Solution,
    Strategy,
    Task,
    ask,
)
from fractionate.strategies.decompose import fill_references
from fractionate.strategies.prompting import final_messages, step_messages
from fractionate.strategies.single import single
from fractionate.strategies.structured import as_text
from fractionate.types import Completion, Role


def stepwise(task: Task) -> CallCoroutine[Solution]:
    """Answer the subquestions one by one, each seeing the answers before it, then the question."""
    decomposition = task.decomposition
    if decomposition is None or not decomposition.subquestions:
        solution = yield from single(task.without_decomposition())
        solution.decomposition, solution.fell_back = decomposition, True
        return solution
    style = task.solver.model.style
    answered: list[tuple[str, str]] = []
    calls: list[tuple[Role, Completion]] = []
    for step, subquestion in enumerate(decomposition.subquestions, 1):
        filled = fill_references(subquestion, [answer for _, answer in answered])
        messages = step_messages(task.problem, answered, filled, style, task.solver.instructions)
        origin = task.origin("step", step, filled)
        (completion,) = yield [
            ask(task.solver, "solver", messages, origin, task.settings, STEP_TOKENS, subquestion=filled)
        ]
        calls.append(("solver", completion))
        answered.append((filled, short_answer(as_text(completion.text))))
    sub_answers = [answer for _, answer in answered]
    if style == "tool":  # it composes nothing: the last subquestion is the one that answers the question
        return Solution(sub_answers[-1], calls, decomposition, sub_answers)
    messages = final_messages(task.problem, answered, style, task.form, task.solver.instructions)
    origin = task.origin("final")
    (completion,) = yield [ask(task.solver, "solver", messages, origin, task.settings, DIRECT_TOKENS, final=True)]
    calls.append(("solver", completion))
    return Solution(as_text(completion.text), calls, decomposition, sub_answers)


def short_answer(output: str) -> str:
    """Return the sub-answer that later steps are given: the stated answer, else the first line that says anything."""
    final = extract_final(output)
    if final:
        return "; ".join(final)
    return next((line.strip() for line in output.splitlines() if line.strip()), "")


def _most_calls(settings: Settings) -> list[MostCalls] | None:
    if settings.cap is None:
        return None
    return [MostCalls("solver", settings.cap, STEP_TOKENS), MostCalls("solver", 1, DIRECT_TOKENS)]


STRATEGIES = (Strategy("stepwise", stepwise, "two-stage", "stepwise two stage", most_calls=_most_calls),)
