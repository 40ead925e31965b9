"""Synthetic episodes whose pictures say which row, episode and camera they show."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wam.data.lerobot_writer import LeRobotWriter
from wam.data.schema import Camera, DatasetSpec, EpisodeData, Feature
from wam.encoders.video import FRAMES_PER_LATENT
from wam.robot.embodiment import Embodiment, Part

SIZE, CELL = 64, 8
CAMERAS = ("top", "side")
SPEC = DatasetSpec(
    fps=40,
    robot_type="synthetic",
    features={
        "observation.state": Feature("float32", (4,), ("x", "y", "z", "grip")),
        "action": Feature("float32", (4,)),
        "next.success": Feature("bool"),
    },
    cameras={name: Camera(SIZE, SIZE) for name in CAMERAS},
)


def picture(row: int, episode: int, camera: int) -> np.ndarray:
    """uint8 (64, 64, 3): a smooth background with three lines of 8 black or white cells, one bit each."""
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.stack([60 + 2 * x, 60 + 2 * y, 60 + x + y], axis=-1).astype(np.uint8)
    for line, number in enumerate((row, episode, camera)):
        bits = (number >> np.arange(CELL)) & 1
        image[line * CELL : (line + 1) * CELL] = np.repeat(bits, CELL)[None, :, None] * 255
    return image


def read_cells(cells: np.ndarray) -> tuple[int, int, int]:
    """Brightness of the cells in 0..1, (8, 8) -> row, episode, camera."""
    row, episode, camera = ((cells[line] > 0.5) @ (1 << np.arange(CELL)) for line in range(3))
    return int(row), int(episode), int(camera)


def read_picture(image: np.ndarray) -> tuple[int, int, int]:
    """Inverse of `picture`."""
    return read_cells(image.reshape(CELL, CELL, CELL, CELL, 3).mean(axis=(1, 3, 4)) / 255)


def length_of(episode: int) -> int:
    """Episodes differ in length."""
    return 30 + 7 * (episode % 4)


def episode_data(episode: int, length: int | None = None) -> EpisodeData:
    """State and action carry (row, episode, ...) and noise that no rounding survives."""
    length = length or length_of(episode)
    rows = np.arange(length)
    rng = np.random.default_rng(episode)
    noise = rng.normal(size=(2, length, 2)).astype(np.float32)
    known = np.stack([rows, np.full(length, episode)], axis=1).astype(np.float32)
    return EpisodeData(
        images={name: np.stack([picture(t, episode, c) for t in range(length)]) for c, name in enumerate(CAMERAS)},
        columns={
            "observation.state": np.concatenate([known, noise[0]], axis=1),
            "action": np.concatenate([-known, noise[1]], axis=1),
            "next.success": rows > length - 5,
        },
        task=f"do thing number {episode % 3}",
        extra={"env_task": "thing-v3", "seed": episode, "noise": 0.25 * episode},
    )


def write_dataset(root: Path, episodes: int, episodes_per_file: int = 3, length: int | None = None) -> Path:
    """A finished data set; one that exists is continued up to `episodes`."""
    with LeRobotWriter(root, SPEC, episodes_per_file=episodes_per_file) as writer:
        for episode in range(writer.episodes_done, episodes):
            writer.add_episode(episode_data(episode, length))
    return root


EMBODIMENT = Embodiment(
    name="synthetic",
    cameras=CAMERAS,
    canvas=(CAMERAS,),
    view_height=SIZE,
    view_width=SIZE,
    state=(Part("state", ("x", "y", "z", "grip")),),
    action=(Part("action", ("a", "b", "c", "d")),),
    control_hz=40.0,
    video_stride=2,
    actions_per_chunk=8,
)


class CellTokenizer(nn.Module):
    """A tokenizer whose latents can be read: channel k is the brightness of every cell of frame k of the group.

    Channel 0 is the frame before the group. A first frame fills all five channels. With `memory` > 0 it also remembers
    older frames, as `memory` times a decaying mean of the past.
    """

    z_channels = 1 + FRAMES_PER_LATENT
    spatial_factor = CELL

    def __init__(self, memory: float = 0.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.memory = memory
        self.calls = 0

    def cells(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) in [-1, 1] -> brightness (B, T, h, w) in 0..1."""
        return functional.avg_pool2d((video.mean(1) + 1) / 2, CELL) * self.gain

    def encode_first(self, frame: Tensor) -> tuple[Tensor, Any]:
        self.calls += 1
        cells = self.cells(frame)
        return cells.expand(-1, self.z_channels, -1, -1)[:, :, None], (cells, torch.zeros_like(cells))

    def encode_next(self, state: Any, frames: Tensor) -> tuple[Tensor, Any]:
        previous, past = state
        cells = torch.cat([previous, self.cells(frames)], dim=1)
        return (cells + self.memory * past)[:, :, None], (cells[:, -1:], past + cells.mean(1, keepdim=True))


def read_latent(latent: np.ndarray | Tensor, view: int) -> list[tuple[int, int, int]]:
    """Latent frame (5, 8, 16) -> row, episode, camera of the five frames it was made from, in one view."""
    cells = np.asarray(latent, dtype=np.float32)[:, :, view * CELL : (view + 1) * CELL]
    return [read_cells(frame) for frame in cells]
