"""v2.0, v2.1 and v3.0, videos and pictures: the same episodes give the same windows, to the bit."""

import json
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.synthetic import EMBODIMENT, CellTokenizer, length_of, read_picture
from tests.data.write_v2 import encoded, write_v2, write_v3_images
from wam.data.errors import (
    DatasetError,
    MissingColumnError,
    MissingFileError,
    RowCountError,
    SpecMismatchError,
    TruncatedVideoError,
)
from wam.data.latent_cache import LatentCache, encode_dataset
from wam.data.lerobot_reader import LeRobotDataset, _decoders
from wam.data.schema import Camera
from wam.data.stats import robot_statistics
from wam.data.window_sampler import WindowSampler
from wam.data.windows import EpisodeSelection, WindowSource, WindowSpec

ROWS = "data/chunk-001/episode_000004.parquet"
VIDEO = "videos/chunk-001/observation.images.side/episode_000004.mp4"
KEY = "observation.images.side"


@pytest.fixture(scope="module")
def copies(dataset: LeRobotDataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The session's data set in every other layout."""
    folder = tmp_path_factory.mktemp("copies")
    return {
        "v2.0": write_v2(folder / "v20", dataset, "v2.0"),
        "v2.1": write_v2(folder / "v21", dataset),
        "v2.1 pictures": write_v2(folder / "v21i", dataset, images=True),
        "v3.0 pictures": write_v3_images(folder / "v3i", dataset),
    }


NAMES = ("v2.0", "v2.1", "v2.1 pictures", "v3.0 pictures")


@pytest.mark.parametrize("name", NAMES)
def test_rows_and_frames_are_the_same(copies: dict[str, Path], dataset: LeRobotDataset, name: str) -> None:
    copy = LeRobotDataset(copies[name])
    assert copy.meta.version == name[:4]
    assert (copy.meta.fps, copy.meta.cameras, copy.meta.tasks) == (40, dataset.meta.cameras, dataset.meta.tasks)
    assert copy.meta.features == dataset.meta.features
    assert copy.num_rows == dataset.num_rows
    for index in range(dataset.num_episodes):
        ours, theirs = copy.episode(index), dataset.episode(index)
        assert (ours.length, ours.tasks, ours.extra) == (theirs.length, theirs.tasks, theirs.extra)
        assert (ours.dataset_from_index, ours.dataset_to_index) == (theirs.dataset_from_index, theirs.dataset_to_index)
        expected = dataset.columns(index)
        for column, values in copy.columns(index).items():
            assert values.dtype == expected[column].dtype
            np.testing.assert_array_equal(values, expected[column])
        for camera in dataset.meta.cameras:
            rows = [5, 0, length_of(index) - 1, 5, 17]
            np.testing.assert_array_equal(copy.frames(index, camera, rows), dataset.frames(index, camera, rows))


@pytest.mark.parametrize("name", NAMES)
def test_training_windows_are_the_same(
    copies: dict[str, Path], dataset: LeRobotDataset, cache: LatentCache, tmp_path: Path, name: str
) -> None:
    copy = LeRobotDataset(copies[name])
    assert copy.meta.fingerprint != dataset.meta.fingerprint
    copied = encode_dataset(copy, CellTokenizer(), EMBODIMENT, tmp_path, batch=50)
    spec, selection = WindowSpec(chunks=3, gap_probability=0.5), EpisodeSelection("all", labelled_share=0.6)
    sources = WindowSource(dataset, cache, spec, selection), WindowSource(copy, copied, spec, selection)
    samplers = [WindowSampler(source, batch_size=16, seed=2) for source in sources]
    for _ in range(2 * samplers[0].batches_per_epoch):
        ours, theirs = (source.collate(next(s)) for source, s in zip(sources, samplers, strict=True))
        assert ours.tensors().keys() == theirs.tensors().keys()
        for field, values in ours.tensors().items():
            np.testing.assert_array_equal(values.numpy(), getattr(theirs, field).numpy(), err_msg=field)
    statistics = [robot_statistics(EMBODIMENT, source.labelled_rows()) for source in sources]
    assert statistics[0] == statistics[1]


def test_a_camera_may_be_named_by_its_feature(copies: dict[str, Path]) -> None:
    frames = LeRobotDataset(copies["v2.1"]).frames(4, KEY, [3])
    assert read_picture(frames[0]) == (3, 4, 1)


@pytest.mark.parametrize("name", ["v2.1", "v3.0 pictures", "v3.0"])
def test_threads_share_a_data_set(copies: dict[str, Path], dataset: LeRobotDataset, name: str) -> None:
    shared = LeRobotDataset(copies.get(name, dataset.root), decoders=3)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(12):
            index, rows = int(rng.integers(7)), rng.integers(0, 30, size=2)
            columns = shared.columns(index, ("observation.state", "action"))
            np.testing.assert_array_equal(columns["observation.state"][rows, 0], rows)
            assert set(columns["observation.state"][:, 1]) == {index}
            frames = shared.frames(index, "side", rows)
            assert [read_picture(frame) for frame in frames] == [(row, index, 1) for row in rows]

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))


