"""Noise in the shapes of real inputs, for what is timed: speed does not depend on the numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from wam.data.windows import WindowBatch
from wam.model.attention import Kind, Layout
from wam.model.config import TransformerConfig
from wam.model.transformer import Pass
from wam.world_action_model import WorldActionConfig


def random_windows(config: WorldActionConfig, batch: int, chunks: int, device: str) -> WindowBatch:
    """A batch of whole windows with actions, in model units."""
    (z, height, width), c = config.latent, config.transformer
    frames, steps = chunks * c.frames_per_chunk, chunks * c.actions_per_chunk

    def yes(*shape: int) -> Tensor:
        return torch.ones(*shape, dtype=torch.bool)

    number = torch.zeros(batch, dtype=torch.long)
    return WindowBatch(
        anchor=torch.randn(batch, z, 1, height, width),
        video=torch.randn(batch, z, frames, height, width),
        action=torch.randn(batch, steps, c.action_dim),
        state=torch.randn(batch, chunks, c.state_dim),
        chunk_index=torch.arange(chunks).expand(batch, chunks),
        chunk_valid=yes(batch, chunks),
        video_valid=yes(batch, frames),
        action_valid=yes(batch, chunks, c.actions_per_chunk),
        loss_valid=yes(batch, chunks),
        has_action=yes(batch),
        text_id=number,
        episode=number,
        row=number,
        embodiment=number,
        action_dims=yes(batch, c.action_dim),
    ).to(device)


def random_pass(layout: Layout, c: TransformerConfig, grid: tuple[int, int], device: str) -> Pass:
    """Noise in the shape of a pass of this layout."""
    cells = (grid[0] * c.patch, grid[1] * c.patch)
    frames = (layout.count(Kind.CLEAN) + layout.count(Kind.NOISY)) // (grid[0] * grid[1])
    actions, states = layout.count(Kind.ACTION), layout.count(Kind.STATE)
    return Pass(
        layout=layout.to(torch.device(device)),
        sigma=torch.rand(1, int(layout.sigma_slot.max()) + 1, device=device),
        embodiment=torch.zeros(1, dtype=torch.long, device=device),
        video=torch.randn(1, c.in_channels, frames, *cells, device=device),
        action=torch.randn(1, actions, c.action_dim, device=device) if actions else None,
        state=torch.randn(1, states, c.state_dim, device=device) if states else None,
    )
