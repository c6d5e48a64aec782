"""A batch of rows on torch: prompts are prefilled, tokens generated, finished rows leave, and others join in between.

Imports torch at the top, so import it only from functions that run a local model.

Why not transformers' `generate()`: it prefills a shared passage again for every question, keeps finished rows to the
end, lets no row join, samples all rows from one generator (so that a reply depends on its neighbours), and its cache
copies itself at every token.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from fractionate.models.local.rows import Prompt, Reply, Row, run_to_end, share_groups

_SAMPLED_AT_ONCE = 64
"""Rows whose probabilities are accumulated together: in double precision they take 0.8 MB each, several times over."""


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    eos_ids: Collection[int],
    share: bool = True,
    stopped: Callable[[], bool] = lambda: False,
) -> list[Reply]:
    """Continue every prompt, as one batch. `eos_ids` end a reply; `share` prefills common prefixes once.

    A row's reply does not depend on its neighbours, up to the rounding of floating point sums. Greedy or, above
    temperature 0, sampled from a generator with the row's own `seed`. Raises InterruptedBatchError once `stopped()`.
    """
    if not prompts:
        return []
    return run_to_end(Batch(model, eos_ids, share), [Row(prompt, tokenizer) for prompt in prompts], stopped)


class Batch:
    """The rows being generated, with their key/value cache, attention mask and lengths (all in the order of the rows).

    `eos_ids` are the token ids that end a reply; `share` prefills common prefixes once. A row's reply does not depend
    on its neighbours, up to the rounding of floating point sums.
    """

    def __init__(self, model: Any, eos_ids: Collection[int], share: bool = True) -> None:
        self.model, self.device, self.eos_ids = model, model.device, frozenset(eos_ids)
        self.rows: list[Row] = []
        self.drop()
        # A sliding window forgets the prefix, so a prefix cannot be handed to other rows and rows of other lengths
        # cannot join: such models prefill every prompt, and finish a batch before the next.
        self.share = share and self.plain

    def drop(self) -> None:
        """Remove all rows."""
        self.rows = []
        self.cache = DynamicCache(config=self.model.config)
        self.plain = all(type(layer) is DynamicLayer for layer in self.cache.layers)
        if self.plain:
            self.cache.layers = [PreallocatedLayer() for _ in self.cache.layers]
        self.mask: Any = None
        self.lengths: Any = None
        self.logits: Any = None

    @property
    def may_join(self) -> bool:
        """Whether rows can join now."""
        return self.plain or all(row.ended for row in self.rows)

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # to mypy torch is Any
    def join(self, rows: Sequence[Row]) -> None:
        """Prefill new rows and add them. If that raises, the rows of the batch are as they were."""
        going = [at for at, row in enumerate(self.rows) if not row.ended]
        if not going:
            self.drop()
            self.rows = list(rows)
            try:
                self.logits = self._prefill()
            except BaseException:
                self.drop()
                raise
            return
        # A batch of their own first: if the prompts do not fit in memory, this batch has not changed.
        newcomers = Batch(self.model, self.eos_ids, self.share)
        newcomers.join(rows)
        self._keep(going)
        self._merge(newcomers)

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # to mypy torch is Any
    def step(self) -> None:
        """Generate one token on every row. Rows that ended leave once they are half of the batch."""
        generated = self._choose(self.logits)
        for row, token in zip(self.rows, generated, strict=True):
            row.take(token, self.eos_ids)
        going = [at for at, row in enumerate(self.rows) if not row.ended]
        if not going:
            self.drop()
            return
        # Leaving copies the cache of the rows that stay, so rows leave by halves of the batch, not one by one.
        if len(going) <= len(self.rows) // 2:
            self._keep(going)
            generated = [generated[at] for at in going]
        self.logits = self._forward([[token] for token in generated])

    def _prefill(self) -> Any:
        """Prefill all prompts, common prefixes once. Returns the logits of the first new token: (rows, vocabulary)."""
        tokens = [list(row.prompt.tokens) for row in self.rows]
        groups = share_groups(tokens) if self.share else []
        if not any(common for common, _ in groups):
            return self._forward(tokens)
        # A prompt without a common prefix counts as one but for its last token: all rows then have a rest to prefill,
        # and a long prompt alone does not widen the padded rests of the others.
        prefixes, source, cut = [], [0] * len(tokens), [0] * len(tokens)
        for common, members in groups:
            length = common or len(tokens[members[0]]) - 1
            prefixes.append(tokens[members[0]][:length])
            for position in members:
                source[position], cut[position] = len(prefixes) - 1, length
            for position in members[1:]:
                self.rows[position].reply.shared = length
        self._forward(prefixes)
        self._select(source)
        return self._forward([row[length:] for row, length in zip(tokens, cut, strict=True)])

    def _forward(self, rows: list[list[int]]) -> Any:
        """Append tokens to every row (left-padded) and return the last token's logits: (rows, vocabulary), fp32."""
        width = max(len(row) for row in rows)
        pads = torch.tensor([width - len(row) for row in rows], device=self.device)
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=self.device)
        steps = torch.arange(width, device=self.device) - pads[:, None]
        if self.mask is None:
            self.mask = torch.zeros(len(rows), 0, dtype=torch.long, device=self.device)
            self.lengths = torch.zeros(len(rows), dtype=torch.long, device=self.device)
        self.mask = torch.cat([self.mask, (steps >= 0).long()], dim=1)
        # Counted from a row's own length, not from its column: padding may stand in the middle of a row.
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
        """Remove all rows but those at the positions `going`."""
        if len(going) < len(self.rows):
            self.rows = [self.rows[at] for at in going]
            self._select(going)
            self.logits = self.logits[going]

    def _select(self, source: list[int]) -> None:
        """Replace cache, mask and lengths by copies of their rows `source` (repeated, for a shared prefix)."""
        index = torch.tensor(source, device=self.device)
        self.cache.batch_select_indices(index)
        self.mask, self.lengths = self.mask[index], self.lengths[index]

    def _merge(self, other: Batch) -> None:
        self._compact()
        other._compact()
        for layer, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            layer.join(theirs)
        width = max(self.mask.shape[1], other.mask.shape[1])
        masks = [torch.nn.functional.pad(mask, (width - mask.shape[1], 0)) for mask in (self.mask, other.mask)]
        self.mask = torch.cat(masks)
        self.lengths = torch.cat([self.lengths, other.lengths])
        self.logits = torch.cat([self.logits, other.logits])
        self.rows += other.rows

    def _compact(self) -> None:
        """Drop masked columns, down to the longest row: a batch that rows keep joining would widen without bound."""
        longest = int(self.lengths.max())
        if longest == self.mask.shape[1]:
            return
        # Positions are given to the model by number, so a row's tokens may move to other columns as long as they keep
        # their order: a stable sort of the mask puts the padding first.
        columns = self.mask.argsort(dim=1, stable=True)[:, -longest:]
        self.mask = self.mask.gather(1, columns)
        for layer in self.cache.layers:
            layer.compact(columns)


