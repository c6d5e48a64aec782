"""Simulated error rates of the intervals and tests of `fractionate.statistics` and of older methods.

    python benchmarks/statistics_operating.py [--quick] [--only clusters] [--trials 2000] [--seed 0]

Every line is one setting with a known truth: how often an interval misses it, how often a false claim is made, or how
often a true difference is shown. Brackets hold the 95 % interval of the simulated rate. "Before" is the method of
version 0.1.0 (its bootstrap with fewer resamples), or the method without this correction. The tables go to standard
output as Markdown, progress to standard error. `--quick` takes some minutes on one core, the full form under two hours.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.special import ndtri
from simulated_outcomes import (
    Array,
    Line,
    Random,
    clustered,
    clustered_uniforms,
    f1_differences,
    f1_scores,
    misses,
    old_bca,
    old_bootstrap_p,
    repeat,
)

from fractionate.statistics import (
    Interval,
    Metered,
    bonferroni_confidence,
    dollars_interval,
    interim_confidence,
    mean_interval,
    mean_t_interval,
    metered_difference,
    paired_difference,
    planned_sample_size,
    pooled_difference,
    questions_to_decide,
    score_interval,
    separate_difference,
    sign_flip_p,
    simultaneous_confidence,
    wilson,
)


def means(random: Random, trials: int) -> Iterator[Line]:
    """The value of a cell: how often its 95 % interval misses the truth."""
    for kind in ("half right", "nearly all right", "nearly all wrong", "U-shaped"):
        for n in (20, 50, 300, 1319):

            def once(kind: str = kind, n: int = n) -> dict[str, bool]:
                values, truth = f1_scores(kind, n, random)
                return {
                    "before": misses(old_bca(values, 0.0, 1.0, random), truth),
                    "now": misses(mean_interval(values.tolist()), truth),
                }

            yield repeat(f"F1, {kind}, n = {n}", "interval misses", "≤ .05", trials, once)
    for rate in (0.5, 0.9, 0.02):
        for n in (20, 300):

            def right(rate: float = rate, n: int = n) -> dict[str, bool]:
                return {"now": misses(wilson(int(random.binomial(n, rate)), n), rate)}

            yield repeat(f"right/wrong, {rate:g} right, n = {n}", "interval misses", "≤ .05", trials, right)
    for n, answers in ((20, 4), (100, 4), (100, 16)):

        def repeats(n: int = n, answers: int = answers) -> dict[str, bool]:
            right = random.binomial(answers, random.beta(0.9, 0.6, n))
            rows = int(right.sum())
            return {
                "before": misses(wilson(rows, n * answers), 0.6),
                "now": misses(mean_interval((right / answers).tolist()), 0.6),
            }

        yield repeat(f"{answers} answers to each of {n} questions", "interval misses", "≤ .05", trials, repeats)


def margins(random: Random, trials: int) -> Iterator[Line]:
    """Two cells, paired: how often a candidate that is worse by exactly the margin is called non-inferior."""
    for kind in ("balanced", "rare great losses", "rare great gains", "losses only"):
        for n in (20, 50, 100, 300, 1319):
            margin = 0.02

            def once(kind: str = kind, n: int = n, margin: float = margin) -> dict[str, bool]:
                differences = f1_differences(kind, n, -margin, random)
                return {
                    "before": old_bca(differences, -1.0, 1.0, random).low >= -margin,
                    "now": score_interval(differences.tolist(), -1.0, 1.0).low >= -margin,
                }

            yield repeat(f"F1, {kind}, n = {n}, margin 2", "false non-inferior", "≤ .025", trials, once)
    for discordance, margin in ((0.1, 0.02), (0.1, 0.05), (0.3, 0.05), (0.05, 0.05)):
        for n in (20, 50, 100, 300, 1319):

            def exact(discordance: float = discordance, margin: float = margin, n: int = n) -> dict[str, bool]:
                shares = [(discordance - margin) / 2, (discordance + margin) / 2]
                differences = np.repeat([1.0, -1.0, 0.0], random.multinomial(n, [*shares, 1 - sum(shares)]))
                return {"now": score_interval(differences.tolist(), -1.0, 1.0).low >= -margin}

            setting = f"right/wrong, discordance {discordance:g}, n = {n}, margin {100 * margin:g}"
            yield repeat(setting, "false non-inferior", "≤ .025", trials, exact)


PASSAGES = [
    ("19 passages of 16", lambda random: np.full(19, 16)),
    ("38 of 8", lambda random: np.full(38, 8)),
    ("38 of 16", lambda random: np.full(38, 16)),
    ("100 of 16", lambda random: np.full(100, 16)),
    ("38 of unequal size (mean 8)", lambda random: random.geometric(1 / 8, 38)),
    ("5 of 20", lambda random: np.full(5, 20)),
]


def clusters(random: Random, trials: int) -> Iterator[Line]:
    """Questions that share a passage: intervals of a value, and false non-inferiority at the margin."""
    for label, sizes_of in PASSAGES:
        for icc in (0.0, 0.1, 0.3):

            def value(sizes_of: Callable[[Random], Array] = sizes_of, icc: float = icc) -> dict[str, bool]:
                sizes = sizes_of(random)
                groups = np.repeat(np.arange(len(sizes)), sizes).tolist()
                outcomes = clustered([0.4, 0.6], [0, 1], sizes, icc, random).tolist()
                student = mean_t_interval(outcomes, 0.95, groups)
                return {
                    "before": misses(mean_interval(outcomes), 0.6),
                    "cluster t (CR2)": misses(student, 0.6),
                    "now": misses(mean_interval(outcomes, 0.95, groups), 0.6),
                }

            yield repeat(f"value .6, {label}, ICC {icc:g}", "interval misses", "≤ .06", trials, value)
            for kind, shares, margin in (
                ("discordance .15", [0.05, 0.1, 0.85], 0.05),
                ("losses only", [0.0, 0.02, 0.98], 0.02),
            ):

                def margin_of(
                    sizes_of: Callable[[Random], Array] = sizes_of,
                    icc: float = icc,
                    shares: list[float] = shares,
                    margin: float = margin,
                ) -> dict[str, bool]:
                    sizes = sizes_of(random)
                    groups = np.repeat(np.arange(len(sizes)), sizes).tolist()
                    present = [index for index, share in enumerate(shares) if share]
                    values = [[1.0, -1.0, 0.0][index] for index in present]
                    outcomes = clustered([shares[index] for index in present], values, sizes, icc, random).tolist()
                    return {
                        "before": score_interval(outcomes, -1, 1).low >= -margin,
                        "cluster t (CR2)": mean_t_interval(outcomes, 0.95, groups).low >= -margin,
                        "now": score_interval(outcomes, -1, 1, 0.95, groups).low >= -margin,
                    }

                setting = f"{kind}, margin {100 * margin:g}, {label}, ICC {icc:g}"
                yield repeat(setting, "false non-inferior", "≤ .025", trials, margin_of)

            def f1(sizes_of: Callable[[Random], Array] = sizes_of, icc: float = icc) -> dict[str, bool]:
                sizes = sizes_of(random)
                groups = np.repeat(np.arange(len(sizes)), sizes).tolist()
                place = clustered_uniforms(sizes, icc, random)
                losses, gains = -random.uniform(0.5, 1, len(place)), random.uniform(0, 0.3, len(place))
                outcomes = np.where(place < 0.08, losses, np.where(place > 0.8, gains, 0.0)).tolist()
                return {
                    "before": score_interval(outcomes, -1, 1).low >= -0.03,
                    "cluster t (CR2)": mean_t_interval(outcomes, 0.95, groups).low >= -0.03,
                    "now": score_interval(outcomes, -1, 1, 0.95, groups).low >= -0.03,
                }

            yield repeat(
                f"F1, losses great, margin 3, {label}, ICC {icc:g}", "false non-inferior", "≤ .025", trials, f1
            )


def p_values(random: Random, trials: int) -> Iterator[Line]:
    """Tests of no difference, where there is none: how often p ≤ .05."""
    for kind in ("exchangeable", "rare great losses", "rare great gains"):
        for n in (5, 10, 20, 50, 300):

            def once(kind: str = kind, n: int = n) -> dict[str, bool]:
                if kind == "exchangeable":
                    shared, own = random.beta(0.5, 0.5, n), random.beta(0.5, 0.5, (2, n))
                    ours, others = np.where(random.random((2, n)) < 0.5, shared, own)
                    differences = ours - others
                else:
                    differences = f1_differences(kind, n, 0.0, random)
                    ours, others = np.maximum(differences, 0), np.maximum(-differences, 0)
                return {
                    "before": old_bootstrap_p(differences, random) <= 0.05,
                    "sign flip alone": sign_flip_p(differences.tolist()) <= 0.05,
                    "now": paired_difference(ours.tolist(), others.tolist()).p_value <= 0.05,
                }

            yield repeat(f"F1, {kind}, n = {n}", "p ≤ .05", "≤ .05", trials, once)
    for label, sizes_of in PASSAGES:
        for kind, shares in (("discordance .2", [0.1, 0.1, 0.8]), ("discordance .05", [0.025, 0.025, 0.95])):

            def by_passage(
                sizes_of: Callable[[Random], Array] = sizes_of, shares: list[float] = shares
            ) -> dict[str, bool]:
                sizes = sizes_of(random)
                groups = np.repeat(np.arange(len(sizes)), sizes).tolist()
                differences = clustered(shares, [1.0, -1.0, 0.0], sizes, 0.1, random)
                ours, others = np.maximum(differences, 0).tolist(), np.maximum(-differences, 0).tolist()
                return {
                    "before": paired_difference(ours, others).p_value <= 0.05,
                    "now": paired_difference(ours, others, 0.95, groups).p_value <= 0.05,
                }

            yield repeat(f"right/wrong, {kind}, {label}, ICC .1", "p ≤ .05", "≤ .05", trials, by_passage)


def seeds(random: Random, trials: int) -> Iterator[Line]:
    """Runs of several seeds: a training draw moves the candidate by 0, 3 or 5 pp (standard deviation)."""
    margin = 0.05
    for count in (2, 3, 5, 10):
        for n in (48, 304, 660):
            for spread in (0.0, 0.03, 0.05):

                def made(count: int = count, n: int = n, spread: float = spread, truth: float = -margin) -> tuple:
                    hard = random.random(n)
                    reference = (hard < 0.6).astype(float)
                    own = np.where(random.random((count, n)) < 0.8, hard, random.random((count, n)))
                    able = 0.6 + truth + random.normal(0, spread, (count, 1))
                    return (own < able).astype(float).tolist(), [reference.tolist()] * count

                def once(made: Callable[[], tuple] = made) -> dict[str, bool]:
                    found = pooled_difference(*made())
                    return {"before": misses(found.questions, -margin), "now": misses(Interval(*found[1:3]), -margin)}

                def claim(made: Callable[[], tuple] = made) -> dict[str, bool]:
                    found = pooled_difference(*made())
                    return {"before": found.questions.low >= -margin, "now": found.low >= -margin}

                setting = f"{count} seeds ± {100 * spread:g} points, n = {n}"
                yield repeat(setting, "interval misses", "≤ .05", trials, once)
                yield repeat(f"{setting}, margin 5", "false non-inferior", "≤ .025", trials, claim)


def dollars(random: Random, trials: int) -> Iterator[Line]:
    """Cost: how often "cheaper" is claimed of a candidate that costs the same, and of one that costs 25 % less."""
    n, batch = 48, 24
    batches = np.repeat(np.arange(n // batch), batch)

    def tokens(kind: str, count: int) -> Array:
        """Return tokens with mean 100; "runs on" are cut off at 500 once in twenty questions."""
        if kind == "runs on":
            return np.where(random.random(count) < 0.05, 500.0, 75 / 0.95 * random.lognormal(-0.02, 0.2, count))
        return np.minimum(100 * random.lognormal(-0.125, 0.5, count), 500.0)

    for saving, what, nominal in ((0.0, "false cheaper", "≤ .025"), (0.25, "25 % cheaper is shown", "high")):

        def rows(saving: float = saving) -> dict[str, bool]:
            ours, others = ((1 + random.normal(0, 0.05, n // batch))[batches] for _ in range(2))
            ours = ours * (1 - saving)
            groups = batches.tolist()
            return {
                "before": mean_t_interval((ours - others).tolist()).high < 0,
                "now": separate_difference(ours.tolist(), others.tolist(), 0.95, groups, groups).high < 0,
            }

        yield repeat(f"seconds of 2 batches of 24, 5 % noise{_less(saving)}", what, nominal, trials, rows)
        for rounds in (3, 5, 8):
            for mood in (0.0, 0.5):

                def metered(rounds: int = rounds, mood: float = mood, saving: float = saving) -> dict[str, bool]:
                    slow = random.lognormal(0, mood, rounds)
                    used = 100 * random.lognormal(-0.125, 0.5, n)
                    own = [np.clip(used * random.lognormal(-0.02, 0.2, n), 1, None) for _ in range(2)]
                    rates = [slow * (1 + random.normal(0, 0.05, rounds)) for _ in range(2)]
                    rates[0] = rates[0] * (1 - saving)
                    a, b = (
                        [Metered(amounts.tolist(), rate.tolist())] for amounts, rate in zip(own, rates, strict=True)
                    )
                    return {"now": metered_difference(a, b).ratio_high < 1}

                noise = f"{rounds} rounds, 5 % noise" + (", machine's mood ± 50 %" if mood else "")
                yield repeat(f"tokens × speed, {noise}{_less(saving)}", what, nominal, trials, metered)
    for kind in ("even", "runs on"):
        for count in (20, 48, 100, 304, 660):
            for saving, what, nominal in ((0.0, "false cheaper", "≤ .025"), (0.25, "25 % cheaper is shown", "high")):

                def priced(kind: str = kind, count: int = count, saving: float = saving) -> dict[str, bool]:
                    differences = ((1 - saving) * tokens(kind, count) - tokens("even", count)).tolist()
                    return {
                        "before": mean_t_interval(differences).high < 0,
                        "now": dollars_interval(differences).high < 0,
                        "now, cap known": dollars_interval(differences, 0.95, None, (-500, 500)).high < 0,
                    }

                yield repeat(f"priced tokens, {kind}, n = {count}{_less(saving)}", what, nominal, trials, priced)


def _less(saving: float) -> str:
    return f", {100 * saving:g} % less" if saving else ", equal"


def looks(random: Random, trials: int) -> Iterator[Line]:
    """Up to six interim analyses, each adding the last one's "questions to decide" (1.5 to 4 times as many)."""
    margin, discordance = 0.05, 0.2
    for truth, what, nominal in ((-margin, "false non-inferior", "≤ .025"), (0.0, "non-inferior is shown", "high")):
        for start, planned in ((50, None), (100, None), (100, 644)):

            def once(truth: float = truth, start: int = start, planned: int | None = planned) -> dict[str, bool]:
                shares = [(discordance + truth) / 2, (discordance - truth) / 2, 1 - discordance]
                stream = random.choice([1.0, -1.0, 0.0], size=60_000, p=shares)
                shown = {}
                for method in ("before", "now"):
                    sizes, size = [], start
                    while len(sizes) < 6:
                        sizes.append(size)
                        level = 0.95 if method == "before" else interim_confidence(0.95, sizes, planned)
                        seen = stream[:size].tolist()
                        found = score_interval(seen, -1.0, 1.0, level)
                        if found.low >= -margin or found.high < -margin:
                            break
                        wanted = questions_to_decide(seen, -margin, level).likely or 4 * size
                        size = min(max(wanted, math.ceil(1.5 * size)), 4 * size, len(stream))
                    shown[method] = found.low >= -margin
                return shown

            plan = f"plan {planned}" if planned else "no plan"
            yield repeat(f"first look at {start}, {plan}, margin 5", what, nominal, max(trials // 2, 100), once)


def candidates(random: Random, trials: int) -> Iterator[Line]:
    """Several candidates against one reference, correlated as recorded students are: false claims, and true ones."""
    margin, n = 0.05, 660
    for count in (2, 4, 8):
        for alike, said in ((0.65, "correlation .5"), (0.9, "correlation .8")):
            for truth, what, nominal in (
                (-margin, "any false non-inferior", "≤ .025"),
                (0.0, "the first is shown", ""),
            ):
                edges = ndtri([(0.2 - truth) / 2, 1 - (0.2 + truth) / 2])

                def once(
                    count: int = count,
                    alike: float = alike,
                    truth: float = truth,
                    edges: Array = edges,
                ) -> dict[str, bool]:
                    shared, own = random.normal(size=n), random.normal(size=(count, n))
                    place = math.sqrt(alike) * shared + math.sqrt(1 - alike) * own
                    differences = np.where(place < edges[0], -1.0, np.where(place > edges[1], 1.0, 0.0))
                    levels = {
                        "each at .95": 0.95,
                        "Bonferroni": bonferroni_confidence(0.95, count),
                        "max-T": simultaneous_confidence(0.95, differences.tolist()),
                    }
                    judged = differences if truth else differences[:1]
                    return {
                        method: any(score_interval(row.tolist(), -1, 1, level).low >= -margin for row in judged)
                        for method, level in levels.items()
                    }

                yield repeat(f"{count} candidates, {said}, n = {n}", what, nominal, max(trials // 2, 100), once)


def plans(random: Random, trials: int) -> Iterator[Line]:
    """Sample sizes: the power at the planned number of questions, and whether ranges contain the true number."""
    for margin, discordance, size, icc in (
        (0.05, 0.2, 1, 0.0),
        (0.05, 0.05, 1, 0.0),
        (0.02, 0.02, 1, 0.0),
        (0.1, 0.3, 1, 0.0),
        (0.05, 0.2, 8, 0.1),
        (0.05, 0.1, 16, 0.1),
        (0.1, 0.2, 8, 0.3),
    ):
        plan = planned_sample_size(margin, discordance, cluster_size=size, icc=icc)
        shares = [discordance / 2, discordance / 2, 1 - discordance]

        def power(
            count: int = plan.clusters,
            size: int = size,
            icc: float = icc,
            shares: list[float] = shares,
            margin: float = margin,
        ) -> dict[str, bool]:
            values = clustered(shares, [1.0, -1.0, 0.0], np.full(count, size), icc, random).tolist()
            groups = np.repeat(np.arange(count), size).tolist() if size > 1 else None
            return {"now": score_interval(values, -1, 1, 0.95, groups).low >= -margin}

        of = f" in {plan.clusters} passages, ICC {icc:g}" if size > 1 else ""
        setting = f"margin {100 * margin:g}, discordance {discordance:g}: {plan.questions} questions{of}"
        yield repeat(setting, "power", "≥ .8", max(trials // 2, 100), power)
    for truth, n in ((-0.02, 48), (0.05, 48), (0.0, 300)):
        needed = planned_sample_size(0.05, 0.2, difference=truth).questions

        def held(truth: float = truth, n: int = n, needed: int = needed) -> dict[str, bool]:
            shares = [(0.2 + truth) / 2, (0.2 - truth) / 2, 0.8]
            found = questions_to_decide(random.choice([1.0, -1.0, 0.0], size=n, p=shares).tolist(), -0.05)
            return {"now": (found.low or math.inf) <= needed <= (found.high or math.inf)}

        setting = f"from {n} questions, truth {100 * truth:+g}, margin 5: {needed} needed"
        yield repeat(setting, "the 10–90 % range holds it", "≥ .8", max(trials // 4, 100), held)


SECTIONS: dict[str, Callable[[Random, int], Iterator[Line]]] = {
    section.__name__: section
    for section in (means, margins, clusters, p_values, seeds, dollars, looks, candidates, plans)
}


def table(name: str, lines: Sequence[Line]) -> str:
    """Return a section as a Markdown table, a rate with its 95 % interval in each cell."""
    methods = list(dict.fromkeys(method for line in lines for method in line.hits))
    rows = [f"### {name}", "", str(SECTIONS[name].__doc__), ""]
    rows += [
        f"| setting | counted | nominal | {' | '.join(methods)} |",
        "| --- | --- | --- |" + " --- |" * len(methods),
    ]
    for line in lines:
        rates = " | ".join(map(line.rate, methods))
        rows.append(f"| {line.setting} | {line.what} | {line.nominal} | {rates} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="400 trials a setting instead of 4,000")
    parser.add_argument("--trials", type=int, help="trials a setting")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="only this section; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    trials = arguments.trials or (400 if arguments.quick else 4000)
    for name in arguments.only or SECTIONS:
        started, lines = time.monotonic(), []
        for line in SECTIONS[name](np.random.default_rng([arguments.seed, *name.encode()]), trials):
            lines.append(line)
            print(f"{time.monotonic() - started:6.0f} s  {name}: {line.setting}", file=sys.stderr, flush=True)
        print(table(name, lines), flush=True)


if __name__ == "__main__":
    main()
