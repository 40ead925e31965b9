"""A robot's named numbers <-> the padded vectors of the released networks: quantiles to [-1, 1], relative actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Named = Mapping[str, Tensor]


@dataclass(frozen=True)
class Quantity:
    """One named group of dimensions, with its 1 % and 99 % quantiles.

    relative: an action that is trained as the difference to the state of the same name at the start of its chunk; its
    quantiles are then those of the difference.
    """

    name: str
    q01: tuple[float, ...]
    q99: tuple[float, ...]
    relative: bool = False

    def __post_init__(self) -> None:
        if len(self.q01) != len(self.q99):
            raise ValueError(f"{self.name!r}: {len(self.q01)} quantiles q01, but {len(self.q99)} q99")

    @property
    def width(self) -> int:
        return len(self.q01)

    def normalize(self, x: Tensor) -> Tensor:
        """2 (x - q01) / (q99 - q01) - 1, clamped to [-1, 1]; a dimension with q01 = q99 is only clamped."""
        low, high = self._quantiles(x)
        still = low == high
        scaled = 2 * (x - low) / torch.where(still, torch.ones_like(low), high - low) - 1
        return torch.where(still, x, scaled).clamp(-1, 1)

    def restore(self, x: Tensor) -> Tensor:
        """(x + 1) / 2 (q99 - q01) + q01, not clamped; a dimension with q01 = q99 becomes that constant."""
        low, high = self._quantiles(x)
        return (x + 1) / 2 * (high - low) + low

    def _quantiles(self, like: Tensor) -> tuple[Tensor, Tensor]:
        if like.shape[-1] != self.width:
            raise ValueError(f"{self.name!r}: found {like.shape[-1]} dimensions, the statistics have {self.width}")
        low, high = (torch.tensor(values, dtype=like.dtype, device=like.device) for values in (self.q01, self.q99))
        return low, high


def pack(values: Named, quantities: Sequence[Quantity], width: int) -> Tensor:
    """Normalise the named values (..., D) in order and pad with zeros: (..., width)."""
    parts = [quantity.normalize(_of(values, quantity.name)) for quantity in quantities]
    packed = torch.cat(parts, dim=-1)
    if packed.shape[-1] > width:
        raise ValueError(f"{packed.shape[-1]} dimensions in {[q.name for q in quantities]} do not fit into {width}")
    return torch.nn.functional.pad(packed, (0, width - packed.shape[-1]))


def pack_actions(actions: Named, state: Named, quantities: Sequence[Quantity], per_chunk: int, width: int) -> Tensor:
    """Absolute actions (C N, D) and states at the chunks' starts (C, D) -> normalised (C N, width)."""

    def value(quantity: Quantity) -> Tensor:
        action = _of(actions, quantity.name)
        if not quantity.relative:
            return action
        return action - _of(state, quantity.name).repeat_interleave(per_chunk, dim=0)

    return pack({quantity.name: value(quantity) for quantity in quantities}, quantities, width)


def unpack_actions(actions: Tensor, state: Named, quantities: Sequence[Quantity]) -> dict[str, Tensor]:
    """Normalised actions (..., N, width) -> absolute actions by name; state: the present, (..., 1, D) by name."""
    named, start = {}, 0
    for quantity in quantities:
        restored = quantity.restore(actions[..., start : start + quantity.width])
        named[quantity.name] = restored + _of(state, quantity.name) if quantity.relative else restored
        start += quantity.width
    return named


def real_dimensions(quantities: Sequence[Quantity], width: int) -> Tensor:
    """bool (width,): True where a dimension is not padding."""
    return torch.arange(width) < sum(quantity.width for quantity in quantities)


def _of(values: Named, name: str) -> Tensor:
    if name not in values:
        raise ValueError(f"{name!r} is missing; found {sorted(values)}")
    return values[name]
