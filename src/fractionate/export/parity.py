"""Whether an export replies as the measured student does: greedy replies to the run's own questions, token by token.

Two runtimes add the same numbers in different orders, so either may choose another of two tokens that the student finds
equally likely. Such a reply counts as a tie, apart from differences, and the bound in nats is stated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fractionate.errors import FractionateError
from fractionate.models.local.chat import render
from fractionate.models.local.model import best_device, eos_ids_of, load_tokenizer
from fractionate.models.local.weights import quiet_transformers
from fractionate.types import Message

PROMPTS = 50
"""Questions that an export is checked on, at most those of the run."""
BATCH = 16
NEAR = {"f32": 1e-3, "f16": 5e-2, "q8_0": 0.0}
"""Largest difference in nats between two tokens that count as a tie, by how weights are stored. With 8-bit weights no
ties are counted: the share of identical replies decides."""
NEEDED = {"f32": 1.0, "f16": 1.0, "q8_0": 0.9}
"""The share of replies that must be equal, ties included, by default."""

Replies = list[list[int]]
"""The tokens of each reply, without the end-of-reply token."""


@dataclass(frozen=True)
class Parity:
    """How many of `prompts` replies equal the student's, and how many more differ at a tie of at most `near` nats.

    `by` is the runtime of the export, `stored` how its weights are stored, `needed` the share that must be equal.
    `furthest` is the largest preference, in nats, of the student for its own token where a reply differs (0: none).
    """

    file: str
    by: str
    stored: str
    prompts: int
    identical: int
    ties: int
    near: float
    needed: float
    furthest: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether enough replies are equal."""
        return self.identical + self.ties >= self.needed * self.prompts

    def sentence(self) -> str:
        """Return the result in words."""
        parted = self.prompts - self.identical - self.ties
        tied = f", {self.ties} more part where two tokens are within {self.near:g} nats" if self.ties else ""
        others = f", {parted} part where they are up to {self.furthest:.2g} nats apart" if parted else ""
        return (
            f"{self.file} by {self.by}: {self.identical} of {self.prompts} greedy replies identical to the student's"
            f"{tied}{others}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return {**asdict(self), "passed": self.passed}


class Reference:
    """The student as it was measured (fp32, its adapter merged in memory), and its replies."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        asked: Sequence[tuple[Message, ...]],
        max_tokens: int,
        alike: float | None = None,
    ) -> None:
        """`alike` is the share of replies that must equal the student's; None: `NEEDED`."""
        self.alike = alike
        self.model, self.tokenizer, self.asked, self.max_tokens = model, tokenizer, asked, max_tokens
        self.prompts = [render(tokenizer, messages, "student") for messages in asked]
        self.eos_ids = eos_ids_of(model, tokenizer)
        self.replies = greedy(model, tokenizer, self.prompts, max_tokens, self.eos_ids)

    def compare(self, replies: Replies, file: str, by: str, stored: str) -> Parity:
        """Compare an export's replies with the student's."""
        parted = [at for at, (mine, its) in enumerate(zip(self.replies, replies, strict=True)) if mine != its]
        gaps = [self.gap(at, replies[at]) for at in parted]
        ties, identical = sum(gap <= NEAR[stored] for gap in gaps), len(replies) - len(parted)
        furthest = max(gaps, default=0.0)
        needed = NEEDED[stored] if self.alike is None else self.alike
        return Parity(file, by, stored, len(replies), identical, ties, NEAR[stored], needed, furthest)

    def gap(self, at: int, reply: Sequence[int]) -> float:
        """Return the student's preference (nats) for its own token where an export's reply first differs."""
        import torch

        mine = [*self.replies[at], *self._end(self.replies[at])]
        its = [*reply, *self._end(reply)]
        common = next(k for k, (a, b) in enumerate(zip(mine, its, strict=False)) if a != b)
        ids = torch.tensor([self.prompts[at] + mine[:common]], device=self.model.device)
        with torch.inference_mode():
            logits = self.model(input_ids=ids).logits[0, -1].float()
        ended = max(float(logits[end]) for end in self.eos_ids)
        likely = [ended if token in self.eos_ids else float(logits[token]) for token in (mine[common], its[common])]
        return likely[0] - likely[1]

    def _end(self, reply: Sequence[int]) -> list[int]:
        return [min(self.eos_ids)] if len(reply) < self.max_tokens else []


def greedy(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], max_tokens: int, eos_ids: Collection[int]
) -> Replies:
    """Return the greedy replies of a model in memory, in batches that are the same for every model."""
    from fractionate.models.local.batch import generate
    from fractionate.models.local.rows import Prompt

    replies: Replies = []
    for start in range(0, len(prompts), BATCH):
        batch = [Prompt(prompt, max_tokens) for prompt in prompts[start : start + BATCH]]
        replies += [reply.tokens for reply in generate(model, tokenizer, batch, eos_ids)]
    return replies


def check_folder(reference: Reference, folder: Path) -> Parity:
    """Load a written folder with transformers, ask it by its own tokenizer and template, and compare."""
    from transformers import AutoModelForCausalLM

    load_tokenizer.cache_clear()
    tokenizer = load_tokenizer(folder)
    check_prompts(reference, lambda messages: own_prompt(tokenizer, messages), "the written tokenizer and template")
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").to(best_device("")).eval()
    replies = greedy(model, tokenizer, reference.prompts, reference.max_tokens, eos_ids_of(model, tokenizer))
    return reference.compare(replies, "model.safetensors", "transformers", "f32")


def check_gguf(reference: Reference, file: Path, stored: str) -> Parity:
    """Load a written GGUF file with transformers, which takes its weights back to fp32, and compare."""
    from fractionate.models.local.weights import load_gguf

    model, tokenizer = load_gguf(file)
    check_prompts(reference, lambda messages: own_prompt(tokenizer, messages), f"the vocabulary of {file.name}")
    model = model.to(best_device("")).eval()
    replies = greedy(model, tokenizer, reference.prompts, reference.max_tokens, reference.eos_ids)
    return reference.compare(replies, file.name, "transformers", stored)


def check_tokenizer(reference: Reference, folder: Path) -> None:
    """Raise FractionateError where a written folder's template does not ask as training did."""
    load_tokenizer.cache_clear()
    tokenizer = load_tokenizer(folder)
    check_prompts(reference, lambda messages: own_prompt(tokenizer, messages), "the written tokenizer and template")


def own_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Return the tokens that a program makes of messages by a tokenizer's template alone, as vLLM does."""
    turns = [{"role": role, "content": content} for role, content in messages]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def check_prompts(reference: Reference, tokens_of: Callable[[Sequence[Message]], list[int]], what: str) -> None:
    """Raise FractionateError unless every prompt comes out as the very tokens that training would make of it."""
    for messages, wanted in zip(reference.asked, reference.prompts, strict=True):
        if tokens_of(messages) != wanted:
            raise FractionateError(
                f"{what} does not ask as the student was trained: the question {messages[-1].content[-60:]!r} comes "
                "out as other tokens; nothing was written"
            )
