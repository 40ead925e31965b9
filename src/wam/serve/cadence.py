"""Which of the frames that arrived the model shall see: those that lie where training had them.

A sliding memory continues with whole chunks: T frames, one every `stride_seconds`, the last one the present. Clients
send what they have: one frame, a few, all of them, with or without time stamps. Every choice says how it was made:

    first      the episode begins with the present frame
    present    the model keeps no memory and needs no more than the present frame
    exact      time stamps prove that the frames lie within half a stride of where training had them
    assumed    no time stamps, but as many frames as a chunk has (or as it has control steps): taken to lie right
    late       exact, but the robot took longer than a chunk (less than two); taken as if it had stood still
    resampled  too few or too many frames, or holes between them: the nearest ones, some of them perhaps twice
    anew       the frames cannot continue what is remembered; the model starts from the present frame, as at "first"

A client that sends one frame per chunk is therefore always answered "anew": from an anchor frame and nothing else, a
situation that training knows. The alternative, one frame repeated over a chunk, shows a world that stands still while
the robot's state moves, which training never does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from wam.encoders import FRAMES_PER_LATENT
from wam.robot.embodiment import Embodiment

How = Literal["first", "present", "exact", "assumed", "late", "resampled", "anew"]
GUESSES: frozenset[How] = frozenset({"assumed", "late", "resampled", "anew"})
_SLACK = 1e-6  # seconds, for sums of time stamps


@dataclass(frozen=True)
class Cadence:
    """How training looked at the world: T `frames` per chunk, one every `stride` control steps."""

    frames: int
    stride: int
    control_hz: float

    @classmethod
    def of(cls, robot: Embodiment) -> Cadence:
        return cls(robot.frames_per_chunk * FRAMES_PER_LATENT, robot.video_stride, robot.control_hz)

    @property
    def stride_seconds(self) -> float:
        return self.stride / self.control_hz

    @property
    def chunk_seconds(self) -> float:
        return self.frames * self.stride_seconds


@dataclass(frozen=True)
class Choice:
    """frames: which of those that arrived, in order; the last one is the present.  why: a sentence, "" if plain."""

    frames: tuple[int, ...]
    how: How
    why: str = ""

    @property
    def anew(self) -> bool:
        """Whether the model starts from the present frame."""
        return self.how in ("first", "anew")

    @property
    def guessed(self) -> bool:
        return self.how in GUESSES


def choose(
    cadence: Cadence,
    count: int,
    times: npt.NDArray[np.float64] | None,
    *,
    begun: bool,
    previous: float | None = None,
    remembers: bool = True,
) -> Choice:
    """Choose among `count` frames.

    times: (count,) seconds, increasing, or None.  begun: whether the session has seen anything yet.
    previous: time of the present frame of the session's last request, if it had one.
    remembers: whether the model continues what it saw before.
    """
    present = (count - 1,)
    if not remembers:
        return Choice(present, "present")
    if not begun:
        return Choice(present, "first")
    if times is not None:
        return _by_time(cadence, times, previous)
    return _by_count(cadence, count)


def _by_time(cadence: Cadence, times: npt.NDArray[np.float64], previous: float | None) -> Choice:
    half = cadence.stride_seconds / 2 + _SLACK
    passed = None if previous is None else float(times[-1]) - previous
    if passed is not None and passed < cadence.chunk_seconds - half:
        return _anew(times, f"{passed:.3f} s after the last request, but a chunk lasts {cadence.chunk_seconds:.3f} s")
    if passed is not None and passed > 2 * cadence.chunk_seconds:
        return _anew(
            times, f"{passed:.3f} s after the last request, more than two chunks of {cadence.chunk_seconds:.3f} s"
        )
    wanted = times[-1] - cadence.stride_seconds * np.arange(cadence.frames - 1, -1, -1)
    distance = np.abs(times[None] - wanted[:, None])
    nearest, off = distance.argmin(axis=1), float(distance.min(axis=1).max())
    frames = tuple(int(index) for index in nearest)
    if off > 2 * half:
        return _anew(
            times, f"no frame within {cadence.stride_seconds:.3f} s of where training had one ({off:.3f} s off)"
        )
    if off > half or len(set(frames)) < len(frames):
        return Choice(frames, "resampled", f"frames lie up to {off:.3f} s from where training had them")
    if passed is not None and passed > cadence.chunk_seconds + half:
        return Choice(frames, "late", f"{passed:.3f} s for a chunk of {cadence.chunk_seconds:.3f} s")
    return Choice(frames, "exact")


def _by_count(cadence: Cadence, count: int) -> Choice:
    needed, steps = cadence.frames, cadence.frames * cadence.stride
    if count == needed:
        return Choice(tuple(range(count)), "assumed", f"{count} frames without time stamps, taken for one chunk")
    if count == steps:
        every = tuple(range(cadence.stride - 1, steps, cadence.stride))
        return Choice(every, "assumed", f"{count} frames without time stamps, taken for one per control step")
    if 2 * count >= needed:
        spread = tuple(-(-(i + 1) * count // needed) - 1 for i in range(needed))
        return Choice(spread, "resampled", f"{count} frames without time stamps, spread over the {needed} of a chunk")
    return Choice(
        (count - 1,),
        "anew",
        f"{count} frame(s) arrived, going on needs {needed}, one every {cadence.stride} control steps; send them "
        "together, as (T, H, W, 3)",
    )


def _anew(times: npt.NDArray[np.float64], why: str) -> Choice:
    return Choice((len(times) - 1,), "anew", why)
