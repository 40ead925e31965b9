"""Our data sets in the real lerobot package, and its data sets in our reader. Needs an environment of its own."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.data.synthetic import CAMERAS, episode_data, length_of, read_picture
from tests.data.with_real_lerobot import ROWS
from wam.data.lerobot_reader import LeRobotDataset

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = REPOSITORY / ".venv-lerobot"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python() -> Path:
    """The Python that has lerobot; its environment is made when missing, which takes some minutes and 2 GB."""
    subprocess.run(["bash", "scripts/make_lerobot_env.sh", str(ENVIRONMENT)], cwd=REPOSITORY, check=True)
    return ENVIRONMENT / "bin/python"


def run(python: Path, *arguments: object) -> None:
    script = Path(__file__).with_name("with_real_lerobot.py")
    done = subprocess.run([python, script, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def items(python: Path, dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What lerobot's `LeRobotDataset` returns for every tenth row of our data set."""
    out = tmp_path_factory.mktemp("real") / "items.npz"
    run(python, "read", dataset_root, out)
    return dict(np.load(out))


def test_lerobot_sees_all_episodes(items: dict[str, np.ndarray]) -> None:
    assert items["episodes"] == 7
    assert items["rows"] == sum(map(length_of, range(7)))
    assert items["fps"] == 40
    assert items["lengths"].tolist() == [length_of(i) for i in range(7)]
    assert set(items["env_task"]) == {"thing-v3"}


def test_lerobot_sees_our_numbers(items: dict[str, np.ndarray]) -> None:
    assert len(items["index"]) > 20
    for i, (episode, row) in enumerate(zip(items["episode_index"], items["frame_index"], strict=True)):
        assert items["index"][i] == ROWS * i
        written = episode_data(int(episode))
        np.testing.assert_array_equal(items["observation.state"][i], written.columns["observation.state"][row])
        rows = np.arange(row, row + 8)
        held = np.minimum(rows, length_of(int(episode)) - 1)
        np.testing.assert_array_equal(items["action"][i], written.columns["action"][held])
        np.testing.assert_array_equal(items["action_is_pad"][i], rows != held)
        assert items["task"][i] == written.task


def test_lerobot_sees_our_frames(items: dict[str, np.ndarray], dataset_root: Path) -> None:
    ours = LeRobotDataset(dataset_root)
    for i, (episode, row) in enumerate(zip(items["episode_index"], items["frame_index"], strict=True)):
        rows = np.minimum([row, row + 2, row + 8], length_of(int(episode)) - 1)
        top = np.moveaxis(items["observation.images.top"][i], 1, -1) * 255
        side = np.moveaxis(items["observation.images.side"][i], 0, -1)[None] * 255
        for camera, theirs, asked in (("top", top, rows), ("side", side, rows[:1])):
            number = CAMERAS.index(camera)
            assert [read_picture(frame) for frame in theirs] == [(t, episode, number) for t in asked]
            assert np.abs(theirs - ours.frames(int(episode), camera, asked)).mean() < 1.5


def test_lerobot_sees_our_statistics(items: dict[str, np.ndarray]) -> None:
    actions = np.concatenate([episode_data(i).columns["action"] for i in range(7)])
    np.testing.assert_allclose(items["stats/action/mean"], actions.mean(0), rtol=1e-4)
    assert items["stats/observation.images.top/std"].shape == (3, 1, 1)


def test_we_read_what_lerobot_writes(python: Path, tmp_path: Path) -> None:
    run(python, "write", tmp_path / "set")
    dataset = LeRobotDataset(tmp_path / "set")
    assert (dataset.num_episodes, dataset.meta.fps, set(dataset.meta.cameras)) == (3, 20, {"front"})
    assert (dataset.meta.cameras["front"].height, dataset.meta.cameras["front"].width) == (64, 96)
    for episode in range(3):
        rows = np.arange(12 + episode)
        columns = dataset.columns(episode)
        np.testing.assert_array_equal(columns["observation.state"][:, 0], rows)
        np.testing.assert_array_equal(columns["action"], np.stack([np.full(len(rows), episode), rows], axis=1))
        assert (
            dataset.meta.tasks[columns["task_index"][0]] == f"task {episode % 2}" == dataset.episode(episode).tasks[0]
        )
        colours = dataset.frames(episode, "front").mean(axis=(1, 2))
        np.testing.assert_allclose(colours[:, 0], 10 + 10 * rows, atol=4)
        np.testing.assert_allclose(colours[:, 1], 20 + 60 * episode, atol=4)
