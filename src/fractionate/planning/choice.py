"""Whether to distil or to train supervised, at which compute, how much compute a target loss takes, and which size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fractionate.errors import UsageError
from fractionate.planning.flops import TRAINING_PASSES
from fractionate.planning.recipes import LEAST, MOST, Recipe, Setting, recipe, solve, supervised

Array = NDArray[np.float64]
_SCANNED = 90
_HALVINGS = 40


@dataclass(frozen=True)
class Advantage:
    """The budgets (FLOPs) at which distilling beats supervised training of the same student."""

    begins: float | None
    """None if distilling is ahead from the smallest budget on."""
    ends: float | None
    """The crossover compute: from here on supervised training is at least as good. None if there is no crossover."""


def advantage(setting: Setting) -> Advantage | None:
    """Return the budgets at which distilling is ahead, None where it never is. Ignores the setting's own limits.

    If distilling is ahead in several intervals, the result runs from the start of the first to the end of the last.
    """
    setting = _unlimited(setting)
    budgets = _budgets(setting, _SCANNED)
    ahead = _lead(setting, budgets) > 0
    if not ahead.any():
        return None
    first, last = int(np.argmax(ahead)), len(ahead) - 1 - int(np.argmax(ahead[::-1]))
    begins = None if first == 0 else _root(setting, budgets[first - 1], budgets[first])
    ends = None if last == len(ahead) - 1 else _root(setting, budgets[last], budgets[last + 1])
    return Advantage(begins, ends)


def crossover_range(setting: Setting, draws: int = 60, seed: int = 0) -> tuple[float | None, float | None]:
    """Return the 5th and 95th percentile of the crossover compute over draws of the coefficients; None for no end."""
    setting = _unlimited(setting)
    budgets = _budgets(setting, _SCANNED // 2)
    drawn = setting.coefficients.drawn(draws, seed)
    leads = [_lead(replace(setting, coefficients=drawn.row(number)), budgets) for number in range(draws)]
    low, high = np.quantile([_last_end(lead, budgets) for lead in leads], [0.05, 0.95], method="inverted_cdf")
    return (float(low) if math.isfinite(low) else None), (float(high) if math.isfinite(high) else None)


def _last_end(lead: Array, budgets: Array) -> float:
    """Return the budget at which a lead ends for good, interpolated; 0 without a lead, infinite if it never ends."""
    if not (lead > 0).any():
        return 0.0
    last = len(lead) - 1 - int(np.argmax(lead[::-1] > 0))
    if last == len(lead) - 1:
        return math.inf
    share = lead[last] / (lead[last] - lead[last + 1])
    return float(budgets[last] * (budgets[last + 1] / budgets[last]) ** share)


def least_compute(setting: Setting, target_loss: float) -> float:
    """Return the smallest budget (FLOPs) whose best recipe reaches the loss. Raises UsageError where none does."""
    setting = replace(setting, compute=math.inf)
    own = TRAINING_PASSES * float(setting.architecture.forward(setting.student_params))
    low, high = math.log(setting.serving + own * LEAST), math.log(setting.serving + own * MOST)
    if _recipe_loss(setting, math.exp(high)) > target_loss:
        raise UsageError(
            f"no budget brings a student of {setting.student_params:.3g} parameters to a loss of {target_loss:g}: "
            f"{_recipe_loss(setting, math.exp(high)):.4f} is as low as it gets; take a larger student"
        )
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        reached = _recipe_loss(setting, math.exp(middle)) <= target_loss
        low, high = (low, middle) if reached else (middle, high)
    return math.exp(high)


def least_supervised_compute(setting: Setting, target_loss: float) -> float:
    """Return the FLOPs of supervised training to the loss, serving included; infinite if it never reaches the loss."""
    tokens = float(setting.coefficients.supervised.tokens_for(setting.student_params, target_loss))
    own = TRAINING_PASSES * float(setting.architecture.forward(setting.student_params))
    return setting.serving + own * tokens if tokens <= setting.student_tokens else math.inf


def best_size(setting: Setting) -> tuple[float, Recipe]:
    """Return the student's size (parameters) with the lowest loss for the budget, and its recipe.

    Tokens to serve count: the more of them, the smaller the best student. Raises UsageError where no size fits.
    """
    if math.isinf(setting.compute):
        raise UsageError("the best size needs a budget: give compute")
    low, high = math.log(LEAST), math.log(MOST)
    best = low
    for _ in range(5):
        sizes = np.linspace(low, high, 41)
        losses = [_loss_at_size(setting, math.exp(size)) for size in sizes]
        best = float(sizes[int(np.argmin(losses))])
        step = float(sizes[1] - sizes[0])
        low, high = max(math.log(LEAST), best - step), min(math.log(MOST), best + step)
    chosen = replace(setting, student_params=math.exp(best))
    return chosen.student_params, recipe(chosen)


def _unlimited(setting: Setting) -> Setting:
    return replace(setting, student_tokens=math.inf, compute=math.inf)


def _budgets(setting: Setting, count: int) -> Array:
    """Return budgets (FLOPs) over the whole searched range, evenly on a logarithmic scale."""
    own = TRAINING_PASSES * float(setting.architecture.forward(setting.student_params))
    return setting.serving + own * np.geomspace(4 * LEAST, MOST / 4, count)


def _loss_at_size(setting: Setting, params: float) -> float:
    sized = replace(setting, student_params=params)
    return _recipe_loss(sized, setting.compute) if sized.serving < setting.compute else math.inf


def _recipe_loss(setting: Setting, compute: float) -> float:
    return float(solve(setting, np.array([compute]), rough=True).loss[0])


def _lead(setting: Setting, budgets: Array) -> Array:
    """Return by how many nats per token the best recipe is below supervised training, by budget."""
    return supervised(setting, budgets)[0] - solve(setting, budgets, rough=True).loss


def _root(setting: Setting, low: float, high: float) -> float:
    return _bisected(lambda budget: float(_lead(setting, np.array([budget]))[0]), low, high)


def _bisected(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function of one sign at `low` and another at `high` changes it, on a logarithmic scale."""
    sign = function(low) > 0
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if (function(middle) > 0) == sign else (low, middle)
    return math.sqrt(low * high)
