"""What a run learns from its users' traffic: which answers are demonstrations, and what is said of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fractionate.datasets.traffic import CORRECTED, RIGHT, Exchange, learnable
from fractionate.students.demonstrate import Demonstration
from fractionate.types import Example, Problem


def traffic_notes(
    records: Mapping[str, Sequence[Exchange]], problems: Mapping[str, Problem], recorded: Mapping[str, Demonstration]
) -> Iterator[str]:
    """Yield a sentence or two on each record of traffic, by its reference: what it teaches, and what it does not."""
    for reference, exchanges in records.items():
        kept, left_out = learnable(exchanges)
        taken = [problems[one.id] for one in kept if one.id in problems]
        kinds = Counter(problem.kind for problem in taken)
        unused = "".join(f"; {count} {reason}" for reason, count in sorted(left_out.items()))
        unused += f"; {len(kept) - len(taken)} outside the reference" if len(kept) > len(taken) else ""
        yield (
            f"Traffic {reference}: of {len(exchanges)} answered requests {len(taken)} are learnt from "
            f"({kinds[RIGHT]} right, {kinds[CORRECTED]} with the right answer given){unused}."
        )
        shown = [recorded[problem.id] for problem in taken if problem.id in recorded]
        yield (
            f"Traffic {reference}: {len(shown)} answers are demonstrations as they were recorded; the teacher "
            f"demonstrates the other {len(taken) - len(shown)} questions."
        )
        for role, doing in (("decomposer", "decomposed"), ("solver", "solved")):
            own = sum(role in one.by_students for one in shown)
            if own:
                yield f"Self-training: {own} of these {len(shown)} demonstrations were {doing} by a student."


def learnt_from(
    references: Iterable[str], examples: Sequence[Example], recorded: Mapping[str, Demonstration], role: str
) -> dict[str, Any]:
    """Return what training.json says of a student's teachers: its data, and how many examples came from whom."""
    shown = [recorded[example.problem_id] for example in examples if example.problem_id in recorded]
    return {
        "data": list(references),
        "examples_by_teacher": len(examples) - len(shown),
        "examples_by_traffic": len(shown),
        "of_these_by_students": sum(role in one.by_students for one in shown),
    }
