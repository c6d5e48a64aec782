"""What a run's test questions can show, said before the first call is paid for."""

from __future__ import annotations

import math
from pathlib import Path

from fractionate.analysis.next_step import extended
from fractionate.analysis.rule import Rule
from fractionate.analysis.showable import Showable, showable
from fractionate.datasets import OWN_ROWS, parse_reference
from fractionate.run.cells import TestSet
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
            _told_apart(test),
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
    lines = [line for test in run.data.tests if (line := _cut_short(test))]
    for shown, test in zip(promised(run), run.data.tests, strict=False):
        lines.append(f"verdict: {shown.line()}{'' if shown.suffices else _remedy(shown, test.reference)}")
    return lines


def _told_apart(test: TestSet) -> str:
    """Return the name of a test set; of the user's own questions, their file's."""
    path = parse_reference(test.reference).path
    return Path(path).name if path and test.name == OWN_ROWS else test.name


def _cut_short(test: TestSet) -> str:
    """Return a line where a reference names more rows than there are, "" where it does not."""
    parsed = parse_reference(test.reference)
    if parsed.end is None or parsed.kinds:
        return ""
    named = len(range(parsed.start or 0, parsed.end + 1, parsed.step))
    there = len(test.problems)
    return f"note: {test.reference} names {named:,} questions, and there are {there:,}" if there < named else ""


def _remedy(shown: Showable, reference: str) -> str:
    longer = extended(reference, shown.needed)
    sample = f'data.test = "{longer}"' if longer != reference else f"{shown.needed - shown.questions:,} more questions"
    if shown.least_margin is None:
        return f"; to decide: {sample}"
    return f"; to decide: {sample}, or verdict.margin = {math.ceil(shown.least_margin)}"
