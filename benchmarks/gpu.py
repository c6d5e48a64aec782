"""Training against plain TRL and generation against transformers, with each as a share of the GPU's peak.

    python benchmarks/gpu.py [--model NAME] [--examples 512] [--batch 32] [--rows 256]
    python benchmarks/gpu.py --device cpu --examples 8 --batch 4 --rows 8        # a CPU's size

Uses the GPU if there is one. Both trainers read the same tokens of the same examples (atlas questions over their
passages, worked solutions as targets) in batches of the same size; plain TRL is measured with its default (gradient
checkpointing on) and without. Both generators answer the same prompts, eight to a passage, greedily. Each measurement
has its own process and reports the best of --repeats. Prints tokens per second, memory and their ratios.

Work is counted by formula, equally for both: a trained token takes 6 operations for every weight of the layers (4 if
those are frozen, as with LoRA), a target 6 more for every weight of the output layer; a prompt or generated token takes
2 for every weight of the layers, a generated one 2 more for the output layer; a shared prompt prefix is counted once.
Attention is left out.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import card

NEW_TOKENS = 64
TRAINERS = ("ours", "trl", "trl-no-checkpointing")


def examples_of(count: int) -> list[Any]:
    """Return examples of an S-A student: passage and question, then a worked solution."""
    from fractionate import datasets
    from fractionate.datasets.atlas.teacher import solution
    from fractionate.strategies.prompting import final_line, single_messages
    from fractionate.types import Example

    found = []
    for problem in datasets.load(f"atlas#train@0-{count - 1}"):
        messages = single_messages(problem, "student", "span", chain_of_thought=False)
        target = f"{solution(problem, problem.subquestions)}\n{final_line(problem.answers[0])}"
        found.append(Example(messages, target, problem.id))
    return found


def train(trainer: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Train on all examples, and return tokens per second (from the end of the first step on) and peak memory."""
    from fractionate.config import TrainConfig
    from fractionate.models.local.model import load_config, load_tokenizer
    from fractionate.models.local.weights import resolve
    from fractionate.students.training_data import IGNORED, training_rows

    settings = TrainConfig(
        method=arguments.method, batch_size=arguments.batch, epochs=arguments.epochs, learning_rate=1e-4
    )
    examples, weights = examples_of(arguments.examples), resolve(arguments.model)
    rows = training_rows(load_tokenizer(weights.folder()), examples, settings.max_length)
    if math.ceil(len(rows.rows) / arguments.batch) * settings.epochs < 2:
        raise SystemExit("one step alone cannot be timed: raise --examples or --epochs")
    ended: list[float] = []

    def note(*_: Any) -> None:
        card.wait(arguments.device)
        ended.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        if trainer == "ours":
            from fractionate.students.train import train_student

            report = train_student(arguments.model, examples, Path(folder) / "student", settings, on_step=note)
            gpu_mb = report.peak_gpu_mb
        else:
            gpu_mb = _plain_trl(arguments, rows.rows, trainer == "trl", Path(folder), note)
    seconds = ended[-1] - ended[0]
    share = (len(ended) - 1) / len(ended)
    layers, output = _weights(load_config(weights.folder()))
    targets = sum(label != IGNORED for row in rows.rows for label in row["labels"])
    a_token = 6 if arguments.method == "full" else 4
    work = share * settings.epochs * (a_token * layers * rows.tokens + 6 * output * targets)
    return {
        "tokens_per_s": share * settings.epochs * rows.tokens / seconds,
        "flops_per_s": work / seconds,
        "memory_mb": gpu_mb or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _plain_trl(arguments: argparse.Namespace, rows: list[Any], checkpointing: bool, folder: Path, note: Any) -> float:
    import torch
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from datasets import Dataset
    from fractionate.models.local.model import load_model, load_tokenizer
    from fractionate.models.local.weights import resolve

    class Note(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            note()

    weights, on_gpu = resolve(arguments.model), arguments.device.startswith("cuda")
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        model=load_model(weights, arguments.device, exact=True),
        args=SFTConfig(
            output_dir=str(folder),
            per_device_train_batch_size=arguments.batch,
            num_train_epochs=arguments.epochs,
            learning_rate=1e-4,
            max_length=None,
            bf16=on_gpu,
            use_cpu=not on_gpu,
            gradient_checkpointing=checkpointing,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(weights.folder()),
        peft_config=lora if arguments.method == "lora" else None,
        callbacks=[Note()],
    )
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    return torch.cuda.max_memory_allocated() / (1 << 20) if on_gpu else 0.0


def generate(generator: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Answer all prompts as one batch, and return tokens per second and the replies."""
    import torch

    from fractionate import datasets
    from fractionate.models.local.batch import generate as ours
    from fractionate.models.local.chat import render
    from fractionate.models.local.model import eos_ids_of, load_model, load_tokenizer
    from fractionate.models.local.rows import Prompt, share_groups
    from fractionate.models.local.weights import resolve
    from fractionate.strategies.prompting import single_messages

    weights = resolve(arguments.model)
    model, tokenizer = load_model(weights, arguments.device), load_tokenizer(weights.folder())
    problems = datasets.load(f"atlas#test@0-{arguments.rows - 1}")
    messages = [single_messages(problem, "instruct", "span", chain_of_thought=True) for problem in problems]
    prompts = [render(tokenizer, each, "instruct") for each in messages]
    ends = eos_ids_of(model, tokenizer)

    def answer() -> list[list[int]]:
        if generator == "ours":
            return [
                reply.tokens for reply in ours(model, tokenizer, [Prompt(row, NEW_TOKENS) for row in prompts], ends)
            ]
        width, pad = max(map(len, prompts)), min(ends)
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in prompts], device=arguments.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=arguments.device)
        out = model.generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=sorted(ends),
            pad_token_id=pad,
        )
        written = out[:, width:].tolist()
        return [row[: next((at for at, token in enumerate(row) if token in ends), len(row))] for row in written]

    replies: list[list[list[int]]] = []
    seconds = card.seconds(arguments.device, lambda: replies.append(answer()), rounds=1)
    if arguments.device.startswith("cuda"):
        memory = torch.cuda.max_memory_allocated() / (1 << 20)
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    written = sum(min(len(row) + 1, NEW_TOKENS) for row in replies[-1])
    read = sum(map(len, prompts)) - sum((len(members) - 1) * common for common, members in share_groups(prompts))
    layers, output = _weights(model.config)
    work = 2 * layers * (read + written) + 2 * output * written
    return {
        "tokens_per_s": written / seconds,
        "flops_per_s": work / seconds,
        "memory_mb": memory,
        "replies": replies[-1],
    }


def _weights(config: Any) -> tuple[int, int]:
    """Return the numbers of weights in all layers' matrix products and in the output layer."""
    width, heads = config.hidden_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or width // heads
    attention = width * head * (2 * heads + 2 * config.num_key_value_heads)
    return config.num_hidden_layers * (attention + 3 * width * config.intermediate_size), width * config.vocab_size


def measured(arguments: argparse.Namespace, what: str) -> dict[str, Any]:
    """Return the best of several measurements, each in its own process."""
    found = []
    for _ in range(arguments.repeats):
        command = [sys.executable, __file__, *sys.argv[1:], "--device", arguments.device, "--one", what]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{what} failed:\n{done.stderr[-2000:]}")
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return max(found, key=lambda one: one["tokens_per_s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="local:HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--device", default="", help="device (the GPU if there is one)")
    parser.add_argument("--method", choices=("lora", "full"), default="full", help="lora or all weights (full)")
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32, help="examples per step (32)")
    parser.add_argument("--rows", type=int, default=256, help="prompts per generation batch (256)")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    import torch

    arguments.device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.one:
        kind, _, name = arguments.one.partition(":")
        print(json.dumps((train if kind == "train" else generate)(name, arguments)))
        return
    product = card.product_flops(arguments.device)
    print(f"{card.name_of(arguments.device)}: a large matrix product reaches {product / 1e12:.3g} TFLOP/s")
    for kind, names in (("train", TRAINERS), ("generate", ("ours", "transformers"))):
        if kind == "train":
            print(f"\ntraining, {arguments.method}, {arguments.examples} examples in batches of {arguments.batch}:")
        else:
            print(f"\ngeneration, {arguments.rows} rows of at most {NEW_TOKENS} tokens:")
        found = {name: measured(arguments, f"{kind}:{name}") for name in names}
        ours = found["ours"]
        for name, one in found.items():
            ratios = f"ours: {ours['tokens_per_s'] / one['tokens_per_s']:.2f} times as fast, "
            ratios += f"{ours['memory_mb'] / one['memory_mb']:.2f} times the memory"
            said = card.share(one["flops_per_s"], arguments.device, product)
            print(
                f"  {name}: {one['tokens_per_s']:,.0f} tokens/s, {one['memory_mb']:,.0f} MB, {said}; {ratios}",
                flush=True,
            )
        if kind == "generate":
            pairs = list(zip(ours["replies"], found["transformers"]["replies"], strict=True))
            print(f"  {sum(a == b for a, b in pairs)} of {len(pairs)} replies are identical in both")


if __name__ == "__main__":
    main()
