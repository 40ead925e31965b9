"""Step cache: on some steps of a sampler, take the last velocity again instead of asking the network.

Velocities change slowly between neighbouring steps (the released code calls this "DiT cache"). Two rules: a fixed list
of steps, or the cosine similarity of the last two computed velocities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from wam.model.transformer import Velocity

RELEASED_STEPS = {
    5: (0, 1, 2, 7, 12),
    6: (0, 1, 5, 10, 14, 15),
    7: (0, 1, 2, 6, 10, 14, 15),
    8: (0, 1, 2, 6, 10, 13, 14, 15),
    16: tuple(range(16)),
}
"""Which of 16 steps the released code computes, by how many."""


class StepRule(Protocol):
    """Decides for one chunk; make a new rule for every chunk."""

    def runs(self, step: int, computed: list[Tensor]) -> bool:
        """Whether to ask the network; computed: video velocities so far (the last two are enough), oldest first."""


@dataclass(frozen=True)
class FixedSteps:
    """Run the listed steps. The first one must be among them, because there is nothing to repeat before it."""

    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        if 0 not in self.steps:
            raise ValueError(f"steps={self.steps}: step 0 must run, since there is no velocity to repeat before it")

    def runs(self, step: int, computed: list[Tensor]) -> bool:
        return step in self.steps


@dataclass
class CosineSteps:
    """Skip while the velocity hardly turns: similarity above a threshold skips that many steps, then one must run.

    thresholds: (similarity, steps to skip), highest first. Reading the similarity waits for the device once per step.
    """

    thresholds: tuple[tuple[float, int], ...] = ((0.95, 4), (0.93, 2))
    _countdown: int = 0

    def runs(self, step: int, computed: list[Tensor]) -> bool:
        if len(computed) < 2:
            return True
        if self._countdown > 0:
            self._countdown -= 1
            return self._countdown == 0
        similarity = cosine(computed[-1], computed[-2])
        self._countdown = next((count for limit, count in self.thresholds if similarity > limit), 0)
        return self._countdown == 0


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine similarity of two velocities (B, ...), flattened in float32, mean over the batch."""
    return float(F.cosine_similarity(a.float().flatten(1), b.float().flatten(1), dim=1).mean())


@dataclass
class StepCache:
    """The velocities of one chunk: computed when the rule says so, else the last one again."""

    rule: StepRule
    steps_run: list[int] = field(default_factory=list)
    _computed: list[Tensor] = field(default_factory=list)
    _last: Velocity | None = None

    def velocity(self, step: int, compute: Callable[[], Velocity]) -> Velocity:
        """The velocity of a step; `compute` is called only if the rule says so."""
        if self._last is None or self.rule.runs(step, self._computed):
            self._last = compute()
            self.steps_run.append(step)
            if self._last.video is not None:
                self._computed = [*self._computed[-1:], self._last.video]
        return self._last
