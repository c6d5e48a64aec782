"""All-Pairs samples: symbols drawn and placed by the rejection sampling of the release, images, labels and metadata."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fractionate.errors import UsageError
from fractionate.testbeds.allpairs import strokes
from fractionate.testbeds.allpairs.strokes import MIDDLE, PATCH
from fractionate.testbeds.allpairs.symbols import LARGEST, MOST_STROKES, NAMES, SMALLEST, strokes_of
from fractionate.testbeds.arrays import Array, arrays_for
from fractionate.testbeds.draws import below, below_too, child, root

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


MARGIN = 2
MOST_REFUSALS = 40
MOST_ATTEMPTS = 500
"""An image that was begun so often has too many symbols for its size."""

_STEP = 32
_WORD = (1 << 62) - 1
_GROWN = PATCH + 2 * MARGIN

_SIZE, _DRAWING, _PLACE = 0, 1, 2


class Painter:
    """The tables of strokes on one device, and what is drawn with them."""

    def __init__(self, xp: Any, side: int) -> None:
        self.xp, self.side = xp, side
        self._strokes = xp.windows(xp.array(strokes.table()), PATCH)
        self._row_bits = xp.array(strokes.row_bits().reshape(-1))
        self._rows = xp.arange(PATCH)[None]

    def sizes(self, keys: Array) -> Array:
        """Return the sides of symbols' patches."""
        return SMALLEST + below(child(keys, _SIZE), LARGEST - SMALLEST + 1)

    def draw(self, keys: Array, classes: Array, sizes: Array) -> tuple[Array, Array]:
        """Return symbols' patches, (n, 18, 18) of uint8, and their ink, (n, 18) of int64 with a bit per column."""
        xp, count = self.xp, len(keys)
        which = [xp.zeros((count,), xp.int64) + strokes.NOTHING for _ in range(MOST_STROKES)]
        tops, lefts = ([xp.zeros((count,), xp.int64) for _ in range(MOST_STROKES)] for _ in range(2))
        for symbol in range(len(NAMES)):
            those = xp.where_true(classes == symbol)
            if len(those):
                drawn = strokes_of(xp, symbol, child(keys[those], _DRAWING), sizes[those])
                for slot, (stroke, top, left) in enumerate(drawn):
                    which[slot][those], tops[slot][those], lefts[slot][those] = stroke, top, left
        sums, ink = xp.zeros((count, PATCH, PATCH), xp.int16), xp.zeros((count, PATCH), xp.int64)
        for stroke, top, left in zip(which, tops, lefts, strict=True):
            some = xp.where_true(stroke != strokes.NOTHING)
            stroke, top, left = stroke[some], top[some], left[some]
            sums[some] += xp.cast(self._strokes[stroke, MIDDLE - top, MIDDLE - left], xp.int16)
            rows = stroke[:, None] * strokes.TABLE_SIDE + (MIDDLE - top)[:, None] + self._rows
            ink[some] |= self._row_bits[rows] >> (MIDDLE - left)[:, None]
        inside = self._rows < sizes[:, None]
        ink = ink & xp.choose(inside, (1 << sizes)[:, None] - 1, 0 * ink)
        patches = xp.cast(xp.clip(sums, None, 255), xp.uint8)
        patches *= xp.cast(inside, xp.uint8)[:, :, None]
        patches *= xp.cast(inside, xp.uint8)[:, None, :]
        return patches, ink


