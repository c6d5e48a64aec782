"""Tokens per second of SmolLM2-135M by batch size, prefill and decode separately, and the savings of prefix sharing.

    python benchmarks/local_generation.py [--threads 2] [--batches 1 8 16 32]

Run it on an idle machine: a second busy process on the same cores slows it severalfold.
"""

from __future__ import annotations

import argparse
import time

from fractionate.models.local.chat import render
from fractionate.models.local.model import load_model, load_tokenizer
from fractionate.models.local.weights import SMOLLM2, resolve
from fractionate.types import Message

NEW_TOKENS = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 16, 32])
    chosen = parser.parse_args()

    import torch

    from fractionate.models.local.batch import generate
    from fractionate.models.local.rows import Prompt

    torch.set_num_threads(chosen.threads)
    weights = resolve(SMOLLM2)
    started = time.perf_counter()
    model, tokenizer = load_model(weights, "cpu"), load_tokenizer(weights.folder())
    print(f"load {time.perf_counter() - started:.1f} s, {chosen.threads} threads")
    facts = " ".join(f"The town of Abra{at} lies in Babria and has {at * 1700} inhabitants." for at in range(9))

    def seconds(rows: list[list[int]], new_tokens: int, share: bool) -> float:
        at = time.perf_counter()
        generate(model, tokenizer, [Prompt(row, new_tokens) for row in rows], set(), share)
        return time.perf_counter() - at

    print("batch  prefill tok/s  decode tok/s  whole s  whole s, 4 questions a passage read once")
    for batch in chosen.batches:
        texts = [f"Map {at // 4}. {facts}\n\nHow many inhabitants has Abra{at % 4}?" for at in range(batch)]
        rows = [render(tokenizer, [Message("user", text)], "instruct") for text in texts]
        read = min(seconds(rows, 1, False) for _ in range(2))
        whole = seconds(rows, NEW_TOKENS + 1, False)
        shared = seconds(rows, NEW_TOKENS + 1, True)
        tokens = sum(map(len, rows))
        decode = batch * NEW_TOKENS / max(whole - read, 1e-9)
        print(f"{batch:5} {tokens / read:14.0f} {decode:13.0f} {whole:8.2f} {shared:8.2f}", flush=True)


if __name__ == "__main__":
    main()
