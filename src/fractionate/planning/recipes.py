"""Compute-optimal recipes: how large a teacher, and how many tokens for it and for the student.

Given a student's size and a budget in FLOPs, minimise the student's loss over (D_S, N_T, D_T) subject to what the
scenario pays for (arXiv 2502.08606v2, section 5.3). The paper uses SLSQP from many starts; here a grid over (N_T,
D_T) is refined until it converges, with D_S from the budget. It needs no derivative and no start, and handles many
draws of the coefficients, or many budgets, in one pass: every array has the shape (rows, N_T, D_T).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fractionate.errors import UsageError
from fractionate.planning.checks import Values, not_negative, positive
from fractionate.planning.coefficients import SETS, CoefficientSet
from fractionate.planning.flops import (
    DEFAULT_ARCHITECTURE,
    TRAINING_PASSES,
    Architecture,
    training_flops,
)
from fractionate.planning.predict import checked_teacher_loss, lowest_teacher_loss
from fractionate.planning.scenarios import SCENARIOS, Scenario

Array = NDArray[np.float64]

LEAST, MOST = 1e6, 1e17
"""Bounds of the search over sizes and token counts, as in the paper."""
NEARLY = 1e-4
"""A teacher whose training is free gets the fewest tokens whose loss is within this (relative) of the best."""
_COARSE, _FINE, _ROUNDS = 65, 17, 11


@dataclass(frozen=True)
class Teacher:
    """An existing teacher: its size, and its loss or its training tokens."""

    params: float
    tokens: float | None = None
    loss: float | None = None


@dataclass(frozen=True)
class Setting:
    """The input of a plan: a student, a budget, and the scenario that says which teacher costs count."""

    student_params: float
    """Non-embedding parameters of the student."""
    compute: float
    """The total budget in FLOPs; infinite if only `student_tokens` is a limit."""
    scenario: Scenario = SCENARIOS["best-case"]
    students: float = 1.0
    """How many students share the teacher's pretraining."""
    teacher: Teacher | None = None
    student_tokens: float = math.inf
    """The maximum number of training tokens of the student: the available data."""
    lifetime_tokens: float = 0.0
    """Tokens that the student will serve; one forward pass each, paid from the same budget."""
    architecture: Architecture = DEFAULT_ARCHITECTURE
    coefficients: CoefficientSet = SETS["paper-corrected"]

    def checked(self) -> Setting:
        """Return the setting unchanged. Raises UsageError that names the wrong value."""
        self.check_values()
        if math.isinf(self.compute) and math.isinf(self.student_tokens):
            raise UsageError("a recipe needs a limit: give compute, student_tokens or both")
        _check_budget(self)
        return self

    def check_values(self) -> None:
        """Raise UsageError for a value that is out of range by itself."""
        positive("student_params", self.student_params)
        if not (self.compute > 0 and self.student_tokens > 0):
            raise UsageError("compute and student_tokens must be above 0")
        positive("students", self.students)
        not_negative("lifetime_tokens", self.lifetime_tokens)
        _ = self.coefficients.distilled
        if self.teacher is not None:
            _check_teacher(self.teacher, self.coefficients)

    @property
    def serving(self) -> float:
        """FLOPs of the tokens that the student will serve."""
        return float(self.lifetime_tokens * self.architecture.forward(self.student_params))


@dataclass(frozen=True)
class Recipe:
    """What to train, and the predicted losses, in parameters, tokens, and nats per token."""

    student_loss: float
    student_tokens: float
    teacher_params: float
    teacher_tokens: float
    teacher_loss: float
    supervised_loss: float
    """The loss of the same student with the same budget and data without a teacher."""
    supervised_tokens: float
    compute: float
    """FLOPs of the recipe, serving included; less than the budget where data is the limit."""


class _Found(NamedTuple):
    """Optima by row, each of shape (rows,)."""

    loss: Array
    student_tokens: Array
    teacher_params: Array
    teacher_tokens: Array
    teacher_loss: Array


