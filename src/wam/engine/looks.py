"""What a robot sends, checked and brought into the model's form; nothing else changes here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wam.encoders.video import frames_to_video
from wam.robot.canvas import compose
from wam.robot.chroma import subsample_chroma
from wam.robot.embodiment import Embodiment
from wam.robot.observation import Observation


def state_of(embodiment: Embodiment, look: Observation) -> Tensor:
    """The state (1, S) in robot units. Raises ValueError naming what is not a finite vector of the robot's."""
    state = np.asarray(look.state, dtype=np.float32)
    expected, names = (embodiment.state_dim,), embodiment.state_names
    if state.shape != expected:
        raise ValueError(
            f"state: found shape {state.shape}, embodiment {embodiment.name!r} needs {expected} = {list(names)}"
        )
    if not np.isfinite(state).all():
        wrong = [name for name, number in zip(names, state, strict=True) if not np.isfinite(number)]
        raise ValueError(f"state: {wrong} is not finite in {state.tolist()}; check the robot's sensors")
    return torch.from_numpy(state)[None]


def canvases_of(embodiment: Embodiment, looks: Sequence[Observation]) -> Tensor:
    """All views of each look on one canvas, (1, 3, T, H, W) in [-1, 1]. Raises ValueError naming the camera."""
    canvases = np.stack([subsample_chroma(compose(look.images, embodiment)) for look in looks])
    return frames_to_video(canvases)[None]


def prefix_of(embodiment: Embodiment, executing: npt.NDArray[np.float32] | None) -> Tensor:
    """The actions that are being executed, (1, n, A) in robot units, n < N and maybe 0. Raises ValueError."""
    width, chunk = embodiment.action_dim, embodiment.actions_per_chunk
    prefix = np.zeros((0, width), np.float32) if executing is None else np.array(executing, dtype=np.float32)
    if prefix.ndim != 2 or prefix.shape[1] != width or len(prefix) >= chunk:
        raise ValueError(
            f"executing: found shape {prefix.shape}, expected (n, {width}) with n < {chunk}; a row is "
            f"{list(embodiment.action_names)}"
        )
    if not np.isfinite(prefix).all():
        raise ValueError(f"executing: not finite in {prefix.tolist()}")
    return torch.from_numpy(prefix)[None]
