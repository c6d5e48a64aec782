"""Self-consistency: the majority of several sampled chains of thought (Wang et al., arXiv 2203.11171), in one stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from fractionate.scoring.forms import READERS
from fractionate.strategies.base import WORKED_TOKENS, CallCoroutine, MostCalls, Solution, Strategy, Task
from fractionate.strategies.single import single_call
from fractionate.strategies.structured import as_text
from fractionate.types import Answer, Completion, Role


def self_consistency(task: Task) -> CallCoroutine[Solution]:
    """Answer `votes` times with chain of thought, and give the answer that most of them reached.

    A model at temperature 0, whose votes would all be the same, votes at the sample temperature. All votes are paid
    for. The output is that of the first vote for the winner; of the first one where no answer could be read.
    """
    votes, first = task.settings.votes, task.settings.sample * task.settings.votes
    warm = replace(task.solver, temperature=task.solver.temperature or task.settings.sample_temperature)
    completions = yield [
        single_call(replace(task, solver=warm, settings=replace(task.settings, sample=sample)), chain_of_thought=True)
        for sample in range(first, first + votes)
    ]
    outputs = [as_text(completion.text) for completion in completions]
    extract = task.dataset.extract if task.dataset else READERS[task.form].extract
    elected = majority([extract(output) for output in outputs], _sameness(task))
    calls: list[tuple[Role, Completion]] = [("solver", completion) for completion in completions]
    return Solution(outputs[elected or 0], calls, side_by_side=True)


def majority(answers: Sequence[Answer | None], same: Callable[[Answer, Answer], bool]) -> int | None:
    """Return the index of the first vote for the answer with most votes; of several answers, the one first reached.

    An answer that could not be read (None) has no vote. Returns None where no answer could be read.
    """
    groups: list[tuple[Answer, list[int]]] = []
    for index, answer in enumerate(answers):
        if answer is None:
            continue
        indices = next((indices for known, indices in groups if same(answer, known)), None)
        if indices is None:
            groups.append((answer, [index]))
        else:
            indices.append(index)
    return max((indices for _, indices in groups), key=len)[0] if groups else None


def _sameness(task: Task) -> Callable[[Answer, Answer], bool]:
    """Return whether two answers are one: the first would be right if the second were the known answer."""
    dataset = task.dataset
    if dataset is None:
        return lambda answer, known: answer == known
    return lambda answer, known: dataset.score(answer, [known]).exact_match == 1


STRATEGIES = (
    Strategy(
        "self-consistency",
        self_consistency,
        "single",
        "single stage, majority of chains of thought",
        votes=True,
        most_calls=lambda settings: [MostCalls("solver", settings.votes, WORKED_TOKENS)],
    ),
)