def recipe(setting: Setting) -> Recipe:
    """Return the best recipe. Raises UsageError where the setting is wrong or its budget buys none."""
    found = solve(setting.checked())
    supervised_loss, supervised_tokens = supervised(setting)
    values = {name: float(value[0]) for name, value in found._asdict().items()}
    taken = training_flops(
        setting.student_params,
        values["student_tokens"],
        values["teacher_params"],
        values["teacher_tokens"],
        setting.scenario,
        students=setting.students,
        architecture=setting.architecture,
    )
    return Recipe(
        student_loss=values["loss"],
        supervised_loss=float(supervised_loss[0]),
        supervised_tokens=float(supervised_tokens[0]),
        compute=float(taken) + setting.serving,
        **{name: value for name, value in values.items() if name != "loss"},
    )


def supervised(setting: Setting, compute: Array | None = None) -> tuple[Array, Array]:
    """Return (loss, tokens), by row, of training the same student without a teacher."""
    budget = _rows(setting, compute) - setting.serving
    own = TRAINING_PASSES * setting.architecture.forward(setting.student_params)
    tokens = np.minimum(np.maximum(budget, 1.0) / own, setting.student_tokens)
    loss = setting.coefficients.supervised.loss(setting.student_params, tokens)
    return np.ravel(loss), np.broadcast_to(tokens, np.shape(loss)).ravel()


def solve(setting: Setting, compute: Array | None = None, *, rough: bool = False) -> _Found:
    """Return the optima by row: of each draw of the coefficients, or of each of several budgets.

    Rows that no recipe fits have an infinite loss. A `rough` search, for curves and roots, is right to a millionth of
    the loss, and leaves a teacher whose training is not paid for as many tokens as the bounds allow. Checks nothing.
    """
    budget = _rows(setting, compute) - setting.serving
    if setting.teacher is not None:
        return _with_teacher(setting, budget, setting.teacher)
    if not setting.scenario.inference and not setting.scenario.pretraining:
        return _with_any_loss(setting, budget)
    if math.isfinite(setting.student_tokens):
        # With so little data that its best teacher is affordable, compute is not the limit.
        free = _with_any_loss(setting, budget)
        cost = _bill(setting, free.student_tokens, free.teacher_params, free.teacher_tokens)
        affordable = (cost <= np.ravel(budget) * (1 + 1e-9)) & np.isfinite(free.loss)
        if affordable.all():
            return free
        searched = _search(setting, budget, rough)
        return _Found(*(np.where(affordable, one, other) for one, other in zip(free, searched, strict=True)))
    return _search(setting, budget, rough)


def _rows(setting: Setting, compute: Array | None) -> Array:
    """Return the budgets as (rows, 1, 1), as many as there are draws of coefficients or budgets."""
    draws = max(np.size(setting.coefficients.supervised.e), np.size(setting.coefficients.distilled.a))
    given = np.full((1, 1, 1), setting.compute) if compute is None else np.reshape(compute, (-1, 1, 1))
    return np.broadcast_to(given, (max(draws, len(given)), 1, 1))


def _with_any_loss(setting: Setting, budget: Array) -> _Found:
    """Return the optima for a free teacher: its best loss, and the cheapest teacher with that loss."""
    n_s, coefficients = np.float64(setting.student_params), setting.coefficients
    own = TRAINING_PASSES * setting.architecture.forward(n_s)
    d_s = np.minimum(budget / own, setting.student_tokens)
    safe = np.clip(d_s, 1.0, MOST)
    teacher_loss = np.asarray(lowest_teacher_loss(n_s, safe, coefficients))
    loss = coefficients.distilled.loss(n_s, safe, teacher_loss, coefficients.supervised.loss(n_s, safe))
    loss = np.where(d_s < LEAST, np.inf, loss)
    n_t, d_t = cheapest_teacher(np.broadcast_to(teacher_loss, budget.shape), setting)
    return _Found(*(np.broadcast_to(one, budget.shape).ravel() for one in (loss, safe, n_t, d_t, teacher_loss)))


def cheapest_teacher(teacher_loss: Array, setting: Setting) -> tuple[Array, Array]:
    """Return (N_T, D_T), by row, of the teacher that reaches each loss with the least training compute."""
    law = setting.coefficients.supervised

    def cost(log_params: Array, _: Array) -> Array:
        params = np.exp(log_params)
        return np.log(setting.architecture.forward(params)) + np.log(law.tokens_for(params, teacher_loss))

    log_n, _, _ = _refined(cost, len(teacher_loss), fixed_tokens=0.0)
    return np.exp(log_n), np.asarray(law.tokens_for(np.exp(log_n), teacher_loss))


