"""How amounts read: numbers, dollars, seconds, shares, differences and their intervals."""

from __future__ import annotations

from fractionate.analysis.sentence import level, percent, points, usd

__all__ = [
    "PER", "UNKNOWN", "count", "dollars", "dollars_between", "level", "p_value", "percent", "points", "points_between",
    "seconds", "shares_between",
]  # fmt: skip

UNKNOWN = "unknown"
PER = 1000
"""Questions that dollars are given for."""


def count(value: float) -> str:
    """Return a number of things with thousands set apart."""
    return f"{value:,}"


def dollars(value: float | None) -> str:
    """Return dollars, or "unknown"."""
    return UNKNOWN if value is None else usd(value)


def dollars_between(low: float | None, high: float | None) -> str:
    """Return an interval of dollars, or nothing where it is not known or has no width."""
    if low is None or high is None or usd(low) == usd(high):
        return ""
    return f"{usd(low)} to {usd(high)}"


def shares_between(low: float, high: float) -> str:
    """Return an interval of shares of 1 in percent, without the sign that its estimate carries."""
    return f"{low * 100:.1f} to {high * 100:.1f}"


def points_between(low: float, high: float) -> str:
    """Return an interval of differences in signed points of 100."""
    return f"{points(low)} to {points(high)}"


def seconds(value: float | None) -> str:
    """Return seconds with two decimals below ten, or a dash."""
    if value is None:
        return "–"
    return f"{value:.2f} s" if value < 10 else f"{value:,.0f} s"


def p_value(value: float) -> str:
    """Return a p-value with three decimals, or "< 0.001"."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
