"""The transformer of scaling_law.py, its training, and distillation from the logits of a larger one.

A decoder with pre-norm blocks, GELU, rotary positions and tied embeddings; AdamW, warm-up and a cosine to a tenth. A
block of width d has 12 d² parameters, and the size of a model is that of its blocks: embeddings are not counted, as in
the paper.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

CONTEXT = 64


class SliceOver(Exception):  # noqa: N818
    """The time of this slice is up; the run's state is saved."""


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // 32)
        self.norms = nn.ModuleList([nn.RMSNorm(width), nn.RMSNorm(width)])
        self.inward, self.outward = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        batch, length, width = x.shape
        parts = self.inward(self.norms[0](x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(_turned(query, turn), _turned(key, turn), value, is_causal=True)
        x = x + self.outward(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


class Transformer(nn.Module):
    def __init__(self, layers: int, width: int, vocabulary: int, context: int = CONTEXT) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList([Block(width) for _ in range(layers)])
        self.norm = nn.RMSNorm(width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        for block in self.blocks:
            for linear in (block.outward, block.down):
                nn.init.normal_(linear.weight, std=0.5 * linear.in_features**-0.5 / math.sqrt(layers))
        half = width // max(1, width // 32) // 2
        angles = torch.arange(context)[:, None] / 10_000 ** (torch.arange(half) / half)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) * self.embedding.embedding_dim**0.5
        length = tokens.shape[1]
        for block in self.blocks:
            x = block(x, (self.cosine[:length], self.sine[:length]))
        return F.linear(self.norm(x), self.embedding.weight)


def _turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = turn
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


def size(layers: int, width: int) -> int:
    """Return the non-embedding parameters (without the few of the norms)."""
    return 12 * layers * width * width


def learning_rate(width: int) -> float:
    """Return the peak learning rate, less for wider models; scaling_law.py --pilot compares it with half and double."""
    return PEAK * math.sqrt(64 / width)


PEAK = 4e-3


def train(
    model: Transformer,
    text: np.ndarray,
    peak: float,
    checkpoint: Path,
    deadline: float,
    teacher: np.ndarray | Transformer | None = None,
    at_once: int = 8,
    bf16: bool = False,
) -> float:
    """Train once over the text, (sequences, context + 1), in batches of `at_once` sequences, on the model's device.

    With a teacher (itself, or its log probabilities, (sequences, context, vocabulary)) the loss is pure distillation:
    the forward KL divergence over the whole vocabulary at temperature 1, except the teacher's entropy, which has no
    gradient. Past the deadline the state goes to `checkpoint` and SliceOver is raised; the next call continues from
    there. Returns the seconds it took, of the processor, or on a GPU of the clock.
    """
    device = model.embedding.weight.device
    on_gpu = device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    decayed = [one for one in model.parameters() if one.ndim > 1]
    plain = [one for one in model.parameters() if one.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95), fused=True if on_gpu else None)
    steps, step, seconds = len(text) // at_once, 0, 0.0
    if checkpoint.is_file():
        kept: dict[str, Any] = torch.load(checkpoint, map_location=device)
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        step, seconds = kept["step"], kept["seconds"]
    began = clock()
    warm = max(1, steps // 20)
    while step < steps:
        if time.monotonic() > deadline:
            seconds += clock() - began
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step, "seconds": seconds}
            torch.save(state, checkpoint)
            raise SliceOver
        share = (step + 1) / warm if step < warm else 0.55 + 0.45 * math.cos(math.pi * (step - warm) / (steps - warm))
        for group in optimiser.param_groups:
            group["lr"] = peak * share
        batch = _batch(text, step * at_once, at_once, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(batch[:, :-1])
            if teacher is None:
                loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            else:
                targets = _targets(teacher, step * at_once, batch)
                loss = -(targets * F.log_softmax(logits, dim=-1)).sum(dim=-1).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
    if on_gpu:
        torch.cuda.synchronize()
    checkpoint.unlink(missing_ok=True)
    return seconds + clock() - began


def _targets(teacher: np.ndarray | Transformer, first: int, batch: Tensor) -> Tensor:
    """Return the teacher's probabilities of every next token of a batch."""
    if isinstance(teacher, Transformer):
        with torch.no_grad():
            return F.softmax(teacher(batch[:, :-1]), dim=-1, dtype=torch.float32)
    stored = teacher[first : first + len(batch)].astype(np.float32)
    return torch.from_numpy(stored).to(batch.device).exp()


@torch.no_grad()
def evaluate(model: Transformer, text: np.ndarray) -> float:
    """Return the mean loss (nats per token) over the text."""
    total, device = 0.0, model.embedding.weight.device
    for first in range(0, len(text), 64):
        batch = _batch(text, first, 64, device)
        logits = model(batch[:, :-1])
        total += float(F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum"))
    return total / (len(text) * (text.shape[1] - 1))


@torch.no_grad()
def write_log_probabilities(model: Transformer, text: np.ndarray, path: Path) -> None:
    """Write the model's log probabilities over the text, (sequences, context, vocabulary), as half floats."""
    vocabulary = model.embedding.num_embeddings
    beside = path.with_suffix(".part")
    out = np.lib.format.open_memmap(beside, "w+", np.float16, (len(text), text.shape[1] - 1, vocabulary))
    for first in range(0, len(text), 64):
        batch = _batch(text, first, 64, model.embedding.weight.device)
        out[first : first + len(batch)] = F.log_softmax(model(batch[:, :-1]), dim=-1).cpu().numpy().astype(np.float16)
    out.flush()
    beside.rename(path)


def _batch(text: np.ndarray, first: int, count: int, device: torch.device) -> Tensor:
    return torch.from_numpy(text[first : first + count].astype(np.int64)).to(device, non_blocking=True)
