"""The verdict in words: what to do, what it does to outcome and bill, and what to do next. Three short lines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fractionate.analysis.findings import Distill, Finding, Judgement, part_answer
from fractionate.analysis.limits import is_opinion
from fractionate.analysis.matrix import short_names
from fractionate.analysis.next_step import Place, next_step, questions_wanted
from fractionate.analysis.rule import Rule
from fractionate.analysis.test_sets import Overall
from fractionate.types import Component

HEADLINES = {
    "decomposer": "Distill the decomposer",
    "solver": "Distill the solver",
    "both": "Distill both parts",
    "neither": "Distill neither part",
    "undecided": "Undecided, so far",
}
MOST_WORDS = 60
"""Of `Statement.because`."""
LEARNT = {
    "D-T": "all demonstrations",
    "D-R": "screened demonstrations",
    "E-T": "the teacher's solutions",
    "E-A": "solutions with right answers",
    "E-T-direct": "the teacher's answers",
    "E-A-direct": "right answers",
    "S-T": "the teacher's solutions",
    "S-A": "solutions with right answers",
    "S-T-direct": "the teacher's answers",
    "S-A-direct": "right answers",
}
"""What a variant's student is trained on, in plain words."""


@dataclass(frozen=True, slots=True)
class Statement:
    """The verdict in three lines, and the figures that they state.

    `recommended` is the pair to serve, `outcome` and `saving` are those of that pair, or of the one that comes nearest.
    Outcomes are shares of 1, dollars per 1,000 questions. None where there is nothing to state.
    """

    action: str
    effect: str = ""
    next: str = ""
    recommended: dict[str, str] | None = None
    outcome: dict[str, Any] | None = None
    saving: dict[str, Any] | None = None

    @property
    def because(self) -> str:
        """The action with its effect, in at most 60 words."""
        whole = f"{self.action} {self.effect}".strip()
        words = (whole if len(whole.split()) <= MOST_WORDS else self.action).split()
        return " ".join(words) if len(words) <= MOST_WORDS else " ".join([*words[: MOST_WORDS - 1], "…"])


def state(overall: Overall, rule: Rule, place: Place) -> Statement:
    """Return the verdict over all test sets; where several say the same, by the figures of the largest loss."""
    judged = overall.told
    misfits = "; ".join(one.misfit for one in judged if one.misfit)
    if misfits:
        first = next(one for one in judged if one.misfit)
        return Statement(f"No verdict, since {misfits}.", next=next_step(first, None, place))
    if not judged:
        return Statement("Undecided: nothing was measured.", next=place.command("run"))
    told = min(judged, key=_lead_difference)
    lead = leading(told)
    outcome, saving = _outcome_fields(lead), _saving_fields(lead, rule)
    effect = _effect(lead, rule) if lead else ""
    if lead and is_opinion(lead):
        effect = f"{effect} Outcomes are a judge's opinion."
    if lead and overall.distill == "neither":
        effect = f"Best distilled pair: {effect}"
    if lead and len(judged) > 1:
        effect = f"On {told.dataset}: {effect}"
    if len({one.distill for one in judged}) > 1 or overall.differ:
        step = place.command("report", after="--open")
        return Statement(_disagreement(overall), effect, step, None, outcome, saving)
    action = _action(told, lead, overall.distill)
    if len(judged) > 1:
        action = f"{action[:-1]}, on all {len(judged)} test sets."
    elif overall.basis == "all test sets together":
        action = f"{action[:-1]}, by all test sets together."
    recommended = _recommended_fields(told.chosen) if told.chosen else None
    return Statement(action, effect, next_step(told, lead, place), recommended, outcome, saving)


def _disagreement(overall: Overall) -> str:
    said = overall.differ or tuple((one.dataset, one.distill) for one in overall.told)
    named = ", ".join(f"{what.partition('/')[2] or what} on {dataset}" for dataset, what in said[:3])
    more = f", {len(said) - 3} more" if len(said) > 3 else ""
    how = "recommend different pairs" if overall.differ else "disagree"
    return f"Undecided, because the test sets {how} ({named}{more})."


def leading(judgement: Judgement) -> Finding | None:
    """Return the pair to speak of: the recommended one, else the most promising one, None where none was measured."""
    rank = {"yes": 2, "undecided": 1, "unknown": 1}

    def promise(one: Finding) -> tuple[bool, int, bool, float]:
        return one is judgement.chosen, rank.get(one.passes, 0), one.controlled != "no", one.contrast.difference

    return max(judgement.findings, key=promise, default=None)


