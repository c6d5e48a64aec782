"""A batch of rows under way on torch: they are read, written one token at a time, leave, and others join between.

Imports torch at the top, so import it only from functions that run a local model.

Why not transformers' `generate()`: it reads a shared passage again for every question, keeps finished rows to the end,
takes nobody in, samples all rows from one stream (so that a reply depends on its neighbours) and its cache copies
itself at every token.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from fractionate.models.local.cache import RoomyLayer
from fractionate.models.local.rows import Row
from fractionate.models.local.sharing import share_groups

_SAMPLED_AT_ONCE = 64
"""Rows whose probabilities are added up together: in double precision they take 0.8 MB each, several times over."""


class Batch:
    """The rows still speaking, their cache, mask and positions (all of the same row order).

    `ends` are the token ids that end a reply; `share` reads common beginnings once. A row's reply does not depend on
    its neighbours, up to the rounding of floating point sums.
    """

    def __init__(self, model: Any, ends: Collection[int], share: bool = True) -> None:
        self.model, self.device, self.ends = model, model.device, frozenset(ends)
        self.rows: list[Row] = []
        self.drop()
        # A sliding window forgets its beginning, so a beginning cannot be handed on and rows of other lengths cannot
        # join: such models read every prompt, and finish a batch before the next.
        self.share = share and self.plain

    def drop(self) -> None:
        """Let all rows go."""
        self.rows = []
        self.cache = DynamicCache(config=self.model.config)
        self.plain = all(type(layer) is DynamicLayer for layer in self.cache.layers)
        if self.plain:
            self.cache.layers = [RoomyLayer() for _ in self.cache.layers]
        self.mask: Any = None
        self.lengths: Any = None
        self.logits: Any = None

    @property
    def may_join(self) -> bool:
        """Whether rows can be taken in now."""
        return self.plain or all(row.ended for row in self.rows)

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # to mypy torch is Any
    def join(self, rows: Sequence[Row]) -> None:
        """Read the prompts of new rows and take them in. If that raises, the rows under way are as they were."""
        going = [at for at, row in enumerate(self.rows) if not row.ended]
        if not going:
            self.drop()
            self.rows = list(rows)
            try:
                self.logits = self._read_prompts()
            except BaseException:
                self.drop()
                raise
            return
        newcomers = Batch(self.model, self.ends, self.share)
        newcomers.join(rows)
        self._keep(going)
        self._merge(newcomers)

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # to mypy torch is Any
    def step(self) -> None:
        """Write one token on every row. Rows that ended leave once they are half of the batch."""
        spoken = self._choose(self.logits)
        for row, token in zip(self.rows, spoken, strict=True):
            row.take(token, self.ends)
        going = [at for at, row in enumerate(self.rows) if not row.ended]
        if not going:
            self.drop()
            return
        if len(going) <= len(self.rows) // 2:
            self._keep(going)
            spoken = [spoken[at] for at in going]
        self.logits = self._forward([[token] for token in spoken])

    def _read_prompts(self) -> Any:
        """Read all prompts and return the logits of the first new token. Common beginnings are read once."""
        tokens = [list(row.prompt.tokens) for row in self.rows]
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
                self.rows[position].reply.shared = length
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
        warm = [at for at, row in enumerate(self.rows) if row.prompt.temperature > 0]
        for start in range(0, len(warm), _SAMPLED_AT_ONCE):
            some = warm[start : start + _SAMPLED_AT_ONCE]
            chosen[some] = _sampled(logits[some], [self.rows[at] for at in some])
        tokens: list[int] = chosen.tolist()
        return tokens

    def _keep(self, going: list[int]) -> None:
        """Let all rows but those at the positions `going` leave."""
        if len(going) < len(self.rows):
            self.rows = [self.rows[at] for at in going]
            self._select(going)
            self.logits = self.logits[going]

    def _select(self, source: list[int]) -> None:
        """Make cache, mask and lengths copies of their rows `source` (with repeats, for a shared beginning)."""
        index = torch.tensor(source, device=self.device)
        self.cache.batch_select_indices(index)
        self.mask, self.lengths = self.mask[index], self.lengths[index]

    def _merge(self, other: Batch) -> None:
        self._pack()
        other._pack()
        for layer, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            layer.join(theirs)
        width = max(self.mask.shape[1], other.mask.shape[1])
        masks = [torch.nn.functional.pad(mask, (width - mask.shape[1], 0)) for mask in (self.mask, other.mask)]
        self.mask = torch.cat(masks)
        self.lengths = torch.cat([self.lengths, other.lengths])
        self.logits = torch.cat([self.logits, other.logits])
        self.rows += other.rows

    def _pack(self) -> None:
        """Take out what the mask hides, as far as the longest row allows: a batch that goes on must not widen."""
        longest = int(self.lengths.max())
        if longest == self.mask.shape[1]:
            return
        # Positions are given to the model by number, so a row may move as long as its tokens keep their order.
        columns = self.mask.argsort(dim=1, stable=True)[:, -longest:]
        self.mask = self.mask.gather(1, columns)
        for layer in self.cache.layers:
            layer.pack(columns)


def _sampled(logits: Any, rows: Sequence[Row]) -> Any:
    """Return a draw for each row, from its own stream."""
    # By hand, with Python's generator: the same draw on every device and in every batch.
    exact = {"dtype": torch.float64, "device": logits.device}
    temperatures = torch.tensor([row.prompt.temperature for row in rows], **exact)
    draws = torch.tensor([row.stream.random() for row in rows], **exact)
    heaped = torch.softmax(logits.double() / temperatures[:, None], dim=-1).cumsum(-1)
    places = torch.searchsorted(heaped, draws[:, None] * heaped[:, -1:], right=True)[:, 0]
    return places.clamp(max=logits.shape[-1] - 1)
