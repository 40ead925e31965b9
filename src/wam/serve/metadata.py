"""What the server says of itself before anybody asks: who acts, what it needs, what comes back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from wam.robot.embodiment import Embodiment
from wam.serve.cadence import Cadence
from wam.serve.dialects import roboarena


@dataclass(frozen=True)
class Served:
    """The policy behind the server, as the worker describes it.

    execute: control steps to execute of every chunk.  remembers: whether it goes on from chunk to chunk.
    dreams: whether it decodes the video that it imagines.  frames, stride: looks per chunk, and control steps between
    them; None: as the robot's training had them.
    """

    model: str
    revision: str
    robot: Embodiment
    execute: int
    remembers: bool
    dreams: bool
    frames: int | None = None
    stride: int | None = None

    @property
    def cadence(self) -> Cadence:
        """When it looks at the world."""
        trained = Cadence.of(self.robot)
        return Cadence(self.frames or trained.frames, self.stride or trained.stride, self.robot.control_hz)

    def to_dict(self) -> dict[str, Any]:
        return {**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, "robot": self.robot.to_dict()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Served:
        return cls(**{**fields, "robot": Embodiment.from_dict(fields["robot"])})


def metadata(served: Served) -> dict[str, Any]:
    """Everything, for the first frame of a connection; RoboArena's fields among it."""
    robot, cadence = served.robot, served.cadence
    return {
        "server": "wam",
        "protocol": 1,
        "model": served.model,
        "revision": served.revision,
        "embodiment": robot.name,
        "cameras": list(robot.cameras),
        "state_names": list(robot.state_names),
        "action_names": list(robot.action_names),
        "horizon": robot.actions_per_chunk,
        "execute": served.execute,
        "control_hz": robot.control_hz,
        "video_hz": robot.control_hz / cadence.stride,
        "video_stride": cadence.stride,
        "frames_per_request": cadence.frames if served.remembers else 1,
        "remembers": served.remembers,
        "dreams": served.dreams,
        "dialects": ["openpi", "roboarena"],
        **roboarena.server_config(robot),
        "example_observation": example_observation(robot),
    }


def handshake(served: Served, path: str) -> dict[str, Any]:
    """The first frame. A RoboArena client takes no other fields than its own, and any client may be one: a DROID's
    server says just those at "/", and everything at "/wam". All other robots' servers say everything everywhere."""
    if roboarena.can_play(served.robot) and path.rstrip("/") != "/wam":
        return roboarena.server_config(served.robot)
    return metadata(served)


def example_observation(robot: Embodiment) -> dict[str, Any]:
    """A first request, ready to be sent: black pictures, a state of zeros."""
    height, width = roboarena.server_config(robot)["image_resolution"] or (robot.view_height, robot.view_width)
    picture = np.zeros((height, width, 3), np.uint8)
    return {
        **{f"observation/images/{camera}": picture for camera in robot.cameras},
        "observation/state": np.zeros(robot.state_dim, np.float32),
        "prompt": "do nothing",
    }
