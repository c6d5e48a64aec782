"""A comparison of systems as a terminal shows it: the systems, every pair, which are tied, and notes."""

from __future__ import annotations

from collections.abc import Iterator

from fractionate.analysis.comparison import Comparison, Difference, PairResult, SystemResult
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
from fractionate.statistics import Needed


def comparison_text(comparison: Comparison) -> str:
    """Return the whole comparison as plain text; its last line says who is better than whom."""
    return "\n\n".join(map(section_text, comparison_sections(comparison)))


def comparison_sections(comparison: Comparison) -> list[Section]:
    """Return what there is to show: the systems, every pair, and what this shows."""
    sections = [_systems(comparison), _pairs(comparison), _conclusions(comparison)]
    return [section for section in sections if section is not None]


def _systems(comparison: Comparison) -> Section | None:
    columns = (
        Column("system", "system", "head"),
        Column("value", f"outcome ({level(comparison.confidence)})", "number"),
        *_parsing_columns(comparison),
        Column("tokens", "tokens per question (read + written)", "number"),
        Column("usd", f"$ per {PER:,} questions", "number"),
        Column("left_out", "left out", "number"),
    )
    asked = f"{count(comparison.n)} questions that all answered"
    if comparison.clusters < comparison.n:
        asked += f", in {count(comparison.clusters)} group{'s' if comparison.clusters > 1 else ''}"
    return table_section("systems", f"Systems over {asked}", columns, map(_system_row, comparison.systems))


def _parsing_columns(comparison: Comparison) -> list[Column]:
    """Return the columns of unparsed outputs and of the lenient reading, where any system has them."""
    known = {
        "unparsed": any(one.unparsed is not None for one in comparison.systems),
        "lenient": any(one.lenient is not None for one in comparison.systems),
    }
    titles = {"unparsed": "unparsed", "lenient": "outcome, lenient reading"}
    return [Column(name, titles[name], "number") for name, is_known in known.items() if is_known]


def _system_row(one: SystemResult) -> dict[str, Entry | str]:
    tokens = UNKNOWN
    if one.input_tokens is not None and one.output_tokens is not None:
        tokens = f"{one.input_tokens:,.0f} + {one.output_tokens:,.0f}"
    return {
        "system": one.name,
        "value": Entry(percent(one.value), shares_between(one.ci_low, one.ci_high)),
        "unparsed": UNKNOWN if one.unparsed is None else percent(one.unparsed),
        "lenient": UNKNOWN if one.lenient is None else percent(one.lenient),
        "tokens": tokens,
        "usd": dollars(None if one.usd is None else one.usd * PER),
        "left_out": count(one.left_out),
    }


def _pairs(comparison: Comparison) -> Section | None:
    if not comparison.pairs:
        return None
    several = len(comparison.pairs) > 1
    columns = [
        Column("pair", "a against b", "head"),
        Column("difference", f"a − b, pp ({level(comparison.confidence)})", "number"),
        Column("p", "p", "number"),
        *([Column("p_adjusted", "p, Holm", "number")] if several else []),
        Column("test", "test"),
        Column("usd", f"a − b, $ per {PER:,} questions", "number"),
        Column("needed", "questions to tell them apart", "number"),
    ]
    return table_section("pairs", "Pairs", columns, map(_pair_row, comparison.pairs))


def _pair_row(pair: PairResult) -> dict[str, Entry | str]:
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


def _conclusions(comparison: Comparison) -> Section:
    lines = [*_reading(comparison), *comparison.notes, *_parsing(comparison)]
    lines += [
        f"{one.name}: {count(one.unscored)} answers have no outcome (errors, unscored) and are left out"
        for one in comparison.systems
        if one.unscored
    ]
    return Section("conclusions", "What this shows", (Lines((*lines, *_shown(comparison))),))


def _reading(comparison: Comparison) -> Iterator[str]:
    needed = next((pair.needed for pair in comparison.pairs if pair.needed is not None), None)
    if needed:
        yield (
            "Questions to tell two systems apart: a range that holds what it takes 8 times in 10, at a power of "
            f"{level(needed.power)}; these data cannot say it more exactly."
        )
    unknown = [one.name for one in comparison.systems if one.usd is None]
    if unknown:
        yield f"Dollars of {', '.join(unknown)} are unknown: the log has no usage, or no --price was given."


def _parsing(comparison: Comparison) -> Iterator[str]:
    """Say of each pair with unparsed outputs what the difference is where both were parsed, and read leniently."""
    unparsed = {one.name: one.unparsed for one in comparison.systems}
    for pair in comparison.pairs:
        of_a, of_b = unparsed[pair.a], unparsed[pair.b]
        if not (of_a or of_b) or of_a is None or of_b is None:
            continue
        also = []
        if pair.parsed is not None:
            also.append(f"over the {count(pair.parsed.n)} questions parsed in both {_said(pair.parsed)}")
        if pair.lenient is not None:
            also.append(f"under the lenient reading {_said(pair.lenient)}")
        shares = f"{pair.a} has {percent(of_a)} unparsed outputs, {pair.b} {percent(of_b)}; they count as wrong"
        yield f"{shares}. The difference {' and '.join(also)}." if also else f"{shares}."
        if pair.format_may_explain:
            yield (
                f"The unparsed shares of {pair.a} and {pair.b} differ by {points(abs(of_a - of_b)).lstrip('+')} pp, "
                f"more than their outcomes ({points(abs(pair.difference)).lstrip('+')} pp): format may explain the "
                "difference."
            )


def _said(found: Difference) -> str:
    return f"is {points(found.difference)} pp ({points_between(found.ci_low, found.ci_high)})"


def _shown(comparison: Comparison) -> Iterator[str]:
    if comparison.misfits:
        yield from (f"{misfit}." for misfit in comparison.misfits)
        yield "So nothing is compared."
        return
    if comparison.margin:
        yield from (_not_worse(pair, comparison.margin) for pair in comparison.pairs)
    for group in comparison.ties:
        if len(group) > 1:
            yield f"Not told apart: {', '.join(group)}. That does not show that they are alike."
    for one in comparison.systems:
        worse = [found for pair in comparison.pairs if (found := _beaten_by(one.name, pair))]
        if worse:
            yield f"{one.name} is better than {', '.join(worse)}."


def _beaten_by(name: str, pair: PairResult) -> str:
    """Return the system of a pair that this one is shown to be better than, "" where it is not."""
    first, second = (pair.a, pair.b) if pair.difference > 0 else (pair.b, pair.a)
    return second if pair.different and first == name else ""


def _not_worse(pair: PairResult, margin: float) -> str:
    """Return whether the system with the lower outcome is shown to be less than the margin below the other."""
    first = pair.difference <= 0
    one, other = (pair.a, pair.b) if first else (pair.b, pair.a)
    shown, p = (pair.a_not_worse, pair.a_not_worse_p) if first else (pair.b_not_worse, pair.b_not_worse_p)
    verb = "is" if shown else "is not shown to be"
    text = p_value(p or 0.0)
    sign = "" if text.startswith("<") else "= "
    return f"{one} {verb} less than {margin:g} percentage points worse than {other} (one-sided p {sign}{text})."
