"""Exact figures of the statistics: a changed sign, bound or constant anywhere in them changes one of these.

The other files of tests compare the methods with independent computations; here each function is pinned to 8 digits
over small samples that reach its branches: ties, one passage, equal values, caps, several seeds, interim analyses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from fractionate import statistics as s
from fractionate.statistics import bounded, clusters, paired
from fractionate.statistics.sample_size import _fewest

INF, M = math.inf, s.Metered
A = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0]
B = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
F1 = [0.25, 0.5, 1.0, 0.0, 0.75, 1.0, 0.4, 0.9, 0.3, 1.0, 0.6, 0.8]
F2 = [0.2, 0.5, 0.7, 0.1, 0.75, 0.3, 0.4, 0.2, 0.3, 0.9, 0.1, 0.8]
PASSAGES = [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 5]
NAMED = ["b", "b", "b", "a", "a", "d", "d", "d", "c", "c", "f", "e"]
USD = [0.00012, 0.00009, 0.0005, 0.00011, 0.0001, 0.00013, 0.00008, 0.00021, 0.00009, 0.0001, 0.00012, 0.00015]
LESS = [0.00003, 0.00004, 0.00002, 0.00005, 0.00003, 0.00002, 0.00006, 0.00004, 0.00003, 0.00002, 0.00004, 0.00031]
IN, OUT = [120.0, 90.0, 150.0, 101.0], [40.0, 61.0, 12.0, 33.0]
SPEEDS, OTHER = [1e-6, 1.2e-6, 0.9e-6], [2.1e-6, 2.2e-6, 1.9e-6]
MANY = [((7 * at) % 11 - 4.5) / 10 for at in range(40)]
GRID = [((5 * at) % 7 - 2) / 4 for at in range(40)]


def rounded(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, Iterable):
        return tuple(rounded(one) for one in value)
    value = float(value)
    return value if not math.isfinite(value) or not value else round(value, 7 - math.floor(math.log10(abs(value))))


# fmt: off
FIGURES: list[tuple[Callable[[], Any], Any]] = [
    (lambda: s.wilson(8, 12), (0.39062209, 0.86187991)),
    (lambda: s.wilson(0, 0), (0.0, 1.0)),
    (lambda: s.wilson(5, 5, 0.9), (0.6488835, 1.0)),
    (lambda: s.unseen_share(12), 0.24249401),
    (lambda: s.unseen_share(1, 0.9), 0.73013405),
    (lambda: s.mean_interval(A), (0.39062209, 0.86187991)),
    (lambda: s.mean_interval(A, 0.9), (0.43149161, 0.84051466)),
    (lambda: s.mean_interval(F1), (0.42675638, 0.78181074)),
    (lambda: s.mean_interval(F1, 0.8, PASSAGES), (0.48349994, 0.74451434)),
    (lambda: s.mean_interval(A, groups=PASSAGES), (0.34036013, 0.88574377)),
    (lambda: s.mean_interval(A, groups=NAMED), (0.34036013, 0.88574377)),
    (lambda: s.mean_interval(A, groups=list(range(12))), (0.39062209, 0.86187991)),
    (lambda: s.mean_interval([]), (0.0, 1.0)),
    (lambda: s.mean_interval([], groups=[]), (0.0, 1.0)),
    (lambda: s.mean_interval([1.0, 1.0, 0.0], groups=[0, 0, 0]), (0.0, 1.0)),
    (lambda: s.mean_interval([1.0] * 6, groups=[0, 0, 1, 1, 2, 2]), (0.35565142, 1.0)),
    (lambda: s.mean_interval([0.5] * 6), (0.30483286, 0.69516714)),
    (lambda: s.mean_interval([0.5, 0.0]), (0.047265603, 0.74321483)),
    (lambda: s.score_interval([], -1.0, 2.0), (-1.0, 2.0)),
    (lambda: s.score_interval([0.3], 0.0, 1.0), (0.061964794, 0.85541548)),
    (lambda: s.score_interval([0.0, 0.0, 3.0], 0.0, 3.0, 0.99), (0.12127989, 2.567352)),
    (lambda: s.score_interval([-1.0, 0.5, 0.25, 0.0], -1.0, 1.0), (-0.62531548, 0.45800901)),
    (lambda: s.score_interval([1.0 + 5e-13, 0.5, -5e-13], 0.0, 1.0), (0.15379763, 0.84620237)),
    (lambda: s.score_p(MANY, -1.0, 1.0), 0.27850766),
    (lambda: s.score_p(MANY, -1.0, 1.0, at=0.1), 0.37449939),
    (lambda: s.score_p([], -1.0, 1.0), 1.0),
    (lambda: s.score_p([0.1, 0.2], -1.0, 1.0, [0, 0]), 1.0),
    (lambda: s.score_p([0.1, -0.1], -1.0, 1.0), 1.0),
    (lambda: s.score_p([0.4, 0.3, 0.4, 0.2, 0.1], -1.0, 1.0, [0, 0, 1, 1, 2]), 0.326655),
    (lambda: bounded.variance_at(bounded.shares_of(np.asarray(F1)), 0.0, 1.0, 0.3), 0.11877495),
    (lambda: bounded.variance_at(bounded.shares_of(np.asarray(F1)), 0.0, 1.0, 0.8), 0.072459831),
    (lambda: bounded.variance_at(bounded.shares_of(np.asarray(F1)), 0.0, 1.0, 0.625), 0.10395833),
    (lambda: bounded.variance_at(bounded.shares_of(np.asarray([0.5, 0.6])), 0.0, 1.0, 0.05), 0.025),
    (lambda: bounded.variance_at(bounded.shares_of(np.asarray([0.5, 0.6])), 0.0, 1.0, 0.99), 0.0044),
    (lambda: bounded.score_of(bounded.shares_of(np.asarray(F1)), 0.0, 1.0, 0.5), 0.36469301),
    (lambda: bounded.score_of(bounded.shares_of(np.asarray(F1)), 0.0, 1.0, 0.625), 0.0),
    (lambda: bounded.shares_of(np.asarray(A)).mean(), 0.66666667),
    (lambda: s.critical(0.95), 1.959964),
    (lambda: s.critical(0.9, 3), 2.3533634),
    (lambda: s.critical(0.95, 0), INF),
    (lambda: s.critical(0.95, -1), INF),
    (lambda: s.critical(0.0), 0.0),
    (lambda: tuple(clusters.group_numbers(NAMED, 12)), (0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 4.0, 5.0)),
    (lambda: tuple(clusters.group_numbers(np.asarray([0, 0, 1, 2, 1]), 5)), (0.0, 0.0, 1.0, 2.0, 1.0)),
    (lambda: tuple(clusters.group_numbers(np.asarray([0, 2, 1, 1, 0]), 5)), (0.0, 1.0, 2.0, 2.0, 0.0)),
    (lambda: tuple(clusters.group_numbers(np.asarray([1, 0, 1, 1, 0]), 5)), (0.0, 1.0, 0.0, 0.0, 1.0)),
    (lambda: tuple(clusters.group_numbers(np.asarray([0, -1, 1, 1, 0]), 5)), (0.0, 1.0, 2.0, 2.0, 0.0)),
    (lambda: tuple(clusters.group_numbers(np.asarray([0, 2, 2, 4, 0]), 5)), (0.0, 1.0, 1.0, 2.0, 0.0)),
    (lambda: tuple(clusters.group_numbers(np.asarray([], dtype=np.int64), 0)), ()),
    (lambda: tuple(clusters.group_numbers(None, 3)), (0.0, 1.0, 2.0)),
    (lambda: clusters.spread_of(np.asarray(F1), np.asarray(PASSAGES)), (0.625, 0.0041580387, 4.1673045)),
    (lambda: clusters.spread_of(np.asarray(F1), np.zeros(12, dtype=np.int64)), (0.625, INF, 0.0)),
    (lambda: clusters.spread_of(np.asarray([1.0, 3.0]), np.asarray([0, 1])), (2.0, 1.0, 1.0)),
    (lambda: s.design_of(np.asarray(F1), PASSAGES), (12.0, 6.0, 12.0, 6.7089699)),
    (lambda: s.design_of(np.asarray(F1), None), (12.0, 12.0, 12.0, INF)),
    (lambda: s.design_of(np.asarray(F1), [0] * 12), (12.0, 1.0, 1.0, 0.0)),
    (lambda: s.design_of(np.asarray([0.5] * 4), [0, 0, 1, 1]), (4.0, 2.0, 3.3333333, 1.5)),
    (lambda: s.design_of(np.asarray([0.0] * 11 + [1.0]), PASSAGES), (12.0, 6.0, 9.4846725, 6.7089699)),
    (lambda: s.design_of(np.asarray([0.0] * 10 + [1.0, 1.0]), PASSAGES), (12.0, 6.0, 8.9108911, 6.7089699)),
    (lambda: s.design_of(np.asarray([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]), [0, 0, 0, 1, 1, 1]), (6.0, 2.0, 1.2, 1.25)),
    (lambda: s.design_of(np.asarray(F1), PASSAGES).effect, 1.0),
    (lambda: clusters.design_effect(2.5, 8.0, 12, 2.3), 2.5),
    (lambda: clusters.design_effect(0.5, 8.0, 12, 2.3), 1.0),
    (lambda: clusters.design_effect(1.0, 0.5, 12, 2.3), 1.26),
    (lambda: clusters.design_effect(1.0, 3.0, 1, 2.0), 1.05),
    (lambda: clusters.design_effect(1.5, 1.0, 12, 4.0), 1.6),
    (lambda: s.paired_difference(A, B),
     (0.25, -0.13262796, 0.56507689, 0.375, 'exact McNemar', 0.35416667, 12.0, 12.0, 12.0)),
    (lambda: s.paired_difference(A, B, 0.9, PASSAGES),
     (0.25, -0.17240063, 0.58989885, 0.5, 'sign flip of passages', 0.35416667, 12.0, 6.0, 9.4944309)),
    (lambda: s.paired_difference(F1, F2),
     (0.1875, -0.10046163, 0.38452638, 0.1336144, 'sign flip of questions', 0.07671875, 12.0, 12.0, 12.0)),
    (lambda: s.paired_difference(F2, F1, 0.8, NAMED),
     (-0.1875, -0.35089939, 0.051314499, 0.26125581, 'sign flip of passages', 0.07671875, 12.0, 6.0, 8.0248994)),
    (lambda: s.paired_difference([], []), (0.0, -1.0, 1.0, 1.0, 'exact McNemar', 1.0, 0.0, 0.0, 0.0)),
    (lambda: s.paired_difference([0.0, 1.0], [1.0, 0.0]),
     (0.0, -0.81093759, 0.81093759, 1.0, 'exact McNemar', 1.0, 2.0, 2.0, 2.0)),
    (lambda: s.paired_difference([0.5, 1.0], [1.0, 0.25], groups=[0, 0]),
     (0.125, -1.0, 1.0, 1.0, 'sign flip of passages', 0.390625, 2.0, 1.0, 1.0)),
    (lambda: s.tango(4, 1, 12), (-0.13262796, 0.56507689)),
    (lambda: s.tango(0, 0, 5), (-0.43448246, 0.43448246)),
    (lambda: s.tango(0, 0, 0), (-1.0, 1.0)),
    (lambda: s.tango(3, 0, 3, 0.9), (0.051608852, 1.0)),
    (lambda: s.mcnemar(4, 1), 0.375),
    (lambda: s.mcnemar(0, 0), 1.0),
    (lambda: s.mcnemar(3, 3), 1.0),
    (lambda: s.mcnemar(0, 9), 0.00390625),
    (lambda: s.sign_flip_p([]), 1.0),
    (lambda: s.sign_flip_p([0.0, 1e-13]), 1.0),
    (lambda: s.sign_flip_p([1.0, -1.0]), 1.0),
    (lambda: s.sign_flip_p([1.0, 2.0, -0.5]), 0.5),
    (lambda: s.sign_flip_p([0.3] * 8 + [-0.1, -0.25]), 0.0234375),
    (lambda: s.sign_flip_p(GRID), 0.0054508784),
    (lambda: s.sign_flip_p([value / 3 for value in GRID]), 0.0054508784),
    (lambda: s.sign_flip_p([value + at * 1e-4 for at, value in enumerate(MANY)]), 0.27359673),
    (lambda: s.sign_flip_p([value + 0.2 + at * 1.1e-4 for at, value in enumerate(MANY)]), 1.903958e-05),
    (lambda: s.sign_flip_p([0.1 + at * 1.01e-4 for at in range(40)]), 1.8189894e-12),
    (lambda: s.sign_flip_p([0.1 + at * 1.01e-4 if at % 2 else -0.1 - at * 1.0102e-4 for at in range(40)]), 0.99752597),
    (lambda: paired._grid_p(np.asarray([1, 2, 3]), 4), 0.5),
    (lambda: paired._enumerated_p(np.asarray([1.0, 2.0, 3.0]), 4.0), 0.5),
    (lambda: paired._saddlepoint_p(np.asarray([1.0, 2.0, 3.0]), 4.0), 0.33411646),
    (lambda: paired._saddlepoint_p(np.asarray([1.0, 2.0, 3.0]), 6.0), 0.25),
    (lambda: paired._saddlepoint_p(np.asarray([1.0, 2.0, 3.0]), 1e-5), 0.99999787),
    (lambda: paired._saddlepoint_p(np.asarray([1.0, 2.0, 3.0]), 5.9), 0.15718302),
    (lambda: s.pooled_mean([A]),
     (0.66666667, 0.39062209, 0.86187991, 9.9997788e-13, 1.0, math.nan, (0.39062209, 0.86187991), 12.0, 12.0, 12.0)),
    (lambda: s.pooled_mean([A, B]),
     (0.54166667, 0.0, 1.0, 9.9997788e-13, 2.0, 0.1767767, (0.3310485, 0.73677547), 12.0, 12.0, 12.0)),
    (lambda: s.pooled_mean([A, B, F1], 0.9, PASSAGES),
     (0.56944444, 0.29682323, 0.83171011, 9.9997788e-13, 3.0, 0.13393959,
      (0.41668489, 0.70284773), 12.0, 6.0, 12.0)),
    (lambda: s.pooled_mean([[0.0, 0.0], [0.0, 0.0]]),
     (0.0, 0.0, 0.65761977, 1.0, 2.0, 0.0, (0.0, 0.65761977), 2.0, 2.0, 2.0)),
    (lambda: s.pooled_difference([A, F1], [B, F2]),
     (0.21875, -0.27623217, 0.68215686, 0.15263174, 2.0, 0.044194174, (-0.076789571, 0.45766882), 12.0, 12.0, 12.0)),
    (lambda: s.pooled_difference([A, F1, A], [B, F2, F2], 0.8, NAMED),
     (0.22222222, -0.0070262886, 0.42546585, 0.20762716, 3.0, 0.031823442,
      (-0.0043933231, 0.42249129), 12.0, 6.0, 8.8751586)),
    (lambda: s.pooled_difference([B, F2], [A, F1]),
     (-0.21875, -0.68215686, 0.27623217, 0.15263174, 2.0, 0.044194174,
      (-0.45766882, 0.076789571), 12.0, 12.0, 12.0)),
    (lambda: s.pooled_difference([A, A], [A, A]),
     (0.0, -0.24249401, 0.24249401, 1.0, 2.0, 0.0, (-0.24249401, 0.24249401), 12.0, 12.0, 12.0)),
    (lambda: s.pooled_difference([[1.0] * 9] * 2, [[0.0] * 9] * 2),
     (1.0, 0.4017099, 1.0, 0.0026997961, 2.0, 0.0, (0.4017099, 1.0), 9.0, 9.0, 9.0)),
    (lambda: paired.join(0.5, s.Interval(0.2, 0.6), s.Interval(0.1, 0.9)), (0.0, 0.91231056)),
    (lambda: s.mean_t_interval([1.0]), (-INF, INF)),
    (lambda: s.mean_t_interval([]), (-INF, INF)),
    (lambda: s.mean_t_interval(USD), (7.6550505e-05, 0.0002234495)),
    (lambda: s.mean_t_interval(USD, 0.9, PASSAGES), (9.0041548e-05, 0.00020995845)),
    (lambda: s.mean_t_interval([1.0, 2.0], groups=[0, 0]), (-INF, INF)),
    (lambda: s.mean_t_interval([1.0, 2.0]), (-4.8531024, 7.8531024)),
    (lambda: s.dollars_interval(USD), (7.6550505e-05, 0.0004056817)),
    (lambda: s.dollars_interval(USD, 0.9, PASSAGES), (9.0041548e-05, 0.00039377988)),
    (lambda: s.dollars_interval(USD, 0.95, None, (0.0, 0.002)), (0.0001136259, 0.00059861391)),
    (lambda: s.dollars_interval(USD, 0.9, PASSAGES, (0.0, 0.002)), (0.00010885687, 0.00065743193)),
    (lambda: s.dollars_interval([], bounds=(0.0, 1.0)), (-INF, INF)),
    (lambda: s.dollars_interval([0.0, 0.0], bounds=(0.0, 0.0)), (0.0, 0.0)),
    (lambda: s.dollars_interval([1.0]), (-INF, INF)),
    (lambda: s.dollars_interval([2.0, 2.0, 2.0]), (2.0, 2.0)),
    (lambda: s.dollars_interval([-value for value in USD]), (-0.0004056817, -7.6550505e-05)),
    (lambda: s.dollars_interval([1.0, 2.0, 3.0]), (-0.48413771, 4.4841377)),
    (lambda: s.separate_difference(USD, LESS), (-8.8737819e-05, 0.00035324328)),
    (lambda: s.separate_difference(USD, LESS[:7], 0.9, PASSAGES, [0, 0, 1, 1, 2, 2, 3]),
     (5.2597582e-05, 0.00035839633)),
    (lambda: s.separate_difference(USD, [1.0]), (-INF, INF)),
    (lambda: s.separate_difference([], LESS), (-INF, INF)),
    (lambda: s.metered_difference([M(USD, 1.0)], [M(LESS, 1.0)]),
     (0.00015, 5.75e-05, 9.25e-05, 5.8076747e-07, 0.00025137526, 2.6086957, 1.0065704, 24.545501, 12.0, 0.0)),
    (lambda: s.metered_difference([M(LESS, 1.0)], [M(USD, 1.0)], 0.9, PASSAGES),
     (5.75e-05, 0.00015, -9.25e-05, -0.00020956043, -7.750377e-06, 0.38333333, 0.031779607, 0.92494881, 12.0, 0.0)),
    (lambda: s.metered_difference([M(USD, 1.0, 0.002)], [M(LESS, 1.0, 0.001)]),
     (0.00015, 5.75e-05, 9.25e-05, -0.0001724247, 0.00055505732, 2.6086957, 0.39722307, 13.743359, 12.0, 0.0)),
    (lambda: s.metered_difference([M(USD, 1.0, 0.002)], [M(LESS, 1.0)]),
     (0.00015, 5.75e-05, 9.25e-05, 5.8076747e-07, 0.00025137526, 2.6086957, 1.0065704, 24.545501, 12.0, 0.0)),
    (lambda: s.metered_difference([M(IN, SPEEDS), M(OUT, OTHER)], [M(OUT, SPEEDS), M(IN, 3e-7)]),
     (0.000194525, 7.2291667e-05, 0.00012223333, 4.7681427e-05, 0.00016808102,
      2.6908357, 2.2688887, 3.4065963, 4.0, 3.0)),
    (lambda: s.metered_difference([M(IN, SPEEDS, 900.0), M(OUT, OTHER, 512.0)], [M(OUT, 1e-6, 512.0)], 0.9),
     (0.000194525, 3.65e-05, 0.000158025, -0.00011505265, 0.00089744099,
      5.3294521, 0.50396817, 42.569482, 4.0, 3.0)),
    (lambda: s.metered_difference([M(IN, 1.0, None, [100.0, 120.0, 140.0])], [M(OUT, 2.0, None, [30.0, 35.0, 41.0])]),
     (115.25, 73.0, 42.25, -63.217506, 166.29905, 1.5787671, 0.55136705, 19.173448, 4.0, 0.0)),
    (lambda: s.metered_difference([M([0.0, 0.0], 1.0)], [M([1.0, 2.0], 1.0)]),
     (0.0, 1.5, -1.5, -7.8531024, 4.8531024, 0.0, 0.0, INF, 2.0, 0.0)),
    (lambda: s.metered_difference([M([1.0, 2.0], 1.0)], [M([0.0, 0.0], 1.0)]),
     (1.5, 0.0, 1.5, -4.8531024, 7.8531024, math.nan, 0.0, INF, 2.0, 0.0)),
    (lambda: s.metered_difference([M([1.0], 1.0)], [M([2.0], 1.0)]),
     (1.0, 2.0, -1.0, -INF, INF, 0.5, 0.0, INF, 1.0, 0.0)),
    (lambda: s.metered_difference([M([2.0, 2.0], 1.0)], [M([1.0, 1.0], 1.0)]),
     (2.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 0.0)),
    (lambda: s.metered_difference([M([1.0, 2.0], [0.5])], [M([2.0, 1.0], [0.25])]),
     (0.75, 0.375, 0.375, -INF, INF, 2.0, 0.0, INF, 2.0, 1.0)),
    (lambda: s.metered_difference([M([1.0, 90.0], 1.0)], [M([2.0, 1.0], 1.0)]),
     (45.5, 1.5, 44.0, -527.77921, 615.77921, 30.333333, 0.0, INF, 2.0, 0.0)),
    (lambda: s.holm([0.01, 0.04, 0.03]), (0.03, 0.06, 0.06)),
    (lambda: s.holm([0.01, 0.04, 0.03], 2), (0.02, 0.06, 0.06)),
    (lambda: s.holm([0.9, 0.8]), (1.0, 1.0)),
    (lambda: s.holm([]), ()),
    (lambda: s.bonferroni_confidence(0.95, 4), 0.9875),
    (lambda: s.bonferroni_confidence(0.95, 0), 0.95),
    (lambda: s.bonferroni_confidence(0.95, 1), 0.95),
    (lambda: s.simultaneous_confidence(0.9, [MANY, GRID]), 0.94957872),
    (lambda: s.simultaneous_confidence(0.9, [MANY, [value * 0.5 + 0.01 for value in MANY]]), 0.9),
    (lambda: s.simultaneous_confidence(0.9, [[-value for value in A], B], PASSAGES), 0.94740144),
    (lambda: s.simultaneous_confidence(0.9, [[0.0] * 4, [1.0, 0.0, 1.0, 0.0]]), 0.94933716),
    (lambda: s.simultaneous_confidence(0.9, [MANY]), 0.9),
    (lambda: s.simultaneous_confidence(0.9, [[], []]), 0.95),
    (lambda: s.simultaneous_confidence(0.9, [MANY, GRID, [MANY[at] - GRID[at] / 2 for at in range(40)]]), 0.96083588),
    (lambda: s.interim_confidence(0.95, [100]), 0.96),
    (lambda: s.interim_confidence(0.95, [100], 200), 0.99799592),
    (lambda: s.interim_confidence(0.95, [100, 200, 200, 400], 200), 0.99014473),
    (lambda: s.interim_confidence(0.9, [50, 100, 150], 150, 0.1), 0.91853453),
    (lambda: s.interim_confidence(0.95, [100, 200], 100, 0.0), 1.0),
    (lambda: s.interim_confidence(0.95, [100], 100, 0.0), 0.95),
    (lambda: s.interim_confidence(0.95, [10, 20, 1000], 100), 0.95100035),
    (lambda: s.anytime_confidence(0.95, 100, 200), 0.99801564),
    (lambda: s.anytime_confidence(0.9, 400, 200), 0.99491077),
    (lambda: s.spent_at(100, 100, 0.2, 0.025), 0.8),
    (lambda: s.spent_at(50, 100, 0.2, 0.025), 0.040081688),
    (lambda: s.spent_at(400, 100, 0.2, 0.025), 0.95),
    (lambda: s.spent_at(99, 100, 0.0, 0.05), 0.97713898),
    (lambda: s.sample_size(0.05, 0.2), 628.0),
    (lambda: s.sample_size(-0.05, 0.2, 0.9, 0.9), 686.0),
    (lambda: s.sample_size(0.0, 0.2), None),
    (lambda: s.sample_size(1e-12, 0.2), None),
    (lambda: s.sample_size(0.3, 0.0), 9.0),
    (lambda: s.sample_size(0.3, 0.0, room=None), 1.0),
    (lambda: s.sample_size(0.3, 0.001, room=2.0), 22.0),
    (lambda: s.sample_size(1e-7, 0.2), None),
    (lambda: s.sample_size(1.4e-6, 0.5), None),
    (lambda: s.planned_sample_size(0.05, 0.2), (644.0, 644.0, 1.0, 0.8)),
    (lambda: s.planned_sample_size(0.05, 0.2, 0.9, 0.9, -0.02), (1920.0, 1920.0, 1.0, 0.9)),
    (lambda: s.planned_sample_size(0.03, 0.1, difference=0.02, candidates=3), (453.0, 453.0, 1.0, 0.8)),
    (lambda: s.planned_sample_size(0.05, 0.2, cluster_size=4.0, icc=0.1), (848.0, 212.0, 1.3058095, 0.8)),
    (lambda: s.planned_sample_size(0.3, 0.5, cluster_size=8.0, icc=0.5), (208.0, 26.0, 4.5, 0.8)),
    (lambda: s.planned_sample_size(0.05, 0.0), (73.0, 73.0, 1.0, 0.8)),
    (lambda: s.planned_sample_size(0.05, 1.0, candidates=0), (3135.0, 3135.0, 1.0, 0.8)),
    (lambda: s.planned_sample_size(0.2, 0.2, difference=0.2), (14.0, 14.0, 1.0, 0.8)),
    (lambda: s.planned_sample_size(0.5, 0.5, cluster_size=2.5), (20.0, 8.0, 1.065896, 0.8)),
    (lambda: s.planned_sample_size(0.9, 0.1, cluster_size=20.0), (40.0, 2.0, 1.9686275, 0.8)),
    (lambda: s.questions_to_decide(MANY, 0.2), (21.0, 42.0, 126.0, 0.8)),
    (lambda: s.questions_to_decide(GRID, -0.05, 0.9, 0.9), (15.0, 27.0, 57.0, 0.9)),
    (lambda: s.questions_to_decide([a - b for a, b in zip(A, B, strict=True)], -0.02, groups=PASSAGES),
     (18.0, 54.0, 621.0, 0.8)),
    (lambda: s.questions_to_decide([f - g for f, g in zip(F1, F2, strict=True)], 0.0, groups=NAMED),
     (18.0, 48.0, 365.0, 0.8)),
    (lambda: s.questions_to_decide(USD, 0.0, bounds=None), (3.0, 5.0, 9.0, 0.8)),
    (lambda: s.questions_to_decide([u - v for u, v in zip(USD, LESS, strict=True)], 0.0, groups=PASSAGES, bounds=None),
     (11.0, 25.0, 150.0, 0.8)),
    (lambda: s.questions_to_decide([0.0] * 5, -0.05), (6.0, 48.0, 484.0, 0.8)),
    (lambda: s.questions_to_decide([1.0, 1.0, 1.0], 1.0), (2.0, None, None, 0.8)),
    (lambda: s.questions_to_decide([0.25] * 8, 0.25), (3.0, 14.0, 239.0, 0.8)),
    (lambda: s.questions_to_decide([0.1, 0.1], 0.0, groups=[0, 0]), (5.0, 5.0, 5.0, 0.8)),
    (lambda: s.questions_to_decide(MANY, 1.0), (1.0, 1.0, 2.0, 0.8)),
    (lambda: _fewest(0.05, 0.2, 0.2, 0.95, 0.8, lambda n: 1.0, 1.0), 628.0),
    (lambda: _fewest(0.5, 0.2, 0.2, 0.95, 0.8, lambda n: 1.0, 4.0), 14.0),
    (lambda: _fewest(1e-12, 0.2, 0.2, 0.95, 0.8, lambda n: 1.0, 1.0), INF),
    (lambda: _fewest(1e-6, 0.2, 0.2, 0.95, 0.8, lambda n: 1.0, 1.0), INF),
    (lambda: _fewest(0.9, 0.0, 0.0, 0.95, 0.8, lambda n: 1.0, 1.0), 1.0),
    (lambda: _fewest(0.9, 0.0, 0.0, 0.95, 0.8, lambda n: 1.0, 2.0), 4.0),
    (lambda: (s.POWER, s.RESERVE, s.UNSEEN_ICC), (0.8, 0.2, 0.2)),
]
# fmt: on


@pytest.mark.parametrize("number", range(len(FIGURES)))
def test_a_figure_is_exactly_what_it_was(number: int) -> None:
    call, expected = FIGURES[number]
    found = rounded(call())
    flat = np.asarray(_numbers(found)), np.asarray(_numbers(expected))
    np.testing.assert_allclose(flat[0], flat[1], rtol=5e-7, atol=1e-15)
    assert _texts(found) == _texts(expected)


def _numbers(value: Any) -> list[float]:
    if isinstance(value, tuple):
        return [each for one in value for each in _numbers(one)]
    return [] if isinstance(value, str) else [-12345.0 if value is None else value]


def _texts(value: Any) -> list[str]:
    if isinstance(value, tuple):
        return [each for one in value for each in _texts(one)]
    return [value] if isinstance(value, str) else []
