"""Keys and values of a batch of rows: they grow in place, rows leave, and rows of another batch join.

Imports torch at the top, so import it only from functions that run a local model.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not followed: to mypy its class is Any
    """A key/value cache that grows into room set aside, instead of copying itself whole for every new token."""

    room = 64
    keys: Any
    values: Any

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Take in new tokens' keys and values, and return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = _append(self.keys, key_states, self.room)
        self.values = _append(self.values, value_states, self.room)
        return self.keys, self.values

    def batch_select_indices(self, indices: Any) -> None:
        """Become copies of the rows `indices`."""
        if self.get_seq_length() > 0:
            self.keys = _gather(self.keys, indices, self.room)
            self.values = _gather(self.values, indices, self.room)

    def pack(self, columns: Any) -> None:
        """Keep of each row the tokens at `columns` (rows × width), in that order."""
        index = columns[:, None, :, None]
        self.keys = self.keys.gather(2, index.expand(-1, self.keys.shape[1], -1, self.keys.shape[3]))
        self.values = self.values.gather(2, index.expand(-1, self.values.shape[1], -1, self.values.shape[3]))

    def join(self, other: RoomyLayer) -> None:
        """Take the rows of another cache in behind one's own; where lengths differ, the shorter rows get zeros before.

        Zeros, because a masked token still is multiplied by 0, which memory as it was found need not survive.
        """
        self.keys = _stack(self.keys, other.keys, self.room)
        self.values = _stack(self.values, other.values, self.room)


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


def _stack(held: Any, new: Any, room: int) -> Any:
    """Return the rows of both, ending at the same column, with room behind them."""
    rows, heads, length, width = held.shape
    longest = max(length, new.shape[2])
    grown = held.new_empty(rows + len(new), heads, longest + room, width)
    grown[:, :, :longest] = 0
    grown[:rows, :, longest - length : longest] = held
    grown[rows:, :, longest - new.shape[2] : longest] = new
    return grown[:, :, :longest]