def test_as_many_videos_stay_open_as_memory_allows(dataset: LeRobotDataset) -> None:
    def limit(height: int, width: int) -> int:
        return _decoders(replace(dataset.meta, cameras={"top": Camera(64, 64), "front": Camera(height, width)}))

    assert (_decoders(dataset.meta), limit(480, 640), limit(720, 1280), limit(2160, 3840)) == (128, 72, 24, 8)


def test_a_data_set_can_be_sent_to_another_process(copies: dict[str, Path]) -> None:
    for name in ("v2.1", "v3.0 pictures"):
        dataset = LeRobotDataset(copies[name])
        dataset.frames(0, "top", [0])
        copy = pickle.loads(pickle.dumps(dataset))
        assert read_picture(copy.frames(3, "top", [8])[0]) == (8, 3, 0)


# -- what v2 data sets of other programs look like ----------------------------------------------------------------


@pytest.fixture
def v21(copies: dict[str, Path], tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(copies["v2.1"], tmp_path / "set"))


@pytest.fixture
def pictures(copies: dict[str, Path], tmp_path: Path) -> Path:
    """A copy with pictures, to change."""
    return Path(shutil.copytree(copies["v2.1 pictures"], tmp_path / "set"))


def edit_info(root: Path, **changes: object) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_lines(root: Path, name: str, change: Callable[[list[dict[str, object]]], object]) -> None:
    path = root / f"meta/{name}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("\n".join(json.dumps(line) for line in lines))


def test_shapes_and_names_in_the_ways_of_v2(v21: Path) -> None:
    features = json.loads((v21 / "meta/info.json").read_text())["features"]
    features["observation.state"]["names"] = {"motors": ["a", "b", "c", "d"]}
    features["observation.images.top"] |= {"shape": [3, 48, 96], "names": ["channels", "height", "width"]}
    features[KEY] |= {"shape": [64, 32, 3], "names": ["width", "height", "channel"]}
    features["note"] = {"dtype": "string", "shape": [1], "names": None}
    edit_info(v21, features=features)
    meta = LeRobotDataset(v21).meta
    assert meta.features["observation.state"].names == ("a", "b", "c", "d")
    assert (meta.cameras["top"].height, meta.cameras["top"].width) == (48, 96)
    assert (meta.cameras["side"].height, meta.cameras["side"].width) == (32, 64)
    assert "note" not in meta.features


def test_episodes_may_be_listed_in_any_order(v21: Path) -> None:
    edit_lines(v21, "episodes", list.reverse)
    assert read_picture(LeRobotDataset(v21).frames(4, "side", [9])[0]) == (9, 4, 1)


def test_discarded_episodes_are_known(v21: Path) -> None:
    edit_info(v21, discarded_episode_indices=[1, 5])
    assert LeRobotDataset(v21).meta.discarded == (1, 5)


def test_the_fingerprint_follows_the_content(v21: Path) -> None:
    before = LeRobotDataset(v21).meta.fingerprint
    edit_lines(v21, "episodes_stats", lambda lines: lines[3]["stats"]["action"].update(mean=[1, 2, 3, 4]))  # type: ignore[index]
    changed = LeRobotDataset(v21).meta.fingerprint
    assert changed != before
    (v21 / "meta/episodes_stats.jsonl").unlink()
    without = LeRobotDataset(v21).meta.fingerprint
    (v21 / VIDEO).write_bytes((v21 / VIDEO).read_bytes() + b"\0")
    assert len({before, changed, without, LeRobotDataset(v21).meta.fingerprint}) == 4


def test_pictures_may_lie_outside_the_parquet_file(pictures: Path) -> None:
    table = pq.read_table(pictures / ROWS)
    cells = table[KEY].to_pylist()
    (pictures / "images").mkdir()
    for row, cell in enumerate(cells):
        (pictures / f"images/{row}.png").write_bytes(cell["bytes"])
        cells[row] = {"bytes": None, "path": f"images/{row}.png"}
    write_cells(pictures / ROWS, cells)
    dataset = LeRobotDataset(pictures)
    assert read_picture(dataset.frames(4, "side", [6])[0]) == (6, 4, 1)
    (pictures / "images/7.png").unlink()
    with pytest.raises(MissingFileError, match=rf"{ROWS}: column '{KEY}', row 7.*images/7.png"):
        dataset.frames(4, "side", [7])


