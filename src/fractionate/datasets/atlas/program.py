"""Subquestions of `atlas` as a small language: written, read and carried out over a passage's facts.

Each subquestion is one `Step`: a relation and what it is asked of. A later step refers to an earlier answer as `#k`,
and is filled with it before it is read, just as the stepwise strategy does. So a decomposition, right or flawed, is a
program, and carrying it out says where following it leads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fractionate.datasets.atlas.passage import Facts

UNKNOWN = "unknown"
"""The answer of a step that the passage does not answer."""
NOTHING = "none"
"""The answer of a selection that selects nothing."""

LOOKUPS = {
    "country": "Which country is {a} in?",
    "capital": "What is the capital of {a}?",
    "currency": "What is the currency of {a}?",
    "continent": "Which continent is {a} in?",
    "people": "How many people does {a} have?",
    "area": "What is the area of {a}?",
    "capital-of": "Which country has the capital {a}?",
}
CONTESTS = {
    "most people": ("Which has more people, {a}?", "Which has the most people, {a}?"),
    "fewest people": ("Which has fewer people, {a}?", "Which has the fewest people, {a}?"),
    "largest area": ("Which has the larger area, {a}?", "Which has the largest area, {a}?"),
    "smallest area": ("Which has the smaller area, {a}?", "Which has the smallest area, {a}?"),
}
"""The forms for two and for several."""
SELECTIONS = {"in": "Which of {a} are in {b}?", "using": "Which of {a} use the {b}?"}
COUNT = "How many places are these: {a}?"

_NAME = r"(?:[A-Z][a-z]+(?: [A-Z][a-z]+)?|#\d|unknown|none)"
_LIST = rf"{_NAME}(?:(?:, | and | or ){_NAME})*"
_SEPARATOR = re.compile(r", | and | or ")
_REFERENCE = re.compile(r"#(\d+)")


@dataclass(frozen=True, slots=True)
class Step:
    """One subquestion. `where` is what a selection selects by: a country, a continent or a currency."""

    relation: str
    subjects: tuple[str, ...]
    where: str = ""

    def __str__(self) -> str:
        if self.relation in LOOKUPS:
            return LOOKUPS[self.relation].format(a=self.subjects[0])
        if self.relation in CONTESTS:
            return CONTESTS[self.relation][len(self.subjects) > 2].format(a=enumerate_names(self.subjects, "or"))
        if self.relation in SELECTIONS:
            names = enumerate_names(self.subjects, "and")
            return SELECTIONS[self.relation].format(a=names, b=self.where)
        return COUNT.format(a=", ".join(self.subjects))


def enumerate_names(names: Sequence[str], word: str) -> str:
    """Return "A, B and C" with `word` before the last."""
    *front, last = names
    return f"{', '.join(front)} {word} {last}" if front else last


def read_step(text: str) -> Step | None:
    """Read a subquestion; None when it is none of the forms above."""
    for relation, pattern in _PATTERNS:
        if match := pattern.fullmatch(text.strip()):
            subjects = tuple(_SEPARATOR.split(match["a"]))
            return Step(relation, subjects, match.groupdict().get("b") or "")
    return None


def _pattern(form: str, subject: str) -> re.Pattern[str]:
    return re.compile(re.escape(form).replace(r"\{a\}", f"(?P<a>{subject})").replace(r"\{b\}", f"(?P<b>{_NAME})"))


_PATTERNS = [
    *((relation, _pattern(form, _NAME)) for relation, form in LOOKUPS.items()),
    *((relation, _pattern(form, _LIST)) for relation, forms in CONTESTS.items() for form in forms),
    *((relation, _pattern(form, _LIST)) for relation, form in SELECTIONS.items()),
    ("count", _pattern(COUNT, _LIST)),
]


def fill(text: str, answers: Sequence[str]) -> str:
    """Return a subquestion with every `#k` replaced by the k-th answer; a reference ahead of the answers stays."""

    def answer(match: re.Match[str]) -> str:
        position = int(match[1])
        return answers[position - 1] if 1 <= position <= len(answers) else match[0]

    return _REFERENCE.sub(answer, text)


def execute(subquestions: Sequence[str], facts: Facts) -> tuple[str, ...]:
    """Carry out a decomposition over a passage's facts: one answer a subquestion, `UNKNOWN` where there is none."""
    answers: list[str] = []
    for subquestion in subquestions:
        step = read_step(fill(subquestion, answers))
        answers.append(UNKNOWN if step is None else answer_step(step, facts))
    return tuple(answers)