def _lead_difference(judgement: Judgement) -> float:
    lead = leading(judgement)
    return lead.contrast.difference if lead else math.inf


def _action(judgement: Judgement, lead: Finding | None, overall: Distill) -> str:
    if judgement.obstacle or lead is None:
        opening = "Distill neither part" if overall == "neither" else "Undecided"
        return f"{opening}: {judgement.obstacle or 'no distilled pair was measured'}."
    if judgement.chosen is not None:
        return f"{HEADLINES[lead.part]}: {_instead(lead)}."
    if overall == "neither":
        return f"Distill neither part: {_why_not(lead)}."
    if lead.passes == "no":
        tried = "decomposer" if lead.part == "decomposer" else "solver"
        other = "solver" if tried == "decomposer" else "decomposer"
        lacking = f"; no student {other} was measured" if not _measured(judgement, other) else ""
        return f"Undecided: {_why_not(lead)}{lacking}."
    return f"Undecided: the most promising pair, in which {_change(lead)}, lacks {_lacks(judgement, lead)}."


def _measured(judgement: Judgement, part: str) -> bool:
    return part_answer([one for one in judgement.findings if one.part == part]) != "unknown"


def _instead(finding: Finding) -> str:
    """Return the pair to serve as an order."""
    cell, jobs = finding.contrast.a, _new_jobs(finding)
    order = "let " + " and ".join(f"{_subject(component)} {verb}{rest}" for component, verb, rest in jobs)
    if cell.stages == "single":
        return f"{order}, without a decomposer"
    kept = {
        "decomposer": f"; {plain_name(cell.solver)} still solves",
        "solver": f"; {plain_name(cell.decomposer)} still decomposes",
    }
    return order + kept.get(finding.part, "")


def _change(finding: Finding) -> str:
    """Return what a pair changes, as a clause."""
    return " and ".join(f"{_subject(component)} {verb}s{rest}" for component, verb, rest in _new_jobs(finding))


def _new_jobs(finding: Finding) -> list[tuple[Component, str, str]]:
    """Return who does what anew in a pair, with the verb and what follows it."""
    cell = finding.contrast.a
    if cell.stages == "single":
        return [(cell.solver, "answer", " in one stage")]
    jobs = {"decomposer": [(cell.decomposer, "decompose", "")], "solver": [(cell.solver, "solve", "")]}
    return jobs.get(finding.part, [*jobs["decomposer"], *jobs["solver"]])


def plain_name(component: Component) -> str:
    """Return a decomposer or solver in plain words: the model, what it learnt from, and its name in the run."""
    model = _short(component.model or component.name)
    if component.kind == "student":
        learnt = LEARNT.get(component.variant, "demonstrations")
        return f"{model}, trained on {learnt} ({component.name})"
    return f"the untrained {model}" if component.kind == "base" else model


def _subject(component: Component) -> str:
    """Return a plain name as the subject of a clause: what stands between commas is closed by one."""
    name = plain_name(component)
    return f"{name}," if ", " in name else name


def _short(model: str) -> str:
    return short_names([model])[model].removesuffix("-Instruct")


def _why_not(lead: Finding) -> str:
    """Return why even the nearest pair is not worth it, by what was shown, with what to do instead."""
    failed = [control for control in lead.controls if control.passed == "no"]
    if failed and lead.non_inferior != "no":
        beside = next((one.contrast for one in failed if one.contrast is not None), None)
        reached = f" ({percent(beside.reference_value)})" if beside else ""
        if failed[0].claim == "decomposing":
            return f"answer in one stage, which does as well{reached}"
        return f"use the untrained model, which does as well{reached}"
    pair = f"the nearest pair, in which {_change(lead)},"
    if lead.net is not None and lead.net.answer == "no":
        return f"{pair} is worth less at the value of a right answer"
    if lead.superior == "yes" and lead.cost.cheaper == "no":
        return f"{pair} is better, but not cheaper (verdict.usd_per_correct weighs the two)"
    if lead.non_inferior == "no":
        return f"{pair} loses more than the margin of {lead.margin * 100:g} pp"
    return f"{pair} costs no less"


