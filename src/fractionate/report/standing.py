"""How systems stand beside each other, as a terminal shows it: the systems, every pair, who is tied, and notes."""

from __future__ import annotations

from collections.abc import Iterator

from fractionate.analysis.standing import Pair, Placed, Standing
from fractionate.analysis.statistics import Needed
from fractionate.report.amounts import (
    PER,
    UNKNOWN,
    count,
    dollars,
    dollars_between,
    level,
    p_value,
    percent,
    points,
    points_between,
    shares_between,
)
from fractionate.report.render import section_text
from fractionate.report.section import Column, Entry, Lines, Section, table_section


def standing_text(standing: Standing) -> str:
    """Return the whole comparison as plain text; its last line says who is better than whom."""
    sections = [_systems(standing), _pairs(standing), _conclusions(standing)]
    return "\n\n".join(section_text(section) for section in sections if section is not None)


def _systems(standing: Standing) -> Section | None:
    columns = (
        Column("system", "system", "head"),
        Column("value", f"outcome ({level(standing.confidence)})", "number"),
        Column("tokens", "tokens per question (read + written)", "number"),
        Column("usd", f"$ per {PER:,} questions", "number"),
        Column("left_out", "left out", "number"),
    )
    asked = f"{count(standing.n)} questions that all answered"
    if standing.clusters < standing.n:
        asked += f", in {count(standing.clusters)} group{'s' if standing.clusters > 1 else ''}"
    return table_section("systems", f"Systems over {asked}", columns, map(_system_row, standing.systems))


def _system_row(one: Placed) -> dict[str, Entry | str]:
    tokens = UNKNOWN
    if one.input_tokens is not None and one.output_tokens is not None:
        tokens = f"{one.input_tokens:,.0f} + {one.output_tokens:,.0f}"
    return {
        "system": one.name,
        "value": Entry(percent(one.value), shares_between(one.ci_low, one.ci_high)),
        "tokens": tokens,
        "usd": dollars(None if one.usd is None else one.usd * PER),
        "left_out": count(one.left_out),
    }


def _pairs(standing: Standing) -> Section | None:
    several = len(standing.pairs) > 1
    columns = [
        Column("pair", "a against b", "head"),
        Column("difference", f"a − b, points ({level(standing.confidence)})", "number"),
        Column("p", "p", "number"),
        *([Column("p_adjusted", "p, Holm", "number")] if several else []),
        Column("test", "test"),
        Column("usd", f"a − b, $ per {PER:,} questions", "number"),
        Column("needed", "questions to tell them apart", "number"),
    ]
    return table_section("pairs", "Pairs", columns, map(_pair_row, standing.pairs))


def _pair_row(pair: Pair) -> dict[str, Entry | str]:
    each = [None if one is None else one * PER for one in (pair.usd, pair.usd_low, pair.usd_high)]
    return {
        "pair": f"{pair.a} against {pair.b}",
        "difference": Entry(points(pair.difference), points_between(pair.ci_low, pair.ci_high)),
        "p": p_value(pair.p_value),
        "p_adjusted": p_value(pair.p_adjusted),
        "test": pair.test,
        "usd": Entry(dollars(each[0]), dollars_between(each[1], each[2])),
        "needed": "told apart" if pair.needed is None else _needed(pair.needed),
    }


def _needed(needed: Needed) -> str:
    low, likely, high = ("over 10⁹" if one is None else count(one) for one in (needed.low, needed.likely, needed.high))
    return f"{low} to {high}, middle {likely}"


def _conclusions(standing: Standing) -> Section:
    lines = [*_reading(standing), *standing.notes]
    lines += [
        f"{one.name}: {count(one.unscored)} answers have no outcome (errors, unscored) and are left out"
        for one in standing.systems
        if one.unscored
    ]
    return Section("conclusions", "What this shows", (Lines((*lines, *_shown(standing))),))


def _reading(standing: Standing) -> Iterator[str]:
    needed = next((pair.needed for pair in standing.pairs if pair.needed is not None), None)
    if needed:
        yield (
            "Questions to tell two systems apart: a range that holds what it takes 8 times in 10, at a power of "
            f"{level(needed.power)}; these data cannot say it more exactly."
        )
    unknown = [one.name for one in standing.systems if one.usd is None]
    if unknown:
        yield f"Dollars of {', '.join(unknown)} are unknown: the log has no usage, or no --price was given."


def _shown(standing: Standing) -> Iterator[str]:
    if standing.margin:
        yield from (_not_worse(pair, standing.margin) for pair in standing.pairs)
    for group in standing.ties:
        if len(group) > 1:
            yield f"Not told apart: {', '.join(group)}. That does not show that they are alike."
    for one in standing.systems:
        worse = [found for pair in standing.pairs if (found := _beaten_by(one.name, pair))]
        if worse:
            yield f"{one.name} is better than {', '.join(worse)}."


def _beaten_by(name: str, pair: Pair) -> str:
    """Return whom a system is shown to be better than, in a pair."""
    first, second = (pair.a, pair.b) if pair.difference > 0 else (pair.b, pair.a)
    return second if pair.different and first == name else ""


def _not_worse(pair: Pair, margin: float) -> str:
    """Return whether the one that did no better is shown to lose less than the margin by it."""
    first = pair.difference <= 0
    one, other = (pair.a, pair.b) if first else (pair.b, pair.a)
    shown, p = (pair.a_not_worse, pair.a_not_worse_p) if first else (pair.b_not_worse, pair.b_not_worse_p)
    verb = "is" if shown else "is not shown to be"
    text = p_value(p or 0.0)
    sign = "" if text.startswith("<") else "= "
    return f"{one} {verb} less than {margin * 100:g} points worse than {other} (one-sided p {sign}{text})."
