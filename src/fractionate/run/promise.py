"""What a run's test questions can show, said before the first call is paid for."""

from __future__ import annotations

import math

from fractionate.analysis.next_step import extended
from fractionate.analysis.rule import Rule
from fractionate.analysis.showable import Showable, showable
from fractionate.run.run import Run


def promised(run: Run) -> list[Showable]:
    """Return what each test set can show of the run's students; nothing where no verdict is asked for."""
    students = {
        component.name for pair in run.pairs() for component in (pair.decomposer, pair.solver) if component.trained_for
    }
    students |= {student.name for student in run.names.students}
    if not students:
        return []
    # The level of a first verdict, as `plan power` takes it: some of the error is kept for further looks.
    rule = Rule.of(run.config)
    return [
        showable(
            test.name,
            len(test.problems),
            len({problem.cluster for problem in test.problems}),
            rule.margin,
            rule.confidence_at(test.reference, len(test.problems)),
            len(students),
        )
        for test in run.data.tests
    ]


def promise_lines(run: Run) -> list[str]:
    """Return a line per test set; where its questions are too few, with the sample or margin that works."""
    lines = []
    for shown, test in zip(promised(run), run.data.tests, strict=False):
        lines.append(f"verdict: {shown.line()}{'' if shown.suffices else _remedy(shown, test.reference)}")
    return lines


def _remedy(shown: Showable, reference: str) -> str:
    longer = extended(reference, shown.needed)
    sample = f'data.test = "{longer}"' if longer != reference else f"{shown.needed - shown.questions:,} more questions"
    if shown.least_margin is None:
        return f"; to decide: {sample}"
    return f"; to decide: {sample}, or verdict.margin = {math.ceil(shown.least_margin)}"
