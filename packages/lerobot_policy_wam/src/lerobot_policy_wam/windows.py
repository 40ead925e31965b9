"""A batch of LeRobot's data loader as the training windows of a World Action Model.

A sample of M chunks holds the rows that `WamConfig` asks for, s = video_stride, N = actions per chunk:

    observation.*   rows 0, s, 2s, ... M N        every frame of the window; states too, of which chunk starts are used
    action          rows 0 .. M N - 1

Behind the end of an episode LeRobot repeats the last row and says so in `<key>_is_pad`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from lerobot.utils.constants import ACTION
from torch import Tensor

from lerobot_policy_wam.configuration_wam import STATE
from wam.data.vectors import places
from wam.data.windows import WindowBatch
from wam.encoders.video import FRAMES_PER_LATENT, VideoTokenizer, frames_to_video
from wam.robot.canvas import compose
from wam.robot.embodiment import Embodiment, Part

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class WindowReader:
    """Reads windows of one robot, in robot units; pictures become latents on the way."""

    robot: Embodiment
    tokenizer: VideoTokenizer
    chunks: int

    def __call__(self, batch: Batch) -> WindowBatch:
        """The tokenizer and the batch are on one device.

        Raises ValueError naming a key that is missing or has another length than asked for.
        """
        robot, chunks = self.robot, self.chunks
        state = vectors(batch, robot.state, STATE)[:, :: self._frames_per_chunk][:, :chunks]
        action = vectors(batch, robot.action, ACTION)
        count, device = len(action), action.device
        latents = self.tokenizer.encode(self._video(batch).to(device)).float()
        chunk_valid, video_valid, action_valid = self._valid(batch, count, device)
        zeros = torch.zeros(count, dtype=torch.long, device=device)
        return WindowBatch(
            anchor=latents[:, :, :1],
            video=latents[:, :, 1:],
            action=action,
            state=state,
            chunk_index=torch.arange(chunks, device=device).expand(count, -1),
            chunk_valid=chunk_valid,
            video_valid=video_valid,
            action_valid=action_valid,
            loss_valid=chunk_valid,
            has_action=torch.ones(count, dtype=torch.bool, device=device),
            text_id=zeros,
            episode=zeros,
            row=zeros,
            embodiment=zeros,
            action_dims=torch.ones(count, robot.action_dim, dtype=torch.bool, device=device),
        )

    @property
    def _frames_per_chunk(self) -> int:
        """Raw frames."""
        return self.robot.frames_per_chunk * FRAMES_PER_LATENT

    def _video(self, batch: Batch) -> Tensor:
        """(B, 3, T, H, W) in [-1, 1], all views on one canvas."""
        expected = self.chunks * self._frames_per_chunk + 1
        views = {}
        for camera in self.robot.cameras:
            pictures = _entry(batch, self.robot.camera_key(camera))
            if pictures.ndim != 5 or pictures.shape[1] != expected:
                raise ValueError(
                    f"{self.robot.camera_key(camera)}: found shape {tuple(pictures.shape)}, expected (B, {expected}, "
                    "3, H, W); a training batch holds the rows that `WamConfig.observation_delta_indices` lists"
                )
            views[camera] = to_pixels(pictures)
        count = len(next(iter(views.values())))
        canvases = [
            [compose({name: view[row, t] for name, view in views.items()}, self.robot) for t in range(expected)]
            for row in range(count)
        ]
        return frames_to_video(np.array(canvases))

    def _valid(self, batch: Batch, count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Of chunks (B, M), latent frames (B, M K) and actions (B, M, N): which are really there."""
        chunks, frames = self.chunks, self._frames_per_chunk
        seen = ~_padding(batch, "observation.", (count, chunks * frames + 1), device)
        acts = ~_padding(batch, ACTION, (count, chunks * self.robot.actions_per_chunk), device)
        chunk_valid = seen[:, :-1:frames]
        video_valid = seen[:, FRAMES_PER_LATENT::FRAMES_PER_LATENT]
        return chunk_valid, video_valid, acts.reshape(count, chunks, -1)


