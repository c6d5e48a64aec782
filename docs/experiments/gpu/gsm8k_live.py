"""Which part of GSM8K should SmolLM2-135M learn, with real demonstrations and live students? See gsm8k-live.md.

    python docs/experiments/gpu/gsm8k_live.py --minutes 9 [--methods lora full] [--seeds 0 1 2]
    python docs/experiments/gpu/gsm8k_live.py --small --seeds 0 1      # a trial of the code, on a CPU

For each method and seed: a D-T student learns ChatGPT's recorded decompositions of test rows 0-499 and decomposes the
7,473 training questions; with those subquestions in their prompts, solvers learn the training set's own solutions. Then
every student is trained and the whole matrix is measured on test rows 500-1318, and with ChatGPT's decompositions on
rows 500-659. A repeated call continues; at the end the seeds are pooled.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pieces import Piece, data_folder, main, parser, use_unpacked
from pieces import rows as rows_of

DONE = "trained"
MODEL = "local:HuggingFaceTB/SmolLM2-135M-Instruct"
SHARES = ["1/16", "1/8", "1/4", "1/2"]
ANNOTATION = re.compile(r"<<[^>]*>>")
"""Calculator annotations in GSM8K's solutions: "<<48/2=24>>"."""


@dataclass(frozen=True)
class Size:
    """Rows: the last recorded training row, the last training solution, the first and last test row."""

    taught: int
    solutions: int
    test: tuple[int, int]
    recorded: int
    """The last test row with recorded outputs of ChatGPT."""


WHOLE = Size(499, 7472, (500, 1318), 659)
SMALL = Size(7, 15, (500, 505), 502)

FIRST = """\
[data]
train = "{solutions}"
test = "{test}"
[models]
teacher = "{teacher}"
decomposers = ["none"]
solvers = ["student"]
student = "{model}"
[models.options."{teacher}"]
max_tokens = 160
batch_size = {rows}
[run]
name = "gsm8k-subquestions"
seed = {seed}
strategies = ["single"]
variants = ["D-T"]
cap = "none"
"""

MATRIX = """\
[data]
train = "{taught}"
test = "{test}"
[models]
teacher = "recorded:recordings"
decomposers = [{decomposers}]
solvers = ["student", "E-T", "E-A", "S-T", "E-solutions", "S-solutions"]
student = "{model}"
[models.options."{model}"]
max_tokens = 256
batch_size = {rows}
[students.E-solutions]
variant = "E-A"
train = "{solutions}"
[students.S-solutions]
variant = "S-A"
train = "{solutions}"
[run]
name = "gsm8k-{name}"
seed = {seed}
strategies = ["single", "single-cot", "static"]
variants = ["D-T", "D-R", "E-T", "E-A", "S-T"]
samples = 1
cap = "none"
[train]
method = "{method}"
epochs = {epochs}
batch_size = 16
[verdict]
solver = "student"
[prices."recorded:recordings"]
input_per_million = 1.0
output_per_million = 2.0
[prices."{model}"]
per_hour = 2.5
"""
CURVE = """\
[curve]
shares = {shares}
students = ["E-solutions", "S-solutions"]
"""


