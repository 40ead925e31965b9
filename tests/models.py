"""A model small enough for property tests, with weights that are nowhere zero."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wam.model.config import TransformerConfig
from wam.robot.embodiment import Embodiment, Moments, Part, Statistics
from wam.world_action_model import WorldActionConfig, WorldActionModel

EMBODIMENT = Embodiment(
    name="tiny",
    cameras=("front",),
    canvas=(("front",),),
    view_height=32,
    view_width=32,
    state=(Part("state", ("x", "y", "z")),),
    action=(Part("action", ("dx", "dy")),),
    control_hz=10.0,
    video_stride=1,
    actions_per_chunk=4,
    statistics=Statistics(
        Moments((0.1, 0.2, 0.3), (1.0, 2.0, 0.5), (-2.0, -4.0, -1.0), (2.0, 4.0, 1.0)),
        Moments((0.1, -0.1), (0.5, 2.0), (-1.0, -4.0), (1.0, 4.0)),
    ),
)
TINY = WorldActionConfig(
    transformer=TransformerConfig(
        dim=48,
        heads=2,
        layers=3,
        ffn_dim=64,
        in_channels=4,
        out_channels=4,
        text_dim=10,
        time_dim=16,
        action_dim=2,
        state_dim=3,
        codec_hidden=16,
        actions_per_chunk=4,
        memory=2,
    ),
    embodiments=(EMBODIMENT,),
    latent=(4, 4, 4),
    text_len=5,
)


@dataclass(frozen=True)
class TinyWindows:
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
    beside: Tensor | None = None
    image: Tensor | None = None


def tiny_model(config: WorldActionConfig = TINY, seed: int = 0) -> WorldActionModel:
    """Random weights everywhere, the zero-initialised heads included."""
    torch.manual_seed(seed)
    model = WorldActionModel(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def tiny_windows(
    batch: int, chunks: int, seed: int = 0, config: WorldActionConfig = TINY
) -> tuple[TinyWindows, Tensor]:
    """Random windows and prompt features."""
    g = torch.Generator().manual_seed(seed)
    (z, h, w), c = config.latent, config.transformer
    windows = TinyWindows(
        anchor=torch.randn(batch, z, 1, h, w, generator=g),
        video=torch.randn(batch, z, chunks * c.frames_per_chunk, h, w, generator=g),
        action=torch.randn(batch, chunks * c.actions_per_chunk, c.action_dim, generator=g),
        state=torch.randn(batch, chunks, c.state_dim, generator=g),
        chunk_index=torch.arange(chunks).expand(batch, chunks),
        chunk_valid=torch.ones(batch, chunks, dtype=torch.bool),
        loss_valid=torch.ones(batch, chunks, dtype=torch.bool),
        video_valid=torch.ones(batch, chunks * c.frames_per_chunk, dtype=torch.bool),
        action_valid=torch.ones(batch, chunks, c.actions_per_chunk, dtype=torch.bool),
        has_action=torch.ones(batch, dtype=torch.bool),
        embodiment=torch.zeros(batch, dtype=torch.long),
        action_dims=torch.ones(batch, c.action_dim, dtype=torch.bool),
    )
    return windows, torch.randn(batch, config.text_len, c.text_dim, generator=g)


def with_changes(windows: TinyWindows, **changes: Tensor) -> TinyWindows:
    return replace(windows, **changes)
