"""Repeating velocities instead of asking the network."""

from __future__ import annotations

import pytest
import torch

from wam.engine.step_cache import RELEASED_STEPS, CosineSteps, FixedSteps, StepCache, StepRule, cosine
from wam.model.transformer import Velocity


def run(rule: StepRule, angle: float, steps: int = 16) -> StepCache:
    """Velocities that turn by `angle` radians with every call of the network."""
    cache, calls = StepCache(rule), 0

    def compute() -> Velocity:
        nonlocal calls
        turned = torch.tensor(calls * angle)
        calls += 1
        return Velocity(torch.stack([turned.cos(), turned.sin()])[None], torch.full((1,), float(calls)))

    for step in range(steps):
        answer = cache.velocity(step, compute)
        assert answer.action is not None and answer.action.item() == calls  # the last computed one
    assert calls == len(cache.steps_run)
    return cache


@pytest.mark.parametrize("count", sorted(RELEASED_STEPS))
def test_fixed_steps(count: int) -> None:
    assert len(RELEASED_STEPS[count]) == count
    assert run(FixedSteps(RELEASED_STEPS[count]), angle=1.0).steps_run == list(RELEASED_STEPS[count])


def test_the_first_step_cannot_be_skipped() -> None:
    with pytest.raises(ValueError, match="step 0 must run"):
        FixedSteps((1, 2))


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [(0.96, [0, 1, 6, 11]), (0.94, [0, 1, 4, 7, 10, 13]), (0.92, list(range(16)))],
)
def test_cosine_rule(similarity: float, expected: list[int]) -> None:
    """The extremes of the released rule: 16 steps become 4, 6, or stay 16."""
    angle = torch.tensor(similarity).acos().item()
    assert run(CosineSteps(), angle).steps_run == expected


def test_cosine_is_a_mean_over_the_batch() -> None:
    a = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    b = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])
    assert cosine(a, b) == pytest.approx(0.5)