class Placement:
    """Images under way: what is drawn, what is placed, and where ink is."""

    def __init__(self, count: int, symbols: int, painter: Painter) -> None:
        xp = painter.xp
        self._xp, self._painter, self._symbols = xp, painter, symbols
        self.boxes = xp.zeros((count, symbols, 3), xp.int64)
        self.redrawn = xp.zeros((count,), xp.int64)
        self._patches = xp.zeros((count, symbols, PATCH, PATCH), xp.uint8)
        self._words = -(-painter.side // _STEP)
        # A window of 22 rows that starts on the last rows is read whole, so there are rows below the image.
        self._height = painter.side + _GROWN
        self._firsts = _STEP * xp.arange(self._words)[None, :, None]
        self._window, self._patch_rows = xp.arange(_GROWN)[None], xp.arange(PATCH)[None, None]

    def fill(self, keys: Array, classes: Array) -> None:
        """Draw and place all symbols: a key per image and the classes, (n, 2k)."""
        xp = self._xp
        images = xp.arange(len(keys))
        for attempt in range(MOST_ATTEMPTS):
            begun = child(keys[images], attempt)
            symbol_keys = child(begun[:, None], xp.arange(self._symbols)[None])
            sizes = self._painter.sizes(symbol_keys.reshape(-1))
            patches, ink = self._painter.draw(symbol_keys.reshape(-1), classes[images].reshape(-1), sizes)
            shape = (len(images), self._symbols)
            places, whole = self._placed(child(begun, self._symbols), sizes.reshape(shape), ink.reshape(*shape, PATCH))
            done, kept = images[whole], xp.where_true(whole)
            self._patches[done] = patches.reshape(*shape, PATCH, PATCH)[kept]
            self.boxes[done, :, :2], self.boxes[done, :, 2] = places[kept], sizes.reshape(shape)[kept]
            self.redrawn[done] = attempt
            images = images[~whole]
            if not len(images):
                return
        raise UsageError(
            f"{self._symbols} symbols do not fit into {self._painter.side} × {self._painter.side} px: "
            f"{MOST_ATTEMPTS} attempts at one image failed; give a larger side or fewer pairs"
        )

    def images(self) -> Array:
        """Return the images, (n, side, side) of uint8."""
        xp, side = self._xp, self._painter.side
        count = len(self.redrawn)
        wide = side + PATCH - SMALLEST  # a patch is stored 18 pixels wide, whatever its symbol's size
        canvas = xp.zeros((count * wide * wide,), xp.uint8)
        offsets = (xp.arange(PATCH)[:, None] * wide + xp.arange(PATCH)[None])[None]
        starts = xp.arange(count) * (wide * wide)
        for symbol in range(self._symbols):
            first = starts + self.boxes[:, symbol, 0] * wide + self.boxes[:, symbol, 1]
            places = first[:, None, None] + offsets
            canvas[places] += self._patches[:, symbol]  # ink never meets ink, so no sum exceeds 255
        return canvas.reshape(count, wide, wide)[:, :side, :side]

    def _placed(self, keys: Array, sizes: Array, ink: Array) -> tuple[Array, Array]:
        """Return each symbol's (top, left), (n, 2k, 2), and which images took all their symbols."""
        xp, count = self._xp, len(keys)
        places = xp.zeros((count, self._symbols, 2), xp.int64)
        placed, refused = xp.zeros((count,), xp.int64), xp.zeros((count,), xp.int64)
        grown = _grown(xp, ink)
        words = xp.zeros((count * self._words * self._height,), xp.int64)
        live = xp.arange(count)
        while len(live):
            symbol = placed[live]
            bits = child(keys[live], symbol + refused[live])
            free = self._painter.side + 1 - 2 * MARGIN - sizes[live, symbol]
            top, left = below(bits, free), below_too(bits, free)
            fits = ~self._meets(words, live, top, left, grown[live, symbol])
            taken = live[fits]
            self._add(words, taken, top[fits] + MARGIN, left[fits] + MARGIN, ink[taken, symbol[fits]])
            places[taken, symbol[fits]] = xp.stack([top[fits] + MARGIN, left[fits] + MARGIN])
            placed[taken] += 1
            refused[live[~fits]] += 1
            live = live[(placed[live] < self._symbols) & (refused[live] < MOST_REFUSALS)]
        return places, placed == self._symbols

    def _meets(self, words: Array, images: Array, top: Array, left: Array, grown: Array) -> Array:
        """Return whether grown symbols whose windows start at (top, left) meet ink."""
        first = (images * self._words + left // _STEP) * self._height + top
        rows = words[first[:, None] + self._window]
        return ((rows >> (left % _STEP)[:, None]) & grown != 0).any(1)

    def _add(self, words: Array, images: Array, top: Array, left: Array, ink: Array) -> None:
        """Set the bits of symbols whose patches start at (top, left)."""
        xp = self._xp
        shift = left[:, None, None] - self._firsts
        ink = ink[:, None, :]
        moved = xp.choose(shift >= 0, ink << xp.clip(shift, 0, 62), ink >> xp.clip(-shift, 0, 62)) & _WORD
        first = (images[:, None, None] * self._words + self._firsts // _STEP) * self._height + top[:, None, None]
        words[first + self._patch_rows] |= moved


def _grown(xp: Any, ink: Array) -> Array:
    """Return ink grown by MARGIN pixels all around, (n, 2k, 22): bit x of row y is MARGIN pixels up and left of
    ink's."""
    wide = functools.reduce(lambda grown, by: grown | (ink << by), range(1, 2 * MARGIN + 1), ink)
    tall = xp.zeros((*ink.shape[:-1], _GROWN), xp.int64)
    for down in range(2 * MARGIN + 1):
        tall[..., down : down + PATCH] |= wide
    return tall
