"""Batched generation by hand over transformers' forward pass: shared passages are read once, finished rows leave.

Imports torch at the top, so import it only from functions that run a local model.

Why not `generate()`: it reads a shared passage again for every question, keeps finished rows to the end, samples all
rows from one stream (so that a reply depends on its neighbours) and its cache copies itself at every token.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from fractionate.errors import FractionateError

SHARED_TOKENS = 32
"""The shortest common beginning, in tokens, that is worth reading once for several prompts."""
_SAMPLED_AT_ONCE = 64
"""Rows whose probabilities are added up together: in double precision they take 0.8 MB each, several times over."""
_STOP_WINDOW = 32
"""Tokens at the end of a reply that are searched for stop strings at every step."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to continue: token ids, at most `max_tokens` new ones, sampled at `temperature` (0: the likeliest)."""

    tokens: Sequence[int]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(slots=True)
class Reply:
    """The new tokens (without the end-of-turn token), their text cut at the first stop string, and why it ended.

    `spoken` counts tokens generated, end-of-turn included; `shared` the prompt's tokens that were read for another row.
    """

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: str = "length"
    spoken: int = 0
    shared: int = 0


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not followed: to mypy its class is Any
    """A key/value cache that grows into room set aside, instead of copying itself whole for every new token."""

    room = 64
    keys: Any
    values: Any

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = _append(self.keys, key_states, self.room)
        self.values = _append(self.values, value_states, self.room)
        return self.keys, self.values

    def batch_select_indices(self, indices: Any) -> None:
        if self.get_seq_length() > 0:
            self.keys = _gather(self.keys, indices, self.room)
            self.values = _gather(self.values, indices, self.room)


def _gather(held: Any, indices: Any, room: int) -> Any:
    """Return copies of the rows `indices`, with room behind them, so that the next token copies nothing."""
    _, heads, length, width = held.shape
    grown = held.new_empty(len(indices), heads, length + room, width)
    torch.index_select(held, 0, indices, out=grown[:, :, :length])
    return grown[:, :, :length]


def _append(held: Any, new: Any, room: int) -> Any:
    """Return `held` (rows, heads, tokens, width) with `new` behind it, in place where the storage has room."""
    batch, heads, added, width = new.shape
    length = held.shape[-2] if held.numel() else 0
    capacity = held.untyped_storage().nbytes() // held.element_size() // max(1, batch * heads * width)
    if not length or held.stride(1) < (length + added) * width or capacity < length + added:
        grown = new.new_empty(batch, heads, length + added + room, width)
        if length:
            grown[:, :, :length] = held
        whole = grown
    else:
        whole = held.as_strided((batch, heads, length + added, width), held.stride())
    whole[:, :, length : length + added] = new
    return whole[:, :, : length + added]


class InterruptedBatchError(FractionateError):
    """Generation was asked to stop between two tokens; nothing of the batch is kept."""


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    ends: Collection[int],
    share: bool = True,
    stopped: Callable[[], bool] = lambda: False,
) -> list[Reply]:
    """Continue every prompt, as one batch. `ends` are the token ids that end a reply; `share` reads prefixes once.

    A row's reply does not depend on its neighbours, up to the rounding of floating point sums. Greedy or, above
    temperature 0, sampled from a stream of the row's own `seed`. Raises InterruptedBatchError once `stopped()` is true.
    """
    if not prompts:
        return []
    with torch.inference_mode():
        return _Batch(model, tokenizer, prompts, ends, share).run(stopped)


def share_groups(prompts: Sequence[Sequence[int]], minimum: int = SHARED_TOKENS) -> list[tuple[int, list[int]]]:
    """Group prompts (token ids) so that reading each group's common beginning once saves the most tokens.

    Returns (tokens in common, positions in `prompts`) for each group; a prompt alone has 0 in common. At least one
    token of every prompt is left to read on its own. Neighbours in the result begin alike.
    """
    order = sorted(range(len(prompts)), key=lambda position: list(prompts[position]))
    alike = [min(_common(prompts[a], prompts[b]), len(prompts[a]) - 1, len(prompts[b]) - 1) for a, b in pairwise(order)]
    _, groups = _best_groups(0, len(order), alike, minimum)
    return [(common, order[start:end]) for common, start, end in groups]


def _best_groups(start: int, end: int, alike: list[int], minimum: int) -> tuple[int, list[tuple[int, int, int]]]:
    """Return (tokens saved, groups) for sorted prompts start … end-1: one group, or split where least alike."""
    if end - start == 1:
        return 0, [(0, start, end)]
    least = min(alike[start : end - 1])
    cuts = [start, *(at + 1 for at in range(start, end - 1) if alike[at] == least), end]
    whole = (end - start - 1) * least if least >= minimum else -1
    if len(cuts) == end - start + 1:
        parts = (0, [(0, at, at + 1) for at in range(start, end)])
    else:
        split = [_best_groups(a, b, alike, minimum) for a, b in pairwise(cuts)]
        parts = (sum(saved for saved, _ in split), [group for _, groups in split for group in groups])
    return (whole, [(least, start, end)]) if whole >= parts[0] else parts


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    length = min(len(a), len(b))
    return bisect.bisect_left(range(length), True, key=lambda at: a[: at + 1] != b[: at + 1])


