"""Step cache: on some steps of a sampler, continue the velocities known so far instead of asking the network.

Velocities change slowly between neighbouring steps (the released code calls this "DiT cache"). After every answer of
the network a rule says how many of the next steps to leave out; those repeat the last velocity (order 0, as released)
or continue the line through the last two over the noise level (order 1):

    v(s) = v_2 + (v_2 - v_1) (s - s_2) / (s_2 - s_1)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from wam.model.transformer import Pass, Velocity
from wam.world_action_model import VelocityOf

RELEASED_STEPS = {
    5: (0, 1, 2, 7, 12),
    6: (0, 1, 5, 10, 14, 15),
    7: (0, 1, 2, 6, 10, 14, 15),
    8: (0, 1, 2, 6, 10, 13, 14, 15),
    16: tuple(range(16)),
}
"""Which of 16 steps the released code computes, by how many."""


@dataclass(frozen=True)
class Levels:
    """Noise levels of video and actions at every step, known before the first."""

    video: Sequence[float]
    action: Sequence[float]


@dataclass(frozen=True)
class Known:
    """What the network answered at a step."""

    step: int
    velocity: Velocity


class StepRule(Protocol):
    """Decides how long the network is not asked; without state of its own."""

    def skips(self, known: Sequence[Known], levels: Levels) -> int:
        """How many of the steps after the last known one to leave out; known: up to three answers, oldest first."""


@dataclass(frozen=True)
class FixedSteps:
    """Run the listed steps. The first one must be among them, because nothing is known before it."""

    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        if 0 not in self.steps:
            raise ValueError(f"steps={self.steps}: step 0 must run, since there is no velocity to continue before it")

    def skips(self, known: Sequence[Known], levels: Levels) -> int:
        now = known[-1].step
        return min((step for step in self.steps if step > now), default=len(levels.video)) - now - 1


@dataclass(frozen=True)
class CosineSteps:
    """Skip while the velocity of the video hardly turns (the released rule; paper section 4).

    thresholds: (cosine similarity of the last two, steps to skip above it), highest first. Reading the similarity waits
    for the device once per call of the network.
    """

    thresholds: tuple[tuple[float, int], ...] = ((0.95, 4), (0.93, 2))

    def skips(self, known: Sequence[Known], levels: Levels) -> int:
        videos = [answer.velocity.video for answer in known[-2:] if answer.velocity.video is not None]
        if len(videos) < 2:
            return 0
        similarity = cosine(videos[1], videos[0])
        return next((count for limit, count in self.thresholds if similarity > limit), 0)


@dataclass(frozen=True)
class ErrorBound:
    """Skip while the line through the last two velocities should be wrong by less than a share of their size.

    The error of a line at level s is v[s_1, s_2, s_3] (s - s_2) (s - s_3), with the second divided difference over the
    last three answers in place of the unknown next one. bound: on the error's norm over the last velocity's, for video
    and actions both. Reading the norms waits for the device once per call of the network.
    """

    bound: float = 0.05

    def __post_init__(self) -> None:
        if not self.bound > 0:
            raise ValueError(f"bound={self.bound}: expected a share above 0, e.g. 0.05")

    def skips(self, known: Sequence[Known], levels: Levels) -> int:
        if len(known) < 3:
            return 0
        steps = [answer.step for answer in known]
        videos, actions = [a.velocity.video for a in known], [a.velocity.action for a in known]
        return min(self._skips(steps, videos, levels.video), self._skips(steps, actions, levels.action))

    def _skips(self, steps: Sequence[int], velocities: Sequence[Tensor | None], levels: Sequence[float]) -> int:
        left = len(levels) - steps[-1] - 1
        past = [levels[step] for step in steps]
        tensors = [velocity.float() for velocity in velocities if velocity is not None]
        if len(tensors) < 3 or len(set(past)) < 3:  # absent, or held at one level
            return left
        older, newer = ((tensors[i + 1] - tensors[i]) / (past[i + 1] - past[i]) for i in range(2))
        curvature = float((newer - older).norm() / tensors[-1].norm().clamp(min=1e-12)) / abs(past[2] - past[0])
        for ahead in range(1, left + 1):
            level = levels[steps[-1] + ahead]
            if curvature * abs((level - past[1]) * (level - past[2])) > self.bound:
                return ahead - 1
        return left


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine similarity of two velocities (B, ...), flattened in float32, mean over the batch."""
    return float(F.cosine_similarity(a.float().flatten(1), b.float().flatten(1), dim=1).mean())


@dataclass(frozen=True)
class StepCache:
    """Which steps to leave out, and what to put in their place: the last velocity (order 0) or a line (order 1)."""

    rule: StepRule
    order: Literal[0, 1] = 1

    def over(self, velocity: VelocityOf, levels: Levels) -> CachedVelocity:
        """For one chunk. levels: of every step that will be asked about."""
        return CachedVelocity(velocity, self, levels)


@dataclass
class CachedVelocity:
    """A `VelocityOf` for one chunk, asked step by step from 0; steps_run: which of them asked the network."""

    velocity: VelocityOf
    cache: StepCache
    levels: Levels
    steps_run: list[int] = field(default_factory=list)
    _known: list[Known] = field(default_factory=list)
    _next: int = 0

    def __call__(self, step: int, inputs: Pass) -> Velocity:
        if step < self._next:
            return self._continued(step)
        answer = self.velocity(step, inputs)
        self.steps_run.append(step)
        self._known = [*self._known[-2:], Known(step, answer)]
        self._next = step + 1 + self.cache.rule.skips(self._known, self.levels)
        return answer

    def _continued(self, step: int) -> Velocity:
        last = self._known[-1]
        if self.cache.order == 0 or len(self._known) == 1:
            return last.velocity
        before = self._known[-2]

        def line(old: Tensor | None, new: Tensor | None, levels: Sequence[float]) -> Tensor | None:
            s1, s2, s = levels[before.step], levels[last.step], levels[step]
            if old is None or new is None or s1 == s2:
                return new
            return torch.add(new, new - old, alpha=(s - s2) / (s2 - s1))

        return Velocity(
            line(before.velocity.video, last.velocity.video, self.levels.video),
            line(before.velocity.action, last.velocity.action, self.levels.action),
        )


def step_cache_of(name: str) -> StepCache:
    """From words: "cosine", "error" or "error=0.02" (the bound), or the steps to run, "0,1,2,6,10,13,14,15".

    All continue a line. Raises ValueError for anything else.
    """
    kind, _, number = name.partition("=")
    try:
        if name == "cosine":
            return StepCache(CosineSteps())
        if kind == "error":
            return StepCache(ErrorBound(float(number)) if number else ErrorBound())
        return StepCache(FixedSteps(tuple(int(step) for step in name.split(","))))
    except ValueError as error:
        raise ValueError(
            f"step_cache={name!r} ({error}); expected 'cosine', 'error', 'error=0.02', or steps such as '0,1,2,7,12'"
        ) from None
