"""A learning curve as inline SVG: what was measured, what more would bring, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from markupsafe import Markup

from fractionate.report.charts import MARGIN_BOTTOM, MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, Scale, ticks

Record = Mapping[str, Any]


def curve_chart(curve: Record, width: int, height: int, key: str) -> Markup:
    """Return the drawing of one fitted curve of results.json. `key` makes ids unique on the page."""
    points, line = curve["points"], curve["line"]
    right, bottom = width - MARGIN_RIGHT, height - MARGIN_BOTTOM
    x = Scale(line[0]["amount"] / 1.15, line[-1]["amount"] * 1.15, MARGIN_LEFT, right, log=True)
    held = [*(one["low"] for one in line), *(one["high"] for one in line), *(one["value"] for one in points)]
    room = max((max(held) - min(held)) * 0.06, 0.01)
    y = Scale(max(0.0, min(held) - room), min(1.0, max(held) + room), bottom, MARGIN_TOP)
    last = x.at(points[-1]["amount"])
    told = "; ".join(f"{one['amount']:,.0f}: {one['value']:.1%}" for one in points)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{key}-title {key}-desc" class="curve">',
        f'<title id="{key}-title">Outcome by {escape(curve["over"])}</title>',
        f'<desc id="{key}-desc">Measured: {told}. The band holds one more training.</desc>',
        *_levels(y, right),
        *_amounts(sorted({one["amount"] for one in (*points, *curve["beyond"])}), x, bottom),
        f'<text class="tick" x="{(MARGIN_LEFT + right) / 2:.0f}" y="{height - 8}" text-anchor="middle">'
        f"{escape(curve['over'])}</text>",
        f'<line class="limit" x1="{last:.1f}" x2="{last:.1f}" y1="{MARGIN_TOP}" y2="{bottom}"/>',
        f'<path class="band" d="{_path([*_places(line, "low", x, y), *_places(line, "high", x, y)[::-1]])}Z"/>',
        f'<path d="{_path(_places(line, "outcome", x, y))}"/>',
        *(f'<circle cx="{x.at(one["amount"]):.1f}" cy="{y.at(one["value"]):.1f}" r="4.5"/>' for one in points),
        "</svg>",
    ]
    return Markup("".join(parts))


def _places(line: Sequence[Record], key: str, x: Scale, y: Scale) -> list[tuple[float, float]]:
    return [(x.at(one["amount"]), y.at(one[key])) for one in line]


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{across:.1f},{down:.1f}" for across, down in places)


def _levels(y: Scale, right: float) -> list[str]:
    parts = []
    for value in ticks(y.low, y.high):
        at = y.at(value)
        parts.append(f'<line class="grid" x1="{MARGIN_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{MARGIN_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{value:.0%}</text>')
    return parts


def _amounts(amounts: Sequence[float], x: Scale, bottom: float) -> list[str]:
    """Return the amounts under the axis, those left out that would stand on their neighbour."""
    parts: list[str] = []
    free = 0.0
    for amount in amounts:
        at, text = x.at(amount), _short(amount)
        half = 4 * len(text)
        if at - half >= free:
            parts.append(f'<text class="tick" x="{at:.1f}" y="{bottom + 18:.0f}" text-anchor="middle">{text}</text>')
            free = at + half + 4
    return parts


def _short(amount: float) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6)):
        if amount >= size:
            return f"{amount / size:.3g}{unit}"
    return f"{amount:,.0f}"
