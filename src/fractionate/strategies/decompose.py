"""The decomposing stage: one call that turns a question into subquestions (paper §2)."""

from __future__ import annotations

from fractionate.strategies.base import DECOMPOSE_TOKENS, CallCoroutine, Sampler, Settings, ask
from fractionate.strategies.parse import parse_decomposition
from fractionate.strategies.prompting import decompose_messages
from fractionate.strategies.structured import as_text
from fractionate.types import Completion, Decomposition, Origin, Problem


def decompose(
    problem: Problem, decomposer: Sampler, settings: Settings
) -> CallCoroutine[tuple[Decomposition, Completion]]:
    """Ask the decomposer and read its subquestions, capped."""
    messages = decompose_messages(
        problem,
        decomposer.model.style,
        cap=settings.cap,
        shots=settings.shots,
        with_context=settings.decomposer_context,
    )
    origin = Origin(problem, decomposer=decomposer.model.name, prompt="decompose")
    (completion,) = yield [ask(decomposer, "decomposer", messages, origin, settings, DECOMPOSE_TOKENS)]
    return parse_decomposition(as_text(completion.text), settings.cap), completion
