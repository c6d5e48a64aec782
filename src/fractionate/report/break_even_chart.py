"""Break-even as inline SVG: what a pair has saved, less the bill, by the questions answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from markupsafe import Markup

from fractionate.report.amounts import count, dollars
from fractionate.report.charts import MARGIN_BOTTOM, MARGIN_RIGHT, MARGIN_TOP, Scale, ticks
from fractionate.report.payback import saved_after

Record = Mapping[str, Any]
_LEFT = 84
"""Room for dollars beside the axis."""
_BEYOND = 2.5
"""How far the drawing goes, in multiples of the questions after which the bill is paid back."""


def break_even_chart(pair: Record, usd: float, width: int, height: int, key: str) -> Markup:
    """Return the drawing of a pair of `break_even` that pays back. `key` makes ids unique on the page.

    Every line begins at minus the bill (`usd`, dollars); the band is the saving's interval.
    """
    paid = pair["questions"]
    end = saved_after(pair, usd, max(2.0, paid * _BEYOND))
    right, bottom = width - MARGIN_RIGHT, height - MARGIN_BOTTOM
    x = Scale(0, end["questions"], _LEFT, right)
    bounds = [value for value in (end["usd"], end["low"], end["high"]) if value is not None]
    # A wide interval must not press the line flat: it is cut off at twice the height that the line has.
    low = max(min(-usd, *bounds), -3 * usd)
    high = min(max(usd * 0.1, *bounds), 2 * max(end["usd"], usd))
    y = Scale(low, high, bottom, MARGIN_TOP)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{key}-title {key}-desc" class="curve">',
        f'<title id="{key}-title">Dollars saved by questions answered</title>',
        f'<desc id="{key}-desc">{escape(_told(pair, usd))}</desc>',
        f'<clipPath id="{key}-clip"><rect x="{_LEFT}" y="{MARGIN_TOP}" width="{right - _LEFT}" '
        f'height="{bottom - MARGIN_TOP}"/></clipPath>',
        *_dollars(y, right),
        *_questions(x, bottom, (_LEFT + right) / 2, height),
        f'<line class="limit" x1="{_LEFT}" x2="{right}" y1="{y.at(0):.1f}" y2="{y.at(0):.1f}"/>',
        f'<g clip-path="url(#{key}-clip)">',
        *_band(x, y, usd, end),
        f'<path d="M{x.at(0):.1f},{y.at(-usd):.1f}L{x.at(end["questions"]):.1f},{y.at(end["usd"]):.1f}"/></g>',
        f'<circle cx="{x.at(paid):.1f}" cy="{y.at(0):.1f}" r="4.5"/>',
        "</svg>",
    ]
    return Markup("".join(parts))


def _band(x: Scale, y: Scale, usd: float, end: Record) -> Sequence[str]:
    if end["low"] is None or end["high"] is None:
        return ()
    start, far = f"{x.at(0):.1f},{y.at(-usd):.1f}", x.at(end["questions"])
    return (f'<path class="band" d="M{start}L{far:.1f},{y.at(end["low"]):.1f}L{far:.1f},{y.at(end["high"]):.1f}Z"/>',)


def _told(pair: Record, usd: float) -> str:
    return f"The bill of {dollars(usd)} is paid back after {count(pair['questions'])} questions."


def _dollars(y: Scale, right: float) -> list[str]:
    parts = []
    for value in ticks(y.low, y.high):
        at = y.at(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{dollars(value)}</text>')
    return parts


def _questions(x: Scale, bottom: float, middle: float, height: int) -> list[str]:
    places = [value for value in ticks(x.low, x.high) if value >= 0]
    parts = [
        f'<text class="tick" x="{x.at(value):.1f}" y="{bottom + 18:.0f}" text-anchor="middle">{value:,.0f}</text>'
        for value in places
    ]
    return [
        *parts,
        f'<text class="tick" x="{middle:.0f}" y="{height - 8}" text-anchor="middle">questions answered</text>',
    ]
