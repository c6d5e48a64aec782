"""Training a student: tokens per second, seconds per step and peak memory, against plain TRL on the same examples.

    python benchmarks/train.py [--steps 4] [--students E-A D-R] [--threads 1] [--trl-at-once 8]
        [--precision fp32] [--together 0.5] [--part-tokens 600] [--tokens]

The examples are the first of the demo's (steps of 8; E-A has 8 questions on a passage), the student is SmolLM2-135M
with the demo's LoRA. Each method has its own process, one after another, and reads every example once:

    trl     TRL's SFTTrainer in its usual form: prompt and completion, loss on the completion, the same LoRA, fp32
    single  fractionate with train.share_passages = false: every example on its own
    shared  fractionate with train.share_passages = true: a passage is encoded once for the examples of a step

Tokens are those of the examples: a passage counts for each of its questions, encoded again or not. Ratios are of
processor time, which other load on the machine changes little; wall time is printed too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH = 8
WAYS = ("trl", "single", "shared")


def examples_of(student: str, count: int) -> list[Any]:
    """Return the first examples that the demo trains a student on."""
    from fractionate import Run
    from fractionate.cli.demo import OPEN_BOOK, write_demo
    from fractionate.run.training import examples_for

    with (
        tempfile.TemporaryDirectory() as folder,
        Run(write_demo(Path(folder), OPEN_BOOK, OPEN_BOOK.full), folder) as run,
    ):
        demonstrations, screening = run.demonstrate(), run.screen()
        one = next(each for each in run.names.students if each.name == student)
        examples, _ = examples_for(run, one, demonstrations, screening.kept if screening else ())
    return examples[:count]


def measure(way: str, student: str, chosen: argparse.Namespace) -> dict[str, float]:
    """Train in this process; returns tokens, steps, seconds (wall and processor) of the steps, and peak memory."""
    import transformers.trainer
    from transformers import TrainerCallback

    from fractionate.cli.demo import MODEL
    from fractionate.config import TrainConfig
    from fractionate.models.local.model import load_tokenizer
    from fractionate.models.local.weights import resolve
    from fractionate.students import batching
    from fractionate.students.training_data import training_rows

    times: list[tuple[float, float]] = []

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            times.append((time.perf_counter(), time.process_time()))

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append((time.perf_counter(), time.process_time()))

    transformers.trainer.DEFAULT_CALLBACKS.append(Watch)
    batching.PASSAGE_SHARE = chosen.together or batching.PASSAGE_SHARE
    batching.PART_TOKENS["cpu"] = chosen.part_tokens or batching.PART_TOKENS["cpu"]
    examples = examples_of(student, BATCH * chosen.steps)
    weights = resolve(MODEL)
    tokenizer = load_tokenizer(weights.folder())
    settings = TrainConfig(
        learning_rate=2e-3, batch_size=BATCH, share_passages=way == "shared", precision=chosen.precision
    )
    rows = training_rows(tokenizer, examples, settings.max_length)
    with tempfile.TemporaryDirectory() as folder:
        if way == "trl":
            train_with_trl(weights.folder(), tokenizer, rows.rows, Path(folder), chosen)
        else:
            from fractionate.students.train import train_student

            train_student(MODEL, examples, Path(folder) / "student", settings)
    return {
        "tokens": rows.tokens,
        "steps": len(times) - 1,
        "seconds": times[-1][0] - times[0][0],
        "cpu_seconds": times[-1][1] - times[0][1],
        "peak_mb": peak_mb(),
    }


def train_with_trl(
    folder: Path, tokenizer: Any, rows: list[dict[str, list[int]]], out: Path, chosen: argparse.Namespace
) -> None:
    """Train like a user of TRL, on the same text."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    from datasets import Dataset
    from fractionate.students.training_data import IGNORED

    def texts(row: dict[str, list[int]]) -> dict[str, str]:
        cut = sum(label == IGNORED for label in row["labels"])
        ids = row["input_ids"]
        # Without the end of turn: TRL adds it, it being SmolLM2's eos token.
        return {"prompt": tokenizer.decode(ids[:cut]), "completion": tokenizer.decode(ids[cut:-1])}

    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        args=SFTConfig(
            output_dir=str(out),
            per_device_train_batch_size=chosen.trl_at_once,
            gradient_accumulation_steps=BATCH // chosen.trl_at_once,
            num_train_epochs=1,
            learning_rate=2e-3,
            gradient_checkpointing=False,  # on by TRL's default; off is faster
            bf16=chosen.precision == "bf16",
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([texts(row) for row in rows]),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    learnt = sorted(map(len, trainer.train_dataset["input_ids"]))
    assert learnt == sorted(len(row["input_ids"]) for row in rows), "TRL reads the same tokens"
    trainer.train()


def count_tokens(student: str, chosen: argparse.Namespace) -> None:
    """Print the tokens computed in a step, on average over all of the demo's examples."""
    from fractionate.cli.demo import MODEL
    from fractionate.config import TrainConfig
    from fractionate.models.local.model import load_tokenizer
    from fractionate.models.local.weights import resolve
    from fractionate.students import batching
    from fractionate.students.packing import pack
    from fractionate.students.training_data import training_rows

    tokenizer = load_tokenizer(resolve(MODEL).folder())
    rows = training_rows(tokenizer, examples_of(student, sys.maxsize), TrainConfig().max_length).rows
    rows = rows[: len(rows) // BATCH * BATCH]
    together = round(BATCH * (chosen.together or batching.PASSAGE_SHARE))
    ordered = [rows[at] for at in batching.PassageSampler(rows, 0, together)]
    padded = packed = 0
    for at in range(0, len(rows), BATCH):
        padded += BATCH * max(len(row["input_ids"]) for row in rows[at : at + BATCH])
        parts = pack(ordered[at : at + BATCH], chosen.part_tokens or batching.PART_TOKENS["cpu"])
        packed += sum(len(part.tokens) for part in parts)
    steps, alone = len(rows) // BATCH, sum(len(row["input_ids"]) for row in rows)
    print(f"{student}, tokens a step: padded {padded / steps:,.0f}, alone {alone / steps:,.0f}, ", end="")
    print(f"shared {packed / steps:,.0f}")


def peak_mb() -> float:
    """Return this process' peak memory in MB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / (1 << 10)


def main() -> None:
    """Measure every method in its own process and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--students", nargs="+", default=["E-A", "D-R"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--trl-at-once",
        type=int,
        choices=(1, 2, 4, 8),
        default=8,
        help="examples per TRL micro-batch; fewer take less memory",
    )
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="precision of all methods")
    parser.add_argument("--together", type=float, help="share of a step that comes from one passage")
    parser.add_argument("--part-tokens", type=int, help="tokens of a part, computed in one pass")
    parser.add_argument("--tokens", action="store_true", help="only count the tokens computed in a step")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "STUDENT"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(*chosen.one, chosen)))
        return
    if chosen.tokens:
        for student in chosen.students:
            count_tokens(student, chosen)
        return
    print("| student | method | tokens/s | seconds a step (CPU) | peak memory, MB | relative to the first method |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(chosen.threads)}
    for student in chosen.students:
        first: dict[str, float] = {}
        for way in chosen.ways:
            command = [sys.executable, *sys.argv, "--one", way, student]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode == -signal.SIGKILL:
                sys.exit(f"{way} was killed on {student}: too little memory (lower --trl-at-once)")
            if done.returncode:
                sys.exit(f"{way} failed on {student}:\n{done.stderr[-2000:]}")
            row = json.loads(done.stdout.splitlines()[-1])
            first = first or row
            step, cpu_step = row["seconds"] / row["steps"], row["cpu_seconds"] / row["steps"]
            print(
                f"| {student} | {way} | {row['tokens'] / row['seconds']:.0f} | {step:.1f} ({cpu_step:.1f}) "
                f"| {row['peak_mb']:.0f} | {first['cpu_seconds'] / row['cpu_seconds']:.2f}x the speed, "
                f"{row['peak_mb'] / first['peak_mb']:.2f} of its memory |",
                flush=True,
            )


if __name__ == "__main__":
    main()
