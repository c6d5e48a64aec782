"""What to do after a verdict, as a command: serve the pair, measure what is missing, or ask more questions."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from fractionate.analysis.contrasts import Contrast, pair_up
from fractionate.analysis.corrections import differences_of
from fractionate.analysis.findings import Finding, Judgement
from fractionate.config import SOLVER_VARIANTS, Config
from fractionate.statistics import POWER, questions_to_decide, sample_size

_RANGE = re.compile(r"@(\d+)-(\d+)(/\d+)?$")
_MOST = 10_000_000
"""Questions that a command asks for at most: a verdict that takes more is not worth its test."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run lies, as its user types it, and the settings that a next step extends."""

    folder: str = "RUN_DIR"
    config: str = "CONFIG"
    test: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    decomposers: tuple[str, ...] = ()
    solvers: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Config, folder: str = "RUN_DIR", file: str = "CONFIG") -> Place:
        """Return the place of a config's run."""
        models, run = config.models, config.run
        return cls(
            folder,
            file,
            tuple(config.data.test),
            tuple(run.strategies),
            tuple(models.decomposers),
            tuple(models.solvers),
            tuple(run.variants),
        )

    def command(self, name: str, *settings: tuple[str, Sequence[str]], after: str = "") -> str:
        """Return `fractionate NAME`, on the config or, where it makes no calls, the run's folder; texts are quoted."""
        where = self.folder if name in ("serve", "report") else self.config
        parts = ["fractionate", name, where]
        for key, names in settings:
            parts += ["--set", f"{key}={json.dumps(list(dict.fromkeys(names)), ensure_ascii=False)}"]
        return " ".join([shlex.join(parts), after]).strip()

    def run_with(self, *settings: tuple[str, Sequence[str]]) -> str:
        """Return `fractionate run` with list settings extended by names, where they lack them."""
        held = {key: getattr(self, key.rpartition(".")[2]) for key, _ in settings}
        lacking = [(key, [*held[key], *more]) for key, more in settings if not set(more) <= set(held[key])]
        return self.command("run", *lacking)


def next_step(judgement: Judgement, lead: Finding | None, place: Place) -> str:
    """Return the command that follows from what was found on a test set; `lead` is the pair that it is about."""
    if judgement.misfit:
        form = re.search(r'data\.answer = "([\w-]+)"', judgement.misfit)
        return place.command("run", after=f"--set data.answer={form[1]}") if form else _look(place)
    if judgement.chosen is not None:
        return place.command("serve")
    if lead is None:
        return _measure_missing(judgement, place)
    if judgement.distill == "neither":
        return _without_a_student(judgement, lead, place)
    if lead.passes == "no":
        return _measure_missing(judgement, place)
    if judgement.unpriced:
        prices = [
            f'prices."{model}".{key}=USD'
            for model in judgement.unpriced
            for key in ("input_per_million", "output_per_million")
        ]
        return place.command("report", after=" ".join(f"--set {shlex.quote(price)}" for price in prices))
    missing = next((control for control in lead.controls if control.missing), None)
    if missing is not None:
        return _with_control(missing.claim, missing.missing, lead, place)
    wanted = questions_wanted(lead)
    return _with_questions(wanted, lead, place) if wanted else _with_margin(lead, place)


def questions_wanted(finding: Finding) -> int | None:
    """Return how many questions decide what is open about a pair with 80 % power, if the measured rates hold.

    None where no number within reach does, or nothing is open that more questions decide.
    """
    found: list[int | None] = []
    if finding.non_inferior == "undecided":
        found.append(_to_decide(finding.contrast, -finding.margin))
    undecided = [one.contrast for one in finding.controls if one.passed == "undecided"]
    found += [_to_decide(contrast, 0.0) for contrast in undecided if contrast is not None]
    cost = finding.cost
    if cost.cheaper == "undecided" and cost.difference and cost.ci_low is not None and cost.ci_high is not None:
        # An interval narrows with the root of n: this many times the questions halve it down to the difference.
        found.append(math.ceil(finding.contrast.n * ((cost.ci_high - cost.ci_low) / 2 / cost.difference) ** 2))
    if not found or None in found:
        return None
    wanted = max(n for n in found if n is not None)
    return _rounded_up(max(wanted, finding.contrast.n + 1)) if wanted <= _MOST else None