def _sampled(logits: Any, rows: Sequence[Row]) -> Any:
    """Return a sampled token for each row, from its own generator: (rows,) of int64."""
    # Not torch.multinomial: its draws differ between devices and depend on the batch. Python's generator gives the
    # same draw everywhere, and double precision keeps the cumulative sum of 49,152 probabilities exact enough.
    exact = {"dtype": torch.float64, "device": logits.device}
    temperatures = torch.tensor([row.prompt.temperature for row in rows], **exact)
    draws = torch.tensor([row.stream.random() for row in rows], **exact)
    cumulative = torch.softmax(logits.double() / temperatures[:, None], dim=-1).cumsum(-1)
    places = torch.searchsorted(cumulative, draws[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return places.clamp(max=logits.shape[-1] - 1)


# ---------------------------------------------------------------- the key/value cache


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not followed: to mypy its class is Any
    """One layer's keys and values, (rows, heads, tokens, width of a head), growing into storage allocated ahead.

    transformers' own layer concatenates at every token, which copies the whole cache: quadratic in a reply's length.
    """

    room = 64
    keys: Any
    values: Any

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Append new tokens' keys and values, and return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = _append(self.keys, key_states, self.room)
        self.values = _append(self.values, value_states, self.room)
        return self.keys, self.values

    def batch_select_indices(self, indices: Any) -> None:
        """Replace the rows by copies of the rows `indices`."""
        if self.get_seq_length() > 0:
            self.keys = _gather(self.keys, indices, self.room)
            self.values = _gather(self.values, indices, self.room)

    def compact(self, columns: Any) -> None:
        """Keep of each row the tokens at `columns` (rows, width), in that order."""
        index = columns[:, None, :, None]
        self.keys = self.keys.gather(2, index.expand(-1, self.keys.shape[1], -1, self.keys.shape[3]))
        self.values = self.values.gather(2, index.expand(-1, self.values.shape[1], -1, self.values.shape[3]))

    def join(self, other: PreallocatedLayer) -> None:
        """Append the rows of another layer; where lengths differ, the shorter rows are padded with zeros in front."""
        self.keys = _stack(self.keys, other.keys, self.room)
        self.values = _stack(self.values, other.values, self.room)


def _gather(cached: Any, indices: Any, room: int) -> Any:
    """Return copies of the rows `indices`, with room behind them, so that the next token copies nothing."""
    _, heads, length, width = cached.shape
    grown = cached.new_empty(len(indices), heads, length + room, width)
    torch.index_select(cached, 0, indices, out=grown[:, :, :length])
    return grown[:, :, :length]


def _append(cached: Any, new: Any, room: int) -> Any:
    """Return `cached` (rows, heads, tokens, width) with `new` behind it, in place where the storage has room."""
    batch, heads, added, width = new.shape
    length = cached.shape[-2] if cached.numel() else 0
    capacity = cached.untyped_storage().nbytes() // cached.element_size() // max(1, batch * heads * width)
    # The stride between heads says how many tokens of a head fit before the next one. With a single head it may be
    # anything, so the size of the storage is asked too.
    if not length or cached.stride(1) < (length + added) * width or capacity < length + added:
        grown = new.new_empty(batch, heads, length + added + room, width)
        if length:
            grown[:, :, :length] = cached
        whole = grown
    else:
        whole = cached.as_strided((batch, heads, length + added, width), cached.stride())
    whole[:, :, length : length + added] = new
    return whole[:, :, : length + added]


def _stack(cached: Any, new: Any, room: int) -> Any:
    """Return the rows of both, ending at the same column, with room behind them."""
    rows, heads, length, width = cached.shape
    longest = max(length, new.shape[2])
    grown = cached.new_empty(rows + len(new), heads, longest + room, width)
    # Zeros and not memory as it is found: a masked value is multiplied by 0, and 0 × NaN is NaN.
    grown[:, :, :longest] = 0
    grown[:rows, :, longest - length : longest] = cached
    grown[rows:, :, longest - new.shape[2] : longest] = new
    return grown[:, :, :longest]
