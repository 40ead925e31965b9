"""Attention over long windows: the table of `attention.py` as whole blocks, so that hidden pairs cost nothing.

A window of M chunks hides about three quarters of all pairs of tokens. The table says the same of all tokens of a group
(one kind, one chunk), so queries that see the same keys are attended together, over those keys alone, without a mask.
Two paths with the same numbers: FlexAttention on CUDA, which has a backward there; plain slices anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from wam.model.attention import Group, Layout, attend, visible

Span = tuple[int, int]  # first token, and the one behind the last


@dataclass(frozen=True)
class Block:
    """Queries that see the same keys."""

    queries: tuple[Span, ...]
    keys: tuple[Span, ...]


@dataclass(frozen=True)
class Blocks:
    """A window's mask. groups, memory, autoregressive: what it follows from; every query stands in one block."""

    blocks: tuple[Block, ...]
    groups: tuple[Group, ...]
    memory: int | None
    autoregressive: bool

    @property
    def pairs(self) -> int:
        """How many pairs of a query and a key are visible."""
        return sum(_length(block.queries) * _length(block.keys) for block in self.blocks)


@lru_cache(maxsize=32)
def blocks_of(groups: tuple[Group, ...], memory: int | None, autoregressive: bool = True) -> Blocks:
    """The table of a layout of these groups over itself."""
    ends = tuple(accumulate(group.tokens for group in groups))
    alike: dict[tuple[bool, ...], list[Span]] = {}
    for row, end, group in zip(_table(groups, memory, autoregressive).tolist(), ends, groups, strict=True):
        alike.setdefault(tuple(row), []).append((end - group.tokens, end))
    spans = [(end - group.tokens, end) for end, group in zip(ends, groups, strict=True)]
    found = [
        Block(_merged(queries), _merged([span for span, seen in zip(spans, row, strict=True) if seen]))
        for row, queries in alike.items()
    ]
    return Blocks(tuple(found), groups, memory, autoregressive)


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, blocks: Blocks) -> Tensor:
    """`attend` under a mask of blocks: q, k, v (B, H, L, D) of one window."""
    if q.device.type == "cuda":
        return _flexible()(q, k, v, block_mask=_block_mask(blocks, q.device))
    pieces: list[tuple[Span, Tensor]] = []
    for block in blocks.blocks:
        keys, values = _taken(k, block.keys), _taken(v, block.keys)
        answer = attend(_taken(q, block.queries), keys, values, None)
        lengths = [end - start for start, end in block.queries]
        pieces += zip(block.queries, answer.split(lengths, dim=2), strict=True)
    return torch.cat([piece for _, piece in sorted(pieces, key=lambda piece: piece[0])], dim=2)


@torch.inference_mode(False)
def _table(groups: tuple[Group, ...], memory: int | None, autoregressive: bool) -> Tensor:
    """Bool (groups, groups): `visible` for one token of each."""
    kind, chunk = (torch.tensor([int(value) for value in column]) for column in list(zip(*groups, strict=True))[:2])
    nothing = torch.zeros_like(kind)
    few = Layout(kind, chunk[None], nothing, nothing, nothing, nothing)
    return visible(few, few, memory, autoregressive=autoregressive)[0]


def _merged(spans: list[Span]) -> tuple[Span, ...]:
    """Neighbours as one."""
    merged: list[Span] = []
    for start, end in spans:
        if merged and merged[-1][1] == start:
            start = merged.pop()[0]
        merged.append((start, end))
    return tuple(merged)


def _taken(x: Tensor, spans: tuple[Span, ...]) -> Tensor:
    parts = [x[:, :, start:end] for start, end in spans]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _length(spans: tuple[Span, ...]) -> int:
    return sum(end - start for start, end in spans)


# ---------------------------------------------------------------- on CUDA


@lru_cache(maxsize=1)
def _flexible() -> Callable[..., Tensor]:
    """Compiled once, on first use: FlexAttention is slow and large in memory without."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _block_mask(blocks: Blocks, device: torch.device) -> Any:
    """The same table for FlexAttention, which looks the groups of a query and a key up in it."""
    from torch.nn.attention.flex_attention import create_block_mask

    table = _table(blocks.groups, blocks.memory, blocks.autoregressive).to(device)
    sizes = torch.tensor([group.tokens for group in blocks.groups])
    group = torch.arange(len(sizes)).repeat_interleave(sizes).to(device)

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return table[group[query], group[key]]

    return create_block_mask(seen, None, None, len(group), len(group), device=str(device))
