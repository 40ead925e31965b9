"""The loop: what is looked at, what is executed, when it ends, what is written down."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluate.point_robot import POINT, SIZE, PointEnv, PointPolicy
from wam.evaluate.baselines import ConstantHold, Expert
from wam.evaluate.dreams import dream_quality, psnr
from wam.evaluate.rollout import noise_seed, rollout


def test_success_ends_the_episode() -> None:
    result = rollout(PointEnv(), PointPolicy(noise=0.0), 3, embodiment=POINT)
    assert result.success
    assert 5 <= result.steps <= 16
    assert result.actions.shape == (result.steps, 2)
    assert result.chunk_starts == tuple(range(0, result.steps, 8))
    assert result.chunks == len(result.act_seconds) == len(result.chunk_starts)
    assert result.instruction == "Reach the <red> dot."


def test_the_limit_counts_simulator_steps() -> None:
    env = PointEnv("far")
    result = rollout(env, PointPolicy(), 0, max_env_steps=41, embodiment=POINT)
    assert not result.success
    assert result.steps == env.steps == 20  # two simulator steps each, never more than 41
    assert result.chunks == 3


def test_looks_follow_the_cadence_and_nothing_else_is_rendered() -> None:
    env, policy = PointEnv("far"), PointPolicy()
    rollout(env, policy, 0, max_env_steps=64, embodiment=POINT)
    assert policy.looks == [1, 4, 4, 4]
    assert env.renders == 1 + 3 * 4 + 3  # nobody looks at the last step


def test_fewer_executed_actions_mean_fewer_looks() -> None:
    policy = PointPolicy(execute=4)
    result = rollout(PointEnv("far"), policy, 0, max_env_steps=32, embodiment=POINT)
    assert policy.looks == [1, 2, 2, 2]
    assert result.chunk_starts == (0, 4, 8, 12)


def test_a_blind_policy_costs_no_rendering_unless_recorded() -> None:
    env = PointEnv("far")
    hold = ConstantHold(POINT, (0.0, 0.0))
    rollout(env, hold, 0, max_env_steps=32, embodiment=POINT)
    assert env.renders == 1
    result = rollout(env, hold, 0, max_env_steps=32, record=True, embodiment=POINT)
    assert result.frames is not None
    assert len(result.frames) == len(result.frame_steps) == 1 + 8
    assert result.dreams is None
    assert not result.actions.any()


def test_same_seed_same_episode() -> None:
    first, second = (rollout(PointEnv(), PointPolicy(), 5, embodiment=POINT) for _ in range(2))
    other = rollout(PointEnv(), PointPolicy(), 6, embodiment=POINT)
    assert np.array_equal(first.actions, second.actions)
    assert not np.array_equal(first.actions[:5], other.actions[:5])


def test_noise_depends_on_task_and_seed_only() -> None:
    policy = PointPolicy()
    rollout(PointEnv(), policy, 5, embodiment=POINT)
    assert policy.seeds == [noise_seed("near", 5)]
    assert len({noise_seed(task, seed) for task in ("near", "far") for seed in range(50)}) == 100


def test_dreams_stand_beside_the_frames_they_foretold() -> None:
    result = rollout(PointEnv("far"), PointPolicy(dream=True), 0, max_env_steps=32, record=True, embodiment=POINT)
    assert result.frames is not None
    assert result.dreams is not None
    assert result.frames.shape == result.dreams.shape == (9, SIZE, SIZE, 3)
    assert result.frame_steps == (0, 2, 4, 6, 8, 10, 12, 14, 16)
    assert np.array_equal(result.dreams[0], result.frames[0])  # given, not imagined
    assert result.dreams[1:, 0, 0, 0].tolist() == [10, 11, 12, 13, 20, 21, 22, 23]


def test_dreams_of_a_success_in_mid_chunk_keep_their_time() -> None:
    result = rollout(PointEnv(), PointPolicy(noise=0.0, dream=True), 3, record=True, embodiment=POINT)
    assert result.frames is not None
    assert result.dreams is not None
    assert result.success
    assert result.frame_steps[-1] == result.steps
    for step, dream in zip(result.frame_steps[1:], result.dreams[1:], strict=True):
        chunk, within = divmod(step - 1, 8)
        assert dream[0, 0, 0] == 10 * (chunk + 1) + within // 2


def test_dream_quality_knows_a_good_dream_from_a_frozen_one() -> None:
    result = rollout(PointEnv("far"), PointPolicy(dream=True), 0, max_env_steps=32, record=True, embodiment=POINT)
    assert result.frames is not None
    assert result.dreams is not None
    frozen_indices = [0, 0, 0, 0, 4, 4, 4, 4]
    quality = dream_quality(result)
    assert quality is not None
    assert quality.dreamed == pytest.approx(psnr(result.dreams[1:], result.frames[1:]))
    assert quality.frozen == pytest.approx(psnr(result.frames[frozen_indices], result.frames[1:]))
    assert psnr(result.frames, result.frames) == 99.0


def test_stage_times_are_means_per_chunk() -> None:
    result = rollout(PointEnv("far"), PointPolicy(), 0, max_env_steps=64, embodiment=POINT)
    assert list(result.seconds) == ["think", "act", "simulate", "render"]
    assert result.seconds["think"] == pytest.approx(0.001)  # the first chunk thinks longer, and does not count
    assert result.seconds["act"] == pytest.approx(sum(result.act_seconds[1:]) / 3)
    assert result.chunks_per_second == pytest.approx(3 / sum(result.act_seconds[1:]))


def test_a_policy_that_would_decide_on_the_past_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 'video_stride'"):
        rollout(PointEnv(), PointPolicy(execute=3), 0, embodiment=POINT)
    with pytest.raises(ValueError, match="returned 8 actions, but its 'execute' is 10"):
        rollout(PointEnv("far"), PointPolicy(execute=10), 0, embodiment=POINT)
    with pytest.raises(ValueError, match="max_env_steps is 1, less than one control step of 2"):
        rollout(PointEnv(), PointPolicy(), 0, max_env_steps=1, embodiment=POINT)


def test_the_expert_drives_the_environment_it_was_given() -> None:
    env = PointEnv()
    result = rollout(env, Expert(env), 4, embodiment=POINT)
    assert result.success
    assert result.chunks == result.steps
    assert np.abs(result.actions).max() <= 1.0


def test_constant_hold_checks_its_action() -> None:
    with pytest.raises(ValueError, match=r"4 numbers in 'hold'.*2 action dimensions"):
        ConstantHold(POINT)


def test_baselines_on_meta_world() -> None:
    """The scale has two ends: the expert closes the drawer, and doing nothing reaches nothing."""
    pytest.importorskip("metaworld")
    from wam.evaluate.sources import MetaWorldSource

    env = MetaWorldSource()("drawer-close")
    expert = rollout(env, Expert(env), 2_000_000, record=True)
    env.close()
    assert expert.success
    assert expert.frames is not None
    assert expert.frames.shape[1:] == (64, 128, 3)
    env = MetaWorldSource(wording="unseen")("reach")
    hold = rollout(env, ConstantHold(), 2_000_000)
    env.close()
    assert not hold.success
    assert hold.steps == 250
    assert hold.instruction not in ("", "Reach the green ball.")
