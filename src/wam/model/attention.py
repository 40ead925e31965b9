"""Who may look at whom: the one table behind training masks and the KV cache, and attention itself.

| query            | may attend to                                                        |
|------------------|----------------------------------------------------------------------|
| clean chunk i    | anchor, clean chunks <= i (the last `memory` of them)                |
| noisy chunk i,   | anchor, clean chunks < i (the last `memory` of them), noisy chunk i, |
| actions i        | actions i, state i                                                   |
| state i          | itself                                                               |

The anchor is the first latent frame of a session, chunk -1. Actions and states of the past are never context.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ANCHOR = -1  # chunk number of the anchor frame
EMPTY = -2  # chunk number of a cache place that holds nothing yet
HIDDEN = -1e4  # what a pair that must not be seen has added to its score: its weight is 0 in every type


class Kind(IntEnum):
    CLEAN = 0
    NOISY = 1
    ACTION = 2
    STATE = 3


class Group(NamedTuple):
    """Neighbouring tokens of one kind and chunk: to the table they are one."""

    kind: Kind
    chunk: int
    tokens: int


@dataclass(frozen=True)
class Layout:
    """What each token of a pass is. b is 1 when all samples agree, else B.

    kind: (L,) of `Kind`.  chunk: (b, L) number of the chunk since the session's start, ANCHOR for the anchor.
    within: (L,) latent frame (video) or step (actions) inside its chunk.  row, column: (L,) place of a video patch.
    sigma_slot: (L,) which entry of the pass's list of noise levels belongs to the token.
    groups: the same kinds, and the chunks before any shift, as plain numbers, so that nobody has to ask the device;
    empty where they are not known beforehand, as for a cache.
    """

    kind: Tensor
    chunk: Tensor
    within: Tensor
    row: Tensor
    column: Tensor
    sigma_slot: Tensor
    groups: tuple[Group, ...] = ()

    def __len__(self) -> int:
        return self.kind.shape[0]

    def shifted(self, offset: Tensor) -> Layout:
        """The same tokens, `offset` (B,) chunks later; the anchor stays where it is."""
        moved = self.chunk + offset[:, None]
        return replace(self, chunk=torch.where(self.chunk == ANCHOR, self.chunk, moved))

    def count(self, kind: Kind) -> int:
        """Tokens of a kind, where the groups are known."""
        return sum(group.tokens for group in self.groups if group.kind == kind)

    def to(self, device: torch.device) -> Layout:
        return (
            self
            if self.kind.device == device
            else replace(self, **{n: getattr(self, n).to(device) for n in _PER_TOKEN})
        )


_PER_TOKEN = ("kind", "chunk", "within", "row", "column", "sigma_slot")


def video_layout(kind: Kind, chunks: list[int], frames_per_chunk: int, rows: int, columns: int, slot: int) -> Layout:
    """Tokens of whole chunks of video in raster order (frame, row, column); one sigma slot per latent frame.

    A chunk number of ANCHOR stands for one single frame. `slot` is the sigma slot of the first frame; clean video has
    one slot (sigma 0) in common, noisy video counts upwards frame by frame.
    """
    frames = [(chunk, f) for chunk in chunks for f in range(1 if chunk == ANCHOR else frames_per_chunk)]
    per_frame = rows * columns
    raster = torch.arange(per_frame).repeat(len(frames))
    number = torch.arange(len(frames)) if kind == Kind.NOISY else torch.zeros(len(frames), dtype=torch.long)
    return Layout(
        kind=torch.full((len(frames) * per_frame,), int(kind)),
        chunk=torch.tensor([chunk for chunk, _ in frames]).repeat_interleave(per_frame)[None],
        within=torch.tensor([f for _, f in frames]).repeat_interleave(per_frame),
        row=raster // columns,
        column=raster % columns,
        sigma_slot=(slot + number).repeat_interleave(per_frame),
        groups=tuple(Group(kind, c, per_frame * (1 if c == ANCHOR else frames_per_chunk)) for c in chunks),
    )


def step_layout(kind: Kind, chunks: list[int], per_chunk: int, slots: list[int]) -> Layout:
    """Action or state tokens: `per_chunk` for each chunk, with the sigma slot of each token given."""
    count = len(chunks) * per_chunk
    zeros = torch.zeros(count, dtype=torch.long)
    return Layout(
        kind=torch.full((count,), int(kind)),
        chunk=torch.tensor(chunks).repeat_interleave(per_chunk)[None],
        within=torch.arange(per_chunk).repeat(len(chunks)),
        row=zeros,
        column=zeros,
        sigma_slot=torch.tensor(slots, dtype=torch.long),
        groups=tuple(Group(kind, chunk, per_chunk) for chunk in chunks),
    )


def concatenate(layouts: list[Layout]) -> Layout:
    """One sequence after the other."""
    joined = {name: torch.cat([getattr(part, name) for part in layouts], dim=-1) for name in _PER_TOKEN}
    return Layout(**joined, groups=tuple(chain.from_iterable(part.groups for part in layouts)))


def visible(
    query: Layout,
    key: Layout,
    memory: int | None,
    *,
    autoregressive: bool = True,
    state_reads: bool = False,
) -> Tensor:
    """The table: bool (b, Lq, Lk), True where a query may attend to a key.

    `state_reads` lets a state token see what its actions see, as the released inference does (never in training).
    """
    qk, kk = query.kind[None, :, None], key.kind[None, None, :]
    qc, kc = query.chunk[:, :, None], key.chunk[:, None, :]
    if not autoregressive:
        return _visible_bidirectional(qk, kk, qc, kc)
    oldest = torch.full_like(qc, 0) if memory is None else qc - memory
    is_anchor = (kk == Kind.CLEAN) & (kc == ANCHOR)
    remembered = (kk == Kind.CLEAN) & (kc >= 0) & (kc < qc) & (kc >= oldest)
    clean_row = is_anchor | (
        (kk == Kind.CLEAN) & (kc >= 0) & (kc <= qc) & (kc > (oldest if memory is not None else -1))
    )
    same_chunk = (kk != Kind.CLEAN) & (kc == qc)
    denoised_row = same_chunk | ((is_anchor | remembered) & (qc >= 0))
    state_row = denoised_row if state_reads else (kk == Kind.STATE) & (kc == qc)
    return torch.where(
        qk == Kind.CLEAN,
        clean_row,
        torch.where(qk == Kind.STATE, state_row, denoised_row),
    )


def _visible_bidirectional(qk: Tensor, kk: Tensor, qc: Tensor, kc: Tensor) -> Tensor:
    """The ablation of paper section 5.2: one window, its chunks see each other; only the anchor is clean context."""
    is_anchor = (kk == Kind.CLEAN) & (kc == ANCHOR)
    clean_row = is_anchor
    denoised_row = is_anchor | (kk != Kind.CLEAN)
    state_row = (kk == Kind.STATE) & (kc == qc)
    return torch.where(qk == Kind.CLEAN, clean_row, torch.where(qk == Kind.STATE, state_row, denoised_row))


def additive(mask: Tensor) -> Tensor:
    """The same mask as numbers to add to scores."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, HIDDEN)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for q (B, H, Lq, D), k and v (B, H, Lk, D); mask: bool or `additive`, (b, 1, Lq, Lk).

    On a CPU with gradients the plain product is 1.2 to 5 times faster than the fused kernel (measured in bf16), whose
    backward is slow there. q is scaled first, or torch.compile would recognise the formula and put that kernel back.
    """
    if q.shape[2] == 0:  # nobody asks: a clean pass only leaves keys and values
        return q
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(q.dtype)
    if q.device.type == "cpu" and torch.is_grad_enabled():
        scores = (q * (1.0 / math.sqrt(q.shape[-1]))) @ k.transpose(-1, -2)
        if mask is not None:
            scores = scores + (additive(mask).to(q.dtype) if mask.dtype == torch.bool else mask)
        return scores.softmax(dim=-1, dtype=scores.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
