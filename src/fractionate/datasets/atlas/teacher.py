"""The demo's recorded teacher: decompositions and solutions of `atlas` problems, some of them flawed, as a JSONL file.

    python -m fractionate.datasets.atlas.teacher OUT.jsonl 'atlas#train@0-319' 'atlas#test@0-303'

A decomposition is flawed at a stated rate, each sample for itself. What its solver writes is found by carrying the
flawed decomposition out over the passage, so the row ends in what following it really gives. Most often that is a wrong
answer, which screening catches. At times it is the right one, by luck (a neighbour's continent is the same) or because
the flaw does no harm (an idle subquestion in front), which screening by the answer cannot see. On atlas#train@0-1999
with the defaults it catches 68 % of the flawed demonstrations: 21 % are flawed, 8 % of those kept after two samples
(`benchmarks/atlas_flaws.py`). The solver itself never slips, so screening throws no good demonstration away.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fractionate.datasets import load
from fractionate.datasets.atlas.passage import Facts
from fractionate.datasets.atlas.problems import facts_of, sub_answers
from fractionate.datasets.atlas.program import CONTESTS, UNKNOWN, Step, execute, explain, read_step
from fractionate.errors import UsageError
from fractionate.types import Problem

__all__ = ["FLAWS", "Demonstration", "demonstrate", "solution", "sub_answers", "write_recording"]

DIRECT_ERROR_RATE = 0.3
"""Share of direct (single-stage) answers that are wrong."""
MOST_STEPS = 3
"""A flaw adds no subquestion beyond this, the data set's cap."""

_REFERENCE = re.compile(r"#(\d+)")
_REVERSED = {
    "most people": "fewest people",
    "fewest people": "most people",
    "largest area": "smallest area",
    "smallest area": "largest area",
}
_SWAPS = {
    "capital": ("currency", "continent"),
    "currency": ("capital", "continent"),
    "continent": ("capital", "currency"),
    "country": ("people",),
    "capital-of": ("people",),
    **{contest: (other,) for contest, other in _REVERSED.items()},
}


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One sample of the teacher's decomposing. `flaw` is "" for a good one."""

    subquestions: tuple[str, ...]
    flaw: str = ""

    @property
    def text(self) -> str:
        """Return the decomposer's output."""
        return _numbered(self.subquestions)


def write_recording(
    path: Path,
    problems: Iterable[Problem],
    *,
    samples: int = 2,
    flaw_rate: float = 0.2,
    direct_error_rate: float = DIRECT_ERROR_RATE,
    seed: int = 0,
) -> None:
    """Write the rows that `recorded:PATH` replays, for each problem and sample one of each sort.

    A decomposer row holds the sample's decomposition. Solver rows answer it, the reference decomposition and the other
    samples' ones (so that the recorded solver can be paired with each), and the question alone (decomposition "").
    Both rates are shares in [0, 1]. Raises UsageError for a rate outside or a problem that is not from atlas.
    """
    for name, rate in (("flaw_rate", flaw_rate), ("direct_error_rate", direct_error_rate)):
        if not 0 <= rate <= 1:
            raise UsageError(f"{name} is a share between 0 and 1, not {rate}")
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        for problem in problems:
            _steps(problem)
            for row in _rows(problem, samples, flaw_rate, direct_error_rate, seed):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def demonstrate(problem: Problem, sample: int, *, flaw_rate: float = 0.2, seed: int = 0) -> Demonstration:
    """Return one sample of the teacher's decomposing: the reference decomposition, or a flawed form of it."""
    rng = random.Random(f"atlas teacher/{seed}/{problem.id}/{sample}")
    if rng.random() >= flaw_rate:
        return Demonstration(problem.subquestions)
    steps, facts = _steps(problem), facts_of(problem)
    for name in rng.sample(list(FLAWS), len(FLAWS)):
        flawed = FLAWS[name](steps, facts, rng)
        if flawed is not None and flawed != steps:
            return Demonstration(tuple(str(step) for step in flawed), name)
    raise AssertionError(f"no flaw fits {problem.id}")


