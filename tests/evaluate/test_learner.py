"""A learner that begins demonstrations acts as it does in an evaluation, and then the expert takes over."""

import numpy as np
import pytest

from wam.engine import load_policy
from wam.evaluate.learner import Learner, check_view
from wam.evaluate.rollout import rollout
from wam.sim.experts import record_episode
from wam.sim.metaworld import MetaWorldEnv
from wam.sim.worlds import View


def test_a_learner_acts_as_in_a_rollout_until_the_expert_takes_over() -> None:
    env, policy = MetaWorldEnv("window-close", cameras=("top", "side"), image_size=64), load_policy("nano-metaworld")
    told = rollout(env, policy, 3).actions
    lead = Learner(policy)(np.random.default_rng(0), "window-close", 3)
    takeover = int(np.random.default_rng(0).integers(8, 120))
    episode = record_episode(env, 3, 0.0, np.random.default_rng(1), lead=lead)
    assert episode is not None
    executed, wanted = episode.columns["executed_action"], episode.columns["action"]
    led = min(takeover, len(told))
    assert led > 10, "or nothing is shown"
    np.testing.assert_allclose(executed[:led], np.clip(told[:led], -1, 1), atol=1e-5)
    assert not np.array_equal(executed[:led], wanted[:led])
    np.testing.assert_array_equal(executed[takeover:], wanted[takeover:])
    env.close()


def test_a_learner_sees_what_it_has_learned_to_see() -> None:
    check_view("nano-metaworld", View(("top", "side"), 64, 2), 80.0)
    with pytest.raises(ValueError, match=r"picture size 64, but 96 is recorded"):
        check_view("nano-metaworld", View(("top", "side"), 96, 2), 80.0)
    with pytest.raises(ValueError, match=r"rows per second 40.0, but 80.0 is recorded"):
        check_view("nano-metaworld", View(("top", "side"), 64, 1), 80.0)
