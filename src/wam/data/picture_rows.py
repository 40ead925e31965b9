"""The pictures of a data set in the place of its latents, for tokenizers whose latents depend on where a window begins.

A `LatentCache` knows the latents of every row, which needs a tokenizer that remembers one frame. The VAEs of Wan
remember many, so their windows are encoded when they are drawn: a `WindowSource` over `PictureRows` delivers canvases,

    anchor[t]   the frame at row t                                    uint8 (3, H, W)
    group[t]    the four frames at rows t+s, t+2s, t+3s, t+4s         uint8 (12, H, W), frame by frame

and `pictures_of` puts those of a batch of windows in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from wam.data.latent_cache import group_rows
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.windows import WindowBatch
from wam.encoders.video import FRAMES_PER_LATENT
from wam.robot.canvas import compose
from wam.robot.embodiment import Embodiment

COLOURS = 3


@dataclass(frozen=True)
class PictureRows:
    """What `WindowSource` asks a cache for; rows count over the whole data set.

    Raises MissingCameraError when the data set lacks a camera of the robot.
    """

    source: LeRobotDataset
    robot: Embodiment
    key: str = "pictures"

    def __post_init__(self) -> None:
        for camera in self.robot.cameras:
            self.source.meta.require_camera(self.robot.camera_key(camera))

    @property
    def dataset(self) -> str:
        """Fingerprint of the data set."""
        return self.source.meta.fingerprint

    @property
    def video_stride(self) -> int:
        return self.robot.video_stride

    @property
    def broken(self) -> Mapping[int, str]:
        """Episodes whose pictures cannot be read, and why."""
        return self.source.broken

    @property
    def anchor(self) -> _Anchors:
        return _Anchors(self)

    @property
    def group(self) -> _Groups:
        return _Groups(self)

    @cached_property
    def begins(self) -> np.ndarray:
        """int64 (episodes,): first row of every episode."""
        return np.array([episode.dataset_from_index for episode in self.source.meta.episodes], dtype=np.int64)

    def frames(self, episode: int, rows: np.ndarray) -> np.ndarray:
        """Canvases at these rows of an episode, (n,) -> uint8 (n, 3, H, W); every row is decoded once."""
        asked, place = np.unique(rows, return_inverse=True)
        cameras = self.robot.cameras
        views = [self.source.frames(episode, self.robot.camera_key(camera), asked) for camera in cameras]
        looks = (dict(zip(cameras, look, strict=True)) for look in zip(*views, strict=True))
        canvases = np.stack([compose(look, self.robot) for look in looks])
        found: np.ndarray = canvases.transpose(0, 3, 1, 2)[place]
        return found

    def within(self, row: int) -> tuple[int, int]:
        """Episode, and row in it, of a row of the data set."""
        episode = int(np.searchsorted(self.begins, row, side="right")) - 1
        return episode, row - int(self.begins[episode])


@dataclass(frozen=True)
class _Anchors:
    of: PictureRows

    def __len__(self) -> int:
        return self.of.source.num_rows

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """(B,) -> (B, 3, H, W)."""
        places = map(self.of.within, rows.tolist())
        return np.concatenate([self.of.frames(episode, np.array([row])) for episode, row in places])


@dataclass(frozen=True)
class _Groups:
    of: PictureRows

    def __len__(self) -> int:
        return self.of.source.num_rows

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """(B, n), all rows of one line in one episode -> (B, n, 12, H, W)."""
        return np.stack([self._line(line) for line in rows])

    def _line(self, rows: np.ndarray) -> np.ndarray:
        episode, first = self.of.within(int(rows[0]))
        last = self.of.source.episode(episode).length - 1
        wanted = group_rows(rows - rows[0] + first, last, self.of.video_stride)
        frames = self.of.frames(episode, wanted.ravel())
        grouped: np.ndarray = frames.reshape(len(rows), FRAMES_PER_LATENT * COLOURS, *frames.shape[2:])
        return grouped


def pictures_of(windows: WindowBatch) -> Tensor:
    """The frames of windows over pictures, uint8 (B, 3, 1 + 4 M K, H, W): the anchor, then group after group."""
    by_frame = windows.video.reshape(-1, FRAMES_PER_LATENT, COLOURS, *windows.video.shape[2:])
    following = by_frame.permute(0, 2, 3, 1, 4, 5).flatten(2, 3)  # from (B, 4, 3, M K, H, W)
    return torch.cat([windows.anchor, following], dim=2)
