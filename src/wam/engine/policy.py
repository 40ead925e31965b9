"""What every policy looks like from outside: observations in, a chunk of actions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wam.robot.observation import Observation


@dataclass(frozen=True)
class ActionChunk:
    """The next actions, and what the policy imagined while it chose them.

    actions: float32 (N, A) in robot units, the first one to be executed now.
    dream: uint8 (T, H, W, 3), the imagined canvas during the chunk, or None when the video was not decoded.
    seconds: time spent per stage of the step, e.g. {"encode": 0.004, "remember": 0.006, "denoise": 0.021}.
    """

    actions: npt.NDArray[np.float32]
    dream: npt.NDArray[np.uint8] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


class Policy(Protocol):
    """A closed-loop policy.

    `actions_per_chunk` actions come out of every `act`; the caller executes the first `execute` of them, and looks at
    the world every `video_stride` control steps meanwhile.
    """

    @property
    def execute(self) -> int: ...

    @property
    def video_stride(self) -> int: ...

    def reset(self, seed: int) -> None:
        """Forget everything and start a new episode; `seed` fixes the noise."""

    def act(self, observations: Sequence[Observation]) -> ActionChunk:
        """Decide what to do next.

        observations: in order of time, all looks since the last call, the last one is the present (the first call gets
        one, later calls `execute / video_stride`).
        """
