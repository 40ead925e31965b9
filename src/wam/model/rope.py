"""Rotary positions: three axes on video, one on actions and states (Wan; DreamZero section 3).

A head of width D is D/2 adjacent channel pairs. Video splits them between (frame, row, column); actions and states use
all of them for one axis. Clean and noisy copies of a frame stand at the same place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wam.model.attention import ANCHOR, Kind, Layout

THETA = 10000.0


def frequencies(width: int, device: torch.device) -> Tensor:
    """theta^(-2i/width) for the width/2 pairs of one axis, float64."""
    return THETA ** (-torch.arange(0, width, 2, dtype=torch.float64, device=device) / width)


def axis_widths(head_dim: int) -> tuple[int, int, int]:
    """Channels for frame, row and column; head width 128 gives 44, 42, 42."""
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


def rotations(layout: Layout, head_dim: int, frames_per_chunk: int, actions_per_chunk: int) -> tuple[Tensor, Tensor]:
    """cos and sin, each float32 (b, 1, L, head_dim / 2), one pair of numbers per token and channel pair.

    Positions: latent frame f of chunk c at 1 + cK + f (the anchor at 0), action j of chunk c at cN + j, its state at c.
    """
    device = layout.chunk.device
    chunk = layout.chunk.to(torch.float64)
    frame = torch.where(layout.chunk == ANCHOR, 0.0, 1 + chunk * frames_per_chunk + layout.within)
    step = chunk * torch.where(layout.kind == Kind.ACTION, actions_per_chunk, 1) + layout.within
    widths = axis_widths(head_dim)
    by_frame, by_row, by_column = (frequencies(width, device) for width in widths)
    video = torch.cat(
        [
            frame[..., None] * by_frame,
            (layout.row[:, None] * by_row).expand(*frame.shape, -1),
            (layout.column[:, None] * by_column).expand(*frame.shape, -1),
        ],
        dim=-1,
    )
    line = step[..., None] * frequencies(head_dim, device)
    is_video = (layout.kind == Kind.CLEAN) | (layout.kind == Kind.NOISY)
    angle = torch.where(is_video[:, None], video, line)[:, None]
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each adjacent channel pair of x (B, H, L, D) by its token's angle, at least in float32."""
    cos, sin = rotation
    wide = x if x.dtype == torch.float64 else x.float()
    even, odd = wide.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)
