"""Count the flaws of the recorded teacher that screening catches: `python benchmarks/atlas_flaws.py [PROBLEMS]`."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import islice

from fractionate.datasets.atlas import generate
from fractionate.datasets.atlas.passage import read_passage
from fractionate.datasets.atlas.program import execute
from fractionate.datasets.atlas.teacher import demonstrate


def main() -> None:
    problems = list(islice(generate("train"), int(sys.argv[1]) if len(sys.argv) > 1 else 2000))
    seen, caught = Counter[str](), Counter[str]()
    kept_after = [0, 0]
    kept_flawed = 0
    for problem in problems:
        facts = read_passage(problem.context)
        passed = False
        for sample in range(2):
            demonstration = demonstrate(problem, sample)
            is_right = (execute(demonstration.subquestions, facts)[-1],) in problem.answers
            for group in ("all", demonstration.flaw) if demonstration.flaw else ():
                seen[group] += 1
                caught[group] += not is_right
            if is_right and not passed:
                passed = True
                kept_flawed += bool(demonstration.flaw)
            kept_after[sample] += passed
    print(f"{len(problems)} problems, 2 samples each, flaw rate {seen['all'] / len(problems) / 2:.3f}")
    for flaw, count in sorted(seen.items()):
        print(f"{flaw:17} {count:5} flawed, caught by the answer {caught[flaw] / count:.3f}")
    for sample, kept in enumerate(kept_after, start=1):
        print(f"kept after sample {sample}: {kept} ({kept / len(problems):.3f})")
    print(f"flawed decompositions among those kept: {kept_flawed} ({kept_flawed / kept_after[1]:.3f})")


if __name__ == "__main__":
    main()
