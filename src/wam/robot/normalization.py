"""Robot units to model units and back: each dimension to zero mean and unit deviation, or quantiles to [-1, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SMALLEST_SCALE = 1e-3  # a dimension that never moves keeps its unit instead of being blown up


@dataclass(frozen=True)
class Normalizer:
    """x -> (x - offset) / scale, one offset and scale per dimension."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.offset) != len(self.scale) or any(value <= 0 for value in self.scale):
            raise ValueError(f"normalizer: offset {self.offset} and scale {self.scale} must be equally long, scale > 0")

    def normalize(self, x: Tensor) -> Tensor:
        """(..., D) in robot units -> (..., D)."""
        return (x - self._tensor(self.offset, x)) / self._tensor(self.scale, x)

    def restore(self, x: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        return x * self._tensor(self.scale, x) + self._tensor(self.offset, x)

    def _tensor(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        if like.shape[-1] != len(values):
            raise ValueError(f"found {like.shape[-1]} dimensions, the statistics have {len(values)}")
        return torch.tensor(values, dtype=like.dtype, device=like.device)

    @classmethod
    def from_mean_std(cls, mean: Sequence[float], std: Sequence[float]) -> Normalizer:
        return cls(tuple(map(float, mean)), tuple(_usable(float(value)) for value in std))

    @classmethod
    def from_quantiles(cls, q01: Sequence[float], q99: Sequence[float]) -> Normalizer:
        """q01 -> -1, q99 -> 1, as the released code does for every key."""
        middle = tuple((float(low) + float(high)) / 2 for low, high in zip(q01, q99, strict=True))
        return cls(middle, tuple(_usable((float(high) - float(low)) / 2) for low, high in zip(q01, q99, strict=True)))

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Normalizer:
        return cls(tuple(fields["offset"]), tuple(fields["scale"]))


def _usable(scale: float) -> float:
    return scale if scale > SMALLEST_SCALE else 1.0
