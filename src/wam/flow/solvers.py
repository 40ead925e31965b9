"""From noise to data: solvers of dx/dsigma = v. Their levels are numbers known beforehand, so that a step is a sum of
tensors with plain factors: nothing is read back from the device, nothing depends on data.

A solver is fed one velocity per step and keeps what it needs from earlier steps in a small state of its own, so that
two of them (video and actions) run side by side with different levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from wam.flow.noise import denoised, shifted


class Solver(Protocol):
    """Integrates from sigmas[0] to sigmas[-1], on the CPU, in len(sigmas) - 1 steps."""

    sigmas: Tensor

    def step(self, x: Tensor, velocity: Tensor, index: int) -> Tensor:
        """x at sigmas[index] and the velocity there -> x at sigmas[index + 1]."""


def sigma_schedule(steps: int, shift: float = 1.0, final: float = 0.0) -> Tensor:
    """steps + 1 levels from 1 to `final`: uniform, then shifted towards noise."""
    if steps < 1:
        raise ValueError(f"steps={steps}: a solver needs at least one step")
    uniform = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    return (final + (1 - final) * shifted(uniform, shift)).float()


def unipc_schedule(steps: int, shift: float = 5.0, final: float = 0.0) -> Tensor:
    """The levels of the released sampler: 0.999 to 0, shifted, then squeezed so that the last one is `final`."""
    uniform = torch.linspace(0.999, 0.0, steps + 1, dtype=torch.float64)[:-1]
    sigmas = torch.cat([shifted(uniform, shift), torch.zeros(1, dtype=torch.float64)])
    if not 0.0 <= final < sigmas[0]:
        raise ValueError(f"final={final}: UniPC ends at a level in [0, {sigmas[0]:.4f}); to keep pure noise use Euler")
    return (final + sigmas * (sigmas[0] - final) / sigmas[0]).float()


@dataclass
class Euler:
    """x_next = x + (sigma_next - sigma) v."""

    sigmas: Tensor

    def __post_init__(self) -> None:
        self._levels = self.sigmas.tolist()

    def step(self, x: Tensor, velocity: Tensor, index: int) -> Tensor:
        return torch.add(x, velocity, alpha=self._levels[index + 1] - self._levels[index])


@dataclass
class UniPC:
    """UniPC of order 2, B2 variant, predicting x0, with corrector (Zhao et al., 2302.04867); Wan's default sampler.

    With alpha = 1 - sigma, lambda = log(alpha / sigma), h = lambda_t - lambda_s and E = expm1(-h):
        predictor   x_t = sigma_t / sigma_s x - alpha_t E (m_s + (m_prev - m_s) / 2r)
                    with r = (lambda_prev - lambda_s) / h
        corrector   the step that led here, once more, now knowing m_t.
    The first and the last step are of order 1; a step to sigma 0 (h infinite, E = -1) gives m_s itself.
    """

    sigmas: Tensor
    _clean: list[Tensor] = field(default_factory=list)  # the last two clean estimates, oldest first
    _before: Tensor | None = None  # x at the start of the last step

    def __post_init__(self) -> None:
        self._levels: list[float] = self.sigmas.tolist()
        self._lambdas = [math.log(1 - s) - math.log(s) if s > 0 else math.inf for s in self._levels]

    def step(self, x: Tensor, velocity: Tensor, index: int) -> Tensor:
        wide = x.float()
        estimate = denoised(wide, velocity.float(), self._levels[index])
        if index > 0:
            wide = self._correct(estimate, index)
        self._clean = [*self._clean[-1:], estimate]
        self._before = wide
        return self._predict(wide, index).to(x.dtype)

    def _predict(self, x: Tensor, index: int) -> Tensor:
        last = index == len(self._levels) - 2
        sigma, following = self._levels[index], self._levels[index + 1]
        h = self._lambdas[index + 1] - self._lambdas[index]
        weight = -(1 - following) * math.expm1(-h)
        out = following / sigma * x + weight * self._clean[-1]
        if len(self._clean) == 2 and not last:
            r = (self._lambdas[index - 1] - self._lambdas[index]) / h
            out = out + weight * 0.5 / r * (self._clean[0] - self._clean[1])
        return out

    def _correct(self, estimate: Tensor, index: int) -> Tensor:
        """Redo the step index - 1 -> index with the clean estimate at its end."""
        assert self._before is not None
        sigma, here = self._levels[index - 1], self._levels[index]
        h = self._lambdas[index] - self._lambdas[index - 1]
        e = math.expm1(-h)
        weight = -(1 - here) * e
        base = here / sigma * self._before + weight * self._clean[-1]
        newest = estimate - self._clean[-1]
        if len(self._clean) == 1:
            return base + weight * 0.5 * newest
        r = (self._lambdas[index - 2] - self._lambdas[index - 1]) / h
        # rho solves [[1, 1], [r, 1]] rho = [b1, b2], with b_k = k! phi_{k+1} / E
        phi2 = e / -h - 1
        phi3 = phi2 / -h - 0.5
        b1, b2 = phi2 / e, 2 * phi3 / e
        rho_old = (b1 - b2) / (1 - r)
        rho_new = b1 - rho_old
        older = self._clean[0] - self._clean[1]
        return base + weight * (rho_old / r * older + rho_new * newest)
