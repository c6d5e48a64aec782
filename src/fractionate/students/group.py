"""The processes that train one student together, and what they do as one.

All take the same steps with the same weights; of each step's examples every one reads its share. The first of them
writes. A process alone is a group as well: all of this is then done already.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Group:
    """One process of `size`, of number `rank` from 0. What is said to be of all processes has to be called by all."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @classmethod
    def here(cls) -> Group:
        """Return the group that this process is in: that of torch.distributed, if that has been set up."""
        import torch

        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())
        return cls()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Return each value added up over all processes."""
        if self.size == 1:
            return list(values)
        import torch

        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        total = torch.tensor(values, dtype=torch.float64, device=device)
        torch.distributed.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def told(self, value: T) -> T:
        """Return, in all processes, the first one's value."""
        if self.size == 1:
            return value
        import torch

        said = [value]
        torch.distributed.broadcast_object_list(said)
        return said[0]

    def wait(self) -> None:
        """Return once all processes have come to this point."""
        self.sum(0.0)

    def share_of(self, batch: Sequence[int]) -> list[int]:
        """Return what this process reads of a batch: a stretch, as long as the others', shorter or empty at its end."""
        each = math.ceil(len(batch) / self.size)
        return list(batch[self.rank * each : (self.rank + 1) * each])


ALONE = Group()
"""A process that trains a student by itself."""


class Shares:
    """A batch sampler: of every batch that one process would take, this process's share, which may be empty.

    `order` is a sampler with a `set_epoch`.
    """

    def __init__(self, order: Any, batch_size: int, group: Group) -> None:
        self._order = order
        self._batch_size = batch_size
        self._group = group
        self.batch_sampler = self  # where the trainer looks for what has a `set_epoch`

    def set_epoch(self, epoch: int) -> None:
        """Say which pass is next, from 0."""
        self._order.set_epoch(epoch)

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = self._group.told(list(self._order))
        for start in range(0, len(order), self._batch_size):
            yield self._group.share_of(order[start : start + self._batch_size])
