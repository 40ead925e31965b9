"""The order of tokens in a pass, and their sigma slots: whole windows to learn from, one chunk to act.

    window_layout   [clean video | noisy video | actions | states] of M chunks
    clean_pass      [clean video] of one chunk, to be remembered
    chunk_pass      [noisy video | actions | state] of one chunk, to be denoised over the cache
    joined          both at once

`grid` is always the rows and columns of video tokens in one latent frame.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from wam.model.attention import ANCHOR, Kind, Layout, concatenate, step_layout, video_layout
from wam.model.config import TransformerConfig
from wam.model.transformer import Pass

Grid = tuple[int, int]


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # kept between calls, so it must be of use to training too
def window_layout(
    config: TransformerConfig, grid: Grid, chunks: int, dream: bool = True, levels_per_chunk: int = 1
) -> Layout:
    """[clean video | noisy video | actions | states] of a window of M chunks; no noisy video without `dream`.

    Sigma slots: 0 is clean, 1..MK the noisy frames, MK + 1.. the actions. The actions of a chunk share one, or have
    one each with `levels_per_chunk` N; a chunk's state has that of its last action, which is never given.
    """
    numbers = list(range(chunks))
    shown = [ANCHOR, *numbers[:-1]] if config.autoregressive else [ANCHOR]
    first_action = 1 + chunks * config.frames_per_chunk
    per_level = config.actions_per_chunk // levels_per_chunk
    action_slots = [first_action + i // per_level for i in range(chunks * config.actions_per_chunk)]
    parts = [video_layout(Kind.CLEAN, shown, config.frames_per_chunk, *grid, slot=0)]
    if dream:
        parts.append(video_layout(Kind.NOISY, numbers, config.frames_per_chunk, *grid, slot=1))
    parts.append(step_layout(Kind.ACTION, numbers, config.actions_per_chunk, action_slots))
    last_actions = action_slots[config.actions_per_chunk - 1 :: config.actions_per_chunk]
    parts.append(step_layout(Kind.STATE, numbers, 1, last_actions))
    return concatenate(parts)


def clean_pass(video: Tensor, chunk: int | Tensor, config: TransformerConfig, grid: Grid) -> Pass:
    """Real video (B, in_channels, F, h, w) at sigma 0: of the anchor, or of one chunk whose number may differ by row.

    chunk: ANCHOR, a number, or numbers (B,).
    """
    batch, device = video.shape[0], video.device
    layout = clean_layout(config, grid, isinstance(chunk, int) and chunk == ANCHOR).to(device)
    return Pass(
        layout=layout.shifted(_numbers(chunk, device)),
        sigma=torch.zeros(batch, 1, device=device),
        embodiment=torch.zeros(batch, dtype=torch.long, device=device),
        video=video,
    )


def chunk_pass(
    video: Tensor | None,
    action: Tensor,
    state: Tensor,
    sigmas: tuple[Tensor, Tensor],
    chunk: int | Tensor,
    config: TransformerConfig,
    grid: Grid,
    slot: int = 0,
    given: int = 0,
) -> Pass:
    """[noisy video | actions | state] of one chunk.

    sigmas: levels of (video, actions), each () or (B,).  chunk: a number, or numbers (B,).  slot: of the robot's codec.
    given: how many of the actions, the first ones, are known and stand at sigma 0.
    """
    batch, device = action.shape[0], action.device
    return Pass(
        layout=chunk_layout(config, grid, video is not None, given).to(device).shifted(_numbers(chunk, device)),
        sigma=chunk_sigma(*sigmas, config.frames_per_chunk, given).to(device).expand(batch, -1),
        embodiment=torch.full((batch,), slot, device=device),
        video=video,
        action=action,
        state=state,
    )


def joined(clean: Pass, chunk: Pass) -> Pass:
    """[clean video | noisy video | actions | state]: remembers one chunk and denoises the next over it, as one pass."""
    rows, layouts = len(chunk.sigma), (clean.layout, chunk.layout)
    offset = clean.sigma.shape[1]
    first, second = (replace(layout, chunk=layout.chunk.expand(rows, -1)) for layout in layouts)
    video = [x for x in (clean.video, chunk.video) if x is not None]
    return replace(
        chunk,
        layout=concatenate([first, replace(second, sigma_slot=second.sigma_slot + offset)]),
        sigma=torch.cat([clean.sigma, chunk.sigma], dim=1),
        video=torch.cat(video, dim=2),
    )


def in_dtype(inputs: Pass, dtype: torch.dtype) -> Pass:
    """The same pass for weights of this type; noise levels keep theirs."""
    found = {name: getattr(inputs, name) for name in ("video", "action", "state")}
    other = {name: x.to(dtype) for name, x in found.items() if x is not None and x.dtype != dtype}
    return replace(inputs, **other) if other else inputs


def chunk_sigma(video: Tensor, action: Tensor, frames_per_chunk: int, given: int = 0) -> Tensor:
    """Levels (...) of a chunk's video and actions -> (..., slots) of `chunk_layout`'s slots."""
    known = [torch.zeros_like(action)] if given else []
    return torch.stack([video] * frames_per_chunk + [action, *known], dim=-1)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # kept between calls, so it must be of use to training too
def chunk_layout(config: TransformerConfig, grid: Grid, with_video: bool, given: int = 0) -> Layout:
    """[noisy video | actions | state] of chunk 0.

    Sigma slots: 0..K - 1 its frames, K its actions and their state, K + 1 the first `given` actions, which are known.
    """
    slot, count = config.frames_per_chunk, config.actions_per_chunk
    parts = [
        step_layout(Kind.ACTION, [0], count, [slot + 1] * given + [slot] * (count - given)),
        step_layout(Kind.STATE, [0], 1, [slot]),
    ]
    if with_video:
        parts.insert(0, video_layout(Kind.NOISY, [0], config.frames_per_chunk, *grid, slot=0))
    return concatenate(parts)


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # kept between calls, so it must be of use to training too
def clean_layout(config: TransformerConfig, grid: Grid, anchor: bool) -> Layout:
    """The clean video of the anchor, or of chunk 0."""
    return video_layout(Kind.CLEAN, [ANCHOR if anchor else 0], config.frames_per_chunk, *grid, slot=0)


def _numbers(chunk: int | Tensor, device: torch.device) -> Tensor:
    return chunk.to(device) if isinstance(chunk, Tensor) else torch.full((1,), chunk, device=device)