def solution(problem: Problem, subquestions: Sequence[str]) -> str:
    """Return what a solver that follows a decomposition writes: a sentence a step, then the last step's answer."""
    facts = facts_of(problem)
    answers = execute(subquestions, facts)
    sentences = [
        explain(subquestion, answers[:position], answers[position], facts)
        for position, subquestion in enumerate(subquestions)
    ]
    return f"{_numbered(sentences)}\nThe answer is: {answers[-1]}"


def _rows(
    problem: Problem, samples: int, flaw_rate: float, direct_error_rate: float, seed: int
) -> Iterator[dict[str, Any]]:
    demonstrations = [demonstrate(problem, k, flaw_rate=flaw_rate, seed=seed) for k in range(samples)]
    answered = {each.text: each for each in [*demonstrations, Demonstration(problem.subquestions)]}
    for sample, demonstration in enumerate(demonstrations):
        common: dict[str, Any] = {"id": problem.id, "question": problem.question, "sample": sample}
        yield {"role": "decomposer", **common, "output": demonstration.text, "flaw": demonstration.flaw}
        for text, each in answered.items():
            output = solution(problem, each.subquestions)
            yield {"role": "solver", **common, "decomposition": text, "output": output, "flaw": each.flaw}
        rng = random.Random(f"atlas teacher, direct/{seed}/{problem.id}/{sample}")
        is_wrong = rng.random() < direct_error_rate
        answer = _wrong_answer(problem, rng) if is_wrong else problem.answers[0][0]
        flaw = "direct-error" if is_wrong else ""
        yield {"role": "solver", **common, "decomposition": "", "output": f"The answer is: {answer}", "flaw": flaw}


def _steps(problem: Problem) -> tuple[Step, ...]:
    """Return the reference decomposition as steps. Raises UsageError for a problem of another data set."""
    steps = [read_step(subquestion) for subquestion in problem.subquestions]
    if not steps or None in steps:
        raise UsageError(f"{problem.id} has no atlas decomposition: the recorded teacher knows atlas problems only")
    return tuple(step for step in steps if step is not None)


def _numbered(lines: Iterable[str]) -> str:
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))


def _wrong_answer(problem: Problem, rng: random.Random) -> str:
    """Return an answer of the right sort that is wrong; `unknown` where the passage has no other of the sort."""
    gold = problem.answers[0][0]
    facts = facts_of(problem)
    if gold.isdigit():
        return str(rng.choice([count for count in range(1, 5) if count != int(gold)]))
    others = [name for name in dict.fromkeys(_same_sort(gold, facts)) if name != gold]
    return rng.choice(others) if others else UNKNOWN


def _same_sort(name: str, facts: Facts) -> list[str]:
    """Return every name the passage has of the sort of `name`: city, country, capital, currency or continent."""
    sorts = (
        list(facts.country),
        list(facts.capital),
        *(list(table.values()) for table in (facts.capital, facts.currency, facts.continent)),
    )
    return next(sort for sort in sorts if name in sort)


# ---------------------------------------------------------------------- flaws

Flaw = Callable[[tuple[Step, ...], Facts, random.Random], tuple[Step, ...] | None]


def _drop_hop(steps: tuple[Step, ...], facts: Facts, rng: random.Random) -> tuple[Step, ...] | None:
    """Leave a step out; what referred to its answer now refers to what it was asked of."""
    position = rng.randrange(len(steps))
    dropped = steps[position]

    def renumber(name: str) -> str:
        match = _REFERENCE.fullmatch(name)
        if match is None or int(match[1]) <= position:
            return name
        return dropped.subjects[0] if int(match[1]) == position + 1 else f"#{int(match[1]) - 1}"

    return tuple(_rename(step, renumber) for step in steps[:position] + steps[position + 1 :])


