"""Dynamic two-stage: self-ask, bounded. The decomposer proposes one follow-up at a time and the solver answers it."""

from __future__ import annotations

import re
from dataclasses import replace

from fractionate.scoring.final import split_final
from fractionate.scoring.reply import visible
from fractionate.strategies.base import (
    DECOMPOSE_TOKENS,
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
from fractionate.strategies.decompose import parse_decomposition
from fractionate.strategies.prompting import ask_next_messages, final_messages, numbered_lines, step_messages
from fractionate.strategies.stepwise import short_answer
from fractionate.strategies.structured import as_text
from fractionate.types import Completion, Decomposition, Origin, Role

MOST_FOLLOW_UPS = 6
"""Bound on follow-ups where no cap is set: a model that never says it is done must not run up a bill."""


def dynamic(task: Task) -> CallCoroutine[Solution]:
    """Ask and answer follow-ups until the decomposer states the final answer, repeats itself or reaches the cap.

    A decomposer that stops without an answer leaves the last word to the solver, given all follow-ups.
    """
    proposer = task.decomposer or task.solver
    origin = Origin(task.problem, decomposer=proposer.model.name, strategy="dynamic")
    answered: list[tuple[str, str]] = []
    calls: list[tuple[Role, Completion]] = []
    output = ""
    for turn in range(1, (task.settings.cap or MOST_FOLLOW_UPS) + 1):
        messages = ask_next_messages(task.problem, answered, proposer.model.style, task.form, proposer.instructions)
        asking = replace(origin, prompt="follow-up", step=turn)
        (proposal,) = yield [ask(proposer, "decomposer", messages, asking, task.settings, DECOMPOSE_TOKENS)]
        calls.append(("decomposer", proposal))
        follow_up, final = _read_proposal(as_text(proposal.text))
        if final or not follow_up or follow_up in {question for question, _ in answered}:
            output = final
            break
        messages = step_messages(task.problem, answered, follow_up, task.solver.model.style, task.solver.instructions)
        answering = replace(origin, prompt="step", step=turn, subquestion=follow_up)
        (completion,) = yield [
            ask(task.solver, "solver", messages, answering, task.settings, STEP_TOKENS, subquestion=follow_up)
        ]
        calls.append(("solver", completion))
        answered.append((follow_up, short_answer(as_text(completion.text))))
    if not output and answered and task.solver.model.style == "tool":
        output = answered[-1][1]
    if not output:
        messages = final_messages(task.problem, answered, task.solver.model.style, task.form, task.solver.instructions)
        asking = replace(origin, prompt="final")
        (completion,) = yield [ask(task.solver, "solver", messages, asking, task.settings, DIRECT_TOKENS, final=True)]
        calls.append(("solver", completion))
        output = as_text(completion.text)
    questions = tuple(question for question, _ in answered)
    decomposition = Decomposition(questions, "ok" if questions else "none", numbered_lines(questions))
    return Solution(output, calls, decomposition, [answer for _, answer in answered], fell_back=not questions)


def _read_proposal(text: str) -> tuple[str, str]:
    """Read one turn of the decomposer: (follow-up, final statement); at most one is not empty.

    Models that run on may state an answer after inventing the follow-up's answer themselves: the follow-up counts.
    """
    text = visible(text)
    match = re.search(r"follow[- ]?up(?: question)?\s*:\s*(.+)", text, re.IGNORECASE)
    reasoning, final = split_final(text)
    if match and (not final or match.start() < len(reasoning)):
        return match.group(1).strip(), ""
    if final:
        return "", final
    subquestions = parse_decomposition(text, cap=1).subquestions
    return (subquestions[0], "") if subquestions else ("", "")


def _most_calls(settings: Settings) -> list[MostCalls]:
    turns = settings.cap or MOST_FOLLOW_UPS
    return [
        MostCalls("decomposer", turns, DECOMPOSE_TOKENS),
        MostCalls("solver", turns, STEP_TOKENS),
        MostCalls("solver", 1, DIRECT_TOKENS),
    ]


STRATEGIES = (Strategy("dynamic", dynamic, "dynamic", "dynamic (self-ask)", most_calls=_most_calls),)
