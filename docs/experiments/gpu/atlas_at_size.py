"""Which of the paper's claims hold on atlas, with ten seeds and 4,000 test questions? See atlas-at-size.md.

    python docs/experiments/gpu/atlas_at_size.py --minutes 9 [--seeds 0 1 ... 9]
    python docs/experiments/gpu/atlas_at_size.py --small --seeds 0 1      # a trial of the code, on a CPU

The protocol is that of atlas_generalisation.py (kinds of questions held out, countries and cities disjoint) at a larger
size: every seed draws its own training questions and trains D-T, D-R, E-T, E-A and single-stage students; the 4,000
test questions, of 500 passages, are the same in each. A repeated call continues; at the end the seeds are pooled, with
intervals over seeds and passages.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from pieces import ROOT, Piece, main, parser, use_unpacked

KINDS = (
    "bridge,comparison-bridge,superlative,counting-bridge",
    "inverse-bridge,comparison,superlative-bridge,counting",
)
DRAWS = 5
"""Splits of test questions, each of 160 passages, from which the 4,000 are taken."""
ALL = {"D-T": "D-T", "E-T": "E-T", "S-A": "S-A", "S-T": "S-T"}
PAIRS = [
    ("teacher", "E-A-all"), ("teacher", "E-A-some"), ("teacher", "E-T-all"), ("D-R-all", "E-A-all"),
    ("D-R-some", "E-A-all"), ("D-T-all", "E-A-all"), ("D-R-all", "E-T-all"), ("student", "E-A-all"),
    ("none", "E-A-all"), ("none", "S-A-all"), ("none", "S-T-all"), ("none", "S-A-some"), ("D-R-all", "student"),
    ("D-T-all", "student"), ("none", "student"), ("teacher", "student"), ("student", "student"),
]  # fmt: skip
"""Cells without a trained student are the same in every seed: from the second on, their calls are in the store."""


def write_questions(path: Path, count: int) -> None:
    """Write the test questions: whole passages, no question text twice."""
    from fractionate import datasets
    from fractionate.files import write_text

    found, asked = [], set()
    for draw in range(DRAWS):
        for problem in datasets.load(f"atlas#test-{draw}" if draw else "atlas#test"):
            if problem.question in asked or len(found) == count:
                continue
            asked.add(problem.question)
            found.append(
                {
                    "id": problem.id,
                    "question": problem.question,
                    "answers": [list(answer) for answer in problem.answers],
                    "context": problem.context,
                    "kind": problem.kind,
                    "subquestions": list(problem.subquestions),
                }
            )
    if len(found) < count:
        raise SystemExit(f"atlas has {len(found)} test questions that differ, not {count}: raise DRAWS")
    write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), path)


def record_teacher(path: Path, questions: Path, seeds: list[int], taught: int) -> None:
    """Record the teacher on every question of the experiment: a fifth of its decompositions are flawed."""
    from atlas_generalisation import split

    from fractionate import datasets
    from fractionate.datasets.atlas.teacher import write_recording

    known = {problem.id for problem in datasets.load(f"jsonl:{questions}")}
    tests = [
        problem
        for draw in range(DRAWS)
        for problem in datasets.load(f"atlas#test-{draw}" if draw else "atlas#test")
        if problem.id in known
    ]
    training = [problem for seed in seeds for problem in datasets.load(f"{split(seed)}@0-{2 * taught - 1}")]
    beside = path.with_suffix(".part")
    write_recording(beside, [*training, *tests], samples=2)
    beside.rename(path)


def work(piece: Piece, arguments: argparse.Namespace) -> None:
    from atlas_generalisation import SEEN, run_of_seed, split

    out: Path = piece.out.resolve()
    count, taught = (16, 16) if arguments.small else (4000, 240)
    questions, teacher = out / "questions.jsonl", out / f"teacher-{min(arguments.seeds)}-{max(arguments.seeds)}.jsonl"
    if not questions.is_file():
        write_questions(questions, count)
    if not teacher.is_file():
        record_teacher(teacher, questions, arguments.seeds, taught)
    for seed in arguments.seeds:
        if (out / f"seed-{seed}/results.json").is_file():
            continue
        some = f"{split(seed)}{SEEN}@0-{2 * taught - 1}"
        changes = [
            f"data.train={split(seed)}@0-{taught - 1}",
            "data.test=" + json.dumps([f"jsonl:{questions}?{kinds}" for kinds in KINDS]),
            "data.scorer=atlas",
            f'models.options."{arguments.model}".max_tokens=64',
            f'models.options."{arguments.model}".batch_size={arguments.rows}',
            f"models.student={arguments.model}",
            f'prices."{arguments.model}".per_hour=2.5',
            *(f"students.{variant}-all.variant={variant}" for variant in ALL),
            "students.S-A-some.variant=S-A",
            *(f"students.{name}-some.train={some}" for name in ("D-R", "E-A", "S-A")),
            "students.E-A-all.max_examples=0",
            "students.E-A-some.max_examples=0",
        ]
        piece.command(*run_of_seed(out, teacher, seed, PAIRS, changes))
    if len(arguments.seeds) > 1:
        folders = [str(out / f"seed-{seed}") for seed in arguments.seeds]
        piece.command("fractionate", "report", *folders, "--out", str(out / "pooled"))
        print(f"{out / 'pooled/report.md'}")


if __name__ == "__main__":
    use_unpacked()
    sys.path.insert(0, str(ROOT / "docs/experiments"))
    options = parser(__doc__, "runs/atlas-at-size")
    options.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    options.add_argument("--model", default="local:HuggingFaceTB/SmolLM2-135M-Instruct", help="the student")
    options.add_argument("--rows", type=int, default=256, help="rows per generation batch (256)")
    options.add_argument(
        "--small", action="store_true", help="16 questions to learn and 16 to test: a trial of the code"
    )
    main(work, options.parse_args())
