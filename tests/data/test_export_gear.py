"""The side files of the released code say what the embodiment says, and their statistics are those of the data."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.synthetic import EMBODIMENT, episode_data
from wam.data.errors import MissingCameraError, MissingColumnError, RowCountError, SpecMismatchError
from wam.data.export_gear import export_gear
from wam.data.lerobot_reader import LeRobotDataset
from wam.robot.embodiment import Embodiment, Part

ROBOT = replace(
    EMBODIMENT,
    state=(Part("arm", ("x", "y", "z"), start=1), Part("grip", ("grip",), start=0)),
    action=(Part("arm", ("a", "b", "c"), start=1, relative=True), Part("grip", ("d",), start=0)),
)


def read(folder: Path, name: str) -> dict[str, object]:
    content = json.loads((folder / "meta" / name).read_text())
    assert isinstance(content, dict)
    return content


def test_modality(dataset: LeRobotDataset, tmp_path: Path) -> None:
    export_gear(dataset, ROBOT, tmp_path, tag="oxe_droid")
    arm, grip = {"start": 1, "end": 4, "absolute": True}, {"start": 0, "end": 1, "absolute": True}
    assert read(tmp_path, "modality.json") == {
        "state": {name: {"original_key": "observation.state"} | part for name, part in (("arm", arm), ("grip", grip))},
        "action": {name: {"original_key": "action"} | part for name, part in (("arm", arm), ("grip", grip))},
        "video": {name: {"original_key": f"observation.images.{name}"} for name in ("top", "side")},
        "annotation": {"task": {"original_key": "task_index"}},
    }
    assert read(tmp_path, "embodiment.json") == {"embodiment_tag": "oxe_droid"}


def test_parts_without_a_start_follow_each_other(dataset: LeRobotDataset, tmp_path: Path) -> None:
    parts = (Part("one", ("x",)), Part("two", ("y", "z")), Part("done", ("s",), key="next.success"))
    export_gear(dataset, replace(EMBODIMENT, state=parts), tmp_path)
    state = read(tmp_path, "modality.json")["state"]
    found = {name: tuple(part.values()) for name, part in state.items()}  # type: ignore[attr-defined]
    one, two = ("observation.state", 0, 1, True), ("observation.state", 1, 3, True)
    assert found == {"one": one, "two": two, "done": ("next.success", 0, 1, True)}


def test_relative_statistics(dataset: LeRobotDataset, tmp_path: Path) -> None:
    files = export_gear(dataset, ROBOT, tmp_path)
    assert {path.name for path in files} == {path.name for path in (tmp_path / "meta").iterdir()}
    differences = []  # the same once more, slowly
    for index in range(dataset.num_episodes):
        columns = episode_data(index).columns
        for row in range(len(columns["action"]) - 8 + 1):
            differences.append(columns["action"][row : row + 8, 1:4] - columns["observation.state"][row, 1:4])
    values = np.array(differences, dtype=np.float64)
    pooled, by_step = (read(tmp_path, f"relative_{n}stats_dreamzero.json") for n in ("", "horizon_"))
    assert set(pooled) == set(by_step) == {"arm"}
    for name, function in (
        ("mean", lambda x: x.mean(0)),
        ("std", lambda x: x.std(0)),
        ("min", lambda x: x.min(0)),
        ("max", lambda x: x.max(0)),
        ("q01", lambda x: np.quantile(x, 0.01, axis=0)),
        ("q99", lambda x: np.quantile(x, 0.99, axis=0)),
    ):
        np.testing.assert_allclose(pooled["arm"][name], function(values.reshape(-1, 3)), rtol=1e-5, atol=1e-6)  # type: ignore[index]
        np.testing.assert_allclose(by_step["arm"][name], function(values), rtol=1e-5, atol=1e-6)  # type: ignore[index]
    assert set(pooled["arm"]) == {"max", "min", "mean", "std", "q01", "q99"}  # type: ignore[arg-type]


def test_nothing_relative_needs_no_statistics(dataset: LeRobotDataset, tmp_path: Path) -> None:
    assert [path.name for path in export_gear(dataset, EMBODIMENT, tmp_path)] == ["modality.json", "embodiment.json"]


@pytest.mark.parametrize(
    ("robot", "error", "message"),
    [
        (
            replace(ROBOT, state=(Part("arm", ("x", "y", "z"), key="pose"),)),
            MissingColumnError,
            "'arm' needs column 'pose'",
        ),
        (
            replace(ROBOT, state=(Part("arm", ("x", "y", "z"), start=2),)),
            SpecMismatchError,
            r"'arm' is dimensions 2 to 5 \(exclusive\) of column 'observation.state', which has 4",
        ),
        (replace(ROBOT, cameras=("top", "wrist"), canvas=(("top", "wrist"),)), MissingCameraError, "wrist"),
        (
            replace(ROBOT, video_stride=20, actions_per_chunk=80),
            RowCountError,
            "no episode has the 80 rows of a chunk",
        ),
    ],
)
def test_what_does_not_fit(
    dataset: LeRobotDataset, tmp_path: Path, robot: Embodiment, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        export_gear(dataset, robot, tmp_path)
    assert not list(tmp_path.iterdir())
