"""One block at the real width of Wan2.1-14B: it runs in bfloat16, and its bytes are those that the account promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wam.checkpoints.presets import PRESETS
from wam.engine.placement import memory_account, tensor_bytes
from wam.model.attention import Kind, Layout, concatenate, step_layout, video_layout
from wam.model.rope import rotations
from wam.model.transformer import Block

CONFIG = PRESETS["wan2.1-i2v-14b"].transformer
# Relative, of what the block adds to its input. That is 0.29 of the input, so one rounding of the sum to bfloat16 is an
# error of 0.6 %, and the three sums of a block make 1.05 %. Measured: 1.15 %, at widths 640, 1280 and 5120 alike.
TOLERANCE = 0.02
TEXT, IMAGE = 8, 4  # tokens to look at, instead of 512 and 257


@pytest.fixture(scope="module")
def block() -> Block:
    """Random weights of a trained block's spread."""
    g = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        made = Block(CONFIG)
    made.to_empty(device="cpu").requires_grad_(False)
    for name, parameter in made.named_parameters():
        middle = 1.0 if name.endswith(".weight") and parameter.ndim == 1 else 0.0  # of a norm
        spread = 0.1 if parameter.ndim != 2 else parameter.shape[-1] ** -0.5
        parameter.uniform_(middle - spread, middle + spread, generator=g)
    return made


def few_tokens() -> Layout:
    """A chunk of a 2 x 2 picture, with two actions and a state."""
    return concatenate(
        [
            video_layout(Kind.NOISY, [0], CONFIG.frames_per_chunk, 2, 2, slot=0),
            step_layout(Kind.ACTION, [0], 2, [2] * 2),
            step_layout(Kind.STATE, [0], 1, [2]),
        ]
    )


@torch.no_grad()
def added(block: Block, dtype: torch.dtype) -> Tensor:
    """What the block adds to its input."""
    g, layout, dim = torch.Generator().manual_seed(1), few_tokens(), CONFIG.dim
    x, levels = torch.randn(1, len(layout), dim, generator=g), 0.3 * torch.randn(1, 3, 6, dim, generator=g)
    text, image = (torch.randn(1, length, dim, generator=g) for length in (TEXT, IMAGE))
    x, levels, text, image = (tensor.to(torch.bfloat16).to(dtype) for tensor in (x, levels, text, image))
    rotation = rotations(layout, CONFIG.head_dim, CONFIG.frames_per_chunk, CONFIG.actions_per_chunk)
    attention = block.cross_attn
    text_keys, image_keys = attention.text_keys(text), attention.image_keys(image)
    out = block(x, levels, layout.sigma_slot, rotation, None, text_keys, image_keys, None)
    assert out.dtype == dtype
    return (out.float() - x.float()).flatten()


def test_bytes_in_memory_are_those_of_the_account(block: Block) -> None:
    with torch.device("meta"):
        promised = Block(CONFIG)
    (line,) = memory_account({"block": promised})
    assert line.device == "meta"
    real = sum(parameter.untyped_storage().nbytes() for parameter in block.parameters())
    assert line.bytes == real == sum(map(tensor_bytes, block.parameters()))
    matrices = 10 * CONFIG.dim**2 + 2 * CONFIG.dim * CONFIG.ffn_dim
    vectors = (10 + 5 + 6 + 2 + 1) * CONFIG.dim + CONFIG.ffn_dim  # biases, q/k norms, modulation, norm3, feed-forward
    assert line.bytes == 4 * (matrices + vectors)


def test_bfloat16_matches_float32(block: Block) -> None:
    """The same block, rounded in place: run this after everything that needs float32."""
    block.to(torch.bfloat16)
    assert sum(map(tensor_bytes, block.parameters())) == 2 * sum(p.numel() for p in block.parameters())
    found = added(block, torch.bfloat16)
    block.to(torch.float32)  # exactly the rounded weights, so that only the arithmetic differs
    expected = added(block, torch.float32)
    error = float((found - expected).norm() / expected.norm())
    assert 0 < error < TOLERANCE
