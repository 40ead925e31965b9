"""How good a tokenizer is, in numbers and for eyes, on episodes that it has not seen."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from torch import Tensor

from wam.encoders.nano_tokenizer import NanoTokenizer
from wam.encoders.video import FRAMES_PER_LATENT, frames_to_video, video_to_frames
from wam.train.tokenizer import difference, small_vivid
from wam.train.tokenizer_frames import FrameStore


def validate(tokenizer: NanoTokenizer, store: FrameStore) -> dict[str, float]:
    """PSNR in dB (peak 255) over the episodes of `store`, each streamed from its first frame.

    first: first frames; group: all others; present: last frame of each group; foreground, vivid: those pixels of all.
    """
    sums: dict[str, list[float]] = {name: [0.0, 0.0] for name in ("first", "group", "present", "foreground", "vivid")}

    def add(name: str, squares: Tensor, mask: Tensor | None = None) -> None:
        sums[name][0] += float(squares.sum() if mask is None else (squares * mask).sum())
        sums[name][1] += float(squares.numel() if mask is None else mask.sum() * squares.shape[1])

    for index in range(store.num_episodes):
        frames = store.episode(index)
        video = frames_to_video(frames[: 1 + (len(frames) - 1) // FRAMES_PER_LATENT * FRAMES_PER_LATENT])[None]
        squares = (tokenizer.decode(tokenizer.encode(video)) - video).square()
        foreground = difference(video, tokenizer.background.unsqueeze(1))
        add("first", squares[:, :, :1])
        add("group", squares[:, :, 1:])
        add("present", squares[:, :, FRAMES_PER_LATENT::FRAMES_PER_LATENT])
        add("foreground", squares, (foreground >= 1).float())
        add("vivid", squares, (small_vivid(video, foreground) >= 0.5).float())
    return {name: _psnr(total / count) for name, (total, count) in sums.items() if count}


def montage(
    tokenizer: NanoTokenizer, store: FrameStore, *, episodes: int = 8, columns: int = 4, scale: int = 3
) -> npt.NDArray[np.uint8]:
    """A picture for eyes, uint8 (H, W, 3): per episode a row of real frames above a row of their reconstructions.

    Columns: the first frame, then last frames of groups, evenly spaced; `scale` enlarges pixels.
    """
    rows = []
    for index in range(min(episodes, store.num_episodes)):
        frames = store.episode(index)
        frames = frames[: 1 + (len(frames) - 1) // FRAMES_PER_LATENT * FRAMES_PER_LATENT]
        decoded = video_to_frames(tokenizer.decode(tokenizer.encode(frames_to_video(frames)[None])))[0]
        picks = np.linspace(0, (len(frames) - 1) // FRAMES_PER_LATENT, columns).astype(int) * FRAMES_PER_LATENT
        rows += [np.concatenate(list(frames[picks]), axis=1), np.concatenate(list(decoded[picks]), axis=1)]
    return np.concatenate(rows).repeat(scale, axis=0).repeat(scale, axis=1)


def _psnr(mean_square: float) -> float:
    """PSNR in dB of a mean squared error of values in [-1, 1]."""
    return round(10 * math.log10(4 / max(mean_square, 1e-10)), 3)
