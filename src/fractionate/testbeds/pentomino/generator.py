"""Samples of Knowledge Matters (arXiv 1301.4083, section 3): ten pentominoes in 80 block patterns, labels, hints."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fractionate.testbeds.arrays import Array, arrays_for
from fractionate.testbeds.draws import below, below_too, child, root

CLASSES = ("L", "N", "P", "F", "Y", "J", "N2", "Q", "F2", "Y2")
"""Class names in label order: five shapes, then their mirror images in the same order."""

BLOCK = 8
VARIANTS = 8
"""Patterns per class: four rotations, each at two scales."""

_SHAPES = {"L": "x. x. x. xx", "N": ".x .x xx x.", "P": "xx xx x.", "F": ".xx xx. .x.", "Y": ".x xx .x .x"}
Bits = np.ndarray[Any, np.dtype[Any]]


def shapes() -> list[Bits]:
    """Return each class's drawing before rotation and scale, as a boolean array of rows × columns."""
    drawn = [np.array([[cell == "x" for cell in row] for row in text.split()]) for text in _SHAPES.values()]
    return [*drawn, *(shape[:, ::-1] for shape in drawn)]


@functools.cache
def patterns() -> Bits:
    """Return the block patterns, (80, 8, 8) of 0 and 1: pattern 8·class + 2·quarter_turns + (scale − 1)."""
    blocks = np.zeros((len(CLASSES) * VARIANTS, BLOCK, BLOCK), np.uint8)
    for place, (drawing, _) in enumerate(_variants()):
        blocks[place, : drawing.shape[0], : drawing.shape[1]] = drawing
    return blocks


@functools.cache
def conflicts() -> Bits:
    """Return where two patterns may not stand together, (3, 3, 80, 80): [dy + 1, dx + 1, first, second].

    (dy, dx) is the second block's place minus the first's. Masks must not overlap; a mask is the shape grown by one
    cell all around, corners too, so one pixel at scale 1 and two at scale 2: the release grows a shape before it scales
    it.
    """
    span = 3 * BLOCK + 4
    masks = np.zeros((len(CLASSES) * VARIANTS, span, span), np.float32)
    for place, (_, mask) in enumerate(_variants()):
        start = BLOCK + 2 - (1 if place % 2 == 0 else 2)
        masks[place, start : start + mask.shape[0], start : start + mask.shape[1]] = mask
    flat = masks.reshape(len(masks), -1)
    found = np.zeros((3, 3, len(masks), len(masks)), bool)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            moved = np.roll(masks, (BLOCK * dy, BLOCK * dx), axis=(1, 2)).reshape(len(masks), -1)
            found[dy + 1, dx + 1] = flat @ moved.T > 0
    return found


def _variants() -> list[tuple[Bits, Bits]]:
    """Return every pattern's drawing and mask."""
    made = []
    for shape in shapes():
        for turns in range(4):
            turned = np.rot90(shape, -turns)
            wide = np.pad(turned, 1)
            grown = np.zeros_like(wide)
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    grown |= np.roll(wide, (dy, dx), axis=(0, 1))
            for scale in (1, 2):
                square = np.ones((scale, scale), bool)
                made.append((np.kron(turned, square), np.kron(grown, square)))
    return made


GRID = 8
BLOCKS = GRID * GRID
SIDE = GRID * BLOCK
SPRITES = 3
TRAIN_SIZES = (20_000, 40_000, 80_000)
TEST_SIZE = 20_000
"""The published splits; the three training sets are nested here (the first 20,000 samples of the 80,000, and so on)."""

_LABEL, _ODD, _OTHER, _SPRITE = range(4)


@dataclass(frozen=True, slots=True)
class PentominoBatch:
    """Some samples: NumPy arrays, or tensors on the generator's device."""

    images: Array
    """(n, 64, 64) of uint8, 0 or 1."""
    labels: Array
    """(n,) of int64: 1 where all three sprites are of one class."""
    hints: Array
    """(n, 64) of int64, blocks row by row: 0 for an empty block, else 1 + the class's place in CLASSES."""
    rejected: Array
    """(n,) of int64: scenes that were drawn and thrown away before this one."""


