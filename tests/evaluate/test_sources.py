"""Where environments and baselines come from, for the arms of robosuite and LIBERO."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.evaluate.point_robot import PointEnv
from wam.checkpoints.model_folder import SHIPPED
from wam.cli.eval import Eval
from wam.evaluate.baselines import standing
from wam.evaluate.sources import ArmsSource, MetaWorldSource, PolicySource, trained_tasks
from wam.realtime import Rest
from wam.robot.embodiment import METAWORLD_SAWYER, load_embodiment
from wam.sim.tasks import MT10

TWO_ARMS = load_embodiment("robosuite-two-arms")


def test_the_floor_of_a_robot_opens_its_grippers_and_does_not_move() -> None:
    assert standing(TWO_ARMS) == Rest((0.0,) * 6 + (-1.0,) + (0.0,) * 6 + (-1.0,), keep=(6, 13))
    source = pickle.loads(pickle.dumps(PolicySource("constant-hold", robot=TWO_ARMS)))  # as it reaches a worker process
    hold = source()(PointEnv()).act([])
    np.testing.assert_array_equal(hold.actions[0], np.array(standing(TWO_ARMS).action, dtype=np.float32))
    sawyer = pickle.loads(pickle.dumps(PolicySource("constant-hold")))
    assert sawyer()(PointEnv()).act([]).actions[0].tolist() == [0.0, 0.0, 0.0, -1.0]


@pytest.mark.parametrize("relative", [True, False])
def test_a_robot_that_is_told_positions_stands_still_where_it_is(relative: bool) -> None:
    robot = load_embodiment("metaworld-positions")
    hand, effort = robot.action
    robot = replace(robot, action=(replace(hand, relative=relative), effort))
    state = np.array([0.1, 0.6, 0.2, 0.9], dtype=np.float32)
    still = standing(robot, state)
    assert still.action == pytest.approx((0.1, 0.6, 0.2, -1.0))
    assert still.keep == (0, 1, 2, 3)
    with pytest.raises(ValueError, match="'metaworld-positions': action 'hand' is a position.*no state is known"):
        standing(robot)


def test_an_evaluation_names_its_simulator_only_where_it_is_not_the_default() -> None:
    plain = Eval(out=Path("unused"), policy="constant-hold")
    assert "env" not in plain.describe(METAWORLD_SAWYER)
    assert isinstance(plain.environments(METAWORLD_SAWYER), MetaWorldSource)
    pytest.importorskip("robosuite", reason="pip install 'wam[arms]'")
    arms = Eval(out=Path("unused"), policy="expert", env="robosuite", tasks=("TwoArmLift",), episodes=2)
    assert arms.describe(TWO_ARMS)["env"] == "robosuite"
    assert arms.source().embodiment().name == "robosuite-two-arms"
    assert [(episode.task, episode.seed) for episode in arms.plan()] == [
        ("TwoArmLift", 2_000_000),
        ("TwoArmLift", 2_000_001),
    ]
    assert isinstance(arms.environments(TWO_ARMS), ArmsSource)
    with pytest.raises(ValueError, match="robosuite has one look and one wording"):
        Eval(out=Path("unused"), policy="expert", env="robosuite", tasks=("Lift",), look="lights").environments(
            TWO_ARMS
        )


def test_learned_tasks_are_named_or_in_groups(tmp_path: Path) -> None:
    assert trained_tasks(tmp_path) is None
    for written, tasks in ((["mt10"], MT10), (["libero_object/0", "hammer", "reach"], ("hammer", "reach")), ([], None)):
        (tmp_path / "training.json").write_text(json.dumps({"tasks": written}), encoding="utf-8")
        assert trained_tasks(tmp_path) == tasks


def test_a_model_of_another_robot_is_refused_by_name() -> None:
    pytest.importorskip("robosuite", reason="pip install 'wam[arms]'")
    with pytest.raises(ValueError, match="'robosuite-two-arms': state_dim is 18, but task 'Lift' is .* with 9"):
        ArmsSource("robosuite", TWO_ARMS)("Lift")


def test_options_that_came_later_are_named_where_they_say_something() -> None:
    """Else evaluations that were begun before them could not go on."""
    plain = PolicySource("wam", SHIPPED / "nano-metaworld", {"steps": 1, "shift": 1.0, "device": "cpu"})
    assert plain.describe()["options"] == {"steps": 1}
    told = {"shift": 5.0, "device": "cuda"}
    assert replace(plain, options=told).describe()["options"] == told
