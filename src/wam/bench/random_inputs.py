"""Noise in the shapes of real inputs, for what is timed: speed does not depend on the numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wam.model.attention import Kind, Layout
from wam.model.config import TransformerConfig
from wam.model.transformer import Pass
from wam.world_action_model import WorldActionConfig


@dataclass(frozen=True)
class RandomWindows:
    """Windows of noise in the shapes of real ones; see `wam.world_action_model.Windows`."""

    anchor: Tensor
    video: Tensor
    action: Tensor
    state: Tensor
    chunk_index: Tensor
    chunk_valid: Tensor
    loss_valid: Tensor
    video_valid: Tensor
    action_valid: Tensor
    has_action: Tensor
    embodiment: Tensor
    action_dims: Tensor

    @classmethod
    def of(cls, config: WorldActionConfig, batch: int, chunks: int, device: str) -> RandomWindows:
        (z, height, width), c = config.latent, config.transformer
        frames, steps = chunks * c.frames_per_chunk, chunks * c.actions_per_chunk
        return cls(
            anchor=torch.randn(batch, z, 1, height, width, device=device),
            video=torch.randn(batch, z, frames, height, width, device=device),
            action=torch.randn(batch, steps, c.action_dim, device=device),
            state=torch.randn(batch, chunks, c.state_dim, device=device),
            chunk_index=torch.arange(chunks, device=device).expand(batch, chunks),
            chunk_valid=torch.ones(batch, chunks, dtype=torch.bool, device=device),
            loss_valid=torch.ones(batch, chunks, dtype=torch.bool, device=device),
            video_valid=torch.ones(batch, frames, dtype=torch.bool, device=device),
            action_valid=torch.ones(batch, chunks, c.actions_per_chunk, dtype=torch.bool, device=device),
            has_action=torch.ones(batch, dtype=torch.bool, device=device),
            embodiment=torch.zeros(batch, dtype=torch.long, device=device),
            action_dims=torch.ones(batch, c.action_dim, dtype=torch.bool, device=device),
        )


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
