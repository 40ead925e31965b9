"""The transformer through torch.compile: the same call, the same numbers but for rounding, fewer and larger kernels.

| what   | compiled at once        | per shape, nano, Zen 4 core | pays where                                        |
|--------|-------------------------|-----------------------------|---------------------------------------------------|
| blocks | one block, used for all | 4 to 6 s                    | the network is deep, its blocks are large         |
| whole  | the whole pass          | about 30 s                  | the network is small, starting kernels costs most |

A shape is compiled when it first comes (`warm_up` makes them all come): passes that remember, that denoise, that do
both, with and without given actions, for each number of rows. Nothing else changes from call to call: chunk numbers,
masks and noise levels are tensors of fixed size. A whole pass on a CPU keeps a second copy of the weights, in the order
in which they are multiplied ("freezing"); change the weights, and it must be compiled anew. On CUDA a whole pass is
replayed as a CUDA graph (`tests/test_cuda.py`, run on an H200).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wam.model.kv_cache import KVCache
from wam.model.transformer import Context, Pass, Transformer, Velocity
from wam.world_action_model import Network

Compile = Literal["off", "blocks", "whole"]
SHAPES = 256  # compiled variants that torch may keep; it gives up after 8 unless told


def compiled(transformer: Transformer, what: Compile, backend: str = "inductor") -> Network:
    """What to call instead of the transformer, whose weights it shares; the transformer itself stays as it is.

    backend: as in torch.compile.
    """
    if what == "off":
        return transformer
    if what == "blocks":
        return _set_up(_with_blocks(transformer, backend), freezing=False)
    if transformer.patch_embedding.weight.device.type == "cuda":
        graphs = torch.compile(transformer, fullgraph=True, dynamic=False, mode="reduce-overhead")
        return _set_up(_graphed(graphs), freezing=False)
    return _set_up(torch.compile(transformer, fullgraph=True, dynamic=False, backend=backend), freezing=True)


def compile_blocks(transformer: Transformer, backend: str = "inductor") -> None:
    """Compile the blocks in place, to train with; static, because activation checkpointing asks for the same graph."""
    blocks: list[Any] = list(transformer.blocks)
    for block in blocks:
        block.compile(dynamic=False, backend=backend)


def _with_blocks(transformer: Transformer, backend: str) -> Transformer:
    """A transformer of compiled blocks around the same weights."""
    shadow = copy.copy(transformer)
    shadow._modules = dict(transformer._modules)
    blocks: list[Any] = [torch.compile(b, fullgraph=True, dynamic=False, backend=backend) for b in transformer.blocks]
    shadow.blocks = nn.ModuleList(blocks)
    return shadow


def _set_up(run: Callable[..., Velocity], freezing: bool) -> Network:
    """With torch's settings for the length of a call: room for as many shapes as there are, and whether to freeze."""
    from torch._inductor import config as inductor  # takes seconds, so only for who compiles

    def call(*args: Any, **options: Any) -> Velocity:
        room = torch._dynamo.config.patch(recompile_limit=SHAPES, accumulated_recompile_limit=SHAPES)
        with room, inductor.patch(freezing=freezing):
            return run(*args, **options)

    return call


def _graphed(run: Callable[..., Velocity]) -> Callable[..., Velocity]:
    """For CUDA graphs: caches keep their place, and answers are copied out before the next replay overwrites them."""

    def call(inputs: Pass, context: Context, cache: KVCache | None = None, **options: Any) -> Velocity:
        if cache is not None:
            for tensor in (cache.keys, cache.values):
                torch._dynamo.mark_static_address(tensor, guard=False)
        torch.compiler.cudagraph_mark_step_begin()
        answer = run(inputs, context, cache, **options)
        return Velocity(_copied(answer.video), _copied(answer.action))

    return call


def _copied(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.clone()
