"""Single stage: the solver answers at once, directly or with chain of thought (paper §2, and its missing baseline)."""

from __future__ import annotations

from fractionate.strategies.base import (
    DIRECT_TOKENS,
    WORKED_TOKENS,
    Call,
    CallCoroutine,
    MostCalls,
    Solution,
    Strategy,
    Task,
    ask,
)
from fractionate.strategies.prompting import single_messages
from fractionate.strategies.structured import as_text


def single(task: Task) -> CallCoroutine[Solution]:
    """Answer directly: the answer alone."""
    return (yield from _answer(task, chain_of_thought=False))


def single_cot(task: Task) -> CallCoroutine[Solution]:
    """Answer after thinking step by step."""
    return (yield from _answer(task, chain_of_thought=True))


def single_call(task: Task, *, chain_of_thought: bool) -> Call:
    """Return the one call of a single-stage answer."""
    solver = task.solver
    messages = single_messages(
        task.problem,
        solver.model.style,
        task.form,
        chain_of_thought=chain_of_thought,
        instructions=solver.instructions,
    )
    tokens = WORKED_TOKENS if chain_of_thought else DIRECT_TOKENS
    origin = task.without_decomposition().origin("single-cot" if chain_of_thought else "single")
    return ask(task.solver, "solver", messages, origin, task.settings, tokens, final=True)


def _answer(task: Task, *, chain_of_thought: bool) -> CallCoroutine[Solution]:
    (completion,) = yield [single_call(task, chain_of_thought=chain_of_thought)]
    return Solution(as_text(completion.text), [("solver", completion)])


STRATEGIES = (
    Strategy(
        "single",
        single,
        "single",
        "single stage, direct",
        most_calls=lambda settings: [MostCalls("solver", 1, DIRECT_TOKENS)],
    ),
    Strategy(
        "single-cot",
        single_cot,
        "single",
        "single stage, chain of thought",
        most_calls=lambda settings: [MostCalls("solver", 1, WORKED_TOKENS)],
    ),
)
