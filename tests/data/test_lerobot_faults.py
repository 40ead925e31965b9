"""Every fault of a data set on disk has its own error, which says where it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.synthetic import SPEC, length_of, picture
from wam.data.errors import (
    DatasetError,
    MissingCameraError,
    MissingColumnError,
    MissingFileError,
    NonFiniteError,
    RowCountError,
    SpecMismatchError,
    TruncatedVideoError,
    UnsupportedVersionError,
)
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.lerobot_writer import LeRobotWriter
from wam.data.video import VideoWriter

VIDEO = "videos/observation.images.side/chunk-000/file-001.mp4"
ROWS = "data/chunk-000/file-001.parquet"
EPISODES = "meta/episodes/chunk-000/file-001.parquet"


@pytest.fixture
def root(tmp_path: Path, dataset_root: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(dataset_root, tmp_path / "set"))


def edit_info(root: Path, **changes: object) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_table(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no LeRobot data set"):
        LeRobotDataset(tmp_path)


def test_older_version(root: Path) -> None:
    edit_info(root, codebase_version="v1.6")
    with pytest.raises(UnsupportedVersionError, match=r"'v1.6'.*convert"):
        LeRobotDataset(root)


def test_info_that_is_no_json(root: Path) -> None:
    cut(root / "meta/info.json")
    with pytest.raises(MissingFileError, match="not valid JSON"):
        LeRobotDataset(root)


def test_cut_off_video(root: Path) -> None:
    cut(root / VIDEO)
    with pytest.raises(TruncatedVideoError, match=VIDEO):
        LeRobotDataset(root)
    dataset = LeRobotDataset(root, check=False)
    with pytest.raises(TruncatedVideoError, match=VIDEO):
        dataset.frames(4, "side", [0])
    dataset.frames(4, "top", [0])


def test_short_video(root: Path) -> None:
    video = VideoWriter(root / VIDEO, fps=40, height=64, width=64)
    video.append(np.stack([picture(t, 3, 1) for t in range(length_of(3) + 2)]))
    video.close()
    with pytest.raises(TruncatedVideoError, match=r"53 frames.*needs"):
        LeRobotDataset(root)
    dataset = LeRobotDataset(root, check=False)
    dataset.frames(3, "side")
    with pytest.raises(TruncatedVideoError, match="frame 53 is not there"):
        dataset.frames(4, "side", [1, 2])


def test_missing_video(root: Path) -> None:
    (root / VIDEO).unlink()
    with pytest.raises(MissingFileError, match=VIDEO):
        LeRobotDataset(root)


def test_missing_camera(root: Path) -> None:
    with pytest.raises(MissingCameraError, match=r"no camera 'wrist'.*'side', 'top'"):
        LeRobotDataset(root).frames(0, "wrist", [0])


def test_camera_without_place_in_the_table_of_episodes(root: Path) -> None:
    edit_table(root / EPISODES, lambda t: t.drop_columns(["videos/observation.images.side/from_timestamp"]))
    with pytest.raises(MissingCameraError, match="episode 3 has no video of camera 'side'"):
        LeRobotDataset(root)


def test_missing_column(root: Path) -> None:
    edit_table(root / ROWS, lambda table: table.drop_columns(["action"]))
    with pytest.raises(MissingColumnError, match=rf"{ROWS}: no column 'action'"):
        LeRobotDataset(root)


def test_unknown_column(root: Path) -> None:
    with pytest.raises(MissingColumnError, match="no column 'reward'"):
        LeRobotDataset(root).columns(0, ["reward"])


@pytest.mark.parametrize("name", ["observation.state", "action"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers(root: Path, name: str, value: float) -> None:
    def spoil(table: pa.Table) -> pa.Table:
        values = np.array(table[name].to_pylist(), dtype=np.float32)
        values[length_of(3) + 12, 1] = value
        column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 4)
        return table.set_column(table.column_names.index(name), name, column)

    edit_table(root / ROWS, spoil)
    dataset = LeRobotDataset(root)
    dataset.columns(3)
    with pytest.raises(NonFiniteError, match=rf"{name}.*row 12 of episode 4"):
        dataset.columns(4)


def test_missing_rows(root: Path) -> None:
    edit_table(root / ROWS, lambda table: table.slice(0, table.num_rows - 1))
    with pytest.raises(RowCountError, match=r"rows, the table of episodes says"):
        LeRobotDataset(root)


def test_rows_of_another_episode(root: Path) -> None:
    def relabel(table: pa.Table) -> pa.Table:
        numbers = table["episode_index"].to_numpy().copy()
        numbers[numbers == 4] = 5
        return table.set_column(table.column_names.index("episode_index"), "episode_index", pa.array(numbers))

    edit_table(root / ROWS, relabel)
    with pytest.raises(RowCountError, match="0 rows of episode 4"):
        LeRobotDataset(root).columns(4)


def test_cut_off_table(root: Path) -> None:
    cut(root / ROWS)
    with pytest.raises(RowCountError, match=rf"{ROWS}: not a complete parquet file"):
        LeRobotDataset(root)


@pytest.mark.parametrize("name", [ROWS, "meta/tasks.parquet"])
def test_missing_table(root: Path, name: str) -> None:
    (root / name).unlink()
    with pytest.raises(MissingFileError, match=name):
        LeRobotDataset(root)


def test_missing_table_of_episodes(root: Path) -> None:
    (root / EPISODES).unlink()
    with pytest.raises(RowCountError, match=r"info.json promises episodes 0 to 6"):
        LeRobotDataset(root)


def test_a_column_of_another_type_in_one_file(root: Path) -> None:
    """As pandas writes whole numbers where one is missing."""
    edit_table(root / EPISODES, lambda t: t.set_column(t.column_names.index("seed"), "seed", pa.array([0.5] * 3)))
    with pytest.raises(SpecMismatchError, match=r"meta/episodes: a column has another type in another file \(.*seed"):
        LeRobotDataset(root)


@pytest.mark.parametrize("name", ["task", "task_index"])
def test_tasks_that_are_lists(root: Path, name: str) -> None:
    path = root / "meta/tasks.parquet"
    edit_table(path, lambda t: t.set_column(t.column_names.index(name), name, pa.array([["a"]] * t.num_rows)))
    with pytest.raises(MissingColumnError, match="tasks.parquet: column 'task' or 'task_index' holds lists"):
        LeRobotDataset(root)


def test_wrong_totals(root: Path) -> None:
    total = sum(map(length_of, range(7)))
    edit_info(root, total_frames=total + 1)
    with pytest.raises(RowCountError, match=f"total_frames is {total + 1}, the episodes add up to {total}"):
        LeRobotDataset(root)
    edit_info(root, total_frames=total, total_episodes=10**30)
    with pytest.raises(RowCountError, match=r"info.json promises episodes 0 to 9{30} in order"):
        LeRobotDataset(root)
    edit_info(root, total_frames=total, total_episodes=8)
    with pytest.raises(RowCountError, match=r"info.json promises episodes 0 to 7"):
        LeRobotDataset(root)
    edit_info(root, total_episodes=7, total_tasks=10**30)  # must not be counted to the end
    with pytest.raises(RowCountError, match="task 3 is missing"):
        LeRobotDataset(root)


def test_pictures_that_are_not_in_the_parquet_files(root: Path) -> None:
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features["observation.images.top"]["dtype"] = "image"
    edit_info(root, features=features)
    with pytest.raises(MissingColumnError, match=r"file-000.parquet: no column 'observation.images.top'"):
        LeRobotDataset(root)
    with pytest.raises(MissingColumnError, match=r"file-001.parquet: no column 'observation.images.top'"):
        LeRobotDataset(root, check=False).frames(3, "top", [0])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("fps", None, "field 'fps' is missing"),
        ("fps", "fast", "field 'fps' is 'fast', expected positive number"),
        ("fps", 0, "field 'fps' is 0, expected positive number"),
        ("total_frames", float("inf"), "field 'total_frames' is inf, expected int"),
        ("total_frames", "many", "field 'total_frames' is 'many', expected int"),
        ("data_path", None, "field 'data_path' is missing"),
        (
            "data_path",
            "data/{nope}.parquet",
            "field 'data_path' is 'data/{nope}.parquet', expected no placeholders but",
        ),
        ("data_path", "data/{}.parquet", "field 'data_path' is 'data/{}.parquet', expected no placeholders but"),
        ("video_path", None, "field 'video_path' is missing"),
        (
            "features",
            {"action": {"dtype": "float32", "shape": [-4]}},
            r"feature 'action': field 'shape' is \[-4\], expected shape",
        ),
        ("features", [1], r"field 'features' is \[1\], expected dict"),
        ("features", {"action": None}, "feature 'action': found None, expected an object with fields"),
        ("features", {"action": {"dtype": "float32"}}, "feature 'action': field 'shape' is missing"),
        (
            "features",
            {"observation.images.top": {"dtype": "video", "shape": [0, 64, 3]}},
            "feature 'observation.images.top': field 'shape' is \\[0, 64, 3\\], expected height",
        ),
        (
            "features",
            {"observation.images.top": {"dtype": "video", "shape": [3]}},
            "feature 'observation.images.top': field 'shape' is \\[3\\], expected height",
        ),
    ],
)
def test_a_broken_field_is_named(root: Path, name: str, value: object, message: str) -> None:
    edit_info(root, **{name: value})
    with pytest.raises(DatasetError, match=f"{root}/meta/info.json: {message}"):
        LeRobotDataset(root)


def test_a_foreign_layout_is_read_but_not_written(root: Path) -> None:
    """Other programs number data files and videos apart; appending there would risk their files."""
    folder = root / "videos/observation.images.side/chunk-000"
    (folder / "file-002.mp4").rename(folder / "file-007.mp4")

    def renumber(table: pa.Table) -> pa.Table:
        name = "videos/observation.images.side/file_index"
        return table.set_column(table.column_names.index(name), name, pa.array([7] * table.num_rows))

    edit_table(root / "meta/episodes/chunk-000/file-002.parquet", renumber)
    assert len(LeRobotDataset(root).frames(6, "side")) == length_of(6)
    with pytest.raises(DatasetError, match="another program wrote this data set"):
        LeRobotWriter(root, SPEC)
    assert (folder / "file-007.mp4").is_file()