class Pentomino:
    """The samples of a seed and split, each made from its number alone.

    `device` is None for NumPy or a torch device. Equal arguments give equal samples on any machine and device.
    """

    def __init__(self, seed: int = 0, split: str = "train", device: str | None = None) -> None:
        self.seed, self.split, self.device = seed, split, device
        self._xp = arrays_for(device)
        self._root = root(seed, "pentomino", split)
        self._patterns = self._xp.array(patterns())
        self._conflicts = self._xp.array(conflicts().reshape(-1))

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what another process needs to make the same samples: the arguments alone."""
        return Pentomino, (self.seed, self.split, self.device)

    def take(self, start: int, count: int) -> PentominoBatch:
        """Return samples start … start + count − 1."""
        xp = self._xp
        keys = child(xp.zeros((count,), xp.int64) + self._root, xp.arange(count) + start)
        labels = xp.zeros((count,), xp.int64)
        sprites, places = xp.zeros((count, SPRITES), xp.int64), xp.zeros((count, SPRITES), xp.int64)
        rejected = xp.zeros((count,), xp.int64)
        open_ = xp.arange(count)
        attempt = 0
        while len(open_):
            drawn = self._scenes(child(keys[open_], attempt))
            fits = self._fits(drawn[1], drawn[2])
            kept, done = xp.where_true(fits), open_[fits]
            labels[done], sprites[done], places[done] = (part[kept] for part in drawn)
            rejected[done] = attempt
            open_ = open_[~fits]
            attempt += 1
        return self._drawn(labels, sprites, places, rejected)

    def batches(self, size: int, start: int = 0) -> Iterator[PentominoBatch]:
        """Yield batches without end."""
        while True:
            yield self.take(start, size)
            start += size

    def _scenes(self, keys: Array) -> tuple[Array, Array, Array]:
        """Return labels (n,), patterns (n, 3) and block numbers (n, 3); the first sprite is the odd one."""
        xp = self._xp
        labels = below(child(keys, _LABEL), 2)
        odd = below(child(keys, _ODD), len(CLASSES))
        other = (odd + 1 + below(child(keys, _OTHER), len(CLASSES) - 1)) % len(CLASSES)
        rest = xp.choose(labels == 1, odd, other)
        bits = xp.stack([child(keys, _SPRITE + place) for place in range(SPRITES)])
        sprites = VARIANTS * xp.stack([odd, rest, rest]) + below(bits, VARIANTS)
        return labels, sprites, below_too(bits, BLOCKS)

    def _fits(self, sprites: Array, places: Array) -> Array:
        fits = sprites[:, 0] >= 0
        for first, second in ((0, 1), (0, 2), (1, 2)):
            dy = places[:, second] // GRID - places[:, first] // GRID
            dx = places[:, second] % GRID - places[:, first] % GRID
            near = (dy >= -1) & (dy <= 1) & (dx >= -1) & (dx <= 1)
            offset = self._xp.clip(3 * dy + dx + 4, 0, 8)
            total = len(CLASSES) * VARIANTS
            clash = self._conflicts[(offset * total + sprites[:, first]) * total + sprites[:, second]]
            fits = fits & ~(near & clash)
        return fits

    def _drawn(self, labels: Array, sprites: Array, places: Array, rejected: Array) -> PentominoBatch:
        xp, count = self._xp, len(labels)
        rows = xp.arange(count)
        blocks = xp.zeros((count, BLOCKS, BLOCK, BLOCK), xp.uint8)
        hints = xp.zeros((count, BLOCKS), xp.int64)
        for sprite in range(SPRITES):
            blocks[rows, places[:, sprite]] = self._patterns[sprites[:, sprite]]
            hints[rows, places[:, sprite]] = 1 + sprites[:, sprite] // VARIANTS
        grid = blocks.reshape(count, GRID, GRID, BLOCK, BLOCK).swapaxes(2, 3)
        return PentominoBatch(grid.reshape(count, SIDE, SIDE), labels, hints, rejected)


def published_splits(seed: int = 0) -> Any:
    """Return (the 80,000 training samples, the 20,000 test samples); its 20k and 40k sets are the first ones."""
    return Pentomino(seed, "train").take(0, TRAIN_SIZES[-1]), Pentomino(seed, "test").take(0, TEST_SIZE)