def _search(setting: Setting, budget: Array, rough: bool) -> _Found:
    """Return the optima for a teacher with costs."""
    coefficients, paid = setting.coefficients, setting.scenario

    def outcome(log_n: Array, log_d: Array) -> tuple[Array, Array, Array]:
        n_t, d_t = np.exp(log_n), np.exp(log_d)
        teacher_loss = np.asarray(coefficients.supervised.loss(n_t, d_t))
        d_s = _tokens_left(setting, budget, n_t, d_t)
        return _loss(setting, d_s, teacher_loss), d_s, teacher_loss

    # A teacher with free pretraining is best with unlimited data, so only its size is searched.
    most = None if paid.pretraining else math.log(MOST)
    log_n, log_d, _ = _refined(lambda n, d: outcome(n, d)[0], len(budget), fixed_tokens=most, rough=rough)
    loss, d_s, teacher_loss = outcome(log_n, log_d)
    if most is not None and not rough:
        log_d = _fewest_tokens(lambda d: outcome(log_n, d)[0], loss, log_d)
        loss, d_s, teacher_loss = outcome(log_n, log_d)
    return _Found(*(np.ravel(one) for one in (loss, d_s, np.exp(log_n), np.exp(log_d), teacher_loss)))


def _with_teacher(setting: Setting, budget: Array, teacher: Teacher) -> _Found:
    law = setting.coefficients.supervised
    n_t = np.full(budget.shape, teacher.params)
    if teacher.loss is not None:
        teacher_loss = np.full(budget.shape, teacher.loss)
        known = teacher.tokens is not None
        d_t = np.full(budget.shape, teacher.tokens) if known else np.asarray(law.tokens_for(n_t, teacher_loss))
    else:
        d_t = np.full(budget.shape, teacher.tokens)
        teacher_loss = np.asarray(law.loss(n_t, d_t))
    d_s = _tokens_left(setting, budget, n_t, np.where(np.isfinite(d_t), d_t, MOST))
    loss = _loss(setting, d_s, teacher_loss)
    return _Found(*(np.ravel(one) for one in (loss, d_s, n_t, d_t, teacher_loss)))


def losses_with(setting: Setting, teacher_params: Array, teacher_tokens: Array) -> Array:
    """Return the student's loss with each teacher (they broadcast); the rest of the budget buys its own tokens."""
    budget = np.float64(setting.compute - setting.serving)
    teacher_loss = np.asarray(setting.coefficients.supervised.loss(teacher_params, teacher_tokens))
    return _loss(setting, _tokens_left(setting, budget, teacher_params, teacher_tokens), teacher_loss)


def _tokens_left(setting: Setting, budget: Values, teacher_params: Array, teacher_tokens: Array) -> Array:
    """Return the student's tokens that the rest of the budget pays for, within the data at hand."""
    teacher_pass = setting.architecture.forward(teacher_params)
    pretraining = setting.scenario.pretraining * TRAINING_PASSES * teacher_pass * teacher_tokens / setting.students
    own = TRAINING_PASSES * setting.architecture.forward(setting.student_params)
    return np.minimum(
        (budget - pretraining) / (own + setting.scenario.inference * teacher_pass), setting.student_tokens
    )


def _loss(setting: Setting, student_tokens: Array, teacher_loss: Array) -> Array:
    n_s, coefficients = setting.student_params, setting.coefficients
    safe = np.clip(student_tokens, 1.0, MOST)
    loss = coefficients.distilled.loss(n_s, safe, teacher_loss, coefficients.supervised.loss(n_s, safe))
    return np.where(student_tokens < LEAST, np.inf, loss)


def _bill(setting: Setting, student_tokens: ArrayLike, teacher_params: ArrayLike, teacher_tokens: ArrayLike) -> Array:
    return np.asarray(
        training_flops(
            setting.student_params,
            student_tokens,
            teacher_params,
            teacher_tokens,
            setting.scenario,
            students=setting.students,
            architecture=setting.architecture,
        )
    )


