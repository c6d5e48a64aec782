"""The cases that `verdict_operating.py` judges: the truth in each, and which recommendations are false.

Each case of an error lies on the boundary of the region in which the rule must not recommend; all other conditions
clearly hold. False recommendations are most frequent there. Several true states lie on a boundary (more or less
agreement between cells, losses alone, other numbers of questions); the list holds those that looked worst in pilot runs
with other seeds. A case's name seeds its random numbers: a renamed case has other figures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from simulated_runs import Candidate, World


@dataclass(frozen=True)
class Scenario:
    """One case: its `name`, what is `true`, and whether a recommendation is an error or the rule's power."""

    name: str
    true: str
    world: World
    is_power: bool = False
    is_covered: bool = True
    """Whether the rule claims to hold here; where it does not, the verdict's own text says so."""


WORSE = "2 pp below the pair, exactly the margin"
MARGIN = Candidate(right=0.58)
VAIN = Candidate(right=0.6, untrained=0.6)
"""As good as its untrained base."""


JUDGED: dict[str, Any] = {"n": 3000, "gold": 500, "alike": 0.97}


def _case(name: str, true: str, *candidates: Candidate, **world: Any) -> Scenario:
    return Scenario(name, true, World(candidates=candidates, **world))


def _uncovered(name: str, true: str, *candidates: Candidate, **world: Any) -> Scenario:
    return replace(_case(name, true, *candidates, **world), is_covered=False)


def _power(name: str, true: str, *candidates: Candidate, **world: Any) -> Scenario:
    return Scenario(f"power {name}", true, World(candidates=candidates, **world), is_power=True)


def _further(count: int, **world: Any) -> tuple[World, ...]:
    """Return further test sets of one run, alike but for their questions."""
    return tuple(World(dataset=f"set {number + 2}", **world) for number in range(count))


def _skewed(name: str, said: str, tokens: str, n: int, cap: int) -> list[Scenario]:
    """Return a case of equal cost with skewed tokens, with a cap on replies that is known, and with none."""
    candidate = Candidate(0.9, price=1.0, tokens=tokens)
    true = f"30 pp better at the same cost: {said}"
    return [
        _case(f"{name}, cap known", f"{true}, at most {cap} times the mean", candidate, n=n, steady=True, cap=cap),
        _uncovered(f"{name}, no cap", true, candidate, n=n, steady=True),
    ]


