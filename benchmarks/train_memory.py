"""Effect of the keys of [train] on memory and time, and accuracy of the estimate: a table, a process for each row.

    python benchmarks/train_memory.py [--model NAME] [--examples 16] [--threads 1] [--only NAME …]

Each row takes two steps of 8 examples (S-A of atlas: some 200 tokens each) with one setting changed. The peak is that
of the whole process (on a GPU that of its tensors); the estimate is that of `fractionate run --dry-run`. Processor
seconds are those of loading the model and of both steps; other load on the machine changes them little.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from typing import Any

from gpu import examples_of

ROWS: dict[str, dict[str, Any]] = {
    "LoRA, as it comes": {},
    'precision = "bf16"': {"precision": "bf16"},
    "gradient_checkpointing = true": {"gradient_checkpointing": True},
    "both": {"precision": "bf16", "gradient_checkpointing": True},
    "base_bits = 4": {"base_bits": 4},
    'base_bits = 4, precision = "bf16"': {"base_bits": 4, "precision": "bf16"},
    'method = "full"': {"method": "full"},
    'method = "full", precision = "bf16"': {"method": "full", "precision": "bf16"},
    'method = "full", gradient_checkpointing = true': {"method": "full", "gradient_checkpointing": True},
}


def measure(model: str, count: int, changed: dict[str, Any]) -> dict[str, float]:
    """Take two steps in this process; returns MB, estimated and measured, and processor seconds."""
    import torch

    from fractionate.config import TrainConfig
    from fractionate.students.train import dry_run, estimate

    examples, settings = examples_of(count), TrainConfig(**changed)
    estimated = estimate(model, examples, settings)["memory_bytes"] / 2**20
    started = time.process_time()
    dry_run(model, examples, settings)
    seconds = time.process_time() - started
    on_gpu = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_mb()
    return {"estimate": estimated - (600 if on_gpu else 0), "peak": peak, "seconds": seconds}


def peak_mb() -> float:
    """Return this process' peak memory in MB, without what its parent had when it was started."""
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    """Measure every row in its own process and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="local:HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.model, chosen.examples, ROWS[chosen.one])))
        return
    print("| [train] | peak, MB | estimate, MB | estimate / peak | processor seconds |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(chosen.threads)}
    for name in chosen.only:
        if "base_bits" in name and importlib.util.find_spec("bitsandbytes") is None:
            print(f"| {name} | needs bitsandbytes | | | |", flush=True)
            continue
        command = [sys.executable, __file__, "--model", chosen.model, "--examples", str(chosen.examples)]
        done = subprocess.run([*command, "--one", name], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
        row = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {name} | {row['peak']:.0f} | {row['estimate']:.0f} | {row['estimate'] / row['peak']:.2f} "
            f"| {row['seconds']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