class Experiment:
    """One method and seed: its folder, its runs."""

    def __init__(self, piece: Piece, arguments: argparse.Namespace, method: str, seed: int) -> None:
        self.piece, self.method, self.seed, self.arguments = piece, method, seed, arguments
        self.size = SMALL if arguments.small else WHOLE
        self.folder = (piece.out / method / f"seed-{seed}").resolve()
        self.recordings = self.folder / "recordings"
        self.recordings.mkdir(parents=True, exist_ok=True)
        data = data_folder().resolve()
        self.train, self.test, self.socratic = (
            data / f"gsm8k/{name}.jsonl" for name in ("train", "test", "test_socratic")
        )
        chatgpt = self.recordings / "chatgpt.jsonl"
        if not chatgpt.is_file():
            shutil.copyfile(data / "gsm8k_ai_subq/chatgpt/chatgpt.jsonl", chatgpt)

    def go_on(self) -> None:
        """Do the remaining work."""
        first, last = self.size.test
        live = f"gsm8k:{self.socratic}#test@{first}-{last}"
        student = self.folder / "first/students/D-T"
        if not (self.folder / "first" / DONE).is_file():
            config = self.config("first", '"none"', live, alone=True)
            for stage in ("demonstrate", "screen", "train"):
                self.piece.command("fractionate", stage, str(config), "--out", str(self.folder / "first"))
            (self.folder / "first" / DONE).touch()
        self.write_subquestions(student)
        self.measure("live", '"none", "gold", "student", "D-T", "D-R"', live)
        recorded = f"gsm8k:{self.test}#test@{first}-{self.size.recorded}"
        self.measure("beside", '"none", "teacher", "student", "D-T", "D-R"', recorded)

    def measure(self, name: str, decomposers: str, test: str) -> None:
        """Run the matrix; students that an earlier run trained by the same job are reused."""
        out = folder_of(self.piece, self.method, name, self.seed)
        if (out / "results.json").is_file():
            return
        for earlier in (self.folder / "first", folder_of(self.piece, self.method, "live", self.seed)):
            for student in sorted((earlier / "students").glob("*/training.json")):
                _link(student.parent, out / "students" / student.parent.name)
        self.piece.command("fractionate", "run", str(self.config(name, decomposers, test)), "--out", str(out))

    def config(self, name: str, decomposers: str, test: str, alone: bool = False) -> Path:
        """Write a run's config; `alone` is the run that trains D-T only."""
        text = MATRIX.format(
            taught=f"gsm8k:{self.test}#test@0-{self.size.taught}",
            test=test,
            solutions=f"gsm8k:{self.train}#train@0-{self.size.solutions}",
            decomposers=decomposers,
            model=self.arguments.model,
            rows=self.arguments.rows,
            name=name,
            seed=self.seed,
            method=self.method,
            epochs=self.arguments.epochs,
        )
        if name == "live":
            text += CURVE.format(shares=json.dumps(SHARES))
        if alone:
            text = re.sub(r"\[students\.[\s\S]*?(?=\[run\])", "", text)
            text = re.sub(r"^variants = .*$", 'variants = ["D-T"]', text, flags=re.MULTILINE)
            text = re.sub(r"^solvers = .*$", 'solvers = ["student"]', text, flags=re.MULTILINE)
        path = self.folder / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        return path

    def free(self) -> None:
        """Delete the weights of fully trained students once everything is measured: three seeds take 26 GB."""
        for weights in self.folder.glob("*/students/*/model.safetensors"):
            weights.unlink()

    def write_subquestions(self, student: Path) -> None:
        """Let the distilled decomposer decompose the training questions; record them with the set's own solutions.

        A question with unparsed subquestions is its own only subquestion, so that all solvers learn from all solutions.
        """
        path = self.recordings / "solutions.jsonl"
        if path.is_file():
            return
        out, config = self.folder / "subquestions", self.folder / "subquestions.toml"
        model = self.arguments.model
        teacher = f"{model}@{student}" if self.method == "lora" else f"local:{student}"
        solutions = f"gsm8k:{self.train}#train@0-{self.size.solutions}"
        test = f"gsm8k:{self.test}#test@{self.size.test[0]}-{self.size.test[1]}"
        rows = self.arguments.rows
        text = FIRST.format(solutions=solutions, test=test, teacher=teacher, model=model, rows=rows, seed=self.seed)
        config.write_text(text, encoding="utf-8")
        self.piece.command("fractionate", "demonstrate", str(config), "--out", str(out))
        given = {
            row["id"]: row["decomposition"] for row in rows_of(out / "demonstrations.jsonl") if row["subquestions"]
        }
        recorded = []
        for index, line in enumerate(self.train.read_text(encoding="utf-8").splitlines()[: self.size.solutions + 1]):
            row, identity = json.loads(line), f"gsm8k/train/{index}"
            solution, _, answer = row["answer"].rpartition("####")
            output = f"{ANNOTATION.sub('', solution).strip()}\nThe answer is: {answer.strip()}"
            steps = given.get(identity, f"1. {row['question']}")
            recorded.append({"id": identity, "question": row["question"], "decomposition": steps, "output": output})
        beside = path.with_suffix(".part")
        beside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in recorded), encoding="utf-8")
        beside.rename(path)
        print(f"{len(given)} of {len(recorded)} training questions have subquestions of {student}", flush=True)


def folder_of(piece: Piece, method: str, name: str, seed: int) -> Path:
    """Return the folder of a run; each seed's folder has its own name, which the pooled report needs."""
    return (piece.out / method / f"seed-{seed}" / f"{name}-{seed}").resolve()


def _link(student: Path, where: Path) -> None:
    """Link a student into another folder, whole or not at all: a fully trained one takes half a gigabyte."""
    if where.exists():
        return
    beside = where.with_name(f".{where.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(student, beside, copy_function=os.link)
    beside.rename(where)


def work(piece: Piece, arguments: argparse.Namespace) -> None:
    for seed in arguments.seeds:
        for method in arguments.methods:
            experiment = Experiment(piece, arguments, method, seed)
            experiment.go_on()
            if not arguments.keep:
                experiment.free()
    for method in arguments.methods:
        for name in ("live", "beside"):
            folders = [str(folder_of(piece, method, name, seed)) for seed in arguments.seeds]
            pooled = piece.out / method / f"pooled-{name}"
            if len(folders) > 1:
                piece.command("fractionate", "report", *folders, "--out", str(pooled))
            print(f"{method}, {name}: {pooled if len(folders) > 1 else folders[0]}/report.md")


if __name__ == "__main__":
    use_unpacked()
    options = parser(__doc__, "runs/gsm8k-live")
    options.add_argument("--methods", nargs="+", choices=("lora", "full"), default=["lora", "full"])
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--model", default=MODEL, help="the student (SmolLM2-135M-Instruct)")
    options.add_argument("--epochs", type=float, default=3.0)
    options.add_argument("--rows", type=int, default=256, help="rows per generation batch (256)")
    options.add_argument("--keep", action="store_true", help="keep the weights of measured students")
    options.add_argument(
        "--small", action="store_true", help="8 recorded rows, 16 solutions, 6 test rows: a trial of the code"
    )
    main(work, options.parse_args())
