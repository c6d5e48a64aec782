"""The ten pentomino classes and their 80 block patterns (Gulcehre and Bengio, arXiv 1301.4083, section 3)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

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
