"""The 18 symbols: for each, its strokes from random bits (the facts of the released generator of arXiv 1807.00126).

A symbol lives in a square patch of side S, 15 to 18 pixels. Coordinates are whole pixels, rows before columns;
"in(d)" is a uniform whole number in [d, S − 1 − d]. Angles are whole steps of a 65,536th of a turn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fractionate.testbeds.allpairs import strokes
from fractionate.testbeds.arrays import Array
from fractionate.testbeds.draws import below, below_too, child

NAMES = (
    "circle", "line", "cross", "angle", "three_star", "theta", "phi", "double_circle", "circle_3star", "box",
    "box_diag", "barbell", "dot_line", "zshape", "triangle_lid", "dot_on_line", "hourglass", "triangle",
)  # fmt: skip
SMALLEST, LARGEST = 15, strokes.PATCH
MOST_STROKES = 5

_TURN = 1 << 16
Stroke = tuple[Array, Array, Array]
"""Which stroke of the table, and the row and column where it starts or has its centre."""

Point = tuple[Array, Array]
Corners = Sequence[tuple[int, int]]


class Pen:
    """What a symbol's drawing asks of chance, for many symbols of one class at once."""

    def __init__(self, xp: Any, keys: Array, sizes: Array) -> None:
        self.xp, self.keys, self.size, self.last = xp, keys, sizes, sizes - 1
        self._drawn = 0

    def bits(self) -> Array:
        """Return 64 fresh random bits per symbol."""
        self._drawn += 1
        return child(self.keys, self._drawn)

    def two(self, low: Array | int, high: Array | int) -> Point:
        """Return two uniform whole numbers in [low, high]."""
        bits = self.bits()
        return below(bits, high - low + 1) + low, below_too(bits, high - low + 1) + low

    def one(self, low: Array | int, high: Array | int) -> Array:
        """Return a uniform whole number in [low, high]."""
        return below(self.bits(), high - low + 1) + low

    def inside(self, border: int) -> Point:
        """Return a point of two numbers in(border)."""
        return self.two(border, self.last - border)

    def heads(self) -> Array:
        """Return a fair coin."""
        return (self.bits() & 1) == 1

    def choose(self, mask: Array, yes: Point, no: Point) -> Point:
        """Return `yes` where the mask is true, else `no`."""
        return self.xp.choose(mask, yes[0], no[0]), self.xp.choose(mask, yes[1], no[1])

    def off_centre(self, radius: Array, angle: Array) -> Point:
        """Return the pixel at a distance and angle from the patch's centre (S/2, S/2)."""
        sine, cosine = _circle_points(self.xp)
        angle = angle % _TURN
        return self._near(self.size, radius, sine[angle]), self._near(self.size, radius, cosine[angle])

    def on_circle(self, centre: Point, radius: Array) -> Point:
        """Return a random pixel of a circle."""
        angle = self.one(0, _TURN - 1)
        sine, cosine = _circle_points(self.xp)
        return self._near(2 * centre[0], radius, sine[angle]), self._near(2 * centre[1], radius, cosine[angle])

    def _near(self, twice_centre: Array, radius: Array, share: Array) -> Array:
        # Whole numbers throughout: `share` is a sine in units of 2⁻³⁰; half a pixel is added before rounding down.
        return ((twice_centre << 29) + radius * share + (1 << 29)) >> 30


@functools.cache
def _circle_points(xp: Any) -> tuple[Array, Array]:
    """Return the sine and cosine of every angle in units of 2⁻³⁰."""
    angles = np.arange(_TURN) * (2 * np.pi / _TURN)
    return tuple(xp.array(np.rint(part(angles) * (1 << 30)).astype(np.int64)) for part in (np.sin, np.cos))


def strokes_of(xp: Any, symbol: int, keys: Array, sizes: Array) -> list[Stroke]:
    """Return the strokes, at most five, of symbols of one class: a key and a size each."""
    return _DRAWINGS[symbol](Pen(xp, keys, sizes))


def _between(start: Point, end: Point) -> Stroke:
    return strokes.line(end[0] - start[0], end[1] - start[1]), *start


def _dot(centre: Point) -> Stroke:
    return strokes.DOT + 0 * centre[0], *centre


def _edges(pen: Pen, border: int) -> tuple[Point, Point, Point, Point]:
    """Return a point in(border) of the top, bottom, left and right edge."""
    (top, bottom), (left, right) = pen.inside(border), pen.inside(border)
    return (0 * top, top), (pen.last, bottom), (left, 0 * left), (right, pen.last)


def _three_rays(pen: Pen, start: Point) -> list[Stroke]:
    """Return rays to three of four edges: each edge but one, drawn at random, at in(3)."""
    edges = _edges(pen, 3)
    missing = pen.one(0, 3)
    # Ray r goes to edge r, or to the next one from the missing edge on.
    return [_between(start, pen.choose(missing <= ray, edges[ray + 1], edges[ray])) for ray in range(3)]


