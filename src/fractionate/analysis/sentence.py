"""The verdict in words: one sentence with its intervals, for a person who will spend money on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fractionate.analysis.contrasts import Contrast
from fractionate.analysis.findings import Benefit, Distill, Finding, Judgement, cheapest, part_answer
from fractionate.analysis.short_names import short_pair_names

_OPENING = {
    "decomposer": "Distill the decomposer",
    "solver": "Distill the solver",
    "both": "Distill both parts",
    "neither": "Distill neither part",
    "undecided": "Undecided",
}
HEADLINES = {**_OPENING, "undecided": "Undecided, so far"}


def because(judged: Sequence[Judgement], overall: Distill) -> str:
    """Return the sentence that answers which part to distill and why."""
    if not judged:
        return "Undecided: nothing was measured."
    if len(judged) == 1:
        return f"{_OPENING[overall]}{_scale(judged[0])}: {_reasons(judged[0])}."
    each = "; ".join(f"on {one.dataset}{_scale(one)}, {_reasons(one)}" for one in judged)
    if len({one.distill for one in judged}) == 1:
        return f"{_OPENING[overall]}, as all {len(judged)} test sets say: {each}."
    split = ", ".join(f"{one.distill} on {one.dataset}" for one in judged)
    return f"Undecided, because the test sets disagree ({split}): {each}."


def _scale(judgement: Judgement) -> str:
    """Return what all findings of a test set share: the questions and the margin."""
    if not judgement.findings:
        return ""
    fewest = min(finding.contrast.n for finding in judgement.findings)
    return f" ({_questions(fewest)}, margin {judgement.findings[0].margin * 100:g} points)"


def _questions(n: int) -> str:
    return f"{n:,} question" + ("" if n == 1 else "s")


def _reasons(judgement: Judgement) -> str:
    clauses = [judgement.obstacle] if judgement.obstacle else _part_clauses(judgement)
    if judgement.benefit is not None:
        clauses.append(_benefit(judgement.benefit))
    return "; ".join(clauses)


def _part_clauses(judgement: Judgement) -> list[str]:
    names = short_pair_names(
        (finding.decomposer for finding in judgement.findings), (finding.solver for finding in judgement.findings)
    )
    by_part = {
        part: [one for one in judgement.findings if one.part == part] for part in ("decomposer", "solver", "pair")
    }
    clauses = []
    if judgement.distill == "both" and judgement.chosen is not None:
        clauses.append(_finding(judgement.chosen, by_part["pair"], names))
    order = ["solver", "decomposer"] if judgement.distill == "solver" else ["decomposer", "solver"]
    clauses += [_part(part, by_part[part], names, judgement.unpriced) for part in order]
    if judgement.pair_failed:
        clauses.append(_failed_pair(by_part["pair"], names))
    return clauses


def _part(part: str, findings: Sequence[Finding], names: dict[str, str], unpriced: Sequence[str]) -> str:
    answer = part_answer(findings)
    if answer == "unknown":
        return f"no student {part} was measured"
    nearest = cheapest(findings) or max(findings, key=lambda one: (one.worth == "undecided", one.contrast.difference))
    measured = _finding(nearest, findings, names)
    if answer == "yes":
        return f"{measured}, so the {part} is worth distilling"
    if answer == "no":
        return f"{measured}, so the {part} is not worth distilling"
    return f"{measured}, so the {part} stays open{_what_decides(nearest, unpriced)}"


def _what_decides(finding: Finding, unpriced: Sequence[str]) -> str:
    if finding.cheaper == "unknown":
        named = ", ".join(f'"{model}"' for model in unpriced)
        return f" (give prices for {named})" if named else ""
    if finding.n_to_decide is None:
        return " and, this near the threshold, no number of questions would decide it"
    return f" until about {_questions(finding.n_to_decide)} decide it (80 % power if this difference holds)"


def _failed_pair(pairs: Sequence[Finding], names: dict[str, str]) -> str:
    if not pairs:
        return "both students together were not measured, so only the part that saves more is named"
    nearest = max(pairs, key=lambda one: (one.worth != "no", one.contrast.difference))
    return f"{_finding(nearest, pairs, names)}, which does not pass, so only the part that saves more is named"


def _finding(finding: Finding, among: Sequence[Finding], names: dict[str, str]) -> str:
    return f"{_who(finding, len(among), names)} {_outcome(finding)} {_cost(finding)}"


def _who(finding: Finding, of: int, names: dict[str, str]) -> str:
    chosen = f", of {of} candidates," if of > 1 else ""
    if finding.part == "decomposer":
        return f"{names[finding.decomposer]}{chosen} in the teacher's place"
    if finding.part == "solver":
        return f"{names[finding.solver]}{chosen} in the solver's place"
    return f"{names[finding.decomposer]} with {names[finding.solver]}{chosen}"


def _outcome(finding: Finding) -> str:
    found = finding.contrast
    return f"scores {percent(found.value)} against {percent(found.reference_value)} ({_difference(found)})"


def _difference(found: Contrast) -> str:
    return (
        f"difference {points(found.difference)} points, {level(found.confidence)} interval {points(found.ci_low)} to "
        f"{points(found.ci_high)}"
    )


def _cost(finding: Finding) -> str:
    difference, low, high = finding.cost.difference, finding.cost.ci_low, finding.cost.ci_high
    if difference is None:
        return "at an unknown cost"
    if difference == 0 and low == high == 0:
        return "and costs the same"
    more = "more" if difference > 0 else "less"
    said = f"and costs {usd(abs(difference) * 1000)} {more} per 1,000 questions"
    if low is None or high is None:
        return said
    if low * high < 0:
        return f"{said} (interval of the difference {usd(low * 1000)} to {usd(high * 1000)})"
    least, most = (usd(bound * 1000) for bound in sorted((abs(low), abs(high))))
    return f"{said} ({least} to {most})" if least != most else said


def _benefit(benefit: Benefit) -> str:
    found = benefit.contrast
    baseline = "single stage" + (" with chain of thought" if benefit.baseline == "single-cot" else "")
    measured = f"{percent(found.value)} against {percent(found.reference_value)} in {baseline}, {_difference(found)}"
    if benefit.helps == "yes":
        return f"decomposing itself helps here ({measured})"
    if benefit.helps == "no":
        return f"decomposing itself does not help here, it hurts ({measured})"
    return f"decomposing itself does not help here as far as {_questions(found.n)} can show ({measured})"


def percent(share: float) -> str:
    """Return a share of 1 as a percentage with one decimal."""
    return f"{share * 100:.1f} %"


def level(confidence: float) -> str:
    """Return a confidence as a percentage with as many decimals, up to two, as it has."""
    return f"{confidence * 100:.2f}".rstrip("0").rstrip(".") + " %"


def points(difference: float) -> str:
    """Return a difference of shares in signed points of 100, with a true minus sign."""
    text = f"{difference * 100:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def usd(dollars: float) -> str:
    """Return dollars with three significant digits, at least two decimals and no exponent."""
    if dollars == 0:
        return "$0"
    size = abs(dollars)
    decimals = 2 if size >= 1 else min(12, max(2, 2 - math.floor(math.log10(size))))
    return f"{'−' if dollars < 0 else ''}${size:,.{decimals}f}"
