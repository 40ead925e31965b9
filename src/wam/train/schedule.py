"""Learning rate and averaged weights: both depend only on the step and on the share of the budget that is spent."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wam.train.config import OptimizerConfig
from wam.train.parallel import local


def require_limits(minutes: float | None, steps: int | None) -> None:
    """Raises ValueError where a training would never end, or end before it begins."""
    if minutes is None and steps is None:
        raise ValueError("minutes and steps are both unset: give at least one limit, or training never ends")
    for name, limit in (("minutes", minutes), ("steps", steps)):
        if limit is not None and limit <= 0:
            raise ValueError(f"{name} is {limit}, expected more than 0")


def learning_rate(config: OptimizerConfig, step: int, spent: float) -> float:
    """Warm-up in steps, flat until `flat_share` of the budget, then a cosine to zero; spent in [0, 1]."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    if spent <= config.flat_share:
        return config.learning_rate * warm
    along = min(1.0, (spent - config.flat_share) / max(1e-9, 1 - config.flat_share))
    return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * along))


class AveragedWeights:
    """Exponential moving average of the weights that learn, the decay warmed up so that early steps fade quickly.

    weights: by name, in float32; where the model is sharded, each process averages its own shards.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._followed = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.weights: dict[str, Tensor] = {
            name: weight.detach().float().clone() for name, weight in self._followed.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = [local(weight) for weight in self.weights.values()]
        torch._foreach_lerp_(averages, [local(weight).float() for weight in self._followed.values()], 1 - decay)
