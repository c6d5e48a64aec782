"""From a problem to chat messages: full instructions for instruct models, a short form for students.

A student is trained and asked in the same short form, so these functions are the only place where either is written.
A tool in the place of a solver is asked the bare question.
The passage comes first and the question last: prompts over one passage share a prefix, which engines prefill once.
A question within a chat is asked in its place there, after the earlier turns (`_chat`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fractionate.config import PromptExample
from fractionate.datasets.base import AnswerForm
from fractionate.models.base import Style
from fractionate.prompts import SHIPPED, Instructions
from fractionate.types import Message, Problem


def decompose_messages(
    problem: Problem,
    style: Style,
    *,
    cap: int | None = None,
    shots: int = 0,
    with_context: bool = True,
    instructions: Instructions = SHIPPED,
) -> tuple[Message, ...]:
    """Ask for the subquestions of a problem. `cap` is stated in the instruction (paper §2).

    The user's own examples are shown if there are any, else `shots` (0 or 1) of the shipped one.
    """
    if style == "tool":
        return _bare(problem.question)
    context = problem.context if with_context else ""
    if style == "student":
        return _chat(problem, _paragraphs(context, problem.question))
    limit = f", at most {cap} of them" if cap is not None else ""
    system = instructions.fill("decompose", limit=limit)
    if instructions.examples:
        system = _with_examples(system, instructions, lambda one: numbered_lines(one.subquestions))
    elif shots:
        system = f"{system}\n\n{instructions.text('decompose-example')}"
    return _chat(problem, _paragraphs(_context(context), f"Question: {problem.question}"), system)


def single_messages(
    problem: Problem,
    style: Style,
    form: AnswerForm,
    *,
    chain_of_thought: bool,
    instructions: Instructions = SHIPPED,
) -> tuple[Message, ...]:
    """Ask for the answer in one stage, directly or with chain of thought."""
    if style == "tool":
        return _bare(problem.question)
    if style == "student":
        return _chat(problem, _paragraphs(problem.context, problem.question))
    name = "solve-single-cot" if chain_of_thought else "solve-single"
    user = _paragraphs(_context(problem.context), f"Question: {problem.question}")
    system = _with_examples(
        instructions.fill(name, form=_form(form, instructions)),
        instructions,
        lambda one: one.solution if chain_of_thought else final_line([one.answer]) if one.answer else "",
    )
    return _chat(problem, user, system)


def static_messages(
    problem: Problem,
    subquestions: Sequence[str],
    style: Style,
    form: AnswerForm,
    instructions: Instructions = SHIPPED,
) -> tuple[Message, ...]:
    """Ask for all sub-answers and the answer in one call (the paper's two-stage form)."""
    numbered = numbered_lines(subquestions)
    if style == "student":
        return _chat(problem, _paragraphs(problem.context, f"{problem.question}\n{numbered}"))
    user = _paragraphs(_context(problem.context), f"Question: {problem.question}", f"Subquestions:\n{numbered}")
    system = _with_examples(
        instructions.fill("solve-static", form=_form(form, instructions)),
        instructions,
        lambda one: one.solution and f"Subquestions:\n{numbered_lines(one.subquestions)}\n\n{one.solution}",
    )
    return _chat(problem, user, system)


def step_messages(
    problem: Problem,
    answered: Sequence[tuple[str, str]],
    subquestion: str,
    style: Style,
    instructions: Instructions = SHIPPED,
) -> tuple[Message, ...]:
    """Ask one subquestion, the question and the earlier subquestions with their answers before it.

    The question stands there because its own words may hold the facts that a subquestion is about (GSM8K's do).
    """
    if style == "tool":
        return _bare(subquestion)
    if style == "student":
        return _chat(problem, _paragraphs(problem.context, problem.question, _answered(answered), subquestion))
    question = f"Question: {problem.question}"
    user = _paragraphs(_context(problem.context), question, _answered(answered), f"Subquestion: {subquestion}")
    return _chat(problem, user, instructions.fill("solve-step"))


def final_messages(
    problem: Problem,
    answered: Sequence[tuple[str, str]],
    style: Style,
    form: AnswerForm,
    instructions: Instructions = SHIPPED,
) -> tuple[Message, ...]:
    """Ask for the answer itself once every subquestion is answered."""
    if style == "tool":
        return _bare(problem.question)
    if style == "student":
        return _chat(problem, _paragraphs(problem.context, _answered(answered), problem.question))
    user = _paragraphs(_context(problem.context), _answered(answered), f"Question: {problem.question}")
    system = instructions.fill("solve-final", form=_form(form, instructions))
    return _chat(problem, user, system)


def ask_next_messages(
    problem: Problem,
    answered: Sequence[tuple[str, str]],
    style: Style,
    form: AnswerForm,
    instructions: Instructions = SHIPPED,
) -> tuple[Message, ...]:
    """Ask for the next follow-up question or the final answer (self-ask)."""
    if style == "tool":
        return _bare(problem.question)
    question = f"Question: {problem.question}"
    user = _paragraphs(_context(problem.context), question, _answered(answered))
    if style == "student":
        return _chat(problem, user)
    system = instructions.fill("ask-next", form=_form(form, instructions))
    return _chat(problem, user, system)


def _bare(text: str) -> tuple[Message, ...]:
    """Ask a tool, which takes a text and no instruction."""
    return (Message("user", text),)


def _chat(problem: Problem, user: str, instruction: str = "") -> tuple[Message, ...]:
    """Return a prompt's messages: the instruction, the problem's earlier turns, and what the user says last.

    The chat's opening system text stands below the instruction in one message: many chat templates take no second one.
    """
    turns = [Message(*turn) for turn in problem.history]
    first = next((place for place, turn in enumerate(turns) if turn.role != "system"), len(turns))
    system = _paragraphs(instruction, *(turn.content for turn in turns[:first]))
    return (*([Message("system", system)] if system else []), *turns[first:], Message("user", user))


def numbered_lines(items: Sequence[str]) -> str:
    """Return "1. …" lines, the form in which subquestions are asked, taught and stored."""
    return "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1))


def final_line(answer: Sequence[str]) -> str:
    """Return the line that states a final answer, several spans joined by a semicolon."""
    return f"The answer is: {'; '.join(answer)}"


def _form(form: AnswerForm, instructions: Instructions) -> str:
    return instructions.text(f"form-{form}")


def _with_examples(system: str, instructions: Instructions, reply: Callable[[PromptExample], str]) -> str:
    """Return an instruction with the user's examples that have a reply of this kind, each a question and its reply."""
    shown = [(one, said) for one in instructions.examples if (said := reply(one))]
    head = "Here is one worked example." if len(shown) == 1 else f"Here are {len(shown)} worked examples."
    worked = [_paragraphs(_context(one.context), f"Question: {one.question}") + f"\n{said}" for one, said in shown]
    return _paragraphs(system, head, *worked) if shown else system


def _context(context: str) -> str:
    return f"Context: {context}" if context else ""


def _answered(pairs: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"{number}. {question} {answer}".rstrip() for number, (question, answer) in enumerate(pairs, 1))


def _paragraphs(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)
