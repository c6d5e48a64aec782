"""All-Pairs samples: images, labels and what the generator knows about every symbol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fractionate.errors import UsageError
from fractionate.testbeds.allpairs.scenes import MARGIN, Painter, Placement
from fractionate.testbeds.allpairs.symbols import LARGEST, NAMES
from fractionate.testbeds.arrays import Array, arrays_for
from fractionate.testbeds.draws import below, child, root

SIDE, SIDE_FROM_SIX_PAIRS = 76, 96
CHUNK = 512
"""Images made at once: the working memory of so many stays near the CPU; a GPU is better fed with thousands."""

_LABEL, _CLASSES, _SHIFT, _ORDER, _SCENE = range(5)


@dataclass(frozen=True, slots=True)
class AllPairsBatch:
    """Some samples: NumPy arrays, or tensors on the generator's device."""

    images: Array
    """(n, side, side) of uint8: strokes up to 255 on black. The released loader gives models images / 255 − 0.5."""
    labels: Array
    """(n,) of int64: 1 where every class is there an even number of times."""
    classes: Array
    """(n, 2k) of int64: each symbol's class, in the order in which they were placed."""
    boxes: Array
    """(n, 2k, 3) of int64: the top row, left column and side of each symbol's patch, in pixels."""
    redrawn: Array
    """(n,) of int64: how often the image was begun anew because its symbols collided too often."""

    histogram: Array
    """(n, m) of int64: how many symbols there are of each class."""

    @property
    def parities(self) -> Array:
        """(n, m) of int64: 1 where a class is there an odd number of times."""
        return self.histogram % 2


class AllPairs:
    """The samples of a k-m setting, seed and split, each made from its number alone.

    `pairs` is k ≥ 1, `types` is m, 2 … 18; `side` is the image's side in pixels (76 up to 5 pairs, else 96). `device`
    is None for NumPy or a torch device. Equal arguments give equal samples on any machine, device and number of
    workers.

    Raises UsageError for settings that cannot be; `take` does for symbols that do not fit into the image.
    """

    def __init__(
        self,
        pairs: int = 4,
        types: int = 4,
        seed: int = 0,
        split: str = "train",
        side: int | None = None,
        device: str | None = None,
    ) -> None:
        if pairs < 1:
            raise UsageError(f"pairs must be 1 or more, not {pairs}")
        if not 2 <= types <= len(NAMES):
            raise UsageError(f"types must be 2 to {len(NAMES)}, not {types}: the symbols are {', '.join(NAMES)}")
        self.side = side if side is not None else (SIDE if pairs <= 5 else SIDE_FROM_SIX_PAIRS)
        if self.side < LARGEST + 2 * MARGIN:
            raise UsageError(
                f"side must be {LARGEST + 2 * MARGIN} px or more, not {self.side}: a symbol and its margin"
            )
        self.pairs, self.types, self.seed, self.split, self.device = pairs, types, seed, split, device
        self._xp = arrays_for(device)
        self._painter = Painter(self._xp, self.side)
        self._root = root(seed, "allpairs", f"{pairs}-{types}", str(self.side), split)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what another process needs to make the same samples: the arguments alone."""
        return AllPairs, (self.pairs, self.types, self.seed, self.split, self.side, self.device)

    def take(self, start: int, count: int) -> AllPairsBatch:
        """Return samples start … start + count − 1."""
        xp = self._xp
        keys = child(xp.zeros((count,), xp.int64) + self._root, xp.arange(count) + start)
        labels, classes = self._contents(keys)
        placement = Placement(count, 2 * self.pairs, self._painter)
        placement.fill(child(keys, _SCENE), classes)
        histogram = (classes[:, :, None] == xp.arange(self.types)).sum(1)
        return AllPairsBatch(placement.images(), labels, classes, placement.boxes, placement.redrawn, histogram)

    def batches(self, size: int, start: int = 0) -> Iterator[AllPairsBatch]:
        """Yield batches without end, from sample `start` on."""
        while True:
            yield self.take(start, size)
            start += size

    def _contents(self, keys: Array) -> tuple[Array, Array]:
        """Return labels (n,) and the symbols' classes (n, 2k)."""
        xp, count, symbols = self._xp, len(keys), 2 * self.pairs
        labels = below(child(keys, _LABEL), 2)
        drawn = below(child(child(keys, _CLASSES)[:, None], xp.arange(self.pairs)[None]), self.types)
        classes = xp.zeros((count, symbols), xp.int64)
        classes[:, : self.pairs], classes[:, self.pairs :] = drawn, drawn
        shift = 1 + below(child(keys, _SHIFT), self.types - 1)
        classes[:, 0] = (classes[:, 0] + (1 - labels) * shift) % self.types
        # Shuffled by sorting random keys; two of 64 bits are as good as never equal.
        order = xp.sort_order(child(child(keys, _ORDER)[:, None], xp.arange(symbols)[None]))
        return labels, xp.along(classes, order)