class _Batch:
    """One batch under way: the rows still speaking, their cache, mask and positions (all of the same row order)."""

    def __init__(
        self, model: Any, tokenizer: Any, prompts: Sequence[Prompt], ends: Collection[int], share: bool
    ) -> None:
        self.model, self.tokenizer, self.prompts, self.ends = model, tokenizer, prompts, frozenset(ends)
        self.device = model.device
        self.replies = [Reply() for _ in prompts]
        self.streams = [random.Random(prompt.seed) for prompt in prompts]
        self.rows = list(range(len(prompts)))
        self.ended: set[int] = set()
        self.cache = DynamicCache(config=model.config)
        plain = all(type(layer) is DynamicLayer for layer in self.cache.layers)
        if plain:
            self.cache.layers = [_RoomyLayer() for _ in self.cache.layers]
        # A sliding window forgets its beginning, so a beginning cannot be handed on: such models read every prompt.
        self.share = share and plain
        self.mask: Any = None
        self.lengths: Any = None

    def run(self, stopped: Callable[[], bool]) -> list[Reply]:
        logits = self._read_prompts()
        while self.rows:
            if stopped():
                raise InterruptedBatchError("generation was interrupted")
            spoken = self._choose(logits)
            going = [at for at, token in enumerate(spoken) if self._take(self.rows[at], token)]
            self.ended = set(self.rows) - {self.rows[at] for at in going}
            if not going:
                break
            if len(going) <= len(self.rows) // 2:
                self._keep(going)
                spoken = [spoken[at] for at in going]
            logits = self._forward([[token] for token in spoken])
        for reply, prompt in zip(self.replies, self.prompts, strict=True):
            _finish_text(self.tokenizer, reply, prompt.stop)
        return self.replies

    def _read_prompts(self) -> Any:
        """Read all prompts and return the logits of the first new token. Common beginnings are read once."""
        tokens = [list(prompt.tokens) for prompt in self.prompts]
        groups = share_groups(tokens) if self.share else []
        if not any(common for common, _ in groups):
            return self._forward(tokens)
        # A prompt alone is a beginning but for its last token, so that it does not lengthen the others' rest.
        beginnings, source, cut = [], [0] * len(tokens), [0] * len(tokens)
        for common, members in groups:
            length = common or len(tokens[members[0]]) - 1
            beginnings.append(tokens[members[0]][:length])
            for position in members:
                source[position], cut[position] = len(beginnings) - 1, length
            for position in members[1:]:
                self.replies[position].shared = length
        self._forward(beginnings)
        self._select(source)
        return self._forward([row[length:] for row, length in zip(tokens, cut, strict=True)])

    def _forward(self, rows: list[list[int]]) -> Any:
        """Read one stretch of tokens per row (left-padded) behind the cache; return the last token's logits."""
        width = max(len(row) for row in rows)
        pads = torch.tensor([width - len(row) for row in rows], device=self.device)
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=self.device)
        steps = torch.arange(width, device=self.device) - pads[:, None]
        if self.mask is None:
            self.mask = torch.zeros(len(rows), 0, dtype=torch.long, device=self.device)
            self.lengths = torch.zeros(len(rows), dtype=torch.long, device=self.device)
        self.mask = torch.cat([self.mask, (steps >= 0).long()], dim=1)
        positions = (self.lengths[:, None] + steps).clamp(min=0)
        self.lengths = self.lengths + width - pads
        out = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1].float()

    def _choose(self, logits: Any) -> list[int]:
        """Return each row's next token. The device is waited for once, however many rows are sampled."""
        chosen = logits.argmax(dim=-1)
        warm = [at for at, row in enumerate(self.rows) if self.prompts[row].temperature > 0]
        for start in range(0, len(warm), _SAMPLED_AT_ONCE):
            some = warm[start : start + _SAMPLED_AT_ONCE]
            chosen[some] = self._sampled(logits[some], [self.rows[at] for at in some])
        tokens: list[int] = chosen.tolist()
        return tokens

    def _sampled(self, logits: Any, rows: list[int]) -> Any:
        # By hand, with Python's generator: the same draw on every device and in every batch.
        exact = {"dtype": torch.float64, "device": logits.device}
        temperatures = torch.tensor([self.prompts[row].temperature for row in rows], **exact)
        draws = torch.tensor([self.streams[row].random() for row in rows], **exact)
        heaped = torch.softmax(logits.double() / temperatures[:, None], dim=-1).cumsum(-1)
        places = torch.searchsorted(heaped, draws[:, None] * heaped[:, -1:], right=True)[:, 0]
        return places.clamp(max=logits.shape[-1] - 1)

    def _take(self, row: int, token: int) -> bool:
        """Add a token to a row's reply; return whether the row goes on. One that ended may still be in the batch."""
        reply, prompt = self.replies[row], self.prompts[row]
        if row in self.ended:
            return False
        reply.spoken += 1
        if token in self.ends:
            reply.finish_reason = "stop"
            return False
        reply.tokens.append(token)
        if prompt.stop:
            tail = self.tokenizer.decode(reply.tokens[-_STOP_WINDOW:], skip_special_tokens=True)
            if any(stop in tail for stop in prompt.stop):
                reply.finish_reason = "stop"
                return False
        return reply.spoken < prompt.max_tokens

    def _keep(self, going: list[int]) -> None:
        self.rows = [self.rows[at] for at in going]
        self._select(going)

    def _select(self, source: list[int]) -> None:
        """Make cache, mask and lengths copies of their rows `source` (with repeats, for a shared beginning)."""
        index = torch.tensor(source, device=self.device)
        self.cache.batch_select_indices(index)
        self.mask, self.lengths = self.mask[index], self.lengths[index]


def _finish_text(tokenizer: Any, reply: Reply, stop: tuple[str, ...]) -> None:
    text = tokenizer.decode(reply.tokens, skip_special_tokens=True)
    cuts = [at for word in stop if (at := text.find(word)) >= 0]
    reply.text = text[: min(cuts)] if cuts else text