# -- faults -------------------------------------------------------------------------------------------------------


def write_cells(path: Path, cells: list[object]) -> None:
    table = pq.read_table(path)
    place = table.column_names.index(KEY)
    pq.write_table(table.set_column(place, KEY, pa.array(cells, table.schema.field(KEY).type)), path)


def test_missing_files(v21: Path) -> None:
    for name in (VIDEO, ROWS, "meta/episodes.jsonl", "meta/tasks.jsonl"):
        (v21 / name).unlink()
        with pytest.raises(MissingFileError, match=name):
            LeRobotDataset(v21)


def test_short_video_and_short_table(v21: Path) -> None:
    longer, kept = v21 / VIDEO.replace("000004", "000005"), v21 / "kept.mp4"
    shutil.copy(longer, kept)
    shutil.copy(v21 / VIDEO, longer)
    with pytest.raises(TruncatedVideoError, match=r"episode_000005.mp4: 30 frames.*needs 37"):
        LeRobotDataset(v21)
    kept.replace(longer)
    pq.write_table(pq.read_table(v21 / ROWS).slice(1), v21 / ROWS)
    with pytest.raises(RowCountError, match=rf"{ROWS}: 29 rows, the table of episodes says 30"):
        LeRobotDataset(v21)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda lines: lines.pop(2),
            RowCountError,
            "6 different episodes, .* is 2; info.json promises episodes 0 to 6",
        ),
        (lambda lines: lines[3].pop("length"), MissingColumnError, "episodes.jsonl:4: field 'length' is missing"),
        (lambda lines: lines[3].update(length="long"), DatasetError, "jsonl:4: field 'length' is 'long', expected int"),
        (lambda lines: lines[3].update(length=5), RowCountError, "total_frames is 273, the episodes add up to 227"),
        (
            lambda lines: lines[3].update(tasks="do it"),
            DatasetError,
            "jsonl:4: field 'tasks' is 'do it', expected sentences",
        ),
        (lambda lines: lines[1].pop("episode_index"), MissingColumnError, "jsonl:2: field 'episode_index' is missing"),
    ],
)
def test_faults_in_the_list_of_episodes(
    v21: Path, change: Callable[[list[dict[str, object]]], object], error: type[Exception], message: str
) -> None:
    edit_lines(v21, "episodes", change)
    with pytest.raises(error, match=message):
        LeRobotDataset(v21)


def test_folders_of_no_episodes_are_named(v21: Path) -> None:
    edit_info(v21, chunks_size=0)
    with pytest.raises(DatasetError, match="info.json: field 'chunks_size' is 0, expected positive integer"):
        LeRobotDataset(v21)


def test_more_episodes_are_promised_than_can_be_counted(v21: Path) -> None:
    edit_info(v21, total_episodes=10**30)
    with pytest.raises(RowCountError, match="7 different episodes, the first one missing or too many is 7"):
        LeRobotDataset(v21)


def test_faults_in_the_list_of_tasks(v21: Path) -> None:
    edit_lines(v21, "tasks", lambda lines: lines.pop(1))
    with pytest.raises(RowCountError, match="meta/tasks.jsonl: task 1 is missing, info.json declares 3"):
        LeRobotDataset(v21)
    (v21 / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "one"}\n{"task_in')
    with pytest.raises(DatasetError, match="meta/tasks.jsonl:2: not valid JSON"):
        LeRobotDataset(v21)


def test_faults_in_pictures(pictures: Path) -> None:
    cells = pq.read_table(pictures / ROWS)[KEY].to_pylist()
    small = encoded(np.zeros((1, 32, 64, 3), dtype=np.uint8)).to_pylist()[0]
    deep = encoded(np.zeros((1, 64, 64), dtype=np.uint16)).to_pylist()[0]
    spoilt = {"bytes": cells[3]["bytes"][:100], "path": None}
    write_cells(
        pictures / ROWS,
        [{"bytes": None, "path": None}, {"bytes": b"no picture", "path": None}, spoilt, small, deep, *cells[5:]],
    )
    dataset = LeRobotDataset(pictures)
    for row, error, message in (
        (0, DatasetError, "the cell holds no picture"),
        (1, DatasetError, "no complete picture"),
        (2, DatasetError, "no complete picture"),
        (3, SpecMismatchError, r"\(32, 64\) pixels, info.json declares \(64, 64\)"),
        (4, SpecMismatchError, r"mode 'I;16' \(depth\?\)"),
    ):
        with pytest.raises(error, match=f"{ROWS}: column '{KEY}', row {row}: .*{message}"):
            dataset.frames(4, "side", [row])
    dataset.frames(4, "side", [5])
