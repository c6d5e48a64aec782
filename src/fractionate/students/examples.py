"""What each student learns from: screened demonstrations, and the examples that each variant makes of them.

The table of variants is the paper's (§3): whose words, which rows, which target. Students are trained on the short
prompt that they are later asked with (strategies/prompting.py writes both).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from fractionate.datasets.base import AnswerForm
from fractionate.scoring.final import split_final
from fractionate.scoring.forms import statement_reader
from fractionate.strategies.prompting import (
    decompose_messages,
    final_line,
    numbered_lines,
    single_messages,
    static_messages,
)
from fractionate.students.demonstrate import Demonstration
from fractionate.types import Example, Problem, Role


@dataclass(frozen=True)
class Screening:
    """What passed. `kept_after[k]` is the number of questions kept with k+1 samples each."""

    questions: int
    kept: tuple[Demonstration, ...]
    kept_after: tuple[int, ...]

    def summary(self) -> str:
        """Return one line: how many questions are kept after each sample."""
        if not self.questions:
            return "nothing to screen"
        parts = [
            f"{count} of {self.questions} ({count / self.questions:.0%}) after {samples} sample{'s' * (samples > 1)}"
            for samples, count in enumerate(self.kept_after, 1)
        ]
        return "kept " + ", ".join(parts)


def screen(demonstrations: Sequence[Demonstration], samples: int) -> Screening:
    """Keep the first correct and readable demonstration of each question."""
    kept: dict[str, Demonstration] = {}
    for demonstration in demonstrations:
        if demonstration.correct and demonstration.decomposition.status != "unparsed":
            kept.setdefault(demonstration.problem_id, demonstration)
    after = tuple(sum(one.sample <= sample for one in kept.values()) for sample in range(samples))
    return Screening(len({one.problem_id for one in demonstrations}), tuple(kept.values()), after)


NO_DECOMPOSITION = "No decomposition"


@dataclass(frozen=True)
class Recipe:
    """How a variant's examples are made.

    `screened`: only demonstrations that pass the screen. `sees_subquestions`: they stand in the solver's prompt.
    `rationale`: the target holds the teacher's sub-answers before the answer. `answer`: whose final answer it ends in.
    """

    role: Role
    screened: bool = False
    sees_subquestions: bool = True
    rationale: bool = True
    answer: Literal["teacher", "gold"] = "teacher"


VARIANTS: Mapping[str, Recipe] = {
    "D-T": Recipe("decomposer"),
    "D-R": Recipe("decomposer", screened=True),
    "E-T": Recipe("solver"),
    "E-A": Recipe("solver", answer="gold"),
    "E-T-direct": Recipe("solver", rationale=False),
    "E-A-direct": Recipe("solver", rationale=False, answer="gold"),
    "S-T": Recipe("solver", sees_subquestions=False),
    "S-A": Recipe("solver", sees_subquestions=False, answer="gold"),
    "S-T-direct": Recipe("solver", sees_subquestions=False, rationale=False),
    "S-A-direct": Recipe("solver", sees_subquestions=False, rationale=False, answer="gold"),
}


def needs_solutions(variants: Sequence[str]) -> bool:
    """Whether any of the variants needs the teacher to solve, not only to decompose."""
    return any(_needs_solution(VARIANTS[name]) for name in variants)


def needs_screening(variants: Sequence[str]) -> bool:
    """Whether any variant learns from screened demonstrations alone; the others take each question's first sample."""
    return any(VARIANTS[name].screened for name in variants)


def _needs_solution(recipe: Recipe) -> bool:
    return recipe.screened or (recipe.role == "solver" and (recipe.rationale or recipe.answer == "teacher"))


def build_examples(
    variant: str,
    problems: Mapping[str, Problem],
    forms: Mapping[str, AnswerForm],
    demonstrations: Sequence[Demonstration],
    screened: Sequence[Demonstration],
    *,
    with_context: bool = True,
) -> tuple[list[Example], Counter[str]]:
    """Build a variant's examples in the order of the demonstrations, and count by reason what was left out.

    `problems` by id: demonstrations of others are passed over; `forms` by data set name. Screened variants learn from
    the `screened` demonstrations, all others from each question's first sample.
    """
    recipe = VARIANTS[variant]
    demonstrations = [one for one in demonstrations if one.problem_id in problems]
    if recipe.screened:
        chosen = [one for one in screened if one.problem_id in problems]
    else:
        chosen = [one for one in demonstrations if one.sample == 0]
    examples: list[Example] = []
    left_out: Counter[str] = Counter()
    if recipe.screened:
        screened_out = len({one.problem_id for one in demonstrations}) - len(chosen)
        left_out.update({"did not pass the screen": screened_out} if screened_out else {})
    for demonstration in chosen:
        problem = problems[demonstration.problem_id]
        if demonstration.decomposition.status == "unparsed":
            left_out["no subquestions could be read"] += 1
        elif _target_is_cut_off(recipe, demonstration):
            left_out["the teacher's reply was cut off: raise its max_tokens"] += 1
        elif recipe.role == "decomposer":
            examples.append(_decomposer_example(problem, demonstration, with_context))
        elif recipe.answer == "teacher" and demonstration.prediction is None:
            left_out["the teacher stated no answer"] += 1
        else:
            examples.append(_solver_example(recipe, problem, forms[problem.dataset], demonstration))
    return examples, left_out


def _target_is_cut_off(recipe: Recipe, demonstration: Demonstration) -> bool:
    """Whether the reply that the target is made of ended at its limit."""
    learns_a_reply = recipe.role == "decomposer" or recipe.rationale
    return learns_a_reply and recipe.role in demonstration.cut_off


def nested_share(examples: Sequence[Example], share: Fraction, seed: int) -> list[Example]:
    """Return a share of examples, rounded up, in their order; of one seed a larger share holds every smaller one.

    Which ones are taken depends on the seed and the question's id alone, not on how many there are.
    """

    def place(at: int) -> bytes:
        return hashlib.sha256(f"{seed} {examples[at].problem_id}".encode()).digest()

    taken = sorted(range(len(examples)), key=place)[: math.ceil(share * len(examples))]
    return [examples[at] for at in sorted(taken)]


def _decomposer_example(problem: Problem, demonstration: Demonstration, with_context: bool) -> Example:
    messages = decompose_messages(problem, "student", with_context=with_context)
    target = numbered_lines(demonstration.decomposition.subquestions) or NO_DECOMPOSITION
    return Example(messages, target, problem.id)


def _solver_example(recipe: Recipe, problem: Problem, form: AnswerForm, demonstration: Demonstration) -> Example:
    subquestions = demonstration.decomposition.subquestions if recipe.sees_subquestions else ()
    if subquestions:
        messages = static_messages(problem, subquestions, "student", form)
    else:
        messages = single_messages(problem, "student", form, chain_of_thought=False)
    answer = problem.answers[0] if recipe.answer == "gold" else demonstration.prediction or ()
    rationale = split_final(demonstration.output, statement_reader(form))[0] if recipe.rationale else ""
    target = f"{rationale}\n{final_line(answer)}" if rationale else final_line(answer)
    return Example(messages, target, problem.id)