def answer_step(step: Step, facts: Facts) -> str:
    """Answer one filled step from the facts."""
    if step.relation == "count":
        named = [name for name in step.subjects if name not in (NOTHING, UNKNOWN)]
        return UNKNOWN if UNKNOWN in step.subjects else str(len(named))
    if step.relation in CONTESTS:
        return _contest(step, facts)
    if step.relation in SELECTIONS:
        return _select(step, facts)
    return _look_up(step.relation, step.subjects[0], facts)


def _look_up(relation: str, subject: str, facts: Facts) -> str:
    if relation in ("people", "area"):
        return facts.figures.get((relation, subject), UNKNOWN)
    if relation == "capital-of":
        return next((country for country, capital in facts.capital.items() if capital == subject), UNKNOWN)
    if relation == "country":
        # A capital is in its country as much as any city is.
        return facts.country.get(subject) or _look_up("capital-of", subject, facts)
    table: dict[str, str] = getattr(facts, relation)
    return table.get(subject, UNKNOWN)


def _contest(step: Step, facts: Facts) -> str:
    extreme, measure = step.relation.split()
    figures = facts.measure(measure)
    if any(name not in figures for name in step.subjects):
        return UNKNOWN
    best = max if extreme in ("most", "largest") else min
    return best(step.subjects, key=figures.__getitem__)


def _select(step: Step, facts: Facts) -> str:
    tables = (facts.currency,) if step.relation == "using" else (facts.country, facts.continent)
    places = {name: place for table in tables for name, place in table.items()}
    if step.where not in places.values() or any(name not in places for name in step.subjects):
        return UNKNOWN
    return ", ".join(name for name in step.subjects if places[name] == step.where) or NOTHING


def explain(subquestion: str, answers: Sequence[str], answer: str, facts: Facts) -> str:
    """Return the sentence that answers a subquestion, given the answers before it: what a solver writes down."""
    step = read_step(fill(subquestion, answers))
    if step is None or answer == UNKNOWN:
        return "The passage does not say."
    subject = step.subjects[0]
    if step.relation in CONTESTS:
        return _explain_contest(step, answer, facts)
    if step.relation in SELECTIONS:
        return _explain_selection(step, answer)
    return {
        "country": f"{subject} is in {answer}.",
        "capital": f"The capital of {subject} is {answer}.",
        "currency": f"The currency of {subject} is the {answer}.",
        "continent": f"{subject} is in {answer}.",
        "people": f"{subject} has {answer} people.",
        "area": f"The area of {subject} is {answer} km2.",
        "capital-of": f"{subject} is the capital of {answer}.",
        "count": f"The number of places is {answer}.",
    }[step.relation]


def _explain_contest(step: Step, answer: str, facts: Facts) -> str:
    measure = step.relation.split()[1]
    figures = [f"{name} has {facts.figures[measure, name]}" for name in step.subjects]
    return f"{enumerate_names(figures, 'and')}, so it is {answer}."


def _explain_selection(step: Step, answer: str) -> str:
    verb = ("is in", "are in") if step.relation == "in" else ("uses the", "use the")
    names = answer.split(", ")
    if answer == NOTHING:
        return f"None of them {verb[0]} {step.where}."
    return f"{enumerate_names(names, 'and')} {verb[len(names) > 1]} {step.where}."
