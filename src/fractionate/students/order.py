"""In which order examples are learnt from: one of its own for every pass, which the seed and the pass decide alone.

The trainer would draw each pass's order from whatever state its generator is in, which a resumed training cannot reach
again.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

from fractionate.students.packing import families

TOGETHER = 0.5
"""The share of a step's examples that are taken from one passage where passages are read once."""


class PassageOrder:
    """A sampler: examples that share a passage next to each other, `together` of them (1 or more), in random order.

    Each pass cuts every passage's examples anew into lots and shuffles the lots. What shares nothing is a lot of one.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], seed: int, together: int) -> None:
        self.seed = seed
        self.together = together
        self.epoch = 0
        self._families = families([row["input_ids"] for row in rows])
        self._length = len(rows)

    def set_epoch(self, epoch: int) -> None:
        """Say which pass is next, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        draw = random.Random(f"{self.seed} {self.epoch}")
        lots = []
        for members in self._families:
            mixed = draw.sample(members, len(members))
            lots += [mixed[at : at + self.together] for at in range(0, len(mixed), self.together)]
        draw.shuffle(lots)
        return iter([at for lot in lots for at in lot])


def together(batch_size: int) -> int:
    """Return how many examples of a passage are to stand together in a step of `batch_size`."""
    return max(1, round(batch_size * TOGETHER))


def length_order(rows: Sequence[dict[str, Any]], seed: int, batch_size: int) -> Any:
    """Return a sampler: examples of like length together, so that little is padded."""
    import torch
    from transformers.trainer_pt_utils import LengthGroupedSampler

    class LengthOrder(LengthGroupedSampler):  # type: ignore[misc]
        """The first pass is drawn as the trainer would: no resumed training has missed anything by then."""

        def set_epoch(self, epoch: int) -> None:
            mixed = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
            drawn = int.from_bytes(mixed[:8], "big") >> 1
            self.generator = torch.Generator().manual_seed(drawn) if epoch else None

    return LengthOrder(batch_size, lengths=[len(row["input_ids"]) for row in rows])