SCENARIOS = [
    # Outcomes: exactly the margin below.
    _case("losses", f"{WORSE}: 2 % lost, none gained", MARGIN, n=400, alike=1.0),
    _case("losses, few", f"{WORSE}: 2 % lost, none gained", MARGIN, n=200, alike=1.0),
    _case("discordant", f"{WORSE}: one answer in eleven differs", MARGIN, n=300, alike=0.96),
    _case("F1 losses", f"{WORSE}, in F1: few great losses", MARGIN, n=300, f1="rare great losses"),
    _case("F1 gains", f"{WORSE}, in F1: few great gains", MARGIN, n=300, f1="rare great gains"),
    _case("F1 only losses", f"{WORSE}, in F1: losses alone", MARGIN, n=200, f1="losses only"),
    # Passages of 16. The latent correlation of .6 makes one of about .1 between the differences of a passage.
    _case("passages", WORSE, MARGIN, n=320, passage=16, icc=0.6, alike=0.96),
    _case("passages, losses", f"{WORSE}: 2 % lost, none gained", MARGIN, n=320, passage=16, icc=0.6, alike=1.0),
    _case("passages, untrained", "as good as its untrained base", VAIN, n=320, right=0.45, passage=16, icc=0.6),
    # Seeds.
    _case("3 seeds", f"{WORSE}, ± 5 by seed", replace(MARGIN, spread=0.05), n=300, seeds=3, alike=0.99),
    _case("5 seeds", f"{WORSE}, ± 3 by seed", replace(MARGIN, spread=0.03), n=300, seeds=5, alike=0.99),
    _case(
        "5 seeds, untrained",
        "as good as its untrained base, ± 4 by seed",
        replace(VAIN, spread=0.04),
        seeds=5,
        right=0.4,
        single=0.2,
        cot=0.2,
    ),
    _case(
        "3 seeds, cost",
        "30 pp better at the same cost, its tokens ± 10 % by seed",
        Candidate(0.9, price=1.0, part="both", tokens="steady", token_spread=0.1),
        n=100,
        seeds=3,
        steady=True,
    ),
    _case(
        "3 seeds, value",
        "net value 0, ± 5 by seed",
        replace(MARGIN, spread=0.05),
        seeds=3,
        alike=0.99,
        net_of_nothing=True,
    ),
    _case(
        "3 seeds, 4 candidates",
        f"each {WORSE}, equal but for ± 5 by seed",
        *[replace(MARGIN, spread=0.05)] * 4,
        seeds=3,
        alike=0.99,
        kin=0.9,
    ),
    # Costs.
    _case("equal cost", "10 pp better at the same cost, in tokens that vary", Candidate(0.7, price=1.0)),
    _case(
        "same cost",
        "20 pp better, at the same price and tokens",
        Candidate(0.8, price=1.0, tokens="steady"),
        steady=True,
    ),
    _case(
        "runs on",
        "20 pp better at the same cost: 1 in 20 runs on to its cap",
        Candidate(0.8, price=1.0, tokens="runs on"),
    ),
    _case(
        "runs on, few",
        "30 pp better at the same cost: 1 in 20 runs on to its cap",
        Candidate(0.9, price=1.0, tokens="runs on"),
        n=60,
    ),
    *_skewed("runs on, rarely", "1 in 100 runs on to 26 times the usual length", "rarely runs on", 200, 21),
    *_skewed("runs on, rarely, few", "1 in 100 runs on to 26 times the usual length", "rarely runs on", 50, 21),
    *_skewed("hardly ever runs on", "3 in 1,000 run on to 30 times the usual length", "hardly ever runs on", 300, 28),
    *_skewed("log-normal 1.0", "tokens log-normal, σ = 1", "log-normal 1.0", 80, 8),
    *_skewed("log-normal 1.5", "tokens log-normal, σ = 1.5", "log-normal 1.5", 80, 8),
    *_skewed("Pareto", "tokens Pareto, index 2.5", "Pareto 2.5", 80, 8),
    _case(
        "machine, 3 rounds",
        "20 pp better, as fast; speeds ± 5 % a round",
        Candidate(0.8, part="both", price=1.0, tokens="steady"),
        rounds=3,
        steady=True,
    ),
    _case(
        "machine, 5 rounds",
        "20 pp better, as fast; speeds ± 5 % a round",
        Candidate(0.8, part="both", price=1.0, tokens="steady"),
        rounds=5,
        steady=True,
    ),
    # The value of a correct answer.
    _case("value, losses", "net value 0: 1 % lost against the saving", Candidate(0.59), alike=1.0, net_of_nothing=True),
    _case(
        "value, gains",
        "net value 0: 2 % gained at five times the price",
        Candidate(0.62, price=5.0),
        alike=1.0,
        net_of_nothing=True,
    ),
    _case(
        "value, discordant",
        "net value 0: 5 pp worse, much disagrees",
        Candidate(0.55),
        alike=0.8,
        net_of_nothing=True,
    ),
    # Controls.
    _case("floor", "every cell wrong on every question", Candidate(0.0, 0.0), n=200, right=0.0, single=0.0, cot=0.0),
    _case(
        "near the floor",
        "every cell right on 1 question in 100",
        Candidate(0.01, 0.01),
        n=400,
        right=0.01,
        single=0.01,
        cot=0.01,
    ),
    _case("untrained", "as good as its untrained base", VAIN, right=0.45),
    _case("untrained, both parts", "both parts trained, one in vain", replace(VAIN, part="both"), right=0.45),
    _case(
        "untrained, 8 candidates",
        "equal, each as good as its own untrained base",
        *[VAIN] * 8,
        right=0.45,
        kin=0.98,
        alike=0.5,
    ),
    _case(
        "chain of thought",
        "one stage with chain of thought 30 pp above the pair",
        Candidate(0.6, 0.3),
        Candidate(0.65, 0.3, "alone"),
        cot=0.9,
        margin=8.0,
    ),
    _case("one stage", "pair and candidate as good as one stage", Candidate(0.6), single=0.4, cot=0.6, margin=10.0),
    _case(
        "one stage, 8 candidates",
        "pair and candidates as good as one stage",
        *[Candidate(0.6)] * 8,
        cot=0.6,
        margin=15.0,
        alike=0.8,
    ),
    # Several test sets: the recommendation is of one configuration over all of them.
    _case(
        "2 sets, other students",
        "two students, each 20 pp better on one test set and 20 pp worse on the other",
        Candidate(0.8),
        Candidate(0.4),
        others=(World(dataset="other", candidates=(Candidate(0.4), Candidate(0.8))),),
    ),
    _case(
        "4 sets",
        f"{WORSE}, on each of 4 test sets",
        MARGIN,
        n=300,
        alike=0.97,
        others=_further(3, n=300, alike=0.97, candidates=(MARGIN,)),
    ),
    _case(
        "4 sets, uneven",
        f"{WORSE} over all questions: 10 pp worse on one set, better on three",
        Candidate(0.5),
        n=200,
        alike=0.97,
        others=_further(3, n=200, alike=0.97, candidates=(Candidate(0.58 + 0.08 / 3),)),
    ),
    # Several candidates, interim analyses, all at once.
    _case("3 candidates", f"each {WORSE}", *[MARGIN] * 3, n=300, alike=0.97, kin=0.3),
    _case("8 candidates", f"each {WORSE}", *[MARGIN] * 8, n=300, alike=0.97, kin=0.3),
    _case("3 looks", "10 pp below, exactly the margin", Candidate(0.5), n=400, looks=(100, 200, 400), margin=10.0),
    _case("3 looks, cost", "20 pp better at the same cost", Candidate(0.8, price=1.0), n=400, looks=(100, 200, 400)),
    _case(
        "3 flaws",
        "at the margin; at the same cost; trained in vain",
        MARGIN,
        Candidate(0.7, price=1.0),
        replace(VAIN, right=0.65, untrained=0.65),
        n=300,
        alike=0.97,
    ),
    _case(
        "all at once",
        "the three flaws, ± 3 by seed, 3 seeds, passages of 16, 2 interim analyses",
        replace(MARGIN, spread=0.03),
        Candidate(0.7, price=1.0, spread=0.03),
        replace(VAIN, right=0.7, untrained=0.7, spread=0.03),
        n=320,
        alike=0.97,
        passage=16,
        icc=0.6,
        seeds=3,
        looks=(160, 320),
    ),
    _case(
        "different gates",
        "8 candidates: 1 at the margin, 4 at the same cost, 3 trained in vain",
        MARGIN,
        *[Candidate(0.75, price=1.0)] * 4,
        *[replace(VAIN, right=0.65, untrained=0.65)] * 3,
        n=300,
        alike=0.97,
        kin=0.5,
    ),
    _uncovered(
        "5 seeds, collapses",
        f"{WORSE}: one training in five 10 pp worse than the others",
        replace(MARGIN, collapses=0.1),
        n=600,
        seeds=5,
        alike=0.97,
    ),
    _case(
        "5 seeds, collapses, worst",
        "the same by verdict.seeds = worst: false where one of the five has collapsed",
        replace(MARGIN, collapses=0.1),
        n=600,
        seeds=5,
        alike=0.97,
        of_seeds="worst",
    ),
    _case(
        "8 candidates in order",
        f"each {WORSE}, tested in order of price",
        *[replace(MARGIN, price=0.1 + 0.05 * place) for place in range(8)],
        n=300,
        alike=0.97,
        kin=0.3,
        in_order=True,
    ),
    # A judge scores all questions, and some of them have gold.
    _case("judged", f"{WORSE}; 3,000 by a judge of .9, 500 of them with gold", MARGIN, **JUDGED, judge=0.9),
    _case("judged well", f"{WORSE}; 3,000 by a judge of .95, 500 of them with gold", MARGIN, **JUDGED, judge=0.95),
    _case(
        "judged, errors apart",
        f"{WORSE}; the same at .9, and the judge errs anew on each output",
        MARGIN,
        **JUDGED,
        judge=0.9,
        judged_apart=True,
    ),
    _case(
        "judged, flattered",
        f"{WORSE}; the same at .9, and the judge takes the student for 10 pp better",
        MARGIN,
        **JUDGED,
        judge=0.9,
        flatters=0.1,
    ),
    # Looks again and again at one test set: the ledger lets all of them err no more than one.
    _case("looks, descending", f"{WORSE}; 400, 200 and 100 questions", MARGIN, n=400, alike=0.97, history="descending"),
    _case("looks, other folders", f"{WORSE}; 100, 200, 400", MARGIN, n=400, alike=0.97, history="another_folder"),
    _case("looks, other questions", f"{WORSE}; 5 sets of 300", MARGIN, n=300, alike=0.97, history="other_questions"),
    _case("looks, trained again", f"{WORSE}; 8 trainings", MARGIN, n=300, alike=0.97, history="trained_again"),
    _case("looks, best of 10", f"{WORSE}; 10, then the best", *[MARGIN] * 10, n=300, alike=0.97, history="best_of_all"),
    _case("looks, 4 references", f"{WORSE}; 4 in turn", MARGIN, n=300, alike=0.97, history="references_in_turn"),
    _case(
        "looks, seeds added",
        f"{WORSE}, ± 3 by seed; 2 to 6 seeds pooled",
        replace(MARGIN, spread=0.03),
        n=300,
        alike=0.97,
        history="seeds_added",
    ),
    _case(
        "looks, any",
        f"{WORSE}; a look every 25 questions, verdict.looks = any",
        MARGIN,
        n=1000,
        alike=0.97,
        history="always",
        looks_rule="any",
        forgets=True,
    ),
    # Power.
    _power("equal, n = 200", "as good, a tenth of the price", Candidate(0.6), n=200, alike=0.97),
    _power("equal, n = 660", "as good, a tenth of the price", Candidate(0.6), n=660, alike=0.97),
    _power("equal, n = 2,000", "as good, a tenth of the price", Candidate(0.6), n=2000, alike=0.97),
    _power("+5 points, n = 200", "5 pp better, a tenth of the price", Candidate(0.65), n=200, alike=0.97),
    _power("+5 points, n = 660", "5 pp better, a tenth of the price", Candidate(0.65), n=660, alike=0.97),
    _power("+10 points, n = 200", "10 pp better, a tenth of the price", Candidate(0.7), n=200, alike=0.97),
    _power(
        "+10 points, passages",
        "10 pp better; 40 passages of 16",
        Candidate(0.7),
        n=640,
        alike=0.97,
        passage=16,
        icc=0.6,
    ),
    _power("+10 points, 3 seeds", "10 pp better ± 3 by seed", Candidate(0.7, spread=0.03), seeds=3, alike=0.97),
    _power("+10 points, 5 seeds", "10 pp better ± 3 by seed", Candidate(0.7, spread=0.03), seeds=5, alike=0.97),
    _power("+5 points, 8 candidates", "all 5 pp better", *[Candidate(0.65)] * 8, n=300, alike=0.97),
    _power(
        "25 % less, 5 rounds",
        "20 pp better, a quarter less machine time",
        Candidate(0.8, part="both", price=0.75, tokens="steady"),
        rounds=5,
        steady=True,
    ),
    _power(
        "value",
        "as good, a tenth of the price; a correct answer worth $0.001",
        Candidate(0.6),
        n=660,
        alike=0.97,
        usd_per_correct=0.001,
    ),
    _power(
        "1 good of 8, all at once",
        "the dearest as good, seven 2 pp worse",
        *[Candidate(0.6, price=0.5), *[replace(MARGIN, price=0.1 + 0.02 * place) for place in range(7)]],
        n=2125,
        alike=0.97,
    ),
    _power(
        "1 good of 8, in order",
        "the dearest as good, seven 2 pp worse",
        *[Candidate(0.6, price=0.5), *[replace(MARGIN, price=0.1 + 0.02 * place) for place in range(7)]],
        n=2125,
        alike=0.97,
        in_order=True,
    ),
    _power("gold alone", "as good, a tenth of the price", Candidate(0.6), n=500, alike=0.97),
    _power("judged", "the same; 2,500 more questions by a judge of .9", Candidate(0.6), **JUDGED, judge=0.9),
    _power(
        "judged, errors apart",
        "the same; a judge of .9 that errs anew on each output",
        Candidate(0.6),
        **JUDGED,
        judge=0.9,
        judged_apart=True,
    ),
    _power("judged well", "the same; 2,500 more questions by a judge of .95", Candidate(0.6), **JUDGED, judge=0.95),
    _power(
        "4 sets of 531",
        "as good, a tenth of the price, on each of 4 test sets",
        Candidate(0.6),
        n=531,
        alike=0.97,
        others=_further(3, n=531, alike=0.97, candidates=(Candidate(0.6),)),
    ),
    _power(
        "40 % less, cap known",
        "20 pp better, 40 % cheaper; replies at most 20 times the mean",
        Candidate(0.8, part="both", price=0.6),
        n=200,
        cap=20,
    ),
    _power("3 looks", "2 pp better, a tenth of the price", Candidate(0.62), n=800, looks=(200, 400, 800), alike=0.97),
]
