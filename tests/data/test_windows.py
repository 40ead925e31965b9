"""Windows put together exactly the rows that belong together."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.data.synthetic import EMBODIMENT, SPEC, episode_data, length_of, read_latent, write_dataset
from wam.data.errors import DatasetError, StaleCacheError
from wam.data.latent_cache import LatentCache
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.lerobot_writer import LeRobotWriter
from wam.data.schema import Feature
from wam.data.stats import robot_statistics
from wam.data.window_sampler import WindowSampler
from wam.data.windows import (
    EpisodeSelection,
    WindowBatch,
    WindowIndex,
    WindowSource,
    WindowSpec,
    _rows_led_astray,
    in_model_units,
)
from wam.robot.embodiment import Moments, Part, Statistics
from wam.robot.units import Units

ALL = EpisodeSelection(split="all")
M, N = 4, 8


def source(dataset: LeRobotDataset, cache: LatentCache, spec: WindowSpec | None = None) -> WindowSource:
    return WindowSource(dataset, cache, spec or WindowSpec(chunks=M), ALL)


def one_window(windows: WindowSource, episode: int, row: int, chunks: int, gap: int = 0) -> WindowBatch:
    return windows.collate(WindowIndex(*(np.array([value]) for value in (episode, row, chunks, gap))))


@pytest.mark.parametrize(("episode", "row", "chunks", "gap"), [(0, 0, 3, 0), (3, 5, 4, 0), (3, 1, 3, 2), (2, 41, 1, 0)])
def test_alignment(dataset: LeRobotDataset, cache: LatentCache, episode: int, row: int, chunks: int, gap: int) -> None:
    """Anchor at t0; chunk i: frames t0 + 8 i + {2, 4, 6, 8}, actions t0 + 8 i .. + 7, state t0 + 8 i."""
    batch = one_window(source(dataset, cache), episode, row, chunks, gap)
    length, columns = length_of(episode), episode_data(episode).columns
    for view in (0, 1):
        assert read_latent(batch.anchor[0, :, 0], view) == [(row, episode, view)] * 5
    for chunk in range(chunks):
        begin = row + 8 * (gap + chunk)
        frames = [begin, begin + 2, begin + 4, begin + 6, begin + 8]
        held = [(min(t, length - 1), episode, view) for view in (0, 1) for t in frames]
        latent = batch.video[0, :, chunk]
        assert read_latent(latent, 0) + read_latent(latent, 1) == held
        assert bool(batch.video_valid[0, chunk]) == (begin + 8 < length)
        actions = batch.action[0, 8 * chunk : 8 * chunk + 8].numpy()
        rows = np.arange(begin, begin + 8)
        np.testing.assert_array_equal(actions, columns["action"][np.minimum(rows, length - 1)])
        np.testing.assert_array_equal(batch.action_valid[0, chunk], rows < length)
        np.testing.assert_array_equal(batch.state[0, chunk], columns["observation.state"][begin])
    assert batch.chunk_index[0].tolist() == [gap + i for i in range(M)]
    assert batch.chunk_valid[0].tolist() == [i < chunks for i in range(M)]
    assert batch.loss_valid[0].tolist() == [i < chunks and (i > 0 or gap == 0) for i in range(M)]
    assert (int(batch.episode), int(batch.row)) == (episode, row)
    assert source(dataset, cache).sentences[int(batch.text_id)] == episode_data(episode).task


def test_two_latent_frames_per_chunk(dataset: LeRobotDataset, cache: LatentCache) -> None:
    spec = WindowSpec(chunks=2, actions_per_chunk=16, frames_per_chunk=2)
    batch = one_window(source(dataset, cache, spec), episode=3, row=3, chunks=2)
    assert batch.video.shape == (1, 5, 4, 8, 16)
    starts = [read_latent(batch.video[0, :, frame], 0)[0][0] for frame in range(4)]
    assert starts == [3, 11, 19, 27]
    np.testing.assert_array_equal(batch.action[0], episode_data(3).columns["action"][3:35])
    np.testing.assert_array_equal(batch.state[0], episode_data(3).columns["observation.state"][[3, 19]])


def test_a_row_led_astray_ends_what_its_chunk_teaches(
    dataset: LeRobotDataset, cache: LatentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The label of the row itself still answers what was seen; what comes after it does not follow from the label."""
    astray = np.zeros(dataset.num_rows, dtype=bool)
    astray[3 + 8 + 2] = True  # episode 0, second chunk of a window at row 3, third row
    monkeypatch.setattr("wam.data.windows._rows_led_astray", lambda *_: astray)
    batch = one_window(source(dataset, cache), episode=0, row=3, chunks=3)
    assert batch.action_valid[0].tolist() == [[True] * 8, [True] * 3 + [False] * 5, [True] * 8, [False] * 8]
    assert batch.video_valid[0].tolist() == [True, False, True, False]
    assert batch.loss_valid[0].tolist() == [True, True, True, False]


