"""Attention over long windows: the table of `attention.py` as whole blocks, so that hidden pairs cost nothing.

A window of M chunks hides about three quarters of all pairs of tokens. The table says the same of all tokens of a group
(one kind, one chunk), so queries that see the same keys are attended together, over those keys alone, without a mask.
Two paths with the same numbers: FlexAttention to learn on CUDA, which has a backward there; plain slices anywhere.
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
Table = tuple[tuple[bool, ...], ...]  # which group of keys a group of queries sees


@dataclass(frozen=True)
class Block:
    """Queries that see the same keys."""

    queries: tuple[Span, ...]
    keys: tuple[Span, ...]


@dataclass(frozen=True)
class Blocks:
    """A mask in blocks; every query stands in one of them.

    queries, keys: tokens of each group.
    """

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    table: Table
    blocks: tuple[Block, ...]

    @property
    def pairs(self) -> int:
        """How many pairs of a query and a key are visible."""
        return sum(_length(block.queries) * _length(block.keys) for block in self.blocks)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def blocks_of(groups: tuple[Group, ...], memory: int | None, autoregressive: bool = True) -> Blocks:
    """The table of a window of these groups over itself: `visible` for one token of each."""
    kind, chunk = (torch.tensor([int(value) for value in column]) for column in list(zip(*groups, strict=True))[:2])
    nothing = torch.zeros_like(kind)
    few = Layout(kind, chunk[None], nothing, nothing, nothing, nothing)
    tokens = tuple(group.tokens for group in groups)
    return _cut(_rows(visible(few, few, memory, autoregressive=autoregressive)[0]), tokens, tokens)


def blocks_in(mask: Tensor, queries: tuple[int, ...], keys: tuple[int, ...]) -> Blocks | None:
    """The same of a mask (b, L, keys) whose tokens come in groups of these sizes. Asks the device, so once per chunk.

    None where rows of the batch differ, or a query sees nothing that a product could be made of.
    """
    few = mask[:, _firsts(queries, mask.device)][:, :, _firsts(keys, mask.device)].cpu()
    if not (few == few[:1]).all() or not few[0].any(dim=1).all():
        return None
    return _cut(_rows(few[0]), queries, keys)


@lru_cache(maxsize=64)
def behind(blocks: Blocks, first: int) -> Blocks:
    """The same for the queries from token `first` on, where a group begins."""
    left_out = sum(end <= first for _, end in _spans(blocks.queries))
    return _cut(blocks.table[left_out:], blocks.queries[left_out:], blocks.keys)


def _cut(rows: Table, queries: tuple[int, ...], keys: tuple[int, ...]) -> Blocks:
    alike: dict[tuple[bool, ...], list[Span]] = {}
    for row, span in zip(rows, _spans(queries), strict=True):
        alike.setdefault(row, []).append(span)
    places = _spans(keys)
    found = [
        Block(_merged(spans), _merged([place for place, seen in zip(places, row, strict=True) if seen]))
        for row, spans in alike.items()
    ]
    return Blocks(queries, keys, rows, tuple(found))


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, blocks: Blocks) -> Tensor:
    """`attend` under a mask of blocks: q (B, H, L, D), k and v (B, H, keys, D)."""
    if not blocks.blocks:
        return q
    if q.device.type == "cuda" and torch.is_grad_enabled():
        return _flexible()(q, k, v, block_mask=_block_mask(blocks, q.device))
    pieces: list[tuple[Span, Tensor]] = []
    for block in blocks.blocks:
        keys, values = _taken(k, block.keys), _taken(v, block.keys)
        answer = attend(_taken(q, block.queries), keys, values, None)
        lengths = [end - start for start, end in block.queries]
        pieces += zip(block.queries, answer.split(lengths, dim=2), strict=True)
    return torch.cat([piece for _, piece in sorted(pieces, key=lambda piece: piece[0])], dim=2)


def _rows(table: Tensor) -> Table:
    return tuple(tuple(row) for row in table.tolist())


def _spans(tokens: tuple[int, ...]) -> list[Span]:
    return [(end - count, end) for count, end in zip(tokens, accumulate(tokens), strict=True)]


def _firsts(tokens: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor([start for start, _ in _spans(tokens)], device=device)


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

    table = torch.tensor(blocks.table, device=device)
    query_group, key_group = (
        torch.arange(len(tokens)).repeat_interleave(torch.tensor(tokens)).to(device)
        for tokens in (blocks.queries, blocks.keys)
    )

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return table[query_group[query], key_group[key]]

    return create_block_mask(seen, None, None, len(query_group), len(key_group), device=str(device))
