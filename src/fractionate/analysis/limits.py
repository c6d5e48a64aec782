"""What a verdict does not cover, named in the verdict itself: the cases in which the rule is known to err too often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fractionate.analysis.contrasts import pair_up
from fractionate.analysis.corrections import differences_of, outcomes_of
from fractionate.analysis.findings import Finding, Judgement
from fractionate.statistics.prediction_powered import LEAST_GOLD

LimitName = Literal["replies that run on", "trainings that collapse", "scores that gold corrects", "a judge's opinion"]


@dataclass(frozen=True, slots=True)
class Limit:
    """One case that is not covered: its name, the sentence, and the configurations that it applies to."""

    limit: LimitName
    text: str
    configurations: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as results.json holds them."""
        return {**asdict(self), "configurations": list(self.configurations)}


def limits_of(judged: Sequence[Judgement]) -> list[Limit]:
    """Return what the verdict on these test sets does not cover."""
    findings = [finding for judgement in judged for finding in judgement.findings]
    return [*_opinions(findings), *_uncapped(findings), *_trainings(findings), *_corrected(findings)]


def is_opinion(finding: Finding) -> bool:
    """Return whether an outcome is a judge's, and too few labels by people correct it."""
    found = finding.contrast
    if not found.a.judge:
        return False
    correction = differences_of(*pair_up(found.a, found.b), found.a.metric).correction
    return correction is None or correction.n_gold < LEAST_GOLD


def _opinions(findings: Sequence[Finding]) -> list[Limit]:
    found = [one for one in findings if is_opinion(one)]
    if not found:
        return []
    judges = ", ".join(dict.fromkeys(one.contrast.a.judge for one in found))
    text = (
        f"Not covered: whether people agree. These outcomes are the opinion of a judge ({judges}); fewer than "
        f"{LEAST_GOLD} questions have labels by people for both pairs, so it is not corrected: fractionate label."
    )
    return [Limit("a judge's opinion", text, tuple(one.contrast.names[0] for one in found))]


def _trainings(findings: Sequence[Finding]) -> list[Limit]:
    """Name what few trainings cannot show: one in five that collapses is missed by k of them with probability .8^k."""
    found = [one for one in findings if one.passes == "yes"]
    if not found:
        return []
    seeds = min(one.contrast.seeds for one in found)
    spread = [one for finding in found for one in finding.contrast.by_seed]
    said = f"; they differ from {100 * min(spread):+.1f} to {100 * max(spread):+.1f} pp" if spread else ""
    trainings = "1 training was" if seeds == 1 else f"{seeds} trainings were"
    text = (
        f"Not covered: the next training. {trainings} judged{said}; a collapse in one training of five would be missed "
        f"with probability {0.8**seeds:.2f}. The verdict is on the students that were measured."
    )
    return [Limit("trainings that collapse", text, tuple(one.contrast.names[0] for one in found))]


def _corrected(findings: Sequence[Finding]) -> list[Limit]:
    """Name the sample that prediction-powered outcomes rest on, and how far the cheap score agrees with gold."""
    found = {}
    for one in findings:
        a, b = one.contrast.a, one.contrast.b
        both = differences_of(*pair_up(a, b), a.metric).correction
        cells = [each for cell in (a, b) if (each := outcomes_of(cell.columns, cell.metric).correction)]
        if both and cells:
            found[one.contrast.names[0]] = (
                both.n_gold,
                min(each.agreement for each in cells),
                min(each.kappa for each in cells),
            )
    if not found:
        return []
    gold, agreement, kappa = (min(column) for column in zip(*found.values(), strict=True))
    text = (
        "Not covered: questions with gold that are no random sample of all. Outcomes are a cheap score's, corrected by "
        f"{gold:,} questions with gold, of which it scores at least {100 * agreement:.0f} % alike (κ from {kappa:.2f})."
    )
    if gold < LEAST_GOLD:
        text += f" Outcomes stay open below {LEAST_GOLD} questions with gold in both cells."
    return [Limit("scores that gold corrects", text, tuple(found))]


def _uncapped(findings: Sequence[Finding]) -> list[Limit]:
    """Name the costs that were shown lower without a cap on replies: see "not covered" in docs/verdict-operating.md."""
    found = [one for one in findings if one.cost.cheaper == "yes" and one.cost.uncapped]
    if not found:
        return []
    models = ", ".join(dict.fromkeys(model for one in found for model in one.cost.uncapped))
    text = (
        f"Not covered: replies that run on, fewer than were seen. No cap on their output tokens is known for {models}, "
        "so the cost interval rests on the lengths that were seen."
    )
    return [Limit("replies that run on", text, tuple(one.contrast.names[0] for one in found))]
