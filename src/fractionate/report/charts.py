"""The report's drawings as inline SVG: outcome against cost, and differences on a shared scale.

Everything that comes from data is escaped here: what these functions return goes into the page as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

from markupsafe import Markup

MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 52, 22, 16, 48
_LOG_RATIO = 3
"""A cost axis is logarithmic from this ratio of largest to smallest on, if nothing costs zero."""
_NOTHING = 1e-9
"""Costs up to this count as zero when an axis is chosen."""
_SHAPES = {
    "single": "circle",
    "single-cot": "square",
    "self-consistency": "hexagon",
    "static": "diamond",
    "stepwise": "triangle",
    "dynamic": "cross",
}


@dataclass(frozen=True, slots=True)
class Point:
    """One cell of a scatter: `x` a cost ≥ 0, `y` with its interval in [0, 1], and how it is told apart."""

    number: int
    label: str
    x: float
    y: float
    low: float
    high: float
    kind: str
    """Whose decompositions: "none", "reference" (teacher or gold) or "student" (colour)."""
    strategy: str
    """The strategy (shape)."""
    hollow: bool
    """Whether a student solves (hollow marks)."""
    recommended: bool = False
    """Whether the verdict recommends it (a ring and the word)."""


class Scale(NamedTuple):
    """Where values lie on a drawing: `low` at `start` and `high` at `end`, evenly or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the place of a value."""
        if self.log:
            share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def scatter(points: Sequence[Point], x_title: str, money: bool, width: int, height: int, key: str) -> Markup:
    """Return an SVG of outcome (up) against cost (right) with intervals and the line of what nothing else beats.

    `key` makes ids unique on the page. Marks carry the numbers of the table's rows, so colour and shape are never the
    only cue. Raises ValueError without points.
    """
    x, y = _x_scale([point.x for point in points], width), _y_scale(points, height)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{key}-title {key}-desc" class="scatter">',
        f'<title id="{key}-title">Outcome against cost</title>',
        f'<desc id="{key}-desc">{escape(_described(points, x_title, money))}</desc>',
        *_grid(x, y, width, height, x_title, money),
        _frontier(points, x, y),
        *(_whisker(point, x, y) for point in points),
        *(_ring(point, x, y, width) for point in points if point.recommended),
        *(_mark(point, x, y) for point in points),
        *_numbers(points, x, y, width, height),
        "</svg>",
    ]
    return Markup("".join(parts))


def _x_scale(costs: Sequence[float], width: int) -> Scale:
    start, end = MARGIN_LEFT, width - MARGIN_RIGHT
    least, most = min(costs), max(costs)
    if least > _NOTHING and most / least >= _LOG_RATIO:
        return Scale(least / 1.4, most * 1.4, start, end, log=True)
    reach = most if most > _NOTHING else 1.0
    return Scale(-reach * 0.03, reach * 1.08, start, end)


def _y_scale(points: Sequence[Point], height: int) -> Scale:
    low, high = min(point.low for point in points), max(point.high for point in points)
    room = max((high - low) * 0.06, 0.01)
    return Scale(max(0.0, low - room), min(1.0, high + room), height - MARGIN_BOTTOM, MARGIN_TOP)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers within [low, high], about `wanted` of them, at steps of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.75)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) + 0.0 for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(scale: Scale) -> list[float]:
    decades = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
    every = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
    inside = [value for value in every if scale.low <= value <= scale.high]
    return inside if len(inside) <= 7 else [value for value in inside if f"{value:e}".startswith("1")]


def _grid(x: Scale, y: Scale, width: int, height: int, x_title: str, money: bool) -> list[str]:
    right, bottom = width - MARGIN_RIGHT, height - MARGIN_BOTTOM
    parts = []
    for value in ticks(y.low, y.high):
        at = y.at(value)
        parts.append(f'<line class="grid" x1="{MARGIN_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{MARGIN_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{value:.0%}</text>')
    wanted = 3 if width < 500 else 6
    for value in _log_ticks(x) if x.log else ticks(max(x.low, 0.0), x.high, wanted):
        at = x.at(value)
        text = _amount(value, money)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{MARGIN_TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>')
    parts.append(
        f'<text class="axis" x="{right}" y="{height - 8}" text-anchor="end">{escape(x_title)}'
        f"{', logarithmic' if x.log else ''} →</text>"
    )
    return parts


def _amount(value: float, money: bool) -> str:
    text = f"{value:,.0f}" if value >= 100 else f"{value:.6f}".rstrip("0").rstrip(".")
    return f"${text}" if money else text


def _frontier(points: Sequence[Point], x: Scale, y: Scale) -> str:
    """Return the stepped line through the cells that no other cell beats in both outcome and cost."""
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (one.x, -one.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    if len(best) < 2:
        return ""
    steps = [f"M{x.at(best[0].x):.1f} {y.at(best[0].y):.1f}"]
    steps += [f"H{x.at(point.x):.1f}V{y.at(point.y):.1f}" for point in best[1:]]
    return f'<path class="frontier" d="{"".join(steps)}"/>'


def _whisker(point: Point, x: Scale, y: Scale) -> str:
    at = x.at(point.x)
    return (
        f'<line class="whisker {point.kind}" x1="{at:.1f}" x2="{at:.1f}" '
        f'y1="{y.at(point.low):.1f}" y2="{y.at(point.high):.1f}"/>'
    )


def _mark(point: Point, x: Scale, y: Scale) -> str:
    drawn = shape(point.strategy, x.at(point.x), y.at(point.y))
    filled = "hollow" if point.hollow else "solid"
    return f'<g class="mark {point.kind} {filled}"><title>{escape(point.label)}</title>{drawn}</g>'


def _ring(point: Point, x: Scale, y: Scale, width: int) -> str:
    """Return the ring around the recommended mark, with the word on the side where there is room for it."""
    at_x, at_y = x.at(point.x), y.at(point.y)
    end = at_x > width / 2
    return (
        f'<g class="recommended"><circle class="ring" cx="{at_x:.1f}" cy="{at_y:.1f}" r="13"/>'
        f'<text x="{at_x + (-18 if end else 18):.1f}" y="{at_y + 24:.1f}" text-anchor="{"end" if end else "start"}" '
        f'aria-hidden="true">recommended</text></g>'
    )


def shape(strategy: str, x: float, y: float, r: float = 6.0) -> str:
    """Return the SVG of a strategy's mark centred at (x, y)."""
    form = _SHAPES.get(strategy, "circle")
    if form == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r * 0.9:.1f}"/>'
    if form == "square":
        side = r * 0.82
        return f'<rect x="{x - side:.1f}" y="{y - side:.1f}" width="{2 * side:.1f}" height="{2 * side:.1f}"/>'
    corners = {
        "diamond": [(0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)],
        "hexagon": [(-1.1, 0), (-.55, -.95), (.55, -.95), (1.1, 0), (.55, .95), (-.55, .95)],
        "triangle": [(0, -1.15), (1.1, 0.85), (-1.1, 0.85)],
        "cross": [(-.4, -1.1), (.4, -1.1), (.4, -.4), (1.1, -.4), (1.1, .4), (.4, .4), (.4, 1.1), (-.4, 1.1),
                  (-.4, .4), (-1.1, .4), (-1.1, -.4), (-.4, -.4)],
    }[form]  # fmt: skip
    at = " ".join(f"{x + r * dx:.1f},{y + r * dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{at}"/>'


def legend_mark(strategy: str = "single", kind: str = "plain", *, hollow: bool = False) -> Markup:
    """Return a legend's mark: the shape of a strategy, in the colour of whose decompositions ("plain" for none)."""
    filled = "hollow" if hollow else "solid"
    return Markup(
        f'<svg viewBox="0 0 18 18" aria-hidden="true"><g class="mark {kind} {filled}">{shape(strategy, 9, 9)}</g></svg>'
    )


def bar(low: float, value: float, high: float) -> Markup:
    """Return a bar from 0 to 1 with an interval and its estimate; the text beside it says the same."""
    return Markup(
        f'<span class="bar" aria-hidden="true"><i style="left:{low * 100:.2f}%;width:{(high - low) * 100:.2f}%"></i>'
        f'<b style="left:{value * 100:.2f}%"></b></span>'
    )


def _numbers(points: Sequence[Point], x: Scale, y: Scale, width: int, height: int) -> Iterable[str]:
    """Yield each mark's number where it hides least: eight places around the mark, the first free one wins."""
    marks = [(x.at(point.x), y.at(point.y)) for point in points]
    taken: list[tuple[float, float]] = []
    around = [(13, -7), (13, 13), (-13, -7), (-13, 13), (15, 4), (-15, 4), (24, -10), (-24, -10), (24, 16), (-24, 16)]
    for point, (at_x, at_y) in zip(points, marks, strict=True):

        def clutter(place: tuple[float, float], at_x: float = at_x, at_y: float = at_y) -> float:
            cx, cy = at_x + place[0], at_y + place[1] - 4
            outside = not (MARGIN_LEFT < cx < width - 8 and MARGIN_TOP < cy < height - MARGIN_BOTTOM)
            others = [mark for mark in marks if mark != (at_x, at_y)] + taken
            near = sum(max(0.0, 1 - math.hypot((cx - ox) / 18, (cy - oy) / 14)) for ox, oy in others)
            return near + 10 * outside

        dx, dy = min(around, key=clutter)
        taken.append((at_x + dx, at_y + dy - 4))
        yield (
            f'<text class="number" x="{at_x + dx:.1f}" y="{at_y + dy:.1f}" text-anchor="middle" '
            f'aria-hidden="true">{point.number}</text>'
        )


def _described(points: Sequence[Point], x_title: str, money: bool) -> str:
    each = "; ".join(
        f"{point.number}{' (recommended)' if point.recommended else ''}: {point.y:.1%} at {_amount(point.x, money)}"
        for point in points
    )
    return f"One mark per cell, value upwards, {x_title} to the right. {each}."


class Forest:
    """Differences with intervals on one shared scale, one small SVG per row; the page stretches them to its width."""

    def __init__(self, bounds: Iterable[float], always: Iterable[float] = (0.0,)) -> None:
        held = [*bounds, *always]
        low, high = min(held), max(held)
        room = max((high - low) * 0.05, 1e-9)
        self.low, self.high = low - room, high + room

    def share(self, value: float) -> float:
        """Return where a value lies on the scale, 0 (left) to 100 (right)."""
        return (value - self.low) / (self.high - self.low) * 100

    def row(self, value: float, low: float, high: float, label: str, margin: float | None = None) -> Markup:
        """Return one row: the interval, the estimate, the line of no difference and the zone within the margin."""
        zone = ""
        if margin is not None:
            left, zero = self.share(-margin), self.share(0.0)
            zone = f'<rect class="zone" x="{left:.2f}" width="{zero - left:.2f}" y="0" height="24"/>'
        return Markup(
            f'<svg class="forest" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" '
            f'aria-label="{escape(label)}">{zone}'
            f'<line class="zero" x1="{self.share(0.0):.2f}" x2="{self.share(0.0):.2f}" y1="0" y2="24"/>'
            f'<line class="reach" x1="{self.share(low):.2f}" x2="{self.share(high):.2f}" y1="12" y2="12"/>'
            f'<line class="estimate" x1="{self.share(value):.2f}" x2="{self.share(value):.2f}" y1="6" y2="18"/></svg>'
        )

    def axis(self, unit: float = 100.0) -> tuple[tuple[float, str], ...]:
        """Return (position in percent, text) of a few round values, in points of `unit`."""
        found = ticks(self.low * unit, self.high * unit, 4)
        return tuple((self.share(value / unit), f"{value:+g}".replace("-", "−").replace("+0", "0")) for value in found)