def _refined(
    objective: Callable[[Array, Array], Array], rows: int, fixed_tokens: float | None, rough: bool = False
) -> tuple[Array, Array, Array]:
    """Return (log N_T, log D_T, objective) of the minimum, by row, (rows, 1, 1), by grids around the best so far."""
    low, high = math.log(LEAST), math.log(MOST)
    log_n = np.full((rows, 1, 1), (low + high) / 2)
    log_d = np.full((rows, 1, 1), (low + high) / 2 if fixed_tokens is None else fixed_tokens)
    best = np.full((rows, 1, 1), np.inf)
    reach = (high - low) / 2
    for turn in range(_ROUNDS // 2 if rough else _ROUNDS):
        size = _FINE if turn else (_COARSE // 2 if rough else _COARSE)
        steps = np.linspace(-reach, reach, size)
        n = np.clip(log_n + steps[None, :, None], low, high)
        d = log_d if fixed_tokens is not None else np.clip(log_d + steps[None, None, :], low, high)
        values = np.broadcast_to(objective(n, d), (rows, size, d.shape[2])).reshape(rows, -1)
        at = np.argmin(values, axis=1)
        row = np.arange(rows)
        best = values[row, at][:, None, None]
        log_n = n[row, at // d.shape[2], 0][:, None, None]
        log_d = d[row, 0, at % d.shape[2]][:, None, None]
        reach = 2.5 * (steps[1] - steps[0])
    return log_n, log_d, best


def _fewest_tokens(loss_at: Callable[[Array], Array], best: Array, log_d: Array) -> Array:
    """Return the smallest log D_T, by row, whose loss is within NEARLY of the best."""
    low, high = np.full_like(log_d, math.log(LEAST)), log_d
    for _ in range(50):
        middle = (low + high) / 2
        good = loss_at(middle) <= best * (1 + NEARLY)
        low, high = np.where(good, low, middle), np.where(good, middle, high)
    return high


def _check_teacher(teacher: Teacher, coefficients: CoefficientSet) -> None:
    positive("teacher_params", teacher.params)
    if teacher.loss is None and teacher.tokens is None:
        raise UsageError("a given teacher needs its loss, or the tokens that it was trained on")
    if teacher.loss is not None:
        checked_teacher_loss(teacher.loss, coefficients)
    if teacher.tokens is not None:
        positive("teacher_tokens", teacher.tokens)


def _check_budget(setting: Setting) -> None:
    """Raise UsageError where not even the smallest recipe fits: LEAST tokens for the student."""
    if setting.student_tokens < LEAST:
        raise UsageError(f"{setting.student_tokens:g} student tokens are too few for any recipe: it takes {LEAST:g}")
    teacher = setting.teacher
    smallest = teacher.params if teacher else LEAST
    tokens = (teacher.tokens or LEAST) if teacher else LEAST
    needed = float(_bill(setting, LEAST, smallest, tokens)) + setting.serving
    if setting.compute < needed:
        serving = f", {setting.serving:.3g} of them to serve its lifetime" if setting.serving else ""
        raise UsageError(
            f"a budget of {setting.compute:.3g} FLOPs is too small for any recipe: a student of "
            f"{setting.student_params:.3g} parameters needs at least {needed:.3g}{serving}; raise it or take a smaller "
            f"student"
        )


def spread(
    setting: Setting, draws: int = 200, seed: int = 0, confidence: float = 0.90
) -> dict[str, tuple[float, float]]:
    """Return the range of every quantity of the recipe when the coefficients vary as their intervals say.

    The recipe is optimised anew for each draw. Empty where the coefficients' intervals are not known.
    """
    if not setting.coefficients.has_uncertainty:
        return {}
    drawn = replace(setting, coefficients=setting.coefficients.drawn(draws, seed))
    found = solve(drawn)
    fits = np.isfinite(found.loss)
    if not fits.any():
        return {}
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]

    def between(values: Array) -> tuple[float, float]:
        low, high = np.quantile(values[fits], tails)
        return float(low), float(high)

    gain = supervised(drawn)[0] - found.loss
    ranges = {name: between(values) for name, values in found._asdict().items()}
    return {"student_loss": ranges.pop("loss"), **ranges, "gain_over_supervised": between(gain)}
