"""The learning rate of a student that none was given for: less for a wider one, less where every weight is trained.

LoRA:        2e-3 × (576 / width)^0.781, for students of width 576 or more; 2e-3 below
every weight: a tenth of that

2e-3 is what trains SmolLM2-135M (width 576) here (docs/experiments/atlas-demo.md). The power and the tenth are
published: *LoRA Without Regret* (J. Schulman and Thinking Machines Lab, 2025) found LoRA's best rate to be about ten
times that of full fine-tuning, whatever the rank, and to fall with the width; the fit, as
`hyperparam_utils.get_lr` of https://github.com/thinking-machines-lab/tinker-cookbook has it, is
5e-5 × 10 (LoRA) × (2000 / width)^p, with p = 0.781 for Llama models and 0.0775 for Qwen ones. From a width of 576 on
the rule here is 1.5 times theirs for Llama models. It is a start: candidates on a dev split are better.
"""

from __future__ import annotations

from fractionate.config import TrainConfig
from fractionate.models.local.model import load_config
from fractionate.models.local.weights import Weights, resolve

RATE, WIDTH = 2e-3, 576
"""The anchor: LoRA's rate for a student of this width."""
POWER = 0.781
FULL_SHARE = 0.1
"""The rate for every weight, as a share of LoRA's."""


def default_rate(width: int, method: str) -> float:
    """Return the peak learning rate, to two figures, for a student of a hidden size (`width`, 1 or more)."""
    rate = RATE * (WIDTH / max(width, WIDTH)) ** POWER * (FULL_SHARE if method == "full" else 1.0)
    return float(f"{rate:.2g}")


def with_rate(settings: TrainConfig, weights: Weights, trust: bool = False) -> TrainConfig:
    """Return the settings with a learning rate: the one given, else the one for the width of these weights."""
    if settings.learning_rate is not None:
        return settings
    width = int(load_config(weights.folder(), trust).hidden_size)
    return settings.model_copy(update={"learning_rate": default_rate(width, settings.method)})


def with_rate_for(settings: TrainConfig, base: str) -> TrainConfig:
    """Return the same for a base by its name. Raises UsageError where its weights are not to be found."""
    return settings if settings.learning_rate is not None else with_rate(settings, resolve(base))
