"""The processes that train one student, and what they do together.

All take the same steps with the same weights; each computes its shard of every batch. The first process writes the
files. A process that trains alone is a group of one, for which all of this does nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Group:
    """One process of `size`, with number `rank` from 0. Methods that wait for others have to be called by all."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @classmethod
    def here(cls) -> Group:
        """Return the group of this process: that of torch.distributed where it is set up, else a group of one."""
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

        # NCCL moves tensors of GPUs only. Double precision, so that a sum of losses does not depend on their number.
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        total = torch.tensor(values, dtype=torch.float64, device=device)
        torch.distributed.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def broadcast(self, value: T) -> T:
        """Return, in all processes, the first process's value."""
        if self.size == 1:
            return value
        import torch

        values = [value]
        torch.distributed.broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Return once all processes have reached this call."""
        self.sum(0.0)

    def shard(self, batch: Sequence[int]) -> list[int]:
        """Return this process's part of a batch: contiguous, as long as the others', at the end shorter or empty."""
        each = math.ceil(len(batch) / self.size)
        return list(batch[self.rank * each : (self.rank + 1) * each])


ALONE = Group()
"""A process that trains a student by itself."""


class ShardedBatches:
    """A batch sampler: this process's shard of every batch that one process would take; a shard may be empty.

    `order` is a sampler with a `set_epoch`.
    """

    def __init__(self, order: Any, batch_size: int, group: Group) -> None:
        self._order = order
        self._batch_size = batch_size
        self._group = group
        # transformers calls `set_epoch` on `dataloader.batch_sampler.batch_sampler` where there is one.
        self.batch_sampler = self

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next pass, from 0."""
        self._order.set_epoch(epoch)

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        # A pass may be drawn from the state of a process's own generator, so the first process's order holds for all.
        order = self._group.broadcast(list(self._order))
        for start in range(0, len(order), self._batch_size):
            yield self._group.shard(order[start : start + self._batch_size])