def _inner_circle(pen: Pen) -> tuple[Point, Array]:
    """Return a circle with centre in(5): the largest that fits, less one per head until a tail, down to 4."""
    centre = pen.inside(5)
    radius = centre[0]
    for other in (centre[1], pen.last - centre[0], pen.last - centre[1]):
        radius = pen.xp.smaller(radius, other)
    coins = pen.bits()
    for toss in range(LARGEST // 2 - 5):  # the largest radius is 8
        in_a_row = (coins & ((2 << toss) - 1)) == (2 << toss) - 1
        radius = radius - pen.xp.cast(in_a_row & (radius > 4), pen.xp.int64)
    return centre, radius


def _ring(centre: Point, radius: Array) -> Stroke:
    return strokes.circle(radius), *centre


def _circle(pen: Pen) -> list[Stroke]:
    return [_ring(pen.inside(4), pen.one(4, (pen.size >> 1) - 1))]


def _line(pen: Pen) -> list[Stroke]:
    top, bottom, left, right = _edges(pen, 1)
    across = pen.heads()
    return [_between(pen.choose(across, left, top), pen.choose(across, right, bottom))]


def _cross(pen: Pen) -> list[Stroke]:
    top, bottom, left, right = _edges(pen, 3)
    return [_between(top, bottom), _between(left, right)]


def _angle(pen: Pen) -> list[Stroke]:
    middle = pen.inside(4)
    top, bottom, left, right = _edges(pen, 4)
    return [
        _between(middle, pen.choose(pen.heads(), top, bottom)),
        _between(middle, pen.choose(pen.heads(), left, right)),
    ]


def _three_star(pen: Pen) -> list[Stroke]:
    return _three_rays(pen, pen.inside(4))


def _phi(pen: Pen) -> list[Stroke]:
    """Return a circle and a bent line from above it, past its centre, to below it."""
    centre, radius, bend, ends = _struck_circle(pen)
    return [_ring(centre, radius), *(_between(bend, end) for end in ends)]


def _theta(pen: Pen) -> list[Stroke]:
    """Return phi with rows and columns exchanged."""
    centre, radius, bend, ends = _struck_circle(pen)
    return [_ring(centre[::-1], radius), *(_between(bend[::-1], end[::-1]) for end in ends)]


def _struck_circle(pen: Pen) -> tuple[Point, Array, Point, tuple[Point, Point]]:
    """Return phi's circle and its bent line: the bend within 1 of the centre, the ends up to 3 beyond the circle."""
    (y, x), radius = _inner_circle(pen)
    half = radius >> 1
    aside, reach, bend = pen.two(-half, half), pen.two(0, 3), pen.two(-1, 1)
    top = pen.xp.clip(y - radius - reach[0], 0, None)
    bottom = pen.xp.smaller(y + radius + reach[1], pen.last)
    return (y, x), radius, (y + bend[0], x + bend[1]), ((top, x + aside[0]), (bottom, x + aside[1]))


def _double_circle(pen: Pen) -> list[Stroke]:
    centre, radius = _inner_circle(pen)
    return [_ring(centre, radius), _ring(pen.on_circle(centre, radius), pen.one(3, radius))]


def _circle_3star(pen: Pen) -> list[Stroke]:
    (y, x), radius = _inner_circle(pen)
    dy, dx = pen.two(-2, 3)
    return [_ring((y, x), radius), *_three_rays(pen, (y + dy, x + dx))]


def _rectangle(edges: Corners) -> Callable[[Pen], list[Stroke]]:
    """Return the drawing of some edges between the corners 0 … 3 of a rectangle that is turned at random."""

    def draw(pen: Pen) -> list[Stroke]:
        radius = pen.one(pen.size // 4, pen.size // 3)
        turn, half = pen.one(0, _TURN - 1), pen.one(_TURN // 16, _TURN // 8)
        angles = (turn + half, turn - half, turn + half + _TURN // 2, turn - half + _TURN // 2)
        corners = [pen.off_centre(radius, angle) for angle in angles]
        return [_between(corners[start], corners[end]) for start, end in edges]

    return draw


def _dotted(*places: str) -> Callable[[Pen], list[Stroke]]:
    """Return the drawing of a diameter with dots at some of its start, middle and end."""

    def draw(pen: Pen) -> list[Stroke]:
        radius = pen.one(pen.size // 4, pen.size // 3)
        turn = pen.one(0, _TURN - 1)
        start, end = pen.off_centre(radius, turn), pen.off_centre(radius, turn + _TURN // 2)
        # Half of an odd sum is rounded to the even neighbour, as the release does.
        middle = tuple((one + other + (((one + other) >> 1) & 1)) >> 1 for one, other in zip(start, end, strict=True))
        points = {"start": start, "middle": middle, "end": end}
        return [_between(start, end), *(_dot(points[place]) for place in places)]

    return draw


def _triangle(pen: Pen) -> list[Stroke]:
    radius = pen.one(pen.size // 4, pen.size // 3)
    turn = pen.one(0, _TURN - 1)
    ahead, behind = pen.two(_TURN // 8, 3 * _TURN // 8)
    corners = [pen.off_centre(radius, angle) for angle in (turn, turn + ahead, turn - behind)]
    return [_between(corners[start], corners[end]) for start, end in ((0, 1), (1, 2), (2, 0))]


_DRAWINGS: tuple[Callable[[Pen], list[Stroke]], ...] = (
    _circle,
    _line,
    _cross,
    _angle,
    _three_star,
    _theta,
    _phi,
    _double_circle,
    _circle_3star,
    _rectangle(((0, 1), (1, 2), (2, 3), (3, 0))),
    _rectangle(((0, 1), (1, 2), (2, 3), (3, 0), (0, 2))),
    _dotted("start", "end"),
    _dotted("start"),
    _rectangle(((0, 1), (1, 3), (3, 2))),
    _rectangle(((0, 1), (1, 2), (2, 3), (3, 1))),
    _dotted("middle"),
    _rectangle(((0, 1), (1, 3), (3, 2), (2, 0))),
    _triangle,
)
