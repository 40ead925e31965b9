"""One look at the world: the pictures, the proprioceptive state, the instruction and when they were taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]  # (H, W, 3)


@dataclass(frozen=True)
class Observation:
    """What a robot knows at one moment.

    images: camera name -> uint8 (H, W, 3), RGB.
    state: float32 (S,), in the order of `Embodiment.state_names`.
    instruction: what a person asked for, in plain words.
    timestamp: seconds since the start of the episode, on the robot's clock.
    """

    images: Mapping[str, Image]
    state: npt.NDArray[np.float32]
    instruction: str
    timestamp: float
