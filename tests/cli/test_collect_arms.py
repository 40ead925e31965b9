"""wam collect and wam robot for arms of robosuite and LIBERO: from a simulator to data that the linter accepts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from wam.cli.collect import PLAN_PATH, Collect, Recording, dataset_spec, main, plan, view_of
from wam.cli.main import main as wam
from wam.data.lerobot_reader import LeRobotDataset
from wam.robot.embodiment import load_embodiment
from wam.sim.worlds import WORLDS

pytest.importorskip("robosuite", reason="pip install 'wam[arms]'")


def test_a_data_set_is_declared_in_the_terms_of_its_robot() -> None:
    config = Collect(out=Path("unused"), env="robosuite", tasks=("TwoArmLift", "TwoArmLift/UR5e+Panda"))
    robot = WORLDS["robosuite"].robot([slot.task for slot in plan(config)])
    view = view_of(config, robot)
    spec = dataset_spec(robot, view, WORLDS["robosuite"])
    assert (spec.fps, spec.robot_type, list(spec.cameras)) == (20, "robosuite-two-arms", ["agentview", "frontview"])
    assert spec.features["action"].names == load_embodiment("robosuite-two-arms").action_names
    libero = Collect(out=Path("unused"), env="libero", tasks=("libero_object",), episodes_per_task=1)
    assert len(plan(libero)) == 10
    assert WORLDS["libero"].robot([slot.task for slot in plan(libero)]).control_hz == 20.0


@pytest.mark.slow
@pytest.mark.parametrize(("world", "task"), [("robosuite", "Lift/UR5e"), ("libero", "libero_object/0")])
def test_demonstrations_become_data_and_a_robots_file(world: str, task: str, tmp_path: Path) -> None:
    out = tmp_path / "data"
    options = {"env": world, "tasks": (task,), "episodes_per_task": 2, "workers": 1, "episodes_per_file": 1}
    config = Collect(out=out, recording=Recording(image_size=32), **options)  # type: ignore[arg-type]
    main(config)
    assert json.loads((out / PLAN_PATH).read_text())["env"] == world
    dataset = LeRobotDataset(out)
    assert dataset.num_episodes == 2
    for number in range(2):
        rows = dataset.columns(number)
        assert rows["next.success"][-1] and not rows["next.success"][0]
        assert np.abs(rows["action"][:, :3]).max() > 0.3 and set(np.unique(rows["action"][:, -1])) == {-1.0, 1.0}
        pictures = dataset.frames(number, next(iter(dataset.meta.cameras)))
        assert np.abs(pictures[0].astype(int) - pictures[-1]).max() > 50
    robot = tmp_path / "robot.yaml"
    wam(["robot", "new", "--from-dataset", str(out), "--out", str(robot)])
    assert load_embodiment(robot).action[-1].gripper == (-1.0, 1.0)
    wam(["data", "lint", str(out), "--embodiment", str(robot)])  # exit code 1 if it finds errors
