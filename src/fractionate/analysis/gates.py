"""The gates of a configuration: each condition of the verdict with its bound, its limit and whether it is passed.

A renderer needs nothing else to say "at most 1.3 pp worse (limit 2 pp); costs at most 12 % as much".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from fractionate.analysis.findings import Answer, Control, Cost, Finding, NetValue

GateName = Literal["outcome", "cost", "net_value", "decomposing", "decomposer", "solver", "order"]
State = Literal["passed", "failed", "open"]
Reason = Literal["", "inconclusive", "not measured", "no price", "too few questions", "not reached"]
Unit = Literal["pp", "ratio", "usd"]

_STATES: dict[str, State] = {"yes": "passed", "no": "failed"}


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition of a configuration.

    `estimate`, `low`, `high`, `bound` and `limit` are in `unit`: percentage points, the ratio of the configuration's
    dollars to the reference's, or dollars per question. `bound` is the end of the interval that the state rests on, and
    `limit` the value that it is held against: an open gate names the bound that would have to pass. All of them but
    `limit` are None where nothing was measured. `against` names the cell that the configuration is compared with.
    """

    gate: GateName
    state: State
    unit: Unit
    limit: float
    bound: float | None = None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    against: str = ""
    reason: Reason = ""
    """Why an open gate is open."""
    missing: str = ""
    """The cell that was not measured."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as results.json holds them."""
        return asdict(self)


def gates_of(finding: Finding) -> list[Gate]:
    """Return every gate of a configuration: outcome and cost, or net value in their place, then its controls."""
    judged = [_net(finding, finding.net)] if finding.net else [_outcome(finding), _cost(finding)]
    held = [Gate("order", "open", "pp", 0.0, against=finding.held_by, reason="not reached")] if finding.held_by else []
    return [*judged, *(_control(control, finding.margin) for control in finding.controls), *held]


def _outcome(finding: Finding) -> Gate:
    found = finding.contrast
    low, high = found.ci_low * 100, found.ci_high * 100
    return Gate(
        "outcome",
        _state(finding.non_inferior),
        "pp",
        -finding.margin * 100,
        high if finding.non_inferior == "no" else low,
        found.difference * 100,
        low,
        high,
        found.confidence,
        found.names[1],
        _reason(finding.non_inferior),
    )


def _cost(finding: Finding) -> Gate:
    cost = finding.cost
    bound = cost.ratio_low if cost.cheaper == "no" else cost.ratio_high
    return Gate(
        "cost",
        _state(cost.cheaper),
        "ratio",
        1.0,
        bound,
        cost.ratio,
        cost.ratio_low,
        cost.ratio_high,
        cost.confidence,
        finding.contrast.names[1],
        _cost_reason(cost),
    )


def _net(finding: Finding, net: NetValue) -> Gate:
    return Gate(
        "net_value",
        _state(net.answer),
        "usd",
        0.0,
        net.ci_high if net.answer == "no" else net.ci_low,
        net.usd,
        net.ci_low,
        net.ci_high,
        finding.contrast.confidence,
        finding.contrast.names[1],
        "no price" if net.answer == "unknown" else _reason(net.answer),
    )


def _control(control: Control, margin: float) -> Gate:
    """Return a control's gate. It passes where its low end lies above 0, and fails where its high end is in margin."""
    found, state = control.contrast, _state(control.passed)
    limit = margin * 100 if state == "failed" else 0.0
    if found is None:
        return Gate(control.claim, state, "pp", limit, reason="not measured", missing=control.missing)
    low, high = found.ci_low * 100, found.ci_high * 100
    return Gate(
        control.claim,
        state,
        "pp",
        limit,
        high if state == "failed" else low,
        found.difference * 100,
        low,
        high,
        found.confidence,
        found.names[1],
        _reason(control.passed),
    )


def _state(answer: Answer) -> State:
    return _STATES.get(answer, "open")


def _reason(answer: Answer) -> Reason:
    return "inconclusive" if answer == "undecided" else ""


def _cost_reason(cost: Cost) -> Reason:
    if cost.cheaper == "unknown":
        return "no price"
    if cost.cheaper == "undecided" and cost.ratio_high is None:
        return "too few questions"
    return _reason(cost.cheaper)