def _to_decide(found: Contrast, threshold: float) -> int | None:
    """Return the questions that decide on which side of a threshold a difference lies, None beyond reach.

    The median over what the truth may be counts easy truths too. So it is raised to what the measured difference
    takes, but not beyond the 90 % point, for a difference that was measured just at the threshold takes any number.
    """
    mine, theirs = pair_up(found.a, found.b)
    differences, least, most_possible, _ = differences_of(mine, theirs, found.a.metric)
    bounds = (least, most_possible)
    needed = questions_to_decide(differences, threshold, found.confidence, POWER, mine.clusters, bounds)
    if needed.likely is None:
        return None
    measured = sample_size(found.difference - threshold, float(differences.var()), found.confidence, POWER)
    most = needed.high or _MOST
    return max(needed.likely, min(measured or most, most))


def _rounded_up(n: int) -> int:
    step = int(10 ** max(0, len(str(n)) - 2))
    return -(-n // step) * step


def _with_questions(wanted: int, lead: Finding, place: Place) -> str:
    longer = [extended(reference, wanted) for reference in place.test]
    if longer != list(place.test):
        return place.command("run", ("data.test", longer))
    more = wanted - lead.contrast.n
    return f"add {more:,} test questions, then: {place.command('run')}"


def extended(reference: str, questions: int) -> str:
    """Return a data reference with a range that holds so many rows; without one as it is."""
    found = _RANGE.search(reference)
    if found is None:
        return reference
    first, last, step = int(found[1]), int(found[2]), int((found[3] or "/1")[1:])
    return f"{reference[: found.start()]}@{first}-{max(last, first + (questions - 1) * step)}{found[3] or ''}"


def _with_margin(lead: Finding, place: Place) -> str:
    """Return the judgement by the least whole margin that the interval allows: to be taken only if it is acceptable."""
    margin = max(1, math.ceil(-lead.contrast.ci_low * 100))
    return f"if a loss of {margin} pp is acceptable: {place.command('report', after=f'--set verdict.margin={margin}')}"


def _without_a_student(judgement: Judgement, lead: Finding, place: Place) -> str:
    if judgement.obstacle:
        return _look(place)
    if lead.non_inferior != "no" and any(control.passed == "no" for control in lead.controls):
        return place.command("serve")  # the single stage or the untrained model is among the pairs that it serves
    return place.command("run", after="--curve --dry-run") if place.variants else _look(place)


def _with_control(claim: str, missing: str, lead: Finding, place: Place) -> str:
    if claim == "decomposing":
        return place.run_with(("run.strategies", [missing.partition(" by ")[0]]))
    part = lead.contrast.a.decomposer if claim == "decomposer" else lead.contrast.a.solver
    if part.kind == "distilled":
        return f"name the untrained base of {part.name} in models.{claim}s, then: {place.command('run')}"
    return place.run_with((f"models.{claim}s", ["student"]))


def _measure_missing(judgement: Judgement, place: Place) -> str:
    """Return the run that measures the part, or the undistilled pair, that was not measured."""
    measured = {finding.part for finding in judgement.findings}
    if judgement.obstacle.startswith("the undistilled pair"):
        return place.run_with(("models.decomposers", ["teacher"]), ("models.solvers", ["teacher"]))
    if judgement.obstacle.startswith("nothing works"):
        return _look(place)
    variant, key = ("E-A", "models.solvers") if "decomposer" in measured else ("D-R", "models.decomposers")
    if any((name in SOLVER_VARIANTS) == (variant == "E-A") for name in place.variants):
        return _look(place)  # it was to be trained and was left out: the report's warnings say why
    return place.run_with(("run.variants", [variant]), (key, [variant]))


def _look(place: Place) -> str:
    return place.command("report", after="--open")
