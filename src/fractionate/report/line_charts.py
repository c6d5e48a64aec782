"""Break-even and learning curves as SVG: a line, the band of its interval, and the points that were measured.

The report sets them inline, in the colours of its page; `standalone` makes a file of its own of them, for
`fractionate plan curve --plot` and `fractionate plan break-even --plot`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from markupsafe import Markup

from fractionate.report.amounts import count, dollars
from fractionate.report.charts import MARGIN_BOTTOM, MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, Scale, ticks
from fractionate.report.run_cost import saved_after

Record = Mapping[str, Any]

WIDTH, HEIGHT = 860, 300
"""The size in pixels of a drawing for a wide page."""
_DOLLARS_LEFT = 84
"""Width left of the axis for amounts in dollars."""
_BEYOND = 2.5
"""The break-even drawing ends at this multiple of the questions after which the bill is paid back."""
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#444}.grid{stroke:#e3e3e3}.limit{stroke:#8a8a8a}"
    "path{fill:none;stroke:#1f5fa8;stroke-width:2}.band{fill:#1f5fa8;fill-opacity:.13;stroke:none}circle{fill:#c4590a}"
)


def curve_chart(curve: Record, width: int, height: int, key: str) -> Markup:
    """Return the drawing of one fitted learning curve of results.json. `key` makes ids unique on the page."""
    points, line = curve["points"], curve["line"]
    right, bottom = width - MARGIN_RIGHT, height - MARGIN_BOTTOM
    x = Scale(line[0]["amount"] / 1.15, line[-1]["amount"] * 1.15, MARGIN_LEFT, right, log=True)
    shown = [*(one["low"] for one in line), *(one["high"] for one in line), *(one["value"] for one in points)]
    padding = max((max(shown) - min(shown)) * 0.06, 0.01)
    y = Scale(max(0.0, min(shown) - padding), min(1.0, max(shown) + padding), bottom, MARGIN_TOP)
    last = x.at(points[-1]["amount"])
    measured = "; ".join(f"{one['amount']:,.0f}: {one['value']:.1%}" for one in points)

    def through(field: str) -> list[str]:
        return [f"{x.at(one['amount']):.1f},{y.at(one[field]):.1f}" for one in line]

    return _chart(
        (width, height, key),
        f"Outcome by {curve['over']}",
        f"Measured: {measured}. The band holds one more training.",
        [
            *_levels(y, MARGIN_LEFT, right, "{:.0%}".format),
            *_amounts(sorted({one["amount"] for one in (*points, *curve["beyond"])}), x, bottom),
            _axis_title(curve["over"], (MARGIN_LEFT + right) / 2, height),
            f'<line class="limit" x1="{last:.1f}" x2="{last:.1f}" y1="{MARGIN_TOP}" y2="{bottom}"/>',
            f'<path class="band" d="M{"L".join([*through("low"), *through("high")[::-1]])}Z"/>',
            f'<path d="M{"L".join(through("outcome"))}"/>',
            *(f'<circle cx="{x.at(one["amount"]):.1f}" cy="{y.at(one["value"]):.1f}" r="4.5"/>' for one in points),
        ],
    )


def break_even_chart(pair: Record, usd: float, width: int, height: int, key: str) -> Markup:
    """Return the drawing of a pair of `break_even` that pays back: dollars saved, less the bill, by questions answered.

    The line begins at minus the bill (`usd`, dollars); the band is the interval of the saving.
    """
    paid = pair["questions"]
    end = saved_after(pair, usd, max(2.0, paid * _BEYOND))
    right, bottom = width - MARGIN_RIGHT, height - MARGIN_BOTTOM
    x = Scale(0, end["questions"], _DOLLARS_LEFT, right)
    bounds = [value for value in (end["usd"], end["low"], end["high"]) if value is not None]
    # A wide interval must not press the line flat, so the drawing is clipped at twice the line's height.
    low = max(min(-usd, *bounds), -3 * usd)
    high = min(max(usd * 0.1, *bounds), 2 * max(end["usd"], usd))
    y = Scale(low, high, bottom, MARGIN_TOP)
    start, far = f"{x.at(0):.1f},{y.at(-usd):.1f}", x.at(end["questions"])
    band = ""
    if end["low"] is not None and end["high"] is not None:
        edge = f"{far:.1f},{y.at(end['low']):.1f}L{far:.1f},{y.at(end['high']):.1f}"
        band = f'<path class="band" d="M{start}L{edge}Z"/>'
    return _chart(
        (width, height, key),
        "Dollars saved by questions answered",
        f"The bill of {dollars(usd)} is paid back after {count(paid)} questions.",
        [
            f'<clipPath id="{key}-clip"><rect x="{_DOLLARS_LEFT}" y="{MARGIN_TOP}" width="{right - _DOLLARS_LEFT}" '
            f'height="{bottom - MARGIN_TOP}"/></clipPath>',
            *_levels(y, _DOLLARS_LEFT, right, dollars),
            *(
                f'<text class="tick" x="{x.at(value):.1f}" y="{bottom + 18}" text-anchor="middle">{value:,.0f}</text>'
                for value in ticks(x.low, x.high)
                if value >= 0
            ),
            _axis_title("questions answered", (_DOLLARS_LEFT + right) / 2, height),
            f'<line class="limit" x1="{_DOLLARS_LEFT}" x2="{right}" y1="{y.at(0):.1f}" y2="{y.at(0):.1f}"/>',
            f'<g clip-path="url(#{key}-clip)">{band}<path d="M{start}L{far:.1f},{y.at(end["usd"]):.1f}"/></g>',
            f'<circle cx="{x.at(paid):.1f}" cy="{y.at(0):.1f}" r="4.5"/>',
        ],
    )


def standalone(charts: Sequence[tuple[str, Markup]]) -> str:
    """Return an SVG file of titled charts of WIDTH × HEIGHT pixels, one under the other."""
    each = HEIGHT + 28
    parts = []
    for number, (title, chart) in enumerate(charts):
        parts.append(f'<text x="{WIDTH / 2}" y="{number * each + 18}" text-anchor="middle">{escape(title)}</text>')
        parts.append(
            chart.replace("<svg ", f'<svg x="0" y="{number * each + 24}" width="{WIDTH}" height="{HEIGHT}" ', 1)
        )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{len(charts) * each}" '
        f'viewBox="0 0 {WIDTH} {len(charts) * each}"><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _chart(place: tuple[int, int, str], title: str, description: str, parts: Iterable[str]) -> Markup:
    width, height, key = place
    return Markup(
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{key}-title {key}-desc" class="curve">'
        f'<title id="{key}-title">{escape(title)}</title><desc id="{key}-desc">{escape(description)}</desc>'
        f"{''.join(parts)}</svg>"
    )


def _axis_title(text: str, middle: float, height: int) -> str:
    return f'<text class="tick" x="{middle:.0f}" y="{height - 8}" text-anchor="middle">{escape(text)}</text>'


def _levels(y: Scale, left: int, right: float, text: Any) -> list[str]:
    """Return the horizontal grid lines with their values, written by `text`."""
    parts = []
    for value in ticks(y.low, y.high):
        at = y.at(value)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{text(value)}</text>')
    return parts


def _amounts(amounts: Sequence[float], x: Scale, bottom: float) -> list[str]:
    """Return the amounts under the axis. An amount that would overlap its neighbour is left out."""
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
