"""From a problem to chat messages: full instructions for instruct models, a short form for students.

A student is trained and asked in the same short form, so these functions are the only place where either is written.
A tool in the place of a solver is asked the bare question.
The passage comes first and the question last: prompts over one passage share a prefix, which engines prefill once.
"""

from __future__ import annotations

from collections.abc import Sequence

from fractionate.datasets.base import AnswerForm
from fractionate.models.base import Style
from fractionate.prompts import fill, instruction
from fractionate.types import Message, Problem


def decompose_messages(
    problem: Problem, style: Style, *, cap: int | None = None, shots: int = 0, with_context: bool = True
) -> tuple[Message, ...]:
    """Ask for the subquestions of a problem. `cap` is stated in the instruction (paper §2)."""
    if style == "tool":
        return _bare(problem.question)
    context = problem.context if with_context else ""
    if style == "student":
        return (Message("user", _paragraphs(context, problem.question)),)
    limit = f", at most {cap} of them" if cap is not None else ""
    system = fill("decompose", limit=limit)
    if shots:
        system = f"{system}\n\n{instruction('decompose-example')}"
    return (Message("system", system), Message("user", _paragraphs(_context(context), f"Question: {problem.question}")))


def single_messages(problem: Problem, style: Style, form: AnswerForm, *, chain_of_thought: bool) -> tuple[Message, ...]:
    """Ask for the answer in one stage, directly or with chain of thought."""
    if style == "tool":
        return _bare(problem.question)
    if style == "student":
        return (Message("user", _paragraphs(problem.context, problem.question)),)
    name = "solve-single-cot" if chain_of_thought else "solve-single"
    user = _paragraphs(_context(problem.context), f"Question: {problem.question}")
    return (Message("system", fill(name, form=_form(form))), Message("user", user))


def static_messages(
    problem: Problem, subquestions: Sequence[str], style: Style, form: AnswerForm
) -> tuple[Message, ...]:
    """Ask for all sub-answers and the answer in one call (the paper's two-stage form)."""
    numbered = numbered_lines(subquestions)
    if style == "student":
        return (Message("user", _paragraphs(problem.context, f"{problem.question}\n{numbered}")),)
    user = _paragraphs(_context(problem.context), f"Question: {problem.question}", f"Subquestions:\n{numbered}")
    return (Message("system", fill("solve-static", form=_form(form))), Message("user", user))


def step_messages(
    problem: Problem, answered: Sequence[tuple[str, str]], subquestion: str, style: Style
) -> tuple[Message, ...]:
    """Ask one subquestion, the question and the earlier subquestions with their answers before it.

    The question stands there because its own words may hold the facts that a subquestion is about (GSM8K's do).
    """
    if style == "tool":
        return _bare(subquestion)
    if style == "student":
        return (Message("user", _paragraphs(problem.context, problem.question, _answered(answered), subquestion)),)
    question = f"Question: {problem.question}"
    user = _paragraphs(_context(problem.context), question, _answered(answered), f"Subquestion: {subquestion}")
    return (Message("system", instruction("solve-step")), Message("user", user))


def final_messages(
    problem: Problem, answered: Sequence[tuple[str, str]], style: Style, form: AnswerForm
) -> tuple[Message, ...]:
    """Ask for the answer itself once every subquestion is answered."""
    if style == "tool":
        return _bare(problem.question)
    if style == "student":
        return (Message("user", _paragraphs(problem.context, _answered(answered), problem.question)),)
    user = _paragraphs(_context(problem.context), _answered(answered), f"Question: {problem.question}")
    return (Message("system", fill("solve-final", form=_form(form))), Message("user", user))


def ask_next_messages(
    problem: Problem, answered: Sequence[tuple[str, str]], style: Style, form: AnswerForm
) -> tuple[Message, ...]:
    """Ask for the next follow-up question or the final answer (self-ask)."""
    if style == "tool":
        return _bare(problem.question)
    question = f"Question: {problem.question}"
    user = _paragraphs(_context(problem.context), question, _answered(answered))
    if style == "student":
        return (Message("user", user),)
    return (Message("system", fill("ask-next", form=_form(form))), Message("user", user))


def _bare(text: str) -> tuple[Message, ...]:
    """Ask a tool, which takes a text and no instruction."""
    return (Message("user", text),)


def numbered_lines(items: Sequence[str]) -> str:
    """Return "1. …" lines, the form in which subquestions are asked, taught and stored."""
    return "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1))


def final_line(answer: Sequence[str]) -> str:
    """Return the line that states a final answer, several spans joined by a semicolon."""
    return f"The answer is: {'; '.join(answer)}"


def _form(form: AnswerForm) -> str:
    return instruction(f"form-{form}")


def _context(context: str) -> str:
    return f"Context: {context}" if context else ""


def _answered(pairs: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"{number}. {question} {answer}".rstrip() for number, (question, answer) in enumerate(pairs, 1))


def _paragraphs(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)
