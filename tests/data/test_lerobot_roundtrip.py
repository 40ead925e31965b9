"""What is written can be read: bit by bit for numbers, frame by frame for pictures."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.data.synthetic import CAMERAS, SPEC, episode_data, length_of, read_picture, write_dataset
from wam.data import schema
from wam.data.errors import NonFiniteError, SpecMismatchError
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.lerobot_writer import LeRobotWriter


def psnr(found: np.ndarray, expected: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((found.astype(float) - expected) ** 2)))


def test_columns_are_bit_equal(dataset_root: Path) -> None:
    dataset = LeRobotDataset(dataset_root)
    assert dataset.num_episodes == 7
    for index in range(dataset.num_episodes):
        written, found = episode_data(index).columns, dataset.columns(index)
        for name, column in written.items():
            assert found[name].dtype == column.dtype
            np.testing.assert_array_equal(found[name], column)
        np.testing.assert_array_equal(found["frame_index"], np.arange(length_of(index)))
        np.testing.assert_allclose(found["timestamp"], np.arange(length_of(index)) / 40, rtol=1e-6)
        assert dataset.meta.tasks[found["task_index"][0]] == episode_data(index).task


def test_frames_are_the_right_ones_and_look_right(dataset_root: Path) -> None:
    dataset = LeRobotDataset(dataset_root)
    for index in range(dataset.num_episodes):
        for number, camera in enumerate(CAMERAS):
            frames = dataset.frames(index, camera)
            assert [read_picture(f) for f in frames] == [(t, index, number) for t in range(length_of(index))]
            assert psnr(frames, episode_data(index).images[camera]) > 30


def test_frames_in_any_order(dataset_root: Path) -> None:
    rows = [29, 0, 7, 7, 8, 1, 28]
    frames = LeRobotDataset(dataset_root).frames(4, "side", rows)
    assert [read_picture(f) for f in frames] == [(row, 4, 1) for row in rows]


def test_a_row_outside_the_episode_is_refused(dataset_root: Path) -> None:
    dataset = LeRobotDataset(dataset_root)
    with pytest.raises(IndexError, match="rows 0 to 29"):
        dataset.frames(0, "top", [30])
    with pytest.raises(IndexError, match="0 to 6"):
        dataset.columns(7)


def test_episode_rows(dataset_root: Path) -> None:
    dataset = LeRobotDataset(dataset_root)
    start = 0
    for index, episode in enumerate(dataset.meta.episodes):
        assert (episode.dataset_from_index, episode.length) == (start, length_of(index))
        assert episode.extra == {"env_task": "thing-v3", "seed": index, "noise": 0.25 * index}
        assert (episode.data_chunk_index, episode.data_file_index) == (0, index // 3)
        start = episode.dataset_to_index
    second = dataset.episode(4).videos["top"]
    assert second.file_index == 1
    assert second.from_timestamp == pytest.approx(length_of(3) / 40)
    assert second.to_timestamp == pytest.approx((length_of(3) + length_of(4)) / 40)


def test_info_json(dataset_root: Path) -> None:
    info = json.loads((dataset_root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_tasks"]) == (7, 3)
    assert info["total_frames"] == sum(map(length_of, range(7)))
    assert info["features"]["observation.images.top"]["shape"] == [64, 64, 3]
    assert info["features"]["observation.state"]["names"] == ["x", "y", "z", "grip"]
    assert {"timestamp", "frame_index", "episode_index", "index", "task_index"} <= set(info["features"])


def test_tasks_are_indexed_by_sentence_as_pandas_does(dataset_root: Path) -> None:
    table = pq.read_table(dataset_root / "meta/tasks.parquet")
    pandas_metadata = json.loads(table.schema.metadata[b"pandas"])
    assert pandas_metadata["index_columns"] == ["task"]
    assert table["task"].to_pylist() == [f"do thing number {i}" for i in range(3)]
    assert table["task_index"].to_pylist() == [0, 1, 2]


def test_stats_json(dataset_root: Path) -> None:
    stats = json.loads((dataset_root / "meta/stats.json").read_text())
    actions = np.concatenate([episode_data(i).columns["action"] for i in range(7)]).astype(float)
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(0))
    np.testing.assert_allclose(stats["action"]["std"], actions.std(0))
    np.testing.assert_allclose(stats["action"]["q01"], np.quantile(actions, 0.01, axis=0))
    np.testing.assert_allclose(stats["action"]["max"], actions.max(0))
    assert stats["action"]["count"] == [len(actions)]
    mean = np.array(stats["observation.images.top"]["mean"])
    assert mean.shape == (3, 1, 1)
    pixels = np.concatenate([episode_data(i).images["top"][::2] for i in range(7)]) / 255
    np.testing.assert_allclose(mean.ravel(), pixels.mean(axis=(0, 1, 2)), atol=0.02)


def test_statistics_of_every_episode(dataset_root: Path) -> None:
    table = pq.read_table(dataset_root / "meta/episodes/chunk-000/file-001.parquet")
    state = episode_data(4).columns["observation.state"].astype(float)
    np.testing.assert_allclose(table["stats/observation.state/mean"][1].as_py(), state.mean(0))
    assert table["stats/observation.state/count"][1].as_py() == [len(state)]
    assert np.shape(table["stats/observation.images.side/q99"][1].as_py()) == (3, 1, 1)


def test_folders_hold_a_limited_number_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "FILES_PER_CHUNK", 2)
    root = write_dataset(tmp_path / "set", episodes=5, episodes_per_file=1)
    names = sorted(path.relative_to(root).as_posix() for path in root.glob("data/*/*"))
    assert names == [f"data/chunk-00{i // 2}/file-00{i % 2}.parquet" for i in range(5)]
    dataset = LeRobotDataset(root)
    assert [read_picture(dataset.frames(i, "top", [11])[0])[:2] for i in range(5)] == [(11, i) for i in range(5)]


def test_fingerprint_depends_on_the_content(tmp_path: Path, dataset_root: Path) -> None:
    same = LeRobotDataset(write_dataset(tmp_path / "same", 7)).meta.fingerprint
    assert same == LeRobotDataset(dataset_root).meta.fingerprint
    with LeRobotWriter(tmp_path / "other", SPEC, episodes_per_file=3) as writer:
        for index in range(7):
            episode = episode_data(index)
            columns = dict(episode.columns)
            if index == 5:
                columns["action"] = columns["action"].copy()
                columns["action"][3, 3] += 0.5
            writer.add_episode(replace(episode, columns=columns))
    assert LeRobotDataset(tmp_path / "other").meta.fingerprint != same


def _without(mapping: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key: value for key, value in mapping.items() if key != name}


GOOD = episode_data(0)
NAN = GOOD.columns["action"].copy()
NAN[17, 2] = np.nan
REFUSED = {
    "missing camera": (replace(GOOD, images=_without(GOOD.images, "side")), SpecMismatchError, "missing \\['side'\\]"),
    "small picture": (
        replace(GOOD, images=dict(GOOD.images) | {"top": GOOD.images["top"][:, ::2]}),
        SpecMismatchError,
        "camera 'top' is uint8 \\(30, 32, 64, 3\\)",
    ),
    "missing column": (
        replace(GOOD, columns=_without(GOOD.columns, "action")),
        SpecMismatchError,
        "missing \\['action'\\]",
    ),
    "short column": (
        replace(GOOD, columns=dict(GOOD.columns) | {"action": GOOD.columns["action"][:-1]}),
        SpecMismatchError,
        "'action': 29",
    ),
    "narrow column": (
        replace(GOOD, columns=dict(GOOD.columns) | {"action": GOOD.columns["action"][:, :3]}),
        SpecMismatchError,
        "expected float32 \\(30, 4\\)",
    ),
    "NaN": (replace(GOOD, columns=dict(GOOD.columns) | {"action": NAN}), NonFiniteError, "'action'.*row 17"),
    "no task": (replace(GOOD, task=" "), SpecMismatchError, "task is empty"),
    "extra type": (replace(GOOD, extra=dict(GOOD.extra) | {"seed": "zero"}), SpecMismatchError, "'seed': 'str'"),
    "extra name": (replace(GOOD, extra={"length": 3}), SpecMismatchError, "'length' is 3"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_wrong_episode_is_refused_and_leaves_no_trace(tmp_path: Path, fault: str) -> None:
    episode, error, message = REFUSED[fault]
    with LeRobotWriter(tmp_path, SPEC) as writer:
        writer.add_episode(episode_data(1))
        with pytest.raises(error, match=message):
            writer.add_episode(episode)
        writer.add_episode(episode_data(2))
    dataset = LeRobotDataset(tmp_path)
    assert [read_picture(dataset.frames(i, "side", [5])[0]) for i in (0, 1)] == [(5, 1, 1), (5, 2, 1)]