def test_rows_led_astray_are_found_in_what_was_executed(tmp_path: Path) -> None:
    executed = np.zeros((6, 4), dtype=np.float32)
    executed[4, 3], executed[2, 0] = 1.5, 0.9  # forced open; disturbed by noise
    spec = replace(SPEC, features={**SPEC.features, "executed_action": Feature("float32", (4,))})
    plain = episode_data(0, length=6)
    with LeRobotWriter(tmp_path, spec) as writer:
        columns = {**plain.columns, "action": np.zeros_like(executed), "executed_action": executed}
        writer.add_episode(replace(plain, columns=columns))
    dataset = LeRobotDataset(tmp_path)
    assert np.flatnonzero(_rows_led_astray(dataset, 1.0, {0})).tolist() == [4]


def test_padding_is_finite_and_invalid(dataset: LeRobotDataset, cache: LatentCache) -> None:
    batch = one_window(source(dataset, cache), episode=0, row=25, chunks=1)
    assert batch.action_valid[0].tolist() == [[True] * 5 + [False] * 3] + [[False] * 8] * 3
    assert not batch.video_valid.any()
    np.testing.assert_array_equal(batch.action[0, 5:], episode_data(0).columns["action"][[29] * 27])
    assert torch.isfinite(batch.video).all()


def test_shapes_and_types(dataset: LeRobotDataset, cache: LatentCache) -> None:
    windows = source(dataset, cache)
    batch = windows.collate(next(WindowSampler(windows, batch_size=6)))
    shapes = {name: (tuple(x.shape), x.dtype) for name, x in batch.tensors().items()}
    assert shapes == {
        "anchor": ((6, 5, 1, 8, 16), torch.float32),
        "video": ((6, 5, M, 8, 16), torch.float32),
        "action": ((6, M * N, 4), torch.float32),
        "state": ((6, M, 4), torch.float32),
        "chunk_index": ((6, M), torch.int64),
        "chunk_valid": ((6, M), torch.bool),
        "video_valid": ((6, M), torch.bool),
        "action_valid": ((6, M, N), torch.bool),
        "loss_valid": ((6, M), torch.bool),
        "has_action": ((6,), torch.bool),
        "text_id": ((6,), torch.int64),
        "episode": ((6,), torch.int64),
        "row": ((6,), torch.int64),
        "embodiment": ((6,), torch.int64),
        "action_dims": ((6, 4), torch.bool),
    }


def test_model_units_are_relative_to_the_chunk_they_belong_to(dataset: LeRobotDataset, cache: LatentCache) -> None:
    one = Moments((0.0,) * 4, (2.0,) * 4, (0.0,) * 4, (1.0,) * 4)
    part = Part("arm", ("a", "b", "c", "d"))
    robot = replace(
        EMBODIMENT,
        state=(part,),
        action=(replace(part, relative=True),),
        action_width=6,
        statistics=Statistics(one, one),
    )
    raw = one_window(source(dataset, cache), episode=3, row=1, chunks=3)
    batch = in_model_units(raw, Units(robot), slot=2)
    for chunk in range(3):
        rows = slice(N * chunk, N * (chunk + 1))
        wanted = (raw.action[0, rows] - raw.state[0, chunk]) / 2
        assert torch.allclose(batch.action[0, rows, :4], wanted)
    assert not batch.action[..., 4:].any()
    assert torch.allclose(batch.state, raw.state / 2)
    assert batch.embodiment.tolist() == [2] and batch.action_dims.tolist() == [[True] * 4 + [False] * 2]


def test_short_and_partial_windows_can_be_left_out(dataset: LeRobotDataset, cache: LatentCache) -> None:
    whole = source(dataset, cache, WindowSpec(chunks=M, min_chunks=2, whole_chunks=True))
    assert len(whole) == sum(length_of(e) - 2 * N for e in range(7))
    batch = whole.collate(next(WindowSampler(whole, batch_size=64)))
    assert torch.equal(batch.video_valid, batch.chunk_valid)
    assert torch.equal(batch.action_valid.all(-1), batch.chunk_valid)
    assert (batch.chunk_valid.sum(1) >= 2).all()


def test_gaps(dataset: LeRobotDataset, cache: LatentCache) -> None:
    windows = source(dataset, cache, WindowSpec(chunks=2, gap_probability=0.5))
    sampler = WindowSampler(windows, batch_size=len(windows))
    index = next(sampler)
    available = (np.array([length_of(e) for e in index.episode]) - 1 - index.row) // N + 1
    can_have = available >= 3
    assert not index.gap[~can_have].any()
    assert 0.35 < (index.gap[can_have] > 0).mean() < 0.65
    assert (index.chunks[index.gap > 0] >= 2).all()
    assert (index.gap + index.chunks <= available).all()
    assert set(index.gap[available == 6]) == {0, 1, 2, 3, 4}
    batch = windows.collate(index)
    np.testing.assert_array_equal(batch.loss_valid[:, 0], index.gap == 0)