def _swap_relation(steps: tuple[Step, ...], facts: Facts, rng: random.Random) -> tuple[Step, ...] | None:
    """Ask one step for something else: the currency instead of the capital, the fewest instead of the most."""
    position = rng.choice([position for position, step in enumerate(steps) if step.relation in _SWAPS] or [-1])
    if position < 0:
        return None
    # A relation that the passage says nothing of would give the swap away.
    other = rng.choice([other for other in _SWAPS[steps[position].relation] if getattr(facts, other, True)])
    return _with(steps, position, replace(steps[position], relation=other))


def _mistake_entity(steps: tuple[Step, ...], facts: Facts, rng: random.Random) -> tuple[Step, ...] | None:
    """Put another name of the same sort, from the same passage, in a name's place."""
    places = [
        (position, index)
        for position, step in enumerate(steps)
        for index, name in enumerate(step.subjects)
        if not _REFERENCE.fullmatch(name)
    ]
    position, index = rng.choice(places)
    step = steps[position]
    named = {name for each in steps for name in each.subjects}
    others = [name for name in _same_sort(step.subjects[index], facts) if name not in named]
    if not others:
        return None
    subjects = (*step.subjects[:index], rng.choice(others), *step.subjects[index + 1 :])
    return _with(steps, position, replace(step, subjects=subjects))


def _distract(steps: tuple[Step, ...], facts: Facts, rng: random.Random) -> tuple[Step, ...] | None:
    """Add a subquestion that leads nowhere: harmless in front, misleading as the last one."""
    if len(steps) >= MOST_STEPS:
        return None
    position = rng.randrange(len(steps) + 1)
    distraction = Step("people", (rng.choice(list(facts.country)),))

    def renumber(name: str) -> str:
        match = _REFERENCE.fullmatch(name)
        return f"#{int(match[1]) + 1}" if match and int(match[1]) > position else name

    return (*steps[:position], distraction, *(_rename(step, renumber) for step in steps[position:]))


def _rename(step: Step, renumber: Callable[[str], str]) -> Step:
    subjects = tuple(renumber(name) for name in step.subjects)
    # Of two equal names only one is left, and a contest of one is no contest.
    if step.relation in CONTESTS and len(set(subjects)) < len(subjects):
        subjects = tuple(dict.fromkeys(subjects))
    return replace(step, subjects=subjects, where=renumber(step.where))


def _with(steps: tuple[Step, ...], position: int, step: Step) -> tuple[Step, ...]:
    return (*steps[:position], step, *steps[position + 1 :])


FLAWS: dict[str, Flaw] = {
    "dropped-hop": _drop_hop,
    "swapped-relation": _swap_relation,
    "wrong-entity": _mistake_entity,
    "distracting": _distract,
}


def main() -> int:
    """Write the recording of the problems of some data references (command line: OUT.jsonl REFERENCE...)."""
    parser = argparse.ArgumentParser(
        prog="python -m fractionate.datasets.atlas.teacher",
        description='Record the teacher of atlas questions, for a config\'s `teacher = "recorded:OUT.jsonl"`.',
        epilog="example:\n  python -m fractionate.datasets.atlas.teacher teacher.jsonl 'atlas#train@0-319'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, metavar="OUT.jsonl")
    parser.add_argument("references", nargs="+", metavar="REFERENCE", help="data references such as 'atlas#test@0-303'")
    parser.add_argument("--samples", type=int, default=2, help="samples recorded per question (default: 2)")
    parser.add_argument("--flaws", type=float, default=0.2, help="share of flawed demonstrations (default: 0.2)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the flaws (default: 0)")
    arguments = parser.parse_args()
    try:
        problems = {problem.id: problem for text in arguments.references for problem in load(text)}
        write_recording(
            arguments.out,
            problems.values(),
            samples=arguments.samples,
            flaw_rate=arguments.flaws,
            seed=arguments.seed,
        )
    except UsageError as error:
        parser.error(str(error))
    except OSError as error:
        parser.exit(1, f"{arguments.out} cannot be written: {error.strerror}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
