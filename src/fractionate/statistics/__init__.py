"""Intervals, tests, sample sizes and interim analyses of outcomes and dollars, by question, passage and seed.

| what | interval | test | independent unit |
| --- | --- | --- | --- |
| a cell's value | `mean_interval` (Wilson's for right/wrong) | | question, or passage |
| two cells, paired | `paired_difference` (Tango's for right/wrong) | exact McNemar; sign flip | question, or passage |
| several seeds | `pooled_mean`, `pooled_difference` | the interval, inverted | seed, and question or passage |
| dollars per question | `dollars_interval` | | question, passage or batch |
| dollars with measured speeds | `metered_difference` | | calibration round, and question or passage |
| batches of two cells | `separate_difference` | | batch |
| few gold scores, many cheap ones | `corrected` (PPI++) | | question, or passage |

`groups` names the passage of each question: its independent unit. None, or a name of its own for each, says that
questions are independent. Several answers to one question count with their mean. `confidence` is always two-sided; a
claim that rests on one bound errs with (1 − confidence) / 2. `bonferroni_confidence` or `simultaneous_confidence`
shares it over candidates, `interim_confidence` over interim analyses; the results go in as `confidence`.

Every interval keeps an honest width where nothing varies: five right answers of five do not prove certainty, and two
systems that never disagreed on ten questions may disagree on the eleventh. Nothing is drawn at random: the same
outcomes give the same figures. What was simulated of all this is in docs/statistics.md.
"""

from fractionate.statistics.bounded import (
    Interval,
    mean_interval,
    score_interval,
    score_p,
    unseen_share,
    wilson,
)
from fractionate.statistics.clusters import UNSEEN_ICC, Design, critical, design_of
from fractionate.statistics.dollars import (
    CostDifference,
    Metered,
    dollars_interval,
    mean_t_interval,
    metered_difference,
    separate_difference,
)
from fractionate.statistics.multiplicity import (
    RESERVE,
    anytime_confidence,
    bonferroni_confidence,
    holm,
    interim_confidence,
    simultaneous_confidence,
    spent_at,
)
from fractionate.statistics.paired import (
    Difference,
    Pooled,
    mcnemar,
    paired_difference,
    pooled_difference,
    pooled_mean,
    sign_flip_p,
    tango,
)
from fractionate.statistics.prediction_powered import Corrected, corrected
from fractionate.statistics.sample_size import (
    POWER,
    Needed,
    Plan,
    planned_sample_size,
    questions_to_decide,
    sample_size,
)

__all__ = [
    "POWER",
    "RESERVE",
    "UNSEEN_ICC",
    "Corrected",
    "CostDifference",
    "Design",
    "Difference",
    "Interval",
    "Metered",
    "Needed",
    "Plan",
    "Pooled",
    "anytime_confidence",
    "bonferroni_confidence",
    "corrected",
    "critical",
    "design_of",
    "dollars_interval",
    "holm",
    "interim_confidence",
    "mcnemar",
    "mean_interval",
    "mean_t_interval",
    "metered_difference",
    "paired_difference",
    "planned_sample_size",
    "pooled_difference",
    "pooled_mean",
    "questions_to_decide",
    "sample_size",
    "score_interval",
    "score_p",
    "separate_difference",
    "sign_flip_p",
    "simultaneous_confidence",
    "spent_at",
    "tango",
    "unseen_share",
    "wilson",
]
