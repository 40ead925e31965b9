"""One network, several questions: what is known stays clean, what is not asked stays noise, the rest is denoised.

| mode        | video         | actions       | question                                         |
|-------------|---------------|---------------|--------------------------------------------------|
| policy      | denoised      | denoised      | what shall I do, and what will be seen?          |
| video       | denoised      | noise         | what will be seen, whatever I do?                |
| forward     | denoised      | given         | what will be seen if I do this?                  |
| inverse     | given         | denoised      | what was done in this video?                     |
| action-only | noise         | denoised      | what shall I do? (nothing imagined)              |

Given means sigma 0, noise means sigma 1, at every step. Whether a network has learned to answer depends on the pairs of
noise levels that it was trained at (`unfamiliar`): decoupled levels show it all of them, coupled ones do not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wam.engine.engine import Actions, Engine
from wam.engine.session import Session
from wam.flow.noise import NoiseConfig
from wam.flow.sampler import Given, Sampler
from wam.robot.observation import Observation

Mode = Literal["policy", "video", "forward", "inverse", "action-only"]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Future:
    """One chunk after the present.

    video: latents (1, z, K, h, w), imagined or given; None where it stayed noise.  actions: (N, A) in robot units,
    chosen or given; None where they stayed noise.  sigma: noise that is left in the video.
    """

    video: Tensor | None
    actions: Actions | None
    sigma: float = 0.0


class WorldModel:
    """An engine that is asked about a copy of a session, which the robot's own session never notices.

    It stands at a present. From there, ask; then `see` the real chunk that followed, or `suppose` an imagined one and
    ask on: a world model rolled out. Every question draws its noise from the copy's generator.
    """

    def __init__(self, engine: Engine, session: Session) -> None:
        """session: has seen something."""
        self.engine, self.session = engine, session.fork()
        self._real = replace(session)  # how it was at the last real look: what imagined pictures are decoded from
        self._warned: set[Mode] = set()

    # ---------------------------------------------------------------- questions

    def policy(self, sampler: Sampler | None = None) -> Future:
        """Video and actions denoised together. A `video_final` above 0 leaves noise in the video (1: all of it)."""
        return self._imagine("policy", sampler or self._sampler)

    def action_only(self, sampler: Sampler | None = None) -> Future:
        """Actions beside a video that stays noise; a model without video (`dream=False`) has none to leave out."""
        return self._imagine("action-only", replace(sampler or self._sampler, video_final=1.0))

    def video(self, sampler: Sampler | None = None) -> Future:
        """Video beside actions that stay noise, as in training on video without actions."""
        return self._imagine("video", replace(sampler or self._sampler, action_final=1.0, temperature=1.0))

    def forward(self, actions: npt.ArrayLike, sampler: Sampler | None = None) -> Future:
        """Video after these actions (N, A), in robot units. Raises ValueError for any other shape."""
        given = self._checked(actions)
        known = self.engine.units.action_to_model(given, self.session.present)
        answer = self._imagine("forward", sampler or self._sampler, Given(action=known.to(self._device)))
        return replace(answer, actions=given[0].numpy())

    def inverse(self, video: Tensor, sampler: Sampler | None = None) -> Future:
        """Actions that lead through this video, latents (1, z, K, h, w); see `latents`."""
        return self._imagine("inverse", sampler or self._sampler, Given(video=video))

    # ---------------------------------------------------------------- pictures in and out

    def latents(self, observations: Sequence[Observation]) -> Tensor:
        """The looks of the chunk after the present as latents (1, z, K, h, w); nothing is remembered."""
        return self.engine.encode(self.session, observations)

    def pictures(self, futures: Sequence[Future]) -> npt.NDArray[np.uint8]:
        """Videos of the futures after the last real look, in order: uint8 (T, H, W, 3)."""
        videos = [future.video for future in futures if future.video is not None]
        if len(videos) < len(futures) or not videos:
            raise ValueError(
                f"pictures: {len(videos)} of {len(futures)} futures have a video; none to decode elsewhere"
            )
        frames: npt.NDArray[np.uint8] = self.engine.decode([self._real], torch.cat(videos, dim=2))[0]
        return frames

    # ---------------------------------------------------------------- time goes on

    def see(self, observations: Sequence[Observation]) -> None:
        """The real chunk that followed; it is the present now."""
        self.engine.watch(self.session, observations)
        self._real = replace(self.session)

    def suppose(self, future: Future, state: npt.ArrayLike | None = None) -> None:
        """Take an imagined chunk for what followed; it is the present now. The session can see nothing real any more.

        state: (S,) in robot units, where the robot is then; else where its actions should have led it, since nothing
        imagines states (`Units.state_after`).  Raises ValueError where there is no clean video to remember.
        """
        if future.video is None or future.sigma > 0:
            raise ValueError(f"suppose: a denoised video is needed, found one with noise of sigma {future.sigma:g}")
        self.engine.suppose(self.session, future.video, self._state_after(future, state))

    def _state_after(self, future: Future, state: npt.ArrayLike | None) -> Tensor:
        before = self.session.present
        if state is not None:
            return torch.from_numpy(np.asarray(state, dtype=np.float32)).reshape(before.shape)
        if future.actions is None:
            return before
        return self.engine.units.state_after(before, torch.from_numpy(future.actions)[None])

    # ---------------------------------------------------------------- what the questions share

    def _imagine(self, mode: Mode, sampler: Sampler, given: Given | None = None) -> Future:
        self._check(mode, sampler.video_final)
        answer = self.engine.imagine([self.session], given, sampler)
        left = sampler.video_final if given is None or given.video is None else 0.0
        actions = None
        if sampler.action_final < 1.0:
            own = self.engine.units.action_to_robot(answer.action.float().cpu(), self.session.present)
            actions = own[0].numpy()
        return Future(None if left == 1.0 else answer.video, actions, left)

    def _check(self, mode: Mode, video_final: float) -> None:
        """Refuse what the model cannot answer, and say once what it has not learned to answer."""
        config = self.engine.model.config
        if not config.dream and mode in ("video", "forward", "inverse"):
            raise ValueError(f"mode {mode!r}: this model was trained on actions alone (dream=False) and knows no video")
        why = unfamiliar(config.noise, mode, video_final)
        if why is not None and mode not in self._warned:
            self._warned.add(mode)
            logger.warning("mode %r: %s", mode, why)

    def _checked(self, actions: npt.ArrayLike) -> Tensor:
        """Actions (1, N, A)."""
        robot, found = self.engine.embodiment, np.array(actions, dtype=np.float32)
        expected = (robot.actions_per_chunk, robot.action_dim)
        if found.shape != expected:
            raise ValueError(
                f"actions: found shape {found.shape}, a chunk has {expected}; a row is {list(robot.action_names)}"
            )
        if not np.isfinite(found).all():
            raise ValueError(f"actions: not finite in {found.tolist()}")
        return torch.from_numpy(found)[None]

    @property
    def _sampler(self) -> Sampler:
        return self.engine.config.sampler

    @property
    def _device(self) -> torch.device:
        return self.engine.model.transformer.patch_embedding.weight.device


def unfamiliar(noise: NoiseConfig, mode: Mode, video_final: float = 0.0) -> str | None:
    """Why a model trained at these noise levels has not learned to answer; None where it has.

    A mode is a line of pairs (video sigma, action sigma), s from 1 to 0: policy (s, s), action-only (1, s), video
    (s, 1), forward (s, 0), inverse (0, s).  video_final: where the video of the policy stops; 1 makes it action-only.
    """
    pair = {"policy": "(s, s)", "action-only": "(1, s)", "video": "(s, 1)", "forward": "(s, 0)", "inverse": "(0, s)"}
    if mode == "policy" and video_final > 0:
        mode, pair["policy"] = ("action-only" if video_final == 1.0 else mode), f"(1 .. {video_final:g}, s)"
    if noise.mode == "coupled":
        together = mode == "policy" and not 0 < video_final < 1
        if together or (mode == "action-only" and noise.video_at_noise > 0):
            return None
        besides = ", unless it also learned from video without actions" if mode == "video" else ""
        return (
            f"out of its training: video and actions shared their noise level (noise mode 'coupled'), so pairs "
            f"{pair[mode]} of (video, action) were not seen{besides}; a 'decoupled' model has seen them"
        )
    if noise.mode == "flash" and mode != "action-only":
        return (
            "at the edge of its training: noise mode 'flash' mostly showed video near sigma 1, so pairs "
            f"{pair[mode]} of (video, action) were rare; a 'decoupled' model has seen them"
        )
    return None
