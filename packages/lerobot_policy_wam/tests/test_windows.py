"""LeRobot's batches become the windows that wam's own reader cuts from the same data set."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
from torch.utils.data import default_collate

from lerobot_policy_wam import WamConfig, WamPolicy
from lerobot_policy_wam.windows import WindowReader, with_gaps
from wam.data import lerobot_reader
from wam.data.latent_cache import LatentCache
from wam.data.windows import EpisodeSelection, WindowBatch, WindowIndex, WindowSource, WindowSpec
from wam.robot.embodiment import METAWORLD_SAWYER as ROBOT

CHUNKS = 3
LATENTS = ("anchor", "video")
ELSEWHERE = {"text_id", "episode", "row"}  # only wam's own reader counts these


@pytest.fixture(scope="module")
def policy() -> WamPolicy:
    return WamPolicy(WamConfig(chunks=CHUNKS, gap_probability=0.0, text_dropout=0.0, device="cpu"))


@pytest.fixture(scope="module")
def source(root: Path, latents: Path) -> WindowSource:
    dataset = lerobot_reader.LeRobotDataset(root)
    cache = LatentCache.open(latents, dataset)
    everything = EpisodeSelection("all")
    return WindowSource(dataset, cache, WindowSpec(chunks=CHUNKS, stray=float("inf")), everything, robot=ROBOT)


@pytest.fixture(scope="module")
def samples(root: Path, policy: WamPolicy) -> LeRobotDataset:
    config = policy.config
    delta = resolve_delta_timestamps(config, LeRobotDatasetMetadata("local/set", root=root))
    return LeRobotDataset("local/set", root=root, delta_timestamps=delta, video_backend="torchcodec")


def pick(source: WindowSource) -> WindowIndex:
    """Windows all over the data set, so that some reach beyond the end of their episode."""
    return source.windows(np.arange(0, len(source), 7), np.random.default_rng(0))


def offsets(samples: LeRobotDataset) -> np.ndarray:
    return np.array(samples.meta.episodes["dataset_from_index"])


def assert_same(found: WindowBatch, expected: WindowBatch) -> None:
    """Equal wherever the window reaches; latents to the precision of the cache, which holds 16 bits."""
    there = expected.chunk_valid
    for field in fields(WindowBatch):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if field.name in ELSEWHERE or theirs is None:
            continue
        if field.name == "video":
            ours, theirs = (x.movedim(2, 1)[there] for x in (ours, theirs))
        elif field.name in ("action", "state"):
            by_chunk = (*there.shape, -1)
            ours, theirs = (x.reshape(by_chunk)[there] for x in (ours, theirs))
        tolerance = {"atol": 0.02, "rtol": 0.0} if field.name in LATENTS else {"atol": 0.0, "rtol": 0.0}
        torch.testing.assert_close(ours, theirs, **tolerance, msg=lambda m, name=field.name: f"{name}: {m}")


def test_windows_are_those_of_our_reader(source: WindowSource, samples: LeRobotDataset, policy: WamPolicy) -> None:
    index = pick(source)
    rows = offsets(samples)[index.episode] + index.row
    batch = default_collate([samples[int(row)] for row in rows])
    found = WindowReader(ROBOT, policy.senses.tokenizer, CHUNKS)(batch)
    expected = source.collate(index)
    assert not expected.chunk_valid.all() and not expected.video_valid.all()  # some reach beyond an end
    assert_same(found, expected)
    renamed = {  # as `--rename_map` leaves it: the padding of a camera is called as in the data set
        key.replace("images.top", "images.overhead") if key.endswith("_is_pad") else key: value
        for key, value in batch.items()
    }
    assert_same(WindowReader(ROBOT, policy.senses.tokenizer, CHUNKS)(renamed), expected)
    assert list(batch["task"]) == [source.sentences[int(i)] for i in expected.text_id]


def test_the_loss_is_that_of_the_model(source: WindowSource, samples: LeRobotDataset, policy: WamPolicy) -> None:
    from wam.data.windows import in_model_units

    index = pick(source).part(slice(0, 8))
    batch = default_collate([samples[int(row)] for row in offsets(samples)[index.episode] + index.row])
    torch.manual_seed(5)
    loss, parts = policy(batch)
    torch.manual_seed(5)
    generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
    torch.rand(2, 8, generator=generator), torch.rand(8, generator=generator)  # gaps and sentences left out
    windows = in_model_units(source.collate(index), policy.model.units())
    sentences = [source.sentences[int(i)] for i in windows.text_id]
    expected = policy.model.loss(windows, policy.senses.text_encoder.encode(sentences), generator)
    torch.testing.assert_close(loss, expected.total, rtol=1e-2, atol=1e-3)  # the cache rounds the latents
    assert parts["action_loss"] == pytest.approx(expected.action.item(), rel=1e-2)
    loss.backward()
    assert all(p.grad is not None for p in policy.parameters() if p.requires_grad)
    policy.zero_grad()


def test_gaps_leave_out_the_first_chunks_as_our_reader_does(source: WindowSource) -> None:
    whole = source.collate(pick(source))
    batch = with_gaps(whole, 1.0, torch.Generator().manual_seed(0))
    gap = batch.chunk_index[:, 0]
    long_enough = whole.chunk_valid.sum(1) >= CHUNKS
    assert gap[long_enough].tolist() == [1] * int(long_enough.sum()) and gap[~long_enough].sum() == 0
    index = pick(source)
    expected = source.collate(replace(index, gap=gap.numpy(), chunks=index.chunks - gap.numpy()))
    assert_same(batch, expected)


def test_without_gaps_nothing_changes(source: WindowSource) -> None:
    whole = source.collate(pick(source))
    assert_same(with_gaps(whole, 0.0, torch.Generator().manual_seed(0)), whole)


@pytest.mark.parametrize("key", ["observation.images.side", "observation.state", "action"])
def test_a_missing_key_is_named(samples: LeRobotDataset, policy: WamPolicy, key: str) -> None:
    batch = default_collate([samples[0]])
    del batch[key]
    with pytest.raises(ValueError, match=key):
        policy(batch)
