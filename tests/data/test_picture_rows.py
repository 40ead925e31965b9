"""Windows over pictures show the rows that windows over latents stand for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.synthetic import CAMERAS, length_of, read_picture, write_dataset
from wam.data.errors import MissingCameraError
from wam.data.latent_cache import encode_dataset
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.picture_rows import PictureRows, pictures_of
from wam.data.windows import EpisodeSelection, WindowSource, WindowSpec
from wam.encoders.nano_tokenizer import NanoTokenizer, NanoTokenizerConfig
from wam.robot.canvas import split
from wam.robot.embodiment import load_embodiment
from wam.robot.preprocess import to_unit_range

ROBOT = replace(load_embodiment("metaworld-sawyer"), frames_per_chunk=2, actions_per_chunk=24, video_stride=3)
SPEC = WindowSpec(chunks=2, actions_per_chunk=24, video_stride=3, frames_per_chunk=2)
ALL = EpisodeSelection("all")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    return LeRobotDataset(write_dataset(tmp_path_factory.mktemp("pictures") / "data", 5))


def test_every_frame_of_a_window_is_the_row_that_it_stands_for(dataset: LeRobotDataset) -> None:
    source = WindowSource(dataset, PictureRows(dataset, ROBOT), SPEC, ALL)
    drawn = np.random.default_rng(0).choice(len(source), 6, replace=False)
    windows = source.collate(source.windows(drawn, np.random.default_rng(0)))
    assert windows.anchor.dtype == windows.video.dtype == torch.uint8
    video = pictures_of(windows).permute(0, 2, 3, 4, 1).numpy()
    assert video.shape[1] == 1 + 4 * SPEC.chunks * SPEC.frames_per_chunk
    for frames, episode, begin in zip(video, windows.episode.tolist(), windows.row.tolist(), strict=True):
        for place, frame in enumerate(frames):
            row = min(begin + 3 * place, length_of(episode) - 1)
            views = split(frame, ROBOT)
            for number, camera in enumerate(CAMERAS):
                assert read_picture(views[camera]) == (row, episode, number)


def test_latents_of_the_pictures_are_those_of_the_cache(dataset: LeRobotDataset, tmp_path: Path) -> None:
    """The nano tokenizer remembers one frame, so its latents do not depend on where a window begins."""
    torch.manual_seed(0)
    tokenizer = NanoTokenizer(NanoTokenizerConfig(z_channels=4, width=(8, 8), depth=(1, 1))).eval()
    cache = encode_dataset(dataset, tokenizer, ROBOT, tmp_path, precision="float32")
    latents, pictures = (WindowSource(dataset, frames, SPEC, ALL) for frames in (cache, PictureRows(dataset, ROBOT)))
    index = latents.windows(np.arange(0, len(latents), 7), np.random.default_rng(1))
    stored, drawn = latents.collate(index), pictures.collate(index)
    encoded = tokenizer.encode(to_unit_range(pictures_of(drawn)))
    torch.testing.assert_close(encoded[:, :, :1], stored.anchor, rtol=0, atol=5e-3)
    torch.testing.assert_close(encoded[:, :, 1:], stored.video, rtol=0, atol=5e-3)
    for name in ("action", "state", "video_valid", "action_valid", "text_id"):
        assert torch.equal(getattr(stored, name), getattr(drawn, name)), name


def test_a_camera_that_is_not_there_is_named(dataset: LeRobotDataset) -> None:
    blind = replace(ROBOT, camera_keys=("observation.images.top", "observation.images.wrist"))
    with pytest.raises(MissingCameraError, match="wrist"):
        PictureRows(dataset, blind)
