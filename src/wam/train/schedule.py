"""Learning rate and averaged weights: both depend only on the step and on the share of the budget that is spent."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from wam.train.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: int, spent: float) -> float:
    """Warm-up in steps, flat until `flat_share` of the budget, then a cosine to zero; spent in [0, 1]."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    if spent <= config.flat_share:
        return config.learning_rate * warm
    along = min(1.0, (spent - config.flat_share) / max(1e-9, 1 - config.flat_share))
    return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * along))


class AveragedWeights:
    """Exponential moving average of a model's weights, the decay warmed up so that early steps fade quickly."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.names = list(model.state_dict())
        self.weights: list[Tensor] = [tensor.detach().float().clone() for tensor in model.state_dict().values()]

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.weights, [tensor.float() for tensor in model.state_dict().values()], 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.weights, strict=True))

    def load(self, weights: Iterable[Tensor]) -> None:
        for own, given in zip(self.weights, weights, strict=True):
            own.copy_(given)
