"""RoboArena's dialect, which the released DreamZero server speaks: openpi's observations with an `endpoint`.

    {"endpoint": "infer", ...}  ->  a bare array (n, A), all of which is to be executed
    {"endpoint": "reset", ...}  ->  the text frame "reset successful"

Its clients take the server's first frame for the arguments of a `PolicyServerConfig` and stumble over any other key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from wam.robot.embodiment import Embodiment
from wam.serve.dialects import openpi
from wam.serve.errors import bad_request
from wam.serve.request import Answer, Infer, Reset
from wam.serve.robot_keys import RobotKeys
from wam_client.wire import packb

RESET_DONE = "reset successful"
ACTION_SPACES = ("joint_position", "joint_velocity", "cartesian_position", "cartesian_velocity")
DROID_RESOLUTION = (180, 320)  # of the pictures that RoboArena's clients send


def is_roboarena(request: Mapping[str, Any]) -> bool:
    """Whether this request wants RoboArena's kind of answer."""
    return "endpoint" in request


def read(request: Mapping[str, Any], keys: RobotKeys) -> Infer | Reset:
    """Raises ServeError (BadRequest) naming the key."""
    endpoint = request["endpoint"] if isinstance(request["endpoint"], str) else None
    if endpoint == "reset":
        return Reset(openpi.who(request), openpi.seed(request))
    if endpoint != "infer":
        raise bad_request(f"'endpoint': found {str(request['endpoint'])[:80]!r}, expected 'infer' or 'reset'")
    return openpi.read(request, keys)


def write(answer: Answer) -> bytes:
    return packb(np.ascontiguousarray(answer.actions[: answer.execute]))


def server_config(robot: Embodiment) -> dict[str, Any]:
    """The fields of a `PolicyServerConfig`, in its order. action_space is None where RoboArena has no word for it."""
    external = [camera for camera in robot.cameras if "wrist" not in camera and "hand" not in camera]
    return {
        "image_resolution": _resolution(robot),
        "needs_wrist_camera": len(external) < len(robot.cameras),
        "n_external_cameras": len(external),
        "needs_stereo_camera": False,
        "needs_session_id": True,
        "action_space": next((part.name for part in robot.action if part.name in ACTION_SPACES), None),
    }


def can_play(robot: Embodiment) -> bool:
    """Whether RoboArena's clients, which have a DROID, can be served by this robot's model."""
    parts = {part.name: len(part.dims) for part in robot.state}
    return parts == {"joint_position": 7, "gripper_position": 1} and robot.action_dim == 8


def _resolution(robot: Embodiment) -> tuple[int, int] | None:
    """Height and width of the pictures to send; None: any size will do."""
    if can_play(robot):
        return DROID_RESOLUTION
    return (robot.view_height, robot.view_width) if robot.crop is None else None
