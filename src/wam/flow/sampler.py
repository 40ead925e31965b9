"""How one chunk is denoised: video and actions side by side, each with its own solver and its own noise levels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from wam.flow.solvers import Euler, Solver, UniPC, sigma_schedule, unipc_schedule


@dataclass(frozen=True)
class Sampler:
    """How a chunk is denoised.

    steps: network calls.  solver: "euler", or "unipc" on the levels of the released sampler (its shift is 5); what is
    to stay pure noise has nothing to solve, so its solver is Euler's in any case.
    guidance: 1 = off, else v = v_none + guidance (v_prompt - v_none) on the video; actions follow the prompt alone.
    video_final, action_final: noise level at which each stops; 0 = denoised in full, 1 = stays pure noise.
    shift: moves the levels of both towards noise.
    temperature: scales the noise that actions begin as. One step answers with a mean, whatever the noise: at 0 none of
    it is left in the answer. More steps draw a sample, for which they need all of it.
    """

    steps: int = 4
    solver: Literal["euler", "unipc"] = "euler"
    guidance: float = 1.0
    video_final: float = 0.0
    action_final: float = 0.0
    shift: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        allowed = {
            "steps": (self.steps >= 1, "1 or more"),
            "video_final": (0.0 <= self.video_final <= 1.0, "a level from 0 to 1"),
            "action_final": (0.0 <= self.action_final <= 1.0, "a level from 0 to 1"),
            "shift": (self.shift > 0.0, "above 0"),
            "temperature": (self.temperature >= 0.0, "0 or more"),
        }
        for name, (fine, expected) in allowed.items():
            if not fine:
                raise ValueError(f"{name}={getattr(self, name)}: expected {expected}")

    def solvers(self) -> tuple[Solver, Solver]:
        """Fresh solvers for (video, actions)."""
        return self._solver(self.video_final), self._solver(self.action_final)

    def _solver(self, final: float) -> Solver:
        if self.solver == "unipc" and final < 1.0:
            return UniPC(unipc_schedule(self.steps, self.shift, final))
        return Euler(sigma_schedule(self.steps, self.shift, final))


@dataclass(frozen=True)
class Imagined:
    """One chunk, or the noise it begins as: video latents (B, z, K, h, w), None without dreaming; actions (B, N, A)."""

    video: Tensor | None
    action: Tensor


@dataclass(frozen=True)
class Given:
    """What is already known of a chunk, in model units, held at sigma 0 while the rest is denoised.

    video (B, z, K, h, w), the whole of it: which actions lead there? (inverse dynamics)
    action (B, N, A), all of them: what will be seen? (forward dynamics)
    action (B, n, A), the first n < N: they are being executed while the model thinks (real-time chunking).
    """

    video: Tensor | None = None
    action: Tensor | None = None

    @property
    def actions(self) -> int:
        """How many actions are known."""
        return 0 if self.action is None else self.action.shape[1]


def integrate(
    noise: Imagined,
    solvers: tuple[Solver, Solver],
    answer: Callable[[int, Tensor | None, Tensor], tuple[Tensor | None, Tensor | None]],
    given: Given | None = None,
) -> Imagined:
    """From noise to a chunk: one answer per step, for video and actions together.

    answer: (step, video and actions at the levels of that step) -> their velocities.  given: stays as it is.
    """
    given = given or Given()
    known, video, action = given.actions, noise.video, noise.action
    if given.video is not None:
        video = given.video
    if given.action is not None:
        action = torch.cat([given.action, action[:, known:]], dim=1)
    for step in range(len(solvers[0].sigmas) - 1):
        video_velocity, action_velocity = answer(step, video, action)
        if video is not None and given.video is None:
            assert video_velocity is not None
            video = solvers[0].step(video, video_velocity, step)
        if known < action.shape[1]:
            assert action_velocity is not None
            moved = solvers[1].step(action[:, known:], action_velocity[:, known:], step)
            action = torch.cat([action[:, :known], moved], dim=1) if known else moved
    return Imagined(video, action)
