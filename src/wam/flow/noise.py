"""How much noise each part of a training window gets, and what the network should answer.

x_sigma = (1 - sigma) x + sigma eps                 (the path; the paper writes t = 1 - sigma, equation 2)
v = eps - x                                          (the target, equation 3 with the sign of Wan)
shift(u) = s u / (1 + (s - 1) u)                     (moves uniform u towards noise; Wan uses s = 5)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class NoiseConfig:
    """How training draws noise levels.

    mode: "coupled": video and actions of a chunk share sigma (paper section 3.1).
          "decoupled": each its own; one network is then policy, video model, forward and inverse dynamics.
          "flash": video sigma = Beta(7, 1), mostly noise, and action sigma uniform (equations 5 and 6): teaches acting
          in one step from a video that is still noise.
    video_shift, action_shift: the shift of each modality's levels.
    action_at_noise: share of chunks whose actions are at sigma 1 exactly, the level at which every sampler starts;
    when coupled, their video is too.
    video_at_noise: share of chunks whose video is at sigma 1 exactly, whatever their actions: all that a policy knows
    about the future before it has imagined any.
    prefix_share: share of chunks whose first actions are given, clean and without loss, as they are when a robot still
    executes them while the model thinks (real-time chunking, trained in: arXiv 2512.05964).
    weighting: "uniform", or "bump" = the released Gaussian weight that vanishes at both ends.
    """

    mode: Literal["coupled", "decoupled", "flash"] = "decoupled"
    video_shift: float = 1.0
    action_shift: float = 1.0
    action_at_noise: float = 0.25
    video_at_noise: float = 0.0
    prefix_share: float = 0.0
    flash_alpha: float = 7.0
    flash_beta: float = 1.0
    weighting: Literal["uniform", "bump"] = "uniform"

    def __post_init__(self) -> None:
        for name in ("action_at_noise", "video_at_noise", "prefix_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"NoiseConfig: {name} is {getattr(self, name)}, expected a share from 0 to 1")


def shifted(u: Tensor, shift: float) -> Tensor:
    """Move levels in [0, 1] towards noise."""
    return shift * u / (1 + (shift - 1) * u)


def interpolate(x: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """x_sigma; sigma broadcasts to x."""
    return (1 - sigma) * x + sigma * eps


def target_velocity(x: Tensor, eps: Tensor) -> Tensor:
    return eps - x


def denoised(x_sigma: Tensor, velocity: Tensor, sigma: Tensor | float) -> Tensor:
    """The clean estimate that a velocity implies: x = x_sigma - sigma v."""
    return x_sigma - sigma * velocity


def sample_levels(config: NoiseConfig, batch: int, chunks: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw (video sigma, action sigma), each (B, C): all frames, and all actions, of a chunk share one level."""
    u_video, u_action = (torch.rand(batch, chunks, generator=generator) for _ in range(2))
    if config.mode == "flash":  # the inverse distribution function of Beta(a, 1) is u^(1/a); others need a sampler
        u_video = _beta(config.flash_alpha, config.flash_beta, u_video, generator)
    if config.mode == "coupled":
        u_action = u_video
    video = shifted(u_video, config.video_shift)
    action = shifted(u_action, config.video_shift if config.mode == "coupled" else config.action_shift)
    action_at_noise, video_at_noise = (
        torch.rand(batch, chunks, generator=generator) < share
        for share in (config.action_at_noise, config.video_at_noise)
    )
    if config.mode == "coupled":
        video_at_noise = video_at_noise | action_at_noise
    one = torch.ones(())
    return torch.where(video_at_noise, one, video), torch.where(action_at_noise, one, action)


def sample_prefix(config: NoiseConfig, batch: int, chunks: int, actions: int, generator: torch.Generator) -> Tensor:
    """How many of the N actions of each chunk are given, (B, C): 0, or 1 .. N - 1, all as likely.

    Draws nothing without `prefix_share`, so that other draws stay what they are. Raises ValueError for N below 2.
    """
    if config.prefix_share == 0:
        return torch.zeros(batch, chunks, dtype=torch.long)
    if actions < 2:
        raise ValueError(f"NoiseConfig: prefix_share is {config.prefix_share}, but a chunk of {actions} has no prefix")
    length = torch.randint(1, actions, (batch, chunks), generator=generator)
    return length * (torch.rand(batch, chunks, generator=generator) < config.prefix_share)


def loss_weight(config: NoiseConfig, sigma: Tensor) -> Tensor:
    """Weight of a squared error at a noise level, mean 1 over the levels of the released schedule."""
    if config.weighting == "uniform":
        return torch.ones_like(sigma)
    return bump_weight(1000.0 * sigma)


def training_timesteps(shift: float = 5.0, count: int = 1000) -> Tensor:
    """The released schedule: t_i = 1000 shift(1 - i / count), i = 0 is pure noise. (count,) float32."""
    return 1000.0 * shifted(1 - torch.arange(count, dtype=torch.float32) / count, shift)


def bump_weight(timestep: Tensor) -> Tensor:
    """exp(-2 ((t - 500) / 1000)^2), minus its minimum, over its mean on the released schedule; zero at pure noise."""

    def bump(t: Tensor) -> Tensor:
        return torch.exp(-2 * ((t - 500.0) / 1000.0) ** 2)

    schedule = bump(training_timesteps().to(timestep.device))
    floor = schedule.min()
    return (bump(timestep.float()) - floor) / (schedule - floor).mean()


def _beta(alpha: float, beta: float, u: Tensor, generator: torch.Generator) -> Tensor:
    """Beta(alpha, beta) noise levels; u is uniform and decides the result alone when beta is 1."""
    if beta == 1.0:
        return u ** (1 / alpha)
    gammas = [torch._standard_gamma(torch.full_like(u, shape), generator=generator) for shape in (alpha, beta)]
    return gammas[0] / (gammas[0] + gammas[1])
