"""The verdict in words: one sentence with its intervals, for a person who will spend money on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fractionate.analysis.contrasts import Contrast
from fractionate.analysis.findings import Claim, Control, Finding, Judgement, joint, part_answer
from fractionate.analysis.matrix import short_pair_names
from fractionate.analysis.statistics import Needed
from fractionate.analysis.test_sets import Overall

_OPENING = {
    "decomposer": "Distill the decomposer",
    "solver": "Distill the solver",
    "both": "Distill both parts",
    "neither": "Distill neither part",
    "undecided": "Undecided",
}
HEADLINES = {**_OPENING, "undecided": "Undecided, so far"}
_PARTS = ("both", "decomposer", "solver")


def because(overall: Overall) -> str:
    """Return the sentence that answers which part to distill and why; first, where a scorer does not fit, that."""
    misfits = "; ".join(one.misfit for one in overall.told if one.misfit)
    return f"No verdict, since {misfits}." if misfits else _because(overall)


def _because(overall: Overall) -> str:
    judged = overall.told
    if not judged:
        return "Undecided: nothing was measured."
    opening = _OPENING[overall.distill]
    if len(judged) == 1:
        together = ", over all test sets together," if overall.basis == "all test sets together" else ""
        return f"{opening}{together}{_scale(judged[0])}: {_reasons(judged[0])}."
    each = "; ".join(f"on {one.dataset}{_scale(one)}, {_reasons(one)}" for one in judged)
    if overall.differ:
        named = ", ".join(f"{name} on {dataset}" for dataset, name in overall.differ)
        return f"Undecided, because the test sets recommend different configurations ({named}): {each}."
    if len({one.distill for one in judged}) == 1:
        return f"{opening}, as all {len(judged)} test sets say: {each}."
    split = ", ".join(f"{one.distill} on {one.dataset}" for one in judged)
    return f"Undecided, because the test sets disagree ({split}): {each}."


def _scale(judgement: Judgement) -> str:
    """Return what all findings of a test set share: the questions, what they come in, and the margin."""
    if not judgement.findings:
        return ""
    fewest = min((finding.contrast for finding in judgement.findings), key=lambda one: one.n)
    passages = f" on {fewest.clusters:,} passages" if fewest.clusters < fewest.n else ""
    seeds = f", {fewest.seeds} seeds" if fewest.seeds > 1 else ""
    return f" ({_questions(fewest.n)}{passages}{seeds}, margin {judgement.findings[0].margin * 100:g} pp)"


def _questions(n: int) -> str:
    return f"{n:,} question" + ("" if n == 1 else "s")


def _reasons(judgement: Judgement) -> str:
    if judgement.obstacle:
        return "; ".join([judgement.obstacle, *_benefit(judgement.benefit)])
    names = short_pair_names(
        (finding.decomposer for finding in judgement.findings), (finding.solver for finding in judgement.findings)
    )
    order = sorted(_PARTS, key=lambda part: judgement.chosen is None or part != judgement.chosen.part)
    clauses = []
    for part in order:
        findings = [one for one in judgement.findings if one.part == part]
        if findings:
            clauses.append(_part(part, findings, names, judgement))
        elif part != "both":
            clauses.append(f"no student {part} was measured")
    return "; ".join([*clauses, *_benefit(judgement.benefit)])


def _part(part: str, findings: Sequence[Finding], names: dict[str, str], judgement: Judgement) -> str:
    nearest = _nearest(findings, judgement.chosen)
    what = "both" if part == "both" else f"the {part}"
    measured = f"{_who(nearest, findings, names)} {_outcome(nearest)} {_cost(nearest)}"
    if nearest is judgement.chosen:
        others = sum(one.passes == "yes" for one in judgement.findings) - 1
        cheapest = ", the cheapest of all that pass" if others else ""
        return f"{measured}, so {what} should be distilled{cheapest}"
    if nearest.passes == "yes":
        return f"{measured}, which passes too"
    if part_answer(findings) == "no":
        return f"{measured}, so {what} {'are' if part == 'both' else 'is'} not worth distilling ({_failed(nearest)})"
    return f"{measured}, so {what} {'stay' if part == 'both' else 'stays'} open ({_open(nearest, judgement.unpriced)})"


def _nearest(findings: Sequence[Finding], chosen: Finding | None) -> Finding:
    """Return the finding to speak of: the recommended one, else one that passes, else the nearest to passing."""
    rank = {"yes": 2, "undecided": 1}
    return max(findings, key=lambda one: (one is chosen, rank.get(one.passes, 0), one.contrast.difference))


def _failed(finding: Finding) -> str:
    """Return what a configuration was shown to lack, outcome and cost apart."""
    found = []
    if finding.net and finding.net.answer == "no":
        found.append("worth less at the value given for a right answer")
    elif finding.net is None or finding.net.answer == "unknown":
        if finding.non_inferior == "no":
            found.append("worse")
        elif finding.superior == "yes" and finding.cost.cheaper == "no":
            found.append("better, but not cheaper: verdict.usd_per_correct weighs the two")
        elif finding.cost.cheaper == "no":
            found.append("not cheaper")
    return ", ".join([*found, *_failures(finding)])


def _failures(finding: Finding) -> list[str]:
    """Return what each claim of the controls failed by, all cells that did as well together."""
    failed = [control for control in finding.controls if control.passed == "no"]
    claims = dict.fromkeys(control.claim for control in failed)
    return [_failure(claim, [control for control in failed if control.claim == claim]) for claim in claims]


def _failure(claim: Claim, controls: Sequence[Control]) -> str:
    beside = [control.contrast for control in controls if control.contrast is not None]
    if claim == "decomposing":
        said = ", ".join(f"{one.b.strategy} {percent(one.reference_value)}" for one in beside)
        return f"answering in one stage does as well ({said}): answer in one stage"
    said = ", ".join(percent(one.reference_value) for one in beside)
    return f"the untrained model does as well as the {claim} ({said}): use the untrained model"


def _open(finding: Finding, unpriced: Sequence[str]) -> str:
    """Return what is still open about a configuration, and what would close it."""
    found = []
    if finding.net is None or finding.net.answer == "unknown":
        if finding.non_inferior == "undecided":
            found.append("its outcome: " + (_needed(finding.needed) if finding.needed else "too few questions"))
        if finding.cost.cheaper == "unknown":
            named = ", ".join(f'"{model}"' for model in unpriced)
            found.append(f"its cost: give prices for {named}" if named else "its cost")
        elif finding.cost.cheaper == "undecided":
            found.append("its cost")
        elif finding.cost.cheaper == "no":
            found.append("it is not cheaper")
        if finding.non_inferior == "no":
            found.append("it is worse")
    elif finding.net.answer == "undecided":
        found.append("its net value")
    for control in finding.controls:
        if control.passed == "unknown":
            found.append(f"a control was not measured: {control.missing}")
        elif control.passed == "undecided":
            what = "single stage" if control.claim == "decomposing" else f"the untrained {control.claim}"
            found.append(f"not shown better than {what}")
    found += _failures(finding)
    return ", ".join(dict.fromkeys(found)) or "its interval"


def _needed(needed: Needed) -> str:
    if needed.likely is None and needed.low is None:
        return "this near the margin no number of questions would decide it"
    low = f"{needed.low:,}" if needed.low is not None else "many"
    high = f"{needed.high:,}" if needed.high is not None else "any number of"
    return f"{low} to {high} questions would decide it with 80 % power, as little is known of the true difference"


def _who(finding: Finding, among: Sequence[Finding], names: dict[str, str]) -> str:
    chosen = f", of {len(among)} candidates," if len(among) > 1 else ""
    if finding.contrast.a.stages == "single":
        return f"{names[finding.solver]} alone{chosen} in one stage"
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
        f"difference {points(found.difference)} pp, {level(found.confidence)} interval {points(found.ci_low)} to "
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


def _benefit(controls: Sequence[Control]) -> list[str]:
    """Return what decomposing itself does, by the single-stage cell that leaves it least."""
    measured = [control.contrast for control in controls if control.contrast is not None]
    if not measured:
        return []
    found = min(measured, key=lambda one: one.difference)
    baseline = "single stage" + (" with chain of thought" if found.b.strategy == "single-cot" else "")
    figures = f"{percent(found.value)} against {percent(found.reference_value)} in {baseline}, {_difference(found)}"
    if found.ci_high < 0:
        return [f"decomposing itself does not help here, it hurts ({figures})"]
    missing = [control.missing for control in controls if control.missing]
    beside = f"; not measured: {', '.join(missing)}" if missing else ""
    if joint([control.passed for control in controls if control.contrast is not None]) == "yes":
        return [f"decomposing itself helps here ({figures}{beside})"]
    return [f"decomposing itself does not help here as far as {_questions(found.n)} can show ({figures}{beside})"]


def percent(share: float) -> str:
    """Return a share of 1 as a percentage with one decimal."""
    return f"{share * 100:.1f} %"


def level(confidence: float) -> str:
    """Return a confidence as a percentage with as many decimals, up to two, as it has."""
    return f"{confidence * 100:.2f}".rstrip("0").rstrip(".") + " %"


def points(difference: float) -> str:
    """Return a difference of shares in signed percentage points (pp), with a true minus sign."""
    text = f"{difference * 100:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def usd(dollars: float) -> str:
    """Return dollars with three significant digits, at least two decimals and no exponent."""
    if dollars == 0:
        return "$0"
    size = abs(dollars)
    decimals = 2 if size >= 1 else min(12, max(2, 2 - math.floor(math.log10(size))))
    return f"{'−' if dollars < 0 else ''}${size:,.{decimals}f}"
