"""How far a pass is from what its arithmetic needs: its time over its FLOPs at the measured rate of a large product."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

from wam.bench.flops import Tokens, pass_flops
from wam.bench.rungs import synchronise
from wam.model.config import TransformerConfig


@dataclass(frozen=True)
class Limit:
    """flops: of a pass.  rate: FLOP/s of a large matrix product on this device, in this type, with these threads."""

    flops: int
    rate: float

    @property
    def seconds(self) -> float:
        """What the pass would take at that rate."""
        return self.flops / self.rate

    def distance(self, measured: float) -> float:
        """How many times longer it takes."""
        return measured / self.seconds


def denoising_tokens(config: TransformerConfig, frame_tokens: int, text: int, *, dream: bool, joint: bool) -> Tokens:
    """A denoising pass over a full memory. joint: with the clean frames of the last chunk in it."""
    chunk = config.frames_per_chunk * frame_tokens
    clean, noisy = chunk if joint else 0, chunk if dream else 0
    own = clean + noisy + config.actions_per_chunk + 1
    kept = frame_tokens + (config.memory or 1) * chunk
    levels = config.frames_per_chunk + 1 + joint
    return Tokens(clean, noisy, config.actions_per_chunk, 1, levels, kept + own, text)


def limit(config: TransformerConfig, tokens: Tokens, device: str, dtype: torch.dtype) -> Limit:
    """Of a pass with these tokens, prompt already encoded; measures the rate, which takes a fraction of a second."""
    return Limit(pass_flops(config, tokens).total, matmul_rate(device, dtype))


def matmul_rate(device: str, dtype: torch.dtype, size: int = 1024, repeats: int = 9) -> float:
    """FLOP/s of (size, size) @ (size, size), the median of a few."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats + 2):
        synchronise(device)
        began = time.perf_counter()
        left @ right
        synchronise(device)
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / statistics.median(seconds[2:])
