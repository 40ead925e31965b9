"""The released training objective, number for number, to continue or to check a run of the released code.

Our own objective (`noise.py`, `WorldActionModel.loss`) differs on purpose: it leaves out the anchor frame and padded
action dimensions, and draws continuous levels. Timesteps are t = 1000 sigma; a *timestep id* i in 0..999 stands for
t_i = `training_timesteps()[i]`, 0 is pure noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from wam.flow.noise import bump_weight

ReleasedMode = Literal["coupled", "decoupled", "high_noise"]
IDS = 1000


@dataclass(frozen=True)
class ReleasedLosses:
    """total = video + action."""

    video: Tensor
    action: Tensor

    @property
    def total(self) -> Tensor:
        return self.video + self.action


def released_losses(
    video_error: Tensor,
    video_timestep: Tensor,
    action_error: Tensor,
    action_timestep: Tensor,
    action_mask: Tensor,
    has_action: Tensor,
) -> ReleasedLosses:
    """Mean squared errors, weighted by `bump_weight` of each frame's and each action's timestep.

    video_error: (B, z, F, h, w) predicted minus target velocity, frame 0 included.  video_timestep: (B, F).
    action_error: (B, T, A); padded dimensions are zeroed by action_mask (B, T, A) but count in the mean over A.
    action_timestep: (B, T).  has_action: (B,), False silences a sample's actions, which still count in the mean.
    """
    per_frame = video_error.float().square().mean(dim=(1, 3, 4))
    real = action_mask & has_action[:, None, None]
    per_action = (action_error.float().square() * real).mean(dim=-1)
    return ReleasedLosses(
        video=(per_frame * bump_weight(video_timestep)).mean(),
        action=(per_action * bump_weight(action_timestep)).mean(),
    )


def tie_to_chunks(ids: Tensor, frames_per_chunk: int) -> Tensor:
    """Draws per latent frame (B, 1 + C K) -> a chunk's frames share the draw of its first; frame 0 keeps its own."""
    firsts = ids[:, 1::frames_per_chunk].repeat_interleave(frames_per_chunk, dim=1)
    return torch.cat([ids[:, :1], firsts], dim=1)


def draw_timestep_ids(
    mode: ReleasedMode,
    batch: int,
    chunks: int,
    frames_per_chunk: int,
    actions_per_chunk: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Timestep ids of (video frames (B, 1 + C K), actions (B, C N)).

    coupled: uniform, actions share their chunk's id.  high_noise: the same with Beta(3, 1) towards noise.
    decoupled: video from Beta(3, 1), every action uniform on its own, even inside a chunk.
    """
    u = torch.rand(batch, 1 + chunks * frames_per_chunk, generator=generator, dtype=torch.float64)
    if mode != "coupled":
        u = 1 - u ** (1 / 3)  # u^(1/3) is Beta(3, 1)
    video = tie_to_chunks((u * IDS).long().clamp(max=IDS - 1), frames_per_chunk)
    if mode == "decoupled":
        action = torch.randint(0, IDS, (batch, chunks * actions_per_chunk), generator=generator)
    else:
        action = video[:, 1::frames_per_chunk].repeat_interleave(actions_per_chunk, dim=1)
    return video, action