def _lacks(judgement: Judgement, lead: Finding) -> str:
    """Return the first thing that is missing before a pair can be recommended, in one clause."""
    if judgement.unpriced:
        return f"a price for {', '.join(_short(model) for model in judgement.unpriced)}"
    missing = next((control.missing for control in lead.controls if control.passed == "unknown"), None)
    if missing is not None:
        return f"a control: {missing}"
    if lead.net is None and lead.cost.cheaper == "no":
        return "a lower cost"
    wanted = questions_wanted(lead)
    questions = f"questions: {lead.contrast.n:,} were asked, about {wanted:,} would decide" if wanted else ""
    if lead.non_inferior == "undecided" and lead.net is None:
        at_most = f"proof that it loses less than {lead.margin * 100:g} pp"
        return questions or f"{at_most}, which no number of questions would give so near the margin"
    opened = next((control.claim for control in lead.controls if control.passed == "undecided"), None)
    if questions:
        return questions
    if opened is not None:
        rival = "one stage" if opened == "decomposing" else f"the untrained {opened}"
        return f"proof that it beats {rival}"
    return "proof that it costs less"


def _effect(lead: Finding, rule: Rule) -> str:
    """Return today's outcome and bill and what the pair makes of them, an interval each at the stated confidence."""
    found, cost = lead.contrast, lead.cost
    metric = "Right answers" if found.a.metric == "exact_match" else found.a.metric.upper()
    outcome = (
        f"{metric} {percent(found.reference_value)} → {percent(found.value)} "
        f"({points(found.difference)} pp, {points(found.ci_low)} to {points(found.ci_high)})"
    )
    joint = "joint " if found.confidence - rule.confidence > 1e-9 else ""
    sample = f"{found.n:,} question{'' if found.n == 1 else 's'}, {joint}{level(rule.confidence)} intervals"
    return f"{outcome}; {_bill(lead)}; {sample}." if cost.usd is not None else f"{outcome}; bill unknown; {sample}."


def _bill(lead: Finding) -> str:
    cost = lead.cost
    if cost.usd is None or cost.reference_usd is None:
        return "bill unknown"
    bill = f"bill {usd(cost.reference_usd * 1000)} → {usd(cost.usd * 1000)} per 1,000 questions"
    if cost.ratio is None:
        return bill
    if cost.ratio_low is None or cost.ratio_high is None:
        return f"{bill} ({_change_of(cost.ratio)} %)"
    digits = 0 if _change_of(cost.ratio_low) != _change_of(cost.ratio_high) else 1
    low, high = (_change_of(bound, digits) for bound in (cost.ratio_low, cost.ratio_high))
    return f"{bill} ({_change_of(cost.ratio, digits)} %, {low} to {high})"


def _change_of(ratio: float, digits: int = 0) -> str:
    """Return a ratio of dollars as a signed change in percent, with a true minus sign."""
    text = f"{(ratio - 1) * 100:+,.{digits}f}"
    return text.lstrip("+-") if not float(text.replace(",", "")) else text.replace("-", "−")


def _recommended_fields(chosen: Finding) -> dict[str, str]:
    cell = chosen.contrast.a
    return {
        "cell": chosen.contrast.names[0],
        "strategy": cell.strategy,
        "decomposer": cell.decomposer.name,
        "solver": cell.solver.name,
        "text": _instead(chosen),
    }


def _outcome_fields(lead: Finding | None) -> dict[str, Any] | None:
    if lead is None:
        return None
    found = lead.contrast
    return {
        "cell": found.names[0],
        "metric": found.a.metric,
        "before": found.reference_value,
        "after": found.value,
        "difference": found.difference,
        "ci_low": found.ci_low,
        "ci_high": found.ci_high,
        "n": found.n,
    }


def _saving_fields(lead: Finding | None, rule: Rule) -> dict[str, Any] | None:
    if lead is None or lead.cost.usd is None or lead.cost.reference_usd is None:
        return None
    cost = lead.cost
    before, after = lead.cost.reference_usd * 1000, lead.cost.usd * 1000
    share, low, high = (None if ratio is None else 1 - ratio for ratio in (cost.ratio, cost.ratio_high, cost.ratio_low))
    return {
        "cell": lead.contrast.names[0],
        "usd_per_1000_before": before,
        "usd_per_1000_after": after,
        "share": share,
        "ci_low": low,
        "ci_high": high,
        "confidence": rule.confidence,
    }


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
