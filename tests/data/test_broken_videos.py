"""A broken video stops the encoding with a named error, or its episodes are skipped loudly; wrong frames never come."""

import logging
import shutil
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.synthetic import EMBODIMENT, CellTokenizer, length_of
from tests.data.write_v2 import encoded, write_v2
from wam.data.errors import DatasetError, MissingFileError, TruncatedVideoError
from wam.data.latent_cache import LatentCache, encode_dataset
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.window_sampler import WindowSampler
from wam.data.windows import EpisodeSelection, WindowSource, WindowSpec

ALL = EpisodeSelection(split="all")
VIDEO = "videos/observation.images.side/chunk-000/file-001.mp4"
SHARED = (3, 4, 5)
"""Episodes in that file."""
VIDEO_OF_4 = "videos/chunk-001/observation.images.side/episode_000004.mp4"


@pytest.fixture
def root(tmp_path: Path, dataset_root: Path) -> Path:
    """A copy of the v3.0 data set to damage."""
    return Path(shutil.copytree(dataset_root, tmp_path / "set"))


@pytest.fixture(scope="module")
def whole_v21(dataset: LeRobotDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_v2(tmp_path_factory.mktemp("v21") / "set", dataset)


@pytest.fixture
def v21(tmp_path: Path, whole_v21: Path) -> Path:
    """A copy in layout v2.1 to damage: one video for each episode and camera."""
    return Path(shutil.copytree(whole_v21, tmp_path / "v21"))


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * share)])


def index_first(path: Path) -> None:
    """Write a video's index before its frames: cut off, it still promises all of them."""
    target = path.with_suffix(".new.mp4")
    with av.open(str(path)) as old, av.open(str(target), "w", options={"movflags": "faststart"}) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for packet in old.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    target.replace(path)


def skipping(root: Path, out: Path) -> tuple[LeRobotDataset, LatentCache]:
    dataset = LeRobotDataset(root, on_broken="skip")
    return dataset, encode_dataset(dataset, CellTokenizer(), EMBODIMENT, out, batch=50, on_broken="skip")


def check_latents(dataset: LeRobotDataset, found: LatentCache, expected: LatentCache) -> None:
    """Those of the skipped episodes are zero, all others are right."""
    for episode in dataset.meta.episodes:
        rows = slice(episode.dataset_from_index, episode.dataset_to_index)
        for name in ("anchor", "group"):
            right = getattr(expected, name)[rows] * np.float16(episode.index not in found.broken)
            np.testing.assert_array_equal(getattr(found, name)[rows], right)


def check_windows(dataset: LeRobotDataset, cache: LatentCache) -> None:
    """None of a skipped episode, all of the others."""
    source = WindowSource(dataset, cache, WindowSpec(chunks=2), ALL)
    kept = sorted(set(range(7)) - set(cache.broken))
    assert source.episodes.tolist() == kept
    assert source.skipped == cache.broken
    assert len(source) == sum(length_of(episode) for episode in kept)
    sampler = WindowSampler(source, 8)
    drawn = [source.collate(next(sampler)) for _ in range(sampler.batches_per_epoch)]
    assert {int(episode) for batch in drawn for episode in batch.episode} == set(kept)
    assert all(batch.anchor.flatten(1).any(1).all() for batch in drawn)


