"""A transformer small enough for property tests, with every branch and with weights that are nowhere zero."""

from __future__ import annotations

import torch
from torch import Tensor

from wam.model.attention import Kind, concatenate, step_layout, video_layout
from wam.model.config import TransformerConfig
from wam.model.transformer import Pass, Transformer

CONFIG = TransformerConfig(
    dim=48,
    heads=2,
    layers=3,
    ffn_dim=64,
    in_channels=4,
    out_channels=4,
    text_dim=10,
    image_dim=12,
    time_dim=16,
    action_dim=2,
    state_dim=3,
    codec_hidden=16,
    actions_per_chunk=4,
    memory=2,
)


def tiny_transformer(
    config: TransformerConfig = CONFIG, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Transformer:
    """Random weights of a trained network's spread, 1 / sqrt(inputs), the zero-initialised heads included."""
    torch.manual_seed(seed)
    made = Transformer(config)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return made.to(dtype).eval()


@torch.no_grad()
def answer(transformer: Transformer) -> Tensor:
    """Video and action velocities of one chunk of random inputs, in one vector."""
    config, g = transformer.config, torch.Generator().manual_seed(3)
    frames, actions = config.frames_per_chunk, config.actions_per_chunk
    layout = concatenate(
        [
            video_layout(Kind.NOISY, [0], frames, 2, 2, slot=0),
            step_layout(Kind.ACTION, [0], actions, [frames] * actions),
            step_layout(Kind.STATE, [0], 1, [frames]),
        ]
    )

    weight = transformer.patch_embedding.weight

    def random(*shape: int) -> Tensor:
        return torch.randn(1, *shape, generator=g).to(weight.device, weight.dtype)

    inputs = Pass(
        layout=layout.to(weight.device),
        sigma=torch.full((1, frames + 1), 0.5, device=weight.device),
        embodiment=torch.zeros(1, dtype=torch.long, device=weight.device),
        video=random(config.in_channels, frames, 4, 4),
        action=random(actions, config.action_dim),
        state=random(1, config.state_dim),
    )
    image = None if config.image_dim is None else random(3, config.image_dim)
    velocity = transformer(inputs, transformer.context(random(5, config.text_dim), image))
    assert velocity.video is not None and velocity.action is not None
    return torch.cat([velocity.video.flatten(), velocity.action.flatten()]).float().cpu()
