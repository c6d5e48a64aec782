"""Measures the tokens per second of one core, apart from any run. Local work is priced by this throughput.

The wall time of a batch depends on its neighbours and on the load of the machine, so that a cost derived from it says
little about a question. So each base model is measured by itself: one thread, batches of a fixed shape, in that
thread's own CPU time (which excludes the time of other processes on the core), several times and in turn with the other
models. On a GPU it is wall time, of the whole device. An adapter is merged into its base, so students run as fast.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from fractionate.models.local.model import LocalModel, best_device, load_base, load_config, load_tokenizer
from fractionate.models.local.rows import Prompt, Row, RowBatch
from fractionate.types import Throughput

ROUNDS = 4
PROMPT_TOKENS = 24
"""Tokens of a prompt that is read for its speed. Reading takes most of a round, and is as fast for longer prompts."""
REPLY_TOKENS = 8


def measure_throughput(
    models: Sequence[LocalModel], rounds: int = ROUNDS, say: Callable[[str], None] = lambda text: None
) -> list[Throughput]:
    """Measure the bases of models, in turn (A B A B …), after one round each that does not count. Takes seconds each.

    Nothing is stored and no reply is read: the prompts are made of the vocabulary at random.
    """
    found: list[tuple[list[float], list[float]]] = [([], []) for _ in models]
    for number in range(rounds + 1):
        for place, model in enumerate(models):
            say(f"measuring how fast {model.weights.name} runs here: round {number + 1} of {rounds + 1}")
            reading, writing = _one_round(model, number)
            if number:
                found[place][0].append(reading)
                found[place][1].append(writing)
    return [
        Throughput(tuple(reading), tuple(writing), *_where(model), model.options.batch_size)
        for model, (reading, writing) in zip(models, found, strict=True)
    ]


def _where(model: LocalModel) -> tuple[str, int]:
    import os

    device = best_device(model.options.device)
    return device, 1 if device.startswith("cuda") else os.cpu_count() or 1


def _one_round(model: LocalModel, number: int) -> tuple[float, float]:
    """Return the tokens per second of reading one batch of prompts, and of writing its replies."""
    import random

    from fractionate.models.local.rows import run_to_end

    device = best_device(model.options.device)
    folder, trust = model.folder, model.options.trust_remote_code
    tokenizer, vocabulary = load_tokenizer(folder, trust), load_config(folder, trust).vocab_size
    rows, draw = model.options.batch_size, random.Random(number)

    def asked(prompt_tokens: int, reply_tokens: int) -> list[Row]:
        prompts = [[draw.randrange(vocabulary) for _ in range(prompt_tokens)] for _ in range(rows)]
        return [Row(Prompt(tokens, reply_tokens), tokenizer) for tokens in prompts]

    def clock() -> _one_thread:
        return _one_thread(device, everywhere=model.options.runtime != "torch")

    batch = _empty_batch(model, device)
    with clock() as reading:
        run_to_end(batch, asked(PROMPT_TOKENS, 1), lambda: False)  # the first token comes with the reading
    # One more token than is timed: the last step of a batch on torch makes no forward pass.
    written = asked(1, REPLY_TOKENS + 2)
    batch.join(written)
    while any(not row.reply.generated for row in written):
        batch.step()
    with clock() as writing:
        for _ in range(REPLY_TOKENS):
            batch.step()
    batch.drop()
    return rows * PROMPT_TOKENS / max(reading.seconds, 1e-9), rows * REPLY_TOKENS / max(writing.seconds, 1e-9)


def _empty_batch(model: LocalModel, device: str) -> RowBatch:
    """Return a batch on one thread whose rows end at their number of tokens alone."""
    if model.options.runtime != "torch":
        return model.open_batch(threads=1, eos_ids=())
    from fractionate.models.local.batch import Batch

    loaded, _ = load_base(model.weights, device, model.options.trust_remote_code)
    return Batch(loaded, eos_ids=(), share=False)


class _one_thread:  # noqa: N801 - used as a context manager alone
    """Run torch on one thread and take its CPU time; on a GPU, the wall time of work that has ended.

    `everywhere` takes the CPU time of all threads of the process, for a runtime whose one thread is its own.
    """

    def __init__(self, device: str, everywhere: bool = False) -> None:
        self.seconds = 0.0
        self._everywhere = everywhere
        self._gpu = device.startswith("cuda")
        self._threads = 0

    def __enter__(self) -> _one_thread:
        import torch

        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self._started = self._now()
        return self

    def __exit__(self, *_: Any) -> None:
        import torch

        self.seconds = self._now() - self._started
        torch.set_num_threads(self._threads)

    def _now(self) -> float:
        import torch

        if self._gpu:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time() if self._everywhere else time.thread_time()