def test_v21_one_video_cut_off(v21: Path, cache: LatentCache, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cut(v21 / VIDEO_OF_4, 0.5)
    with pytest.raises(TruncatedVideoError, match="episode_000004.mp4"):
        LeRobotDataset(v21)
    with caplog.at_level(logging.WARNING):
        dataset, found = skipping(v21, tmp_path / "out")
    assert set(dataset.broken) == set(found.broken) == {4}
    assert "episode 4 is skipped" in caplog.text and "episode_000004.mp4" in caplog.text
    check_latents(dataset, found, cache)
    check_windows(dataset, found)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        encode_dataset(dataset, CellTokenizer(), EMBODIMENT, tmp_path / "out", on_broken="skip")
    assert "episode 4 is skipped" in caplog.text, "said again in every run"


def test_v21_one_video_too_short_or_missing(v21: Path, cache: LatentCache, tmp_path: Path) -> None:
    shutil.copy(v21 / VIDEO_OF_4, v21 / VIDEO_OF_4.replace("000004", "000005"))  # 30 frames, episode 5 has 37
    (v21 / VIDEO_OF_4).unlink()
    with pytest.raises(MissingFileError, match="episode_000004.mp4"):
        LeRobotDataset(v21)
    dataset, found = skipping(v21, tmp_path / "out")
    assert set(found.broken) == {4, 5}
    assert "30 frames, the table of episodes needs 37 for episode 5" in found.broken[5]
    check_latents(dataset, found, cache)


@pytest.mark.parametrize("share", [0.25, 0.45, 0.7, 0.9, 0.99])
def test_v30_only_episodes_behind_the_cut_are_skipped(
    root: Path, cache: LatentCache, tmp_path: Path, share: float
) -> None:
    """Many episodes share the file, and its header still promises all of them."""
    index_first(root / VIDEO)
    cut(root / VIDEO, share)
    dataset = LeRobotDataset(root)
    readable = set()
    for episode in SHARED:
        try:
            dataset.frames(episode, "side")
            readable.add(episode)
        except TruncatedVideoError:
            pass
    with pytest.raises(TruncatedVideoError, match=r"episode \d: .*file-001.mp4.*skip such episodes with on_broken"):
        encode_dataset(dataset, CellTokenizer(), EMBODIMENT, tmp_path / "stop")
    dataset, found = skipping(root, tmp_path / "skip")
    assert dataset.broken == {}, "headers do not tell"
    assert set(found.broken) == set(SHARED) - readable
    assert list(found.broken) == list(range(min(found.broken), 6)), "all before the cut are kept"
    check_latents(dataset, found, cache)
    check_windows(dataset, found)


def test_cuts_hit_different_episodes(root: Path) -> None:
    """Else the test above proves little."""
    index_first(root / VIDEO)
    content = (root / VIDEO).read_bytes()
    seen = set()
    for share in (0.45, 0.7, 0.99):
        (root / VIDEO).write_bytes(content[: round(len(content) * share)])
        dataset = LeRobotDataset(root)
        good = 0
        for episode in SHARED:
            try:
                dataset.frames(episode, "side")
                good += 1
            except TruncatedVideoError:
                break
        seen.add(good)
    assert seen == {0, 1, 2}


def test_v30_without_its_index_the_whole_file_is_lost(root: Path, cache: LatentCache, tmp_path: Path) -> None:
    cut(root / VIDEO, 0.9)
    dataset, found = skipping(root, tmp_path / "out")
    assert set(dataset.broken) == set(found.broken) == set(SHARED)
    check_latents(dataset, found, cache)
    check_windows(dataset, found)


def test_pictures_that_cannot_be_read(dataset: LeRobotDataset, cache: LatentCache, tmp_path: Path) -> None:
    root = write_v2(tmp_path / "set", dataset, images=True)
    path, key = root / "data/chunk-001/episode_000004.parquet", "observation.images.side"
    table = pq.read_table(path)
    cells = table[key].to_pylist()
    cells[7] = encoded(np.zeros((1, 8, 8, 3), dtype=np.uint8)).to_pylist()[0]
    place = table.column_names.index(key)
    pq.write_table(table.set_column(place, key, pa.array(cells, table.schema.field(key).type)), path)
    copy, found = skipping(root, tmp_path / "out")
    assert set(found.broken) == {4} and "row 7" in found.broken[4]
    check_latents(copy, found, cache)


def test_a_repaired_video_fills_the_hole(root: Path, cache: LatentCache, tmp_path: Path) -> None:
    kept = (root / VIDEO).read_bytes()
    cut(root / VIDEO, 0.9)
    skipping(root, tmp_path)
    with pytest.raises(TruncatedVideoError, match="file-001.mp4"):
        LeRobotDataset(root)
    dataset = LeRobotDataset(root, check=False)
    with pytest.raises(TruncatedVideoError, match="episode 3: "):
        encode_dataset(dataset, CellTokenizer(), EMBODIMENT, tmp_path)
    (root / VIDEO).write_bytes(kept)
    tokenizer = CellTokenizer()
    found = encode_dataset(LeRobotDataset(root), tokenizer, EMBODIMENT, tmp_path, batch=64)
    assert found.broken == {}
    np.testing.assert_array_equal(found.anchor, cache.anchor)
    np.testing.assert_array_equal(found.group, cache.group)
    lost = sum(length_of(episode) for episode in SHARED)
    assert tokenizer.calls <= 2 + -(-lost // 64), "only the lost episodes are encoded again"


def test_nothing_is_left(root: Path, tmp_path: Path) -> None:
    for path in (root / "videos/observation.images.side").rglob("*.mp4"):
        cut(path, 0.5)
    with pytest.raises(DatasetError, match="the pictures of none of 7 episodes can be read"):
        skipping(root, tmp_path)
