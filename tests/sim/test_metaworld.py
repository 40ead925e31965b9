"""The environment: seeds, secrecy of the goal, errors."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from wam.sim.metaworld import MAX_ENV_STEPS, MetaWorldEnv


@pytest.fixture(scope="module")
def reach() -> Iterator[MetaWorldEnv]:
    env = MetaWorldEnv("reach", cameras=())
    yield env
    env.close()


def physics(env: MetaWorldEnv) -> npt.NDArray[np.float64]:
    """Everything that makes a state: joints, velocities, body places, goal."""
    data, model = env._env.data, env._env.model
    return np.concatenate([data.qpos, data.qvel, data.mocap_pos.ravel(), model.body_pos.ravel(), env._env._target_pos])


def play(env: MetaWorldEnv, seed: int, steps: int = 15) -> npt.NDArray[np.float64]:
    """The state at the reset and after some expert steps, (2, D)."""
    env.reset(seed)
    first = physics(env)
    for _ in range(steps):
        env.step(env.expert_action())
    return np.stack([first, physics(env)])


@pytest.mark.parametrize("task", ["push", "door-open", "peg-insert-side"])
def test_a_seed_is_one_episode_bit_for_bit_whatever_came_before(task: str) -> None:
    env, fresh = MetaWorldEnv(task, cameras=()), MetaWorldEnv(task, cameras=())
    played = play(env, seed=7)
    play(env, seed=8)
    np.testing.assert_array_equal(play(env, seed=7), played)
    np.testing.assert_array_equal(play(fresh, seed=7), played)


def test_hundreds_of_seeds_are_hundreds_of_goals(reach: MetaWorldEnv) -> None:
    goals = set()
    for seed in range(120):
        reach.reset(seed)
        goals.add(tuple(reach._env._target_pos))
    assert len(goals) == 120, "the benchmark's limit of 50 variations applies"


def test_observation_does_not_tell_the_goal(reach: MetaWorldEnv) -> None:
    state = reach.reset(1).state
    goal = reach._env._target_pos.copy()
    assert state.shape == (4,)
    assert state.dtype == np.float32
    assert not np.isin(goal.astype(np.float32), state).any()
    reach._env._target_pos += 0.05
    np.testing.assert_array_equal(reach.observe().state, state)


def test_state_is_hand_position_and_gripper_opening(reach: MetaWorldEnv) -> None:
    state = reach.reset(2).state
    np.testing.assert_allclose(state[:3], reach._env.data.body("hand").xpos, atol=1e-6)
    for _ in range(20):
        reach.step([0.0, 0.0, 0.0, 1.0])
    assert reach.observe().state[3] < state[3] - 0.1, "closing the gripper must show in the state"


def test_clock_counts_environment_steps(reach: MetaWorldEnv) -> None:
    assert reach.reset(0).timestamp == 0.0
    reach.step(np.zeros(4))
    assert reach.observe().timestamp == pytest.approx(2 / 80)
    assert reach.control_hz == 40.0


def test_success_is_latched_and_the_episode_ends_after_500_steps(reach: MetaWorldEnv) -> None:
    reach.reset(3)
    while not reach.step(reach.expert_action()):
        assert not reach.finished
    for _ in range(MAX_ENV_STEPS // 2):
        reach.step([-1.0, -1.0, 1.0, 0.0])  # away from the goal
    assert reach.finished
    assert reach.success
    before = reach.observe()
    assert reach.step(np.ones(4))
    np.testing.assert_array_equal(reach.observe().state, before.state)


@pytest.mark.parametrize(
    ("action", "complaint"),
    [([0.0, 0.0, 0.0], r"\(3,\)"), (np.zeros((1, 4)), r"\(1, 4\)"), ([0.0, np.nan, 0.0, 0.0], "nan")],
)
def test_bad_actions_are_named(reach: MetaWorldEnv, action: npt.ArrayLike, complaint: str) -> None:
    reach.reset(0)
    with pytest.raises(ValueError, match=complaint):
        reach.step(action)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"'pickplace'.*'pick-place'"):
        MetaWorldEnv("pickplace")
    with pytest.raises(ValueError, match="action_repeat is 0"):
        MetaWorldEnv("reach", action_repeat=0)
    with pytest.raises(ValueError, match="'wrist'"):
        MetaWorldEnv("reach", cameras=("wrist",))
    with pytest.raises(ValueError, match="'night'"):
        MetaWorldEnv("reach", look="night")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="reset"):
        MetaWorldEnv("reach", cameras=()).observe()
    with pytest.raises(ValueError, match="seed is -1"):
        MetaWorldEnv("reach", cameras=()).reset(-1)
