"""How well a policy imagined what then happened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wam.evaluate.rollout import EpisodeResult, Frames


@dataclass(frozen=True)
class DreamQuality:
    """PSNR in dB over all imagined pixels of an episode, higher is better.

    dreamed: of the dream against the real frames. frozen: of the baseline that expects the picture at the start of each
    chunk to stay as it is; a dream below it knows nothing about motion.
    """

    dreamed: float
    frozen: float


def dream_quality(episode: EpisodeResult) -> DreamQuality | None:
    """None when the episode has no dreams, or ended before the first look."""
    if episode.frames is None or episode.dreams is None or len(episode.frames) < 2:
        return None
    seen = [frame_at_chunk_start(episode, step) for step in episode.frame_steps[1:]]
    frozen = np.stack([episode.frames[index] for index in seen])
    return DreamQuality(psnr(episode.dreams[1:], episode.frames[1:]), psnr(frozen, episode.frames[1:]))


def frame_at_chunk_start(episode: EpisodeResult, step: int) -> int:
    """Index of the last frame that the policy had seen when it imagined the moment `step`."""
    begun = max((start for start in episode.chunk_starts if start < step), default=0)
    return max(index for index, at in enumerate(episode.frame_steps) if at <= begun)


def psnr(a: Frames, b: Frames) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 arrays of the same shape; 99 when they are equal."""
    error = float(np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2))
    return 99.0 if error == 0 else float(10 * np.log10(255.0**2 / error))
