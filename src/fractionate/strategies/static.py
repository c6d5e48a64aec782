"""Static two-stage: one solver call over all subquestions, as in the paper (§2)."""

from __future__ import annotations

from fractionate.strategies.base import WORKED_TOKENS, CallCoroutine, MostCalls, Solution, Strategy, Task, ask
from fractionate.strategies.prompting import static_messages
from fractionate.strategies.single import single
from fractionate.strategies.stepwise import stepwise
from fractionate.strategies.structured import as_text


def static(task: Task) -> CallCoroutine[Solution]:
    """Answer every subquestion and then the question in one call; without subquestions, fall back to single stage.

    A tool takes one question per call, so a tool in the solver's place is asked the subquestions one by one.
    """
    if task.solver.model.style == "tool":
        return (yield from stepwise(task))
    decomposition = task.decomposition
    if decomposition is None or not decomposition.subquestions:
        solution = yield from single(task.without_decomposition())
        solution.decomposition, solution.fell_back = decomposition, True
        return solution
    messages = static_messages(
        task.problem, decomposition.subquestions, task.solver.model.style, task.form, task.solver.instructions
    )
    (completion,) = yield [
        ask(task.solver, "solver", messages, task.origin("static"), task.settings, WORKED_TOKENS, final=True)
    ]
    return Solution(as_text(completion.text), [("solver", completion)], decomposition)


STRATEGIES = (
    Strategy(
        "static",
        static,
        "two-stage",
        "static two stage",
        most_calls=lambda settings: [MostCalls("solver", 1, WORKED_TOKENS)],
    ),
)