def with_gaps(batch: WindowBatch, share: float, generator: torch.Generator) -> WindowBatch:
    """In this share of the windows, leave out the first chunks behind the anchor, as a sliding memory does.

    At least two chunks stay: one of context, whose present nobody sees (`loss_valid` False), and one to learn from.
    """
    count, chunks = batch.chunk_valid.shape
    device = batch.chunk_valid.device
    widest = batch.chunk_valid.sum(1) - 2
    drawn = torch.rand(2, count, generator=generator).to(device)
    gap = ((drawn[1] * widest).long() + 1).clamp(max=widest) * ((drawn[0] < share) & (widest >= 1))
    chunk_index = torch.arange(chunks, device=device) + gap[:, None]
    there = chunk_index < chunks
    held = chunk_index.clamp(max=chunks - 1)
    chunk_valid = batch.chunk_valid.gather(1, held) & there
    video_valid = _moved(batch.video_valid, held) & there.repeat_interleave(batch.video_valid.shape[1] // chunks, 1)
    first_is_context = (torch.arange(chunks, device=device) == 0) & (gap[:, None] > 0)
    return replace(
        batch,
        video=_moved(batch.video.transpose(1, 2), held).transpose(1, 2).contiguous(),
        action=_moved(batch.action, held),
        state=_moved(batch.state, held),
        chunk_index=chunk_index,
        chunk_valid=chunk_valid,
        video_valid=video_valid,
        action_valid=_moved(batch.action_valid, held) & there[:, :, None],
        loss_valid=chunk_valid & ~first_is_context,
    )


def vectors(batch: Batch, parts: Sequence[Part], column: str) -> Tensor:
    """The robot's parts side by side: columns (B, T, D) or (B, D) -> (B, T, S) or (B, S)."""
    pieces = []
    for place in places(parts, column):
        values = _entry(batch, place.key)
        if place.end > values.shape[-1]:
            raise ValueError(
                f"{place.key}: has {values.shape[-1]} dimensions, part {place.part.name!r} of the robot is dimensions "
                f"{place.start} to {place.end - 1}"
            )
        pieces.append(values[..., place.start : place.end].float())
    return torch.cat(pieces, dim=-1)


def to_pixels(pictures: Tensor) -> np.ndarray:
    """LeRobot's pictures, float (..., 3, H, W) in [0, 1] -> uint8 (..., H, W, 3); undoes its division by 255."""
    return (pictures.detach() * 255).round().clamp(0, 255).to(torch.uint8).movedim(-3, -1).cpu().numpy()


def _moved(x: Tensor, chunk: Tensor) -> Tensor:
    """x (B, M n, ...): the chunks (B, M) in this order."""
    by_chunk = x.reshape(len(x), chunk.shape[1], -1)
    return by_chunk.gather(1, chunk[:, :, None].expand_as(by_chunk)).reshape(x.shape)


def _padding(batch: Batch, prefix: str, shape: tuple[int, int], device: torch.device) -> Tensor:
    """Rows that are only repeated, bool; a batch that does not say has none.

    All observations are asked for at the same rows, so any of them will do: `--rename_map` leaves these keys alone.
    """
    key = next((name for name in batch if name.startswith(prefix) and name.endswith("_is_pad")), None)
    if key is None:
        return torch.zeros(shape, dtype=torch.bool, device=device)
    if tuple(batch[key].shape) != shape:
        raise ValueError(f"{key}: found shape {tuple(batch[key].shape)}, expected {shape}")
    padding: Tensor = batch[key].to(device).bool()
    return padding


def _entry(batch: Batch, key: str) -> Tensor:
    value = batch.get(key)
    if not isinstance(value, Tensor):
        raise ValueError(f"batch: {key!r} is missing; found {sorted(batch)}")
    return value
