"""Live pictures must look like the ones that training reads from video files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.data.synthetic import SPEC

from wam.data.lerobot_reader import LeRobotDataset
from wam.data.lerobot_writer import LeRobotWriter
from wam.data.schema import EpisodeData
from wam.robot.chroma import subsample_chroma


def picture() -> np.ndarray:
    """Small vivid dots on a smooth background."""
    y, x = np.mgrid[:64, :64]
    image = np.stack([90 + x // 2, 80 + y // 2, 70 + x // 4], axis=-1).astype(np.uint8)
    image[20:22, 31:33], image[41:44, 10:13] = (255, 230, 0), (0, 255, 60)
    return image


def test_it_is_what_a_written_and_read_frame_looks_like(tmp_path: Path) -> None:
    frames, rows = np.stack([picture()] * 4), np.zeros((4, 4), np.float32)
    with LeRobotWriter(tmp_path / "data", SPEC) as writer:
        columns = {"observation.state": rows, "action": rows, "next.success": np.zeros(4, bool)}
        writer.add_episode(EpisodeData({"top": frames, "side": frames}, columns, "look"))
    stored = LeRobotDataset(tmp_path / "data").frames(0, "top", [2])[0].astype(int)
    live = np.abs(picture().astype(int) - stored)
    matched = np.abs(subsample_chroma(picture()).astype(int) - stored)
    assert live.max() > 60  # the dots: what a policy would be surprised by
    assert matched.max() < 30
    assert matched.mean() < live.mean()


def test_odd_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="63 x 64 pixels: 4:2:0 needs an even"):
        subsample_chroma(picture()[:63])
