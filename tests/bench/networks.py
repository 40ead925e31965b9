"""Small networks and the passes that the planner counts, run for real."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wam.bench.flops import Tokens
from wam.model.config import TransformerConfig
from wam.model.passes import window_layout
from wam.model.transformer import Context, Pass, Transformer

TEXT, IMAGE = 7, 3


def small(dim: int = 64, ffn_dim: int = 96, **changes: Any) -> TransformerConfig:
    sizes = {
        "dim": dim,
        "heads": 2,
        "layers": 2,
        "ffn_dim": ffn_dim,
        "in_channels": 12,
        "out_channels": 4,
        "text_dim": 10,
        "image_dim": 6,
        "time_dim": 16,
        "action_dim": 5,
        "state_dim": 6,
        "codec_hidden": 24,
        "frames_per_chunk": 2,
        "actions_per_chunk": 4,
        "memory": 2,
    }
    return TransformerConfig(**{**sizes, **changes})


def context(network: Transformer, dtype: torch.dtype = torch.float32, batch: int = 1) -> Context:
    c = network.config
    image = None if c.image_dim is None else torch.randn(batch, IMAGE, c.image_dim, dtype=dtype)
    return network.context(torch.randn(batch, TEXT, c.text_dim, dtype=dtype), image)


@dataclass(frozen=True)
class Window:
    """A teacher-forced pass as `WorldActionModel.loss` builds it, and its token counts."""

    inputs: Pass
    tokens: Tokens


def window(c: TransformerConfig, grid: tuple[int, int], chunks: int, batch: int = 1) -> Window:
    layout = window_layout(c, grid, chunks)
    clean, noisy = 1 + (chunks - 1) * c.frames_per_chunk, chunks * c.frames_per_chunk
    levels, actions = 1 + noisy + chunks, chunks * c.actions_per_chunk

    def randn(*shape: int) -> Tensor:
        return torch.randn(batch, *shape)

    inputs = Pass(
        layout=layout,
        sigma=torch.rand(batch, levels),
        embodiment=torch.zeros(batch, dtype=torch.long),
        video=randn(c.in_channels, clean + noisy, grid[0] * c.patch, grid[1] * c.patch),
        action=randn(actions, c.action_dim),
        state=randn(chunks, c.state_dim),
    )
    frame = grid[0] * grid[1]
    image = 0 if c.image_dim is None else IMAGE
    tokens = Tokens(clean * frame, noisy * frame, actions, chunks, levels, len(layout), TEXT, image, batch)
    return Window(inputs, tokens)
