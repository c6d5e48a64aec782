"""Every stroke that a symbol can need, drawn once: lines by displacement, circles by radius, a dot.

Intensities are those of the anti-aliased lines and circles of the released generator, in closed form: within the box of
a line's ends a pixel is as bright as it is near, 1 − its distance to the line (Zingl, "A Rasterizing Algorithm for
Drawing Curves", 2012); a circle's distance is taken along the axis on which it is less steep (Wu, SIGGRAPH 1991). They
are rounded to 1/255, so that sums are of integers and come out alike everywhere.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

PATCH = 18
"""Side of the largest symbol's patch, in pixels."""

MIDDLE = PATCH - 1
TABLE_SIDE = 2 * PATCH - 1
"""A stroke starts, or has its centre, at (MIDDLE, MIDDLE) of its square of the table."""

RADII = range(3, 9)
_LINES = TABLE_SIDE * TABLE_SIDE
DOT = _LINES + len(RADII)
NOTHING = DOT + 1

Bits = np.ndarray[Any, np.dtype[Any]]


def line(dy: Any, dx: Any) -> Any:
    """Return the table's index of a line from a point to the one (dy, dx) away, each in −17 … 17."""
    return (dy + MIDDLE) * TABLE_SIDE + dx + MIDDLE


def circle(radius: Any) -> Any:
    """Return the table's index of a circle of radius 3 … 8."""
    return radius + (_LINES - RADII[0])


@functools.cache
def table() -> Bits:
    """Return all strokes, (NOTHING + 1, 35, 35) of uint8."""
    drawn = np.zeros((NOTHING + 1, TABLE_SIDE, TABLE_SIDE))
    y, x = np.mgrid[-MIDDLE : MIDDLE + 1, -MIDDLE : MIDDLE + 1]
    for dy in range(-MIDDLE, MIDDLE + 1):
        for dx in range(-MIDDLE, MIDDLE + 1):
            drawn[line(dy, dx)] = _line(y, x, dy, dx)
    for radius in RADII:
        drawn[circle(radius)] = _circle(y, x, radius)
    drawn[DOT] = (abs(y) <= 1) & (abs(x) <= 1)
    return np.rint(255 * drawn).astype(np.uint8)


@functools.cache
def row_bits() -> Bits:
    """Return each stroke's ink, (NOTHING + 1, 35) of int64: bit x of row y is set where the table is not black."""
    bits: Bits = (table() > 0).astype(np.int64) @ (np.int64(1) << np.arange(TABLE_SIDE, dtype=np.int64))
    return bits


def _line(y: Bits, x: Bits, dy: int, dx: int) -> Bits:
    if dy == dx == 0:
        return np.asarray((y == 0) & (x == 0))
    near: Bits = 1 - abs(y * dx - x * dy) / np.hypot(dy, dx)
    box = (y >= min(0, dy)) & (y <= max(0, dy)) & (x >= min(0, dx)) & (x <= max(0, dx))
    return np.where(box, near.clip(0), 0)


def _circle(y: Bits, x: Bits, radius: int) -> Bits:
    flat, steep = np.minimum(abs(y), abs(x)), np.maximum(abs(y), abs(x))
    edge = np.sqrt(np.maximum(radius**2 - flat**2, 0))
    return np.where(flat <= radius, (1 - abs(steep - edge)).clip(0), 0)
