"""Robot units to model units and back: each dimension to zero mean and unit deviation, or quantiles to [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wam.robot.embodiment import Moments

SMALLEST_SCALE = 1e-3  # a dimension that never moves keeps its unit instead of being blown up


@dataclass(frozen=True)
class Normalizer:
    """x -> (x - offset) / scale, one offset and scale per dimension.

    limit: values beyond are cut off when normalising, not when restoring; None = never.
    still: dimensions that pass as they are (cut off all the same) and come back as their offset, as the released code
    treats those with q01 = q99.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    limit: float | None = None
    still: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.offset) != len(self.scale) or any(value <= 0 for value in self.scale):
            raise ValueError(f"normalizer: offset {self.offset} and scale {self.scale} must be equally long, scale > 0")

    def normalize(self, x: Tensor) -> Tensor:
        """(..., D) in robot units -> (..., D)."""
        scaled = (x - self._tensor(self.offset, x)) / self._tensor(self.scale, x)
        if self.still:
            scaled[..., list(self.still)] = x[..., list(self.still)]
        return scaled if self.limit is None else scaled.clamp(-self.limit, self.limit)

    def restore(self, x: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        offset = self._tensor(self.offset, x)
        restored = x * self._tensor(self.scale, x) + offset
        if self.still:
            restored[..., list(self.still)] = offset[list(self.still)]
        return restored

    def _tensor(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        if like.shape[-1] != len(values):
            raise ValueError(f"found {like.shape[-1]} dimensions, the statistics have {len(values)}")
        return torch.tensor(values, dtype=like.dtype, device=like.device)

    @classmethod
    def from_mean_std(cls, moments: Moments) -> Normalizer:
        """To zero mean and unit deviation."""
        return cls(moments.mean, tuple(value if value > SMALLEST_SCALE else 1.0 for value in moments.std))

    @classmethod
    def from_quantiles(cls, moments: Moments) -> Normalizer:
        """q01 -> -1, q99 -> 1, cut off beyond, as the released code does for every key."""
        pairs = list(zip(moments.q01, moments.q99, strict=True))
        still = tuple(i for i, (low, high) in enumerate(pairs) if low == high)
        scale = tuple((high - low) / 2 if high > low else 1.0 for low, high in pairs)
        return cls(tuple((low + high) / 2 for low, high in pairs), scale, limit=1.0, still=still)
