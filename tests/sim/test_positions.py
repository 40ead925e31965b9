"""Positions and differences are two names for one motion."""

import numpy as np
import pytest

from wam.evaluate.sources import MetaWorldSource, Reworded
from wam.robot.embodiment import load_embodiment
from wam.sim.experts import record_episode
from wam.sim.metaworld import MetaWorldEnv
from wam.sim.positions import Positioned, target_of


@pytest.mark.parametrize("repeat", [1, 2])
def test_a_recorded_target_moves_as_the_action_beside_it(repeat: int) -> None:
    moved = MetaWorldEnv("reach", cameras=(), action_repeat=repeat)
    placed = Positioned(MetaWorldEnv("reach", cameras=(), action_repeat=repeat))
    episode = record_episode(moved, 5, 0.0, np.random.default_rng(0))
    assert episode is not None
    moved.reset(5)
    placed.reset(5)
    for action, target in zip(episode.columns["action"], episode.columns["target"], strict=True):
        np.testing.assert_allclose(target, placed.expert_action(), atol=1e-5)
        assert placed.step(target) == moved.step(action)
        np.testing.assert_allclose(placed.env.hand, moved.hand, atol=1e-3)
    assert placed.env.success


def test_a_far_position_is_approached_at_full_speed() -> None:
    env = Positioned(MetaWorldEnv("reach", cameras=()))
    start = env.reset(0).state
    full = MetaWorldEnv("reach", cameras=())
    full.reset(0)
    env.step(start + np.array([1.0, 0.0, 0.0, 0.0], dtype=np.float32))
    full.step([1.0, 0.0, 0.0, start[3]])
    np.testing.assert_allclose(env.env.hand, full.hand, atol=1e-6)


def test_target_of_many_rows() -> None:
    hands, moves = np.zeros((5, 4), np.float32), np.ones((5, 4), np.float32)
    np.testing.assert_allclose(target_of(hands, moves, 2), [[0.02, 0.02, 0.02, 1.0]] * 5)


def test_the_embodiment_decides_what_an_action_means() -> None:
    robot = load_embodiment("metaworld-positions")
    env = MetaWorldSource(embodiment=robot)("reach")
    assert isinstance(env, Positioned)
    assert isinstance(MetaWorldSource()("reach"), MetaWorldEnv)
    assert isinstance(MetaWorldSource(wording="unseen", embodiment=robot)("reach"), Reworded)
    with pytest.raises(ValueError, match="expected \\(4,\\): target_x"):
        env.step(np.zeros(3, np.float32))
