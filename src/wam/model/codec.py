"""How numbers of a robot become tokens and tokens become numbers: one set of weights per embodiment.

Slot 0 holds the released weights; a new robot gets its own slot and never touches another's.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EmbodimentLinear(nn.Module):
    """y = x W[e] + b[e] with the weights of embodiment e; x (B, n, in) -> (B, n, out)."""

    def __init__(self, embodiments: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(embodiments, in_features, out_features) / math.sqrt(in_features))
        self.bias = nn.Parameter(torch.zeros(embodiments, out_features))

    def forward(self, x: Tensor, embodiment: Tensor) -> Tensor:
        if self.weight.shape[0] == 1:  # one robot: an ordinary product, no gather
            return F.linear(x, self.weight[0].T, self.bias[0])
        weight, bias = self.weight[embodiment], self.bias[embodiment]
        return torch.matmul(x, weight.to(x.dtype)) + bias[:, None].to(x.dtype)


class StateEncoder(nn.Module):
    """state (B, n, S) -> tokens (B, n, D)."""

    def __init__(self, embodiments: int, state_dim: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.layer1 = EmbodimentLinear(embodiments, state_dim, hidden)
        self.layer2 = EmbodimentLinear(embodiments, hidden, dim)

    def forward(self, state: Tensor, embodiment: Tensor) -> Tensor:
        return self.layer2(F.relu(self.layer1(state, embodiment)), embodiment)


class ActionEncoder(nn.Module):
    """noisy actions (B, n, A) and their noise levels (B, n) -> tokens (B, n, D)."""

    def __init__(self, embodiments: int, action_dim: int, dim: int) -> None:
        super().__init__()
        self.layer1 = EmbodimentLinear(embodiments, action_dim, dim)
        self.layer2 = EmbodimentLinear(embodiments, 2 * dim, dim)
        self.layer3 = EmbodimentLinear(embodiments, dim, dim)

    def forward(self, action: Tensor, sigma: Tensor, embodiment: Tensor) -> Tensor:
        lifted = self.layer1(action, embodiment)
        level = action_sinusoid(1000.0 * sigma, lifted.shape[-1]).to(lifted.dtype)
        mixed = self.layer2(torch.cat([lifted, level], dim=-1), embodiment)
        return self.layer3(F.silu(mixed), embodiment)


class ActionDecoder(nn.Module):
    """tokens (B, n, D) of the last block, not normalised -> velocities of the actions (B, n, A)."""

    def __init__(self, embodiments: int, action_dim: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.layer1 = EmbodimentLinear(embodiments, dim, hidden)
        self.layer2 = EmbodimentLinear(embodiments, hidden, action_dim)

    def forward(self, tokens: Tensor, embodiment: Tensor) -> Tensor:
        return self.layer2(F.relu(self.layer1(tokens, embodiment)), embodiment)


def action_sinusoid(timestep: Tensor, dim: int) -> Tensor:
    """Features of a timestep in 0..1000, (...,) -> (..., dim): **sines first**, float32 angles (as in pi0)."""
    half = dim // 2
    exponent = -torch.arange(half, dtype=torch.float32, device=timestep.device) * (math.log(10000.0) / half)
    angle = timestep.float()[..., None] * exponent.exp()
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def video_sinusoid(timestep: Tensor, dim: int) -> Tensor:
    """Features of a timestep in 0..1000, (...,) -> (..., dim): **cosines first**, float64 angles (as in Wan)."""
    half = dim // 2
    frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=timestep.device) / half)
    angle = timestep.to(torch.float64)[..., None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1).float()
