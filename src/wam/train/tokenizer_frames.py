"""The pictures a tokenizer learns from: every `video_stride`-th row of each episode as a canvas, in memory as uint8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from wam.data.lerobot_reader import LeRobotDataset
from wam.robot.canvas import compose
from wam.robot.embodiment import Embodiment

MEDIAN_FRAMES = 400


@dataclass(frozen=True)
class FrameStore:
    """Episodes of canvases, one after the other.

    frames: uint8 (N, H, W, 3). bounds: int64 (E + 1,): episode e is `frames[bounds[e] : bounds[e + 1]]`.
    """

    frames: npt.NDArray[np.uint8]
    bounds: npt.NDArray[np.int64]

    @classmethod
    def from_episodes(cls, episodes: Sequence[npt.NDArray[np.uint8]]) -> FrameStore:
        """From one array (T, H, W, 3) per episode."""
        if not episodes:
            raise ValueError("a frame store needs at least one episode, found none; give more episodes")
        bounds = np.cumsum([0, *(len(episode) for episode in episodes)])
        return cls(np.concatenate(episodes), bounds.astype(np.int64))

    @property
    def num_episodes(self) -> int:
        return len(self.bounds) - 1

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return self.frames.shape[1], self.frames.shape[2]

    def episode(self, index: int) -> npt.NDArray[np.uint8]:
        """All frames of one episode, (T, H, W, 3)."""
        return self.frames[self.bounds[index] : self.bounds[index + 1]]

    def clip_starts(self, length: int) -> torch.Tensor:
        """int64 indices of all frames at which a clip of `length` frames can start without leaving its episode."""
        spans = [np.arange(a, max(a, b - length + 1)) for a, b in zip(self.bounds[:-1], self.bounds[1:], strict=True)]
        starts = np.concatenate(spans)
        if not len(starts):
            raise ValueError(
                f"no episode has {length} frames (longest: {np.diff(self.bounds).max()}); use shorter clips"
            )
        return torch.from_numpy(starts)

    def clips(self, starts: torch.Tensor, length: int) -> npt.NDArray[np.uint8]:
        """Clips of `length` frames from `starts` (B,): uint8 (B, length, H, W, 3)."""
        return self.frames[starts.numpy()[:, None] + np.arange(length)]

    def median(self) -> npt.NDArray[np.uint8]:
        """Per-pixel median of evenly spaced frames, (H, W, 3): what fixed cameras see when nothing is in the way."""
        median: npt.NDArray[np.float64] = np.median(self.spread(MEDIAN_FRAMES), axis=0)
        return median.round().astype(np.uint8)

    def spread(self, count: int) -> npt.NDArray[np.uint8]:
        """At most `count` frames, evenly spaced over all episodes, (n, H, W, 3)."""
        return self.frames[np.linspace(0, len(self.frames) - 1, min(count, len(self.frames))).astype(np.int64)]


def load_frames(
    dataset: LeRobotDataset,
    embodiment: Embodiment,
    episodes: Sequence[int],
    on_episode: Callable[[int], None] | None = None,
) -> FrameStore:
    """Decode and compose the frames of `episodes`. Episode i starts at row i mod video_stride, shorter ones within.

    `on_episode(count)` is called after each episode. Memory: 3 H W bytes per frame.
    """
    loaded = []
    for count, index in enumerate(episodes, start=1):
        stride, length = embodiment.video_stride, dataset.episode(index).length
        rows = np.arange(index % min(stride, length), length, stride)
        views = {camera: dataset.frames(index, embodiment.camera_key(camera), rows) for camera in embodiment.cameras}
        pictures = [compose({name: view[t] for name, view in views.items()}, embodiment) for t in range(len(rows))]
        loaded.append(np.stack(pictures))
        if on_episode is not None:
            on_episode(count)
    return FrameStore.from_episodes(loaded)


def split_episodes(count: int, validation: int) -> tuple[list[int], list[int]]:
    """Training and validation episodes out of `count`: `validation` of them, evenly spaced, are held out.

    No more than a fifth, but one. Raises ValueError for less than two episodes, or none to be held out.
    """
    if validation < 1:
        raise ValueError(f"--validation-episodes is {validation}, expected 1 or more")
    if count < 2:
        raise ValueError(f"found {count} episode, expected two or more: one is held out to measure on")
    validation = min(validation, max(1, count // 5))
    held_out = {min(round((i + 0.5) * count / validation), count - 1) for i in range(validation)}
    return [i for i in range(count) if i not in held_out], sorted(held_out)
