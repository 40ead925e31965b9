"""Counted arithmetic equals torch's own counter on the very code that acts and trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from tests.bench.networks import IMAGE, TEXT, context, small, window
from wam.bench.flops import Tokens, attention_flops, pass_flops, prompt_flops, training_flops
from wam.bench.training import ADAPTED, adapter_parameters
from wam.model.attention import ANCHOR
from wam.model.config import TransformerConfig
from wam.model.kv_cache import KVCache
from wam.model.passes import chunk_pass, clean_pass
from wam.model.transformer import Transformer

GRID = (3, 2)
SIZES = [small(), small(dim=96, ffn_dim=40, image_dim=None, frames_per_chunk=1, memory=3)]


def fused(q: torch.Size, k: torch.Size, v: torch.Size, *_: object, **__: object) -> int:
    """torch's formula for fused attention, which its counter applies to every kernel but the CPU's."""
    return sdpa_flop_count(q, k, v)


ON_A_CPU = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: fused}


def counted(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False, custom_mapping=ON_A_CPU) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("c", SIZES, ids=["with image", "text alone"])
def test_acting(c: TransformerConfig) -> None:
    """Prefill, cache write, denoising step, and the prompt's keys; with `torch.no_grad`, as the loops run."""
    network, image = Transformer(c), 0 if c.image_dim is None else IMAGE
    frame, k = GRID[0] * GRID[1], c.frames_per_chunk
    cache = KVCache(c, 1, frame)
    with torch.no_grad():
        prompt = context(network)
        assert counted(lambda: context(network)) == prompt_flops(c, TEXT, image).total
        for chunk, frames in ((ANCHOR, 1), (0, k)):
            video = torch.randn(1, c.in_channels, frames, GRID[0] * c.patch, GRID[1] * c.patch)
            tokens = Tokens(frames * frame, 0, 0, 0, 1, cache.kept + frames * frame, TEXT, image)
            inputs = clean_pass(video, chunk, c, GRID)
            assert counted(lambda inputs=inputs: network(inputs, prompt, cache)) == pass_flops(c, tokens).total
        video = torch.randn(1, c.in_channels, k, GRID[0] * c.patch, GRID[1] * c.patch)
        action, state = torch.randn(1, c.actions_per_chunk, c.action_dim), torch.randn(1, 1, c.state_dim)
        inputs = chunk_pass(video, action, state, (torch.tensor(0.5),) * 2, 1, c, GRID)
        length = k * frame + c.actions_per_chunk + 1
        tokens = Tokens(0, k * frame, c.actions_per_chunk, 1, k + 1, cache.kept + length, TEXT, image)
        assert tokens.length == length
        assert counted(lambda: network(inputs, prompt, cache)) == pass_flops(c, tokens).total


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("c", SIZES, ids=["with image", "text alone"])
def test_a_training_step(c: TransformerConfig, checkpointing: bool, batch: int) -> None:
    network, step = Transformer(c), window(c, GRID, chunks=3, batch=batch)
    network.checkpointing = checkpointing

    def run() -> None:
        answer = network(step.inputs, context(network, batch=batch))
        (answer.video.sum() + answer.action.sum()).backward()

    assert counted(run) == training_flops(c, step.tokens, recompute=checkpointing).total


class Adapter(nn.Module):
    """A linear layer that stays as it is, and a product of two thin matrices that trains."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a, self.b = nn.Linear(base.in_features, rank, bias=False), nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.b(self.a(x))


@pytest.mark.parametrize("c", SIZES, ids=["with image", "text alone"])
def test_a_step_of_adapters(c: TransformerConfig) -> None:
    """Adapters where the released training puts them, the codec in full, the rest frozen."""
    network, rank, step = Transformer(c), 4, window(c, GRID, chunks=2)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(("state_encoder", "action_encoder", "action_decoder")))
    expected = adapter_parameters(network, rank)
    before = sum(p.numel() for p in network.parameters())
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Linear) and ADAPTED.match(name):
            owner, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(owner), leaf, Adapter(layer, rank))
    assert sum(p.numel() for p in network.parameters()) - before == expected

    def run() -> None:
        answer = network(step.inputs, context(network))
        (answer.video.sum() + answer.action.sum()).backward()

    # image keys have no adapter: their q k^T and its product with v need no gradient of k and v
    rows = step.tokens.length * (c.layers - 1) + step.tokens.asked
    image = 2 * 2 * rows * step.tokens.image * c.dim
    assert counted(run) == training_flops(c, step.tokens, lora_rank=rank).total - image


def test_attention_is_counted_apart() -> None:
    c, tokens = small(), Tokens(0, 20, 4, 1, 3, 60, TEXT, IMAGE)
    q, k, v = (torch.randn(1, c.heads, n, c.head_dim) for n in (25, 60, 60))
    alone = counted(lambda: F.scaled_dot_product_attention(q, k, v))
    assert attention_flops(c, replace(tokens, text=0, image=0)) == c.layers * alone
    assert pass_flops(c, tokens).attention == attention_flops(c, tokens)


def test_released_adapters_have_the_published_size() -> None:
    from wam.checkpoints.presets import PRESETS, skeleton

    assert adapter_parameters(skeleton(PRESETS["dreamzero-droid"].transformer), 4) == 19_169_280