def test_selection_is_a_stable_share_of_episodes() -> None:
    train, validation = EpisodeSelection(validation_share=0.1), EpisodeSelection("validation", validation_share=0.1)
    held_out = {e for e in range(5000) if validation.is_drawn(e)}
    assert 400 < len(held_out) < 600
    assert {e for e in range(5000) if train.is_drawn(e)} == set(range(5000)) - held_out
    few, many = ({e for e in range(5000) if EpisodeSelection(labelled_share=s).is_labelled(e)} for s in (0.2, 0.5))
    assert few < many
    assert 900 < len(few) < 1100
    assert few != {e for e in range(5000) if EpisodeSelection(labelled_share=0.2, seed=1).is_labelled(e)}
    share_of_both = len(few & held_out) / len(held_out)
    assert 0.1 < share_of_both < 0.3  # labels and split are independent


@given(share=st.floats(0.001, 0.5), seed=st.integers(0, 99), episodes=st.sets(st.integers(0, 999), min_size=2))
def test_of_few_episodes_one_is_held_out_and_one_has_actions(share: float, seed: int, episodes: set[int]) -> None:
    plain = EpisodeSelection("validation", validation_share=share, labelled_share=share, seed=seed)
    validation = plain.of_few(sorted(episodes))
    usual, held_out = ({e for e in episodes if selection.is_drawn(e)} for selection in (plain, validation))
    assert held_out == usual if usual else len(held_out) == 1
    train = replace(validation, split="train")
    learned = {e for e in episodes if train.is_drawn(e)}
    assert learned == episodes - held_out
    usual, labelled = ({e for e in learned if selection.is_labelled(e)} for selection in (plain, train))
    assert not learned or (labelled == usual if usual else len(labelled) == 1)


def test_nothing_is_held_out_of_one_episode_or_where_nothing_shall_be() -> None:
    for share, episodes in ((0.001, [3]), (0.0, [1, 2, 3])):
        assert EpisodeSelection(validation_share=share, labelled_share=0.0).of_few(episodes) == EpisodeSelection(
            validation_share=share, labelled_share=0.0
        )


def test_unlabelled_episodes_hide_their_actions(dataset: LeRobotDataset, cache: LatentCache) -> None:
    selection = EpisodeSelection(split="all", labelled_share=0.5)
    windows = WindowSource(dataset, cache, WindowSpec(chunks=M), selection)
    labelled = set(windows.labelled_episodes.tolist())
    assert 0 < len(labelled) < 7
    batch = windows.collate(next(WindowSampler(windows, len(windows))))
    np.testing.assert_array_equal(batch.has_action, [int(e) in labelled for e in batch.episode])
    assert not batch.action[~batch.has_action].any()
    assert batch.action[batch.has_action].any()
    found = robot_statistics(EMBODIMENT, windows.labelled_rows())
    for moments, column in ((found.state, "observation.state"), (found.action, "action")):
        rows = np.concatenate([episode_data(e).columns[column] for e in sorted(labelled)]).astype(float)
        np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(moments.std, rows.std(0), rtol=1e-5)
    ROBOT = replace(EMBODIMENT, statistics=found)
    seen = in_model_units(batch, Units(ROBOT))
    assert not seen.state[~batch.has_action].any() and seen.state[batch.has_action].any()

    dropped = WindowSource(dataset, cache, WindowSpec(chunks=M), replace(selection, drop_unlabelled=True))
    assert set(dropped.episodes.tolist()) == labelled
    assert dropped.collate(next(WindowSampler(dropped, 16))).has_action.all()


def test_what_cannot_be_drawn_is_said(dataset: LeRobotDataset, cache: LatentCache) -> None:
    with pytest.raises(DatasetError, match="no window to draw"):
        source(dataset, cache, WindowSpec(chunks=9, min_chunks=9))
    with pytest.raises(ValueError, match=r"16 actions per chunk.*8 rows"):
        WindowSpec(actions_per_chunk=16)
    with pytest.raises(StaleCacheError, match="video stride is 2"):
        source(dataset, cache, WindowSpec(video_stride=1, actions_per_chunk=4))


def test_a_cache_of_other_data_is_refused(cache: LatentCache, tmp_path: Path) -> None:
    with pytest.raises(StaleCacheError, match="encode it again"):
        source(LeRobotDataset(write_dataset(tmp_path, 1)), cache)
