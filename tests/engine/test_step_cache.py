"""Continuing velocities instead of asking the network."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wam.engine.step_cache import (
    RELEASED_STEPS,
    CachedVelocity,
    CosineSteps,
    ErrorBound,
    FixedSteps,
    Levels,
    StepCache,
    StepRule,
    cosine,
    step_cache_of,
)
from wam.model.transformer import Velocity

NO_PASS: Any = None  # the rules look at velocities alone
LEVELS = [1 - step / 16 for step in range(16)]


def run(rule: StepRule, angle: float, steps: int = 16) -> CachedVelocity:
    """Velocities that turn by `angle` radians with every call of the network; repeated as they are."""
    calls = 0

    def network(step: int, inputs: Any) -> Velocity:
        nonlocal calls
        turned = torch.tensor(calls * angle)
        calls += 1
        return Velocity(torch.stack([turned.cos(), turned.sin()])[None], torch.full((1,), float(calls)))

    cached = StepCache(rule, order=0).over(network, Levels(LEVELS, LEVELS))
    for step in range(steps):
        answer = cached(step, NO_PASS)
        assert answer.action is not None and answer.action.item() == calls  # the last computed one
    assert calls == len(cached.steps_run)
    return cached


def along(path: Any, cache: StepCache, levels: Levels) -> tuple[CachedVelocity, float]:
    """A velocity that is a function of the levels: what was asked, and the largest error of what was not."""
    worst = 0.0

    def truth(step: int, inputs: Any) -> Velocity:
        return Velocity(path(levels.video[step]), path(levels.action[step]))

    cached = cache.over(truth, levels)
    for step in range(len(levels.video)):
        answer, expected = cached(step, NO_PASS), truth(step, NO_PASS)
        for found, right in ((answer.video, expected.video), (answer.action, expected.action)):
            assert found is not None and right is not None
            worst = max(worst, float((found - right).norm() / right.norm()))
    return cached, worst


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


@pytest.mark.parametrize("video", [LEVELS, [level**2 for level in LEVELS], [1.0] * 16], ids=["same", "own", "pinned"])
def test_a_velocity_on_a_line_is_continued_exactly(video: list[float]) -> None:
    """Video and actions may follow levels of their own; the second order of the rule sees nothing to fear."""
    start, slope = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).double().unbind(0)
    levels = Levels(video, LEVELS)
    fixed, error = along(lambda s: start + s * slope, StepCache(FixedSteps((0, 1))), levels)
    assert fixed.steps_run == [0, 1] and error < 1e-12
    bounded, error = along(lambda s: start + s * slope, StepCache(ErrorBound(1e-4)), levels)
    assert bounded.steps_run == [0, 1, 2] and error < 1e-12
    _, repeated = along(lambda s: start + s * slope, StepCache(FixedSteps((0, 1)), order=0), levels)
    assert repeated > 0.1


def test_the_error_stays_below_its_bound_and_a_smaller_bound_asks_more() -> None:
    """On a parabola, where the second divided difference is the truth, the bound is exact."""
    start, slope, bend = torch.randn(3, 6, generator=torch.Generator().manual_seed(1)).double().unbind(0)
    asked = []
    for bound in (0.3, 0.1, 0.02, 1e-5):
        cached, error = along(
            lambda s: 3 * start + s * slope + s * s * bend, StepCache(ErrorBound(bound)), Levels(LEVELS, LEVELS)
        )
        assert error < 1.5 * bound  # the bound is relative to the last velocity known, the error to the true one
        asked.append(len(cached.steps_run))
    assert asked == sorted(asked) and 3 <= asked[0] < asked[-1] == 16


def test_names() -> None:
    assert step_cache_of("cosine") == StepCache(CosineSteps())
    assert step_cache_of("error") == StepCache(ErrorBound())
    assert step_cache_of("error=0.02") == StepCache(ErrorBound(0.02))
    assert step_cache_of("0,1,3") == StepCache(FixedSteps((0, 1, 3)))
    for wrong in ("dynamic", "error=x", "1,2", "error=0"):
        with pytest.raises(ValueError, match=r"step_cache=.*expected 'cosine'"):
            step_cache_of(wrong)
