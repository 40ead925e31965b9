"""Counted memory equals real objects: weights, cache, prompt keys, and tensors alive during a run."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import wam.model.transformer as transformer_module
from tests.bench.live import LiveBytes
from tests.bench.networks import IMAGE, TEXT, context, small, window
from wam.bench.flops import Tokens
from wam.bench.memory import (
    FORMATS,
    acting_activations,
    cache_bytes,
    cache_tokens,
    prompt_bytes,
    training_activations,
    transformer_weights,
)
from wam.checkpoints.presets import PRESETS, skeleton
from wam.engine.quantize import BITS
from wam.model.kv_cache import KVCache
from wam.model.passes import chunk_pass
from wam.model.transformer import Transformer

GRID = (8, 8)


# ---------------------------------------------------------------- weights and caches


@pytest.mark.parametrize(("name", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_plain_weights(name: str, dtype: torch.dtype) -> None:
    network = Transformer(small()).to(dtype)
    sizes = transformer_weights(network, name)  # type: ignore[arg-type]
    assert sizes.total == sum(p.nbytes for p in network.parameters())
    assert sizes.block == sum(p.nbytes for p in network.blocks[0].parameters())


def test_what_a_pass_reads() -> None:
    """Every weight but those that only `context` uses; torch counts both as products of one row."""
    network = Transformer(small())
    sizes = transformer_weights(network, "float32")
    used: set[str] = set()
    for name, module in network.named_modules():
        module.register_forward_hook(lambda *_, name=name: used.add(name))
    context(network)
    of_prompt = {name for name, p in network.named_parameters() if name.rsplit(".", 1)[0] in used}
    assert sizes.of_prompt == sum(p.nbytes for name, p in network.named_parameters() if name in of_prompt)
    assert sizes.per_pass + sizes.of_prompt == sizes.total


def test_int8_is_what_torchao_makes_of_it() -> None:
    torchao = pytest.importorskip("torchao.quantization")
    from wam.engine.placement import tensor_bytes

    network = Transformer(small()).to(torch.bfloat16)
    expected = transformer_weights(network, "int8").total
    for block in network.blocks:
        torchao.quantize_(block, torchao.Int8WeightOnlyConfig())
    assert sum(tensor_bytes(p) for p in network.parameters()) == expected


def test_formats_have_the_bits_of_those_that_are_made() -> None:
    """Large matrices: scales per row are below 1 % there, as `quantize` says."""
    assert set(FORMATS) <= set(BITS)
    for name, made in FORMATS.items():
        assert made.matrix(5120, 5120) * 8 / 5120**2 == pytest.approx(BITS[name], rel=0.01)
    assert FORMATS["int4"].matrix(10, 96) == 10 * 96 // 2 + 4 * 10 * 3  # groups of 32 where 128 and 64 do not divide


def test_published_weights_in_every_format() -> None:
    """14 B: 16.48e9 numbers, of which 40 blocks of 6 x 5120 x 5120 (twice 4, and 2 for the image) and the rest."""
    network = skeleton(PRESETS["dreamzero-droid"].transformer)
    matrices = 40 * (10 * 5120**2 + 2 * 5120 * 13824)
    rest = 16_484_292_448 - matrices
    assert transformer_weights(network, "bf16").total == 2 * 16_484_292_448
    rows = 40 * (10 * 5120 + 13824 + 5120)
    assert transformer_weights(network, "fp8").total == matrices + 4 * rows + 2 * rest
    assert transformer_weights(network, "int4").total == matrices // 2 + 4 * matrices // 128 + 2 * rest


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cache_and_prompt_keys(dtype: torch.dtype) -> None:
    c = small(layers=3, memory=4)
    cache = KVCache(c, 1, 6, dtype=dtype)
    assert cache_bytes(c, 6, dtype) == sum(x.numel() * x.element_size() for x in (cache.keys, cache.values))
    assert cache_tokens(c, 6) == cache.kept
    places = 6 + 4 * 12 + (12 + 4 + 1)  # anchor, ring, scratch
    assert cache_bytes(c, 6, dtype) == 2 * 3 * places * 64 * dtype.itemsize  # docs/planning.md
    made = context(Transformer(c).to(dtype), dtype)
    assert made.image is not None
    found = sum(k.nbytes + v.nbytes for k, v in (*made.text, *made.image))
    assert prompt_bytes(c, TEXT, IMAGE, dtype.itemsize) == found


# ---------------------------------------------------------------- activations


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("dim", "ffn_dim", "rows"), [(256, 64, 8), (256, 700, 8), (512, 2048, 8), (32, 64, 24)])
def test_acting(dim: int, ffn_dim: int, rows: int, dtype: torch.dtype) -> None:
    """Fullest in attention, in the feed-forward layer, and while the mask is made: within 6 % of a real run."""
    c = small(dim, ffn_dim, layers=3)
    network = Transformer(c).to(dtype)
    video = torch.randn(1, c.in_channels, 2, 2 * rows, 2 * GRID[1], dtype=dtype)
    action, state = torch.randn(1, 4, c.action_dim, dtype=dtype), torch.randn(1, 1, c.state_dim, dtype=dtype)
    inputs = chunk_pass(video, action, state, (torch.tensor(0.5),) * 2, 0, c, (rows, GRID[1]))
    frame = rows * GRID[1]
    cache = KVCache(c, 1, frame, dtype=dtype)
    length = 2 * frame + 5
    with torch.no_grad(), LiveBytes() as live:
        prompt = context(network, dtype)
        before = live.now
        live.peak = live.now
        network(inputs, prompt, cache)
    tokens = Tokens(0, 2 * frame, 4, 1, 3, cache.kept + length, TEXT, IMAGE)
    assert acting_activations(c, tokens, dtype.itemsize) == pytest.approx(live.peak - before, rel=0.06)


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_training(checkpointing: bool, mixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept for the backward, without the weights' copies under autocast: within 2 % of a real run.

    With the fused kernel that a GPU takes; on a CPU our code prefers the plain product for training.
    """
    monkeypatch.setattr(
        transformer_module, "attend", lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    )
    monkeypatch.setattr(transformer_module, "additive", lambda mask: mask)
    kept = {layers: _kept(layers, checkpointing, mixed) for layers in (1, 4)}
    step = window(small(384, 800), GRID, chunks=2)
    planned = {
        layers: training_activations(
            small(384, 800, layers=layers), step.tokens, checkpointing=checkpointing, mixed=mixed
        ).kept
        for layers in (1, 4)
    }
    assert planned[4] - planned[1] == pytest.approx(kept[4] - kept[1], rel=0.02)


def _kept(layers: int, checkpointing: bool, mixed: bool) -> int:
    """Bytes alive after a forward, without the bf16 copies of weights and the prompt's own part."""
    c = small(384, 800, layers=layers)
    network, step = Transformer(c), window(c, GRID, chunks=2)
    network.checkpointing = checkpointing
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        prompt = context(network)
        with LiveBytes() as live:
            answer = network(step.inputs, prompt)
    assert answer.video is not None and answer.action is not None  # still alive, as the loss needs them
    of_the_prompt = ("cross_attn.k", "cross_attn.v", "_img")  # copied before, by `context`
    layers_used = [
        m for n, m in network.blocks.named_modules() if isinstance(m, nn.Linear) and not n.endswith(of_the_prompt)
    ]
    copies = 2 * sum(m.weight.numel() + m.bias.numel() for m in layers_used) if mixed and not checkpointing else 0
    return live.now - copies
