"""The curves equal the laws, their derivatives are correct, and the minimiser agrees with SciPy's L-BFGS-B."""

import numpy as np
import pytest
from scipy.optimize import minimize

from fractionate.planning.minimise import DELTA, DistillationCurve, Minimum, SupervisedCurve, huber, minimise, polished
from fractionate.planning.protocol import starts
from planning.synthetic import PAPER, distillation_runs, supervised_runs


def curves(count=60, noise=0.003, seed=0):
    one, two = supervised_runs(count, noise, seed), distillation_runs(count, noise, seed)
    alone = PAPER.supervised.loss(two.params, two.tokens)
    return (
        SupervisedCurve(*map(np.log, (one.params, one.tokens, one.loss))),
        DistillationCurve(*map(np.log, (two.params, two.tokens, two.teacher_loss, alone, two.loss))),
    )


def published(curve):
    law = PAPER.supervised if isinstance(curve, SupervisedCurve) else PAPER.distilled
    common = [np.log(law.a), np.log(law.b), law.alpha, law.beta, law.gamma]
    if isinstance(curve, SupervisedCurve):
        return np.array([[np.log(law.e), *common]])
    return np.array([[*common, law.c0, np.log(law.k), np.log(law.f1), np.log(law.c1)]])


@pytest.mark.parametrize("which", [0, 1])
def test_a_curve_is_its_law(which):
    curve = curves(noise=0.0)[which]
    residuals, _ = curve.residuals(published(curve))
    assert np.abs(residuals).max() < 1e-12
    law = curve.law(published(curve)[0])
    expected = PAPER.supervised if which == 0 else PAPER.distilled
    assert law.loss(*([1e9, 2e10] if which == 0 else [1e9, 2e10, 2.1, 2.37])) == pytest.approx(
        expected.loss(*([1e9, 2e10] if which == 0 else [1e9, 2e10, 2.1, 2.37])), rel=1e-12
    )


@pytest.mark.parametrize("which", [0, 1])
def test_derivatives_are_those_of_finite_differences(which):
    curve = curves()[which]
    generator = np.random.default_rng(1)
    theta = published(curve) * (1 + 0.2 * generator.standard_normal((6, len(curve.names))))
    _, jacobian = curve.residuals(theta)
    for number in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[:, number] = 1e-6
        slope = (curve.residuals(theta + step)[0] - curve.residuals(theta - step)[0]) / 2e-6
        assert np.abs(slope - jacobian[:, number]).max() < 2e-7, curve.names[number]


def test_extreme_parameters_overflow_nowhere():
    for curve in curves():
        for theta in (curve.lower, curve.upper):
            residuals, jacobian = curve.residuals(theta[None])
            assert np.isfinite(residuals).all()
            assert np.isfinite(jacobian).all()


def test_the_loss_is_huber_s():
    from scipy.special import huber as scipys

    residuals = np.array([[0.0, 0.3 * DELTA, -0.9 * DELTA, 2 * DELTA, -0.02]])
    weights = np.array([[1.0, 2, 1, 1, 3]])
    expected = (weights * scipys(DELTA, residuals)).sum() / weights.sum()
    assert huber(residuals, weights)[0] == pytest.approx(expected, rel=1e-12)


def scipys_optimum(curve, start, free):
    """L-BFGS-B on the loss, with SciPy's own numerical derivatives: nothing of ours but the residuals."""
    weights = np.ones((1, len(curve.log_loss)))

    def loss(part):
        theta = start.copy()
        theta[free] = part
        return float(huber(curve.residuals(theta[None])[0], weights)[0]) * 1e7

    bounds = list(zip(curve.lower[free], curve.upper[free], strict=True))
    part = start[free]
    for _ in range(4):
        part = minimize(loss, part, method="L-BFGS-B", bounds=bounds, options={"maxfun": 20000}).x
    return loss(part) / 1e7


@pytest.mark.parametrize("which", [0, 1])
def test_l_bfgs_b_finds_nothing_better(which):
    curve = curves()[which]
    free = np.ones(len(curve.names), bool)
    if which == 1:
        free[-1] = False
    grid = starts(curve)
    some = grid[np.random.default_rng(2).integers(0, len(grid), 192)]
    ours = minimise(curve, some, free=free, rounds=200)
    best = float(ours.loss.min())
    assert np.mean(ours.loss < best * 1.001) > 0.02, "one start alone would be luck"
    assert float(polished(curve, ours.best().theta[0], free).loss[0]) > best * (1 - 1e-4)
    theirs = [scipys_optimum(curve, start, free) for start in some[:4]]
    theirs.append(scipys_optimum(curve, published(curve)[0], free))
    assert min(theirs) > best * (1 - 1e-4)


def test_weights_count_runs_as_repeats_do():
    curve = curves(30)[0]
    weights = np.random.default_rng(3).integers(0, 3, 30)
    repeated = curve.over(np.repeat(np.arange(30), weights))
    start = published(curve)
    one = minimise(curve, start, weights[None].astype(float), rounds=300)
    two = minimise(repeated, start, rounds=300)
    assert one.loss == pytest.approx(two.loss, rel=1e-5)


def test_many_at_once_are_the_same_as_one_by_one():
    curve = curves(30)[1]
    free = np.arange(9) < 8
    some = starts(curve)[[100, 90_000, 200_000]]
    together = minimise(curve, some, free=free)
    alone = Minimum.joined([minimise(curve, start[None], free=free) for start in some])
    assert together.loss == pytest.approx(alone.loss, rel=1e-6)


def test_the_grids_are_the_published_ones():
    supervised, distillation = (starts(curve) for curve in curves(20))
    assert supervised.shape == (5 * 5 * 6 * 4**3, 6)
    assert distillation.shape == (5 * 5 * 3**3 * 4**3 * 5, 9)
    assert np.isfinite(distillation).all()
    assert set(supervised[:, 0]) == {-1, -0.5, 0, 0.5, 1, 1.5}
