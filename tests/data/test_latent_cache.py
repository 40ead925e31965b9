"""The cache holds, for every row, the frame alone and the group of frames that follows."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.synthetic import EMBODIMENT, CellTokenizer, length_of, read_latent, write_dataset
from wam.data import latent_cache
from wam.data.errors import (
    DatasetLockedError,
    MissingCameraError,
    MissingFileError,
    NonFiniteError,
    StaleCacheError,
    TokenizerMemoryError,
)
from wam.data.files import FolderLock
from wam.data.latent_cache import LatentCache, cache_key, encode_dataset, episode_canvases
from wam.data.lerobot_reader import LeRobotDataset
from wam.encoders.nano_tokenizer import NanoTokenizer, NanoTokenizerConfig
from wam.encoders.video import frames_to_video
from wam.model.precision import Precision, native_dtype


def test_every_latent_shows_its_own_rows(dataset: LeRobotDataset, cache: LatentCache) -> None:
    assert cache.latent_shape == (5, 8, 16)
    assert cache.anchor.dtype == np.float16
    for episode in dataset.meta.episodes:
        for row in range(episode.length):
            at = episode.dataset_from_index + row
            rows = np.minimum([row, row + 2, row + 4, row + 6, row + 8], episode.length - 1)
            for view in (0, 1):
                assert read_latent(cache.anchor[at], view) == [(row, episode.index, view)] * 5
                assert read_latent(cache.group[at], view) == [(t, episode.index, view) for t in rows]


def test_equals_streaming_the_whole_video(dataset: LeRobotDataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = NanoTokenizerConfig(z_channels=4, width=(8, 8), depth=(0, 0))
    tokenizer = NanoTokenizer(config).eval()
    with torch.no_grad():
        list(tokenizer.encode_group.parameters())[-2].normal_(std=0.1)  # motion is off in a new tokenizer
    cache = encode_dataset(dataset, tokenizer, EMBODIMENT, tmp_path, batch=16, precision="float32")
    episode, start, groups = 3, 5, 4
    rows = start + 2 * np.arange(1 + 4 * groups)
    video = frames_to_video(episode_canvases(dataset, EMBODIMENT, episode)[rows])[None]
    expected = tokenizer.encode(video)[0].numpy()
    at = dataset.episode(episode).dataset_from_index + start
    np.testing.assert_allclose(cache.anchor[at], expected[:, 0], atol=5e-3)
    for group in range(groups):
        np.testing.assert_allclose(cache.group[at + 8 * group], expected[:, 1 + group], atol=5e-3)
    assert np.abs(expected[:, 1] - expected[:, 0]).max() > 0.05  # else the test proves nothing


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_no_rows_is_refused(dataset: LeRobotDataset, tmp_path: Path, batch: int) -> None:
    with pytest.raises(ValueError, match=f"batch is {batch} rows per call of the tokenizer, expected at least 1"):
        encode_dataset(dataset, CellTokenizer(), EMBODIMENT, tmp_path, batch=batch)
    assert list(tmp_path.iterdir()) == []


def test_a_finished_cache_is_only_opened(dataset: LeRobotDataset, cache: LatentCache) -> None:
    tokenizer = CellTokenizer()
    again = encode_dataset(dataset, tokenizer, EMBODIMENT, cache.folder.parent)
    assert tokenizer.calls == 0
    assert again.folder == cache.folder


def test_resumes_where_it_was_cut_off(
    dataset: LeRobotDataset, cache: LatentCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(BaseException):
        pass

    def cut(done: int, total: int) -> None:
        assert total == 7
        if done == 4:
            raise Cut

    monkeypatch.setattr(latent_cache, "ROWS_PER_BLOCK", 60)  # two episodes
    with pytest.raises(Cut):
        encode_dataset(dataset, CellTokenizer(), EMBODIMENT, tmp_path, batch=10, progress=cut)
    folder = tmp_path / cache.key
    with pytest.raises(MissingFileError, match="no finished latent cache"):
        LatentCache.open(folder)
    done: list[int] = []
    tokenizer = CellTokenizer()
    whole = encode_dataset(dataset, tokenizer, EMBODIMENT, tmp_path, batch=10, progress=lambda now, _: done.append(now))
    assert done == [6, 7]
    np.testing.assert_array_equal(whole.anchor, cache.anchor)
    np.testing.assert_array_equal(whole.group, cache.group)


def test_key_depends_on_all_that_matters(dataset: LeRobotDataset, tmp_path: Path) -> None:
    tokenizer = CellTokenizer()
    key = cache_key(dataset, tokenizer, EMBODIMENT)
    assert key == cache_key(dataset, CellTokenizer(), EMBODIMENT)
    assert key == cache_key(dataset, tokenizer, replace(EMBODIMENT, prompt_template="please {instruction}"))
    with torch.no_grad():
        tokenizer.gain += 1e-6
    keys = {
        key,
        cache_key(dataset, tokenizer, EMBODIMENT),
        cache_key(dataset, CellTokenizer(), replace(EMBODIMENT, video_stride=1, actions_per_chunk=4)),
        cache_key(dataset, CellTokenizer(), replace(EMBODIMENT, canvas=(("side", "top"),))),
        cache_key(LeRobotDataset(write_dataset(tmp_path, 2)), CellTokenizer(), EMBODIMENT),
        cache_key(dataset, CellTokenizer(), replace(EMBODIMENT, crop=0.9)),
        cache_key(dataset, CellTokenizer(), replace(EMBODIMENT, camera_keys=("side", "top"))),
    }
    assert len(keys) == 7


def test_precision_is_part_of_the_key_and_the_callers_autocast_is_not(dataset: LeRobotDataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = NanoTokenizer(NanoTokenizerConfig(z_channels=4, width=(8, 8), depth=(0, 0))).eval()
    plain = encode_dataset(dataset, tokenizer, EMBODIMENT, tmp_path / "plain", precision="float32")
    with torch.autocast("cpu", torch.bfloat16):
        inside = encode_dataset(dataset, tokenizer, EMBODIMENT, tmp_path / "inside", precision="float32")
    rough = encode_dataset(dataset, tokenizer, EMBODIMENT, tmp_path / "plain", precision="bf16")
    np.testing.assert_array_equal(plain.group, inside.group)
    assert plain.key == inside.key != rough.key == cache_key(dataset, tokenizer, EMBODIMENT)
    assert 0 < np.abs(plain.group.astype(np.float32) - rough.group.astype(np.float32)).max() < 0.1
    assert json.loads((rough.folder / "index.json").read_text())["precision"] == "bfloat16"


@pytest.mark.parametrize("made", ["bf16", "float32"])
def test_left_open_the_precision_is_that_of_the_cache_or_what_the_machine_does_best(
    dataset: LeRobotDataset, tmp_path: Path, made: Precision
) -> None:
    torch.manual_seed(0)
    tokenizer = NanoTokenizer(NanoTokenizerConfig(z_channels=4, width=(8, 8), depth=(0, 0))).eval()
    there = encode_dataset(dataset, tokenizer, EMBODIMENT, tmp_path / "there", precision=made)
    assert encode_dataset(dataset, tokenizer, EMBODIMENT, tmp_path / "there").key == there.key
    fresh = encode_dataset(dataset, tokenizer, EMBODIMENT, tmp_path / "fresh")
    assert fresh.key == cache_key(dataset, tokenizer, EMBODIMENT, native_dtype("cpu"))


def test_a_cache_of_other_data_is_refused(cache: LatentCache, tmp_path: Path) -> None:
    other = LeRobotDataset(write_dataset(tmp_path, 1))
    with pytest.raises(StaleCacheError, match="encode it again"):
        LatentCache.open(cache.folder, other)


def test_arrays_that_do_not_fit_the_index_are_refused(cache: LatentCache, tmp_path: Path) -> None:
    index = json.loads((cache.folder / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(index))
    np.save(tmp_path / "anchor.npy", cache.anchor)
    np.save(tmp_path / "group.npy", cache.group[:-1])
    with pytest.raises(StaleCacheError, match="the index says"):
        LatentCache.open(tmp_path)
    (tmp_path / "index.json").write_text('{"rows": ')
    with pytest.raises(StaleCacheError, match=f"{tmp_path / 'index.json'}: not JSON"):
        LatentCache.open(tmp_path)


def test_a_tokenizer_with_a_long_memory_is_refused(dataset: LeRobotDataset, tmp_path: Path) -> None:
    with pytest.raises(TokenizerMemoryError, match="remember one frame"):
        encode_dataset(dataset, CellTokenizer(memory=0.5), EMBODIMENT, tmp_path)


def test_latents_beyond_half_precision_are_refused(dataset: LeRobotDataset, tmp_path: Path) -> None:
    tokenizer = CellTokenizer()
    with torch.no_grad():
        tokenizer.gain.fill_(1e6)
    with pytest.raises(NonFiniteError, match="episodes 0 to 6"):
        encode_dataset(dataset, tokenizer, EMBODIMENT, tmp_path)


def test_missing_camera(dataset: LeRobotDataset, tmp_path: Path) -> None:
    embodiment = replace(EMBODIMENT, cameras=("top", "wrist"), canvas=(("top", "wrist"),))
    with pytest.raises(MissingCameraError, match="no camera 'wrist'"):
        encode_dataset(dataset, CellTokenizer(), embodiment, tmp_path)


def test_one_encoder_at_a_time(dataset: LeRobotDataset, tmp_path: Path) -> None:
    folder = tmp_path / cache_key(dataset, CellTokenizer(), EMBODIMENT)
    with FolderLock(folder), pytest.raises(DatasetLockedError, match="another process"):
        encode_dataset(dataset, CellTokenizer(), EMBODIMENT, tmp_path)


def test_lengths_differ() -> None:
    assert len({length_of(i) for i in range(7)}) == 4  # otherwise offsets are not tested
