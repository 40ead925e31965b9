"""How clients call what a robot sees and feels: from the keys of a request to its cameras and its state.

Derived from the robot's embodiment file; of a camera `top` and a state part `hand`:

    observation/images/top, observation/top, observation.images.top     uint8 (H, W, 3), or (T, H, W, 3), oldest first
    observation/state, observation.state                                (S,), or (T, S), all parts in order
    observation/hand, ... for every part of the state                   the same, part by part
    prompt                                                              a sentence

That covers openpi's keys of LIBERO, and of DROID (`observation/joint_position`, `observation/gripper_position`, and
exterior cameras counted from 1). RoboArena counts them from 0; a request with a camera 0 is read that way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from wam.robot.embodiment import Embodiment
from wam.serve.errors import bad_request
from wam.serve.request import Seen, Video

MissingCamera = Literal["error", "black", "duplicate"]
"""What to do about a request without one of the cameras: refuse it, show black, or show another camera twice."""

# RoboArena's exterior cameras, counted from 0, and DROID's own names for them
COUNTED_FROM_0 = {
    "observation/exterior_image_0_left": "exterior_image_1_left",
    "observation/exterior_image_1_left": "exterior_image_2_left",
}
# sent by DROID clients, needed by no policy that can be served here
NOT_NEEDED = frozenset(
    {
        "observation/cartesian_position",
        "observation/cartesian_velocity",
        "observation/joint_velocity",
        "observation/wrist_image_right",
        *(f"observation/exterior_image_{i}_right" for i in range(3)),
    }
)
MAX_PROMPT = 2000  # characters


@dataclass(frozen=True)
class RobotKeys:
    """Reads the observation of one robot."""

    robot: Embodiment
    missing_camera: MissingCamera = "error"

    def read(self, request: Mapping[str, Any]) -> tuple[Seen, set[str], list[str]]:
        """What was seen, the keys that say it, and notes about what had to be assumed.

        Raises ServeError (BadRequest) naming the key that is missing or malformed.
        """
        names = self.camera_names(request)
        images = {camera: _video(key, request[key]) for camera, key in names.items()}
        used, notes = set(names.values()), self._fill(images, request)
        self._check(images, names)
        state, keys = self._state(request)
        used |= keys | {"prompt"}
        seen = Seen(images, state, _prompt(request), _times(request, images, self.robot.control_hz))
        return seen, used | (NOT_NEEDED & request.keys()), notes

    def camera_names(self, request: Mapping[str, Any]) -> dict[str, str]:
        """Camera -> the key of the request that shows it, for those that are there."""
        if "observation/exterior_image_0_left" in request:
            zero = {camera: key for key, camera in COUNTED_FROM_0.items() if camera in self.robot.cameras}
        else:
            zero = {}
        found = {}
        for camera in self.robot.cameras:
            keys = [zero[camera]] if camera in zero else self.keys_of(camera)
            there = [key for key in keys if key in request]
            if there:
                found[camera] = there[0]
        return found

    def keys_of(self, camera: str) -> list[str]:
        """The names that a camera has in requests, the preferred one first."""
        return [f"observation/images/{camera}", f"observation/{camera}", self.robot.camera_key(camera)]

    def _fill(self, images: dict[str, Video], request: Mapping[str, Any]) -> list[str]:
        """Stand in for cameras that are not there, if that is allowed."""
        missing = [camera for camera in self.robot.cameras if camera not in images]
        if missing and (self.missing_camera == "error" or not images):
            keys = " or ".join(repr(key) for key in self.keys_of(missing[0]))
            raise bad_request(
                f"camera {missing[0]!r} of {self.robot.name!r} is missing: expected {keys}; found "
                f"{_some_keys(request)}. A server started with --missing-camera black or duplicate does without"
            )
        if missing:
            shown = next(iter(images.values()))
            images.update({c: np.zeros_like(shown) if self.missing_camera == "black" else shown for c in missing})
        return [f"camera {camera!r} is missing, {self.missing_camera} shown instead" for camera in missing]

    def _check(self, images: Mapping[str, Video], names: Mapping[str, str]) -> None:
        counts = {names.get(camera, camera): len(video) for camera, video in images.items()}
        if len(set(counts.values())) > 1:
            raise bad_request(f"cameras show different numbers of frames: {counts}; send as many of each")
        if self.robot.crop is None:
            cell = (self.robot.view_height, self.robot.view_width)
            for camera, video in images.items():
                if video.shape[1:3] != cell:
                    raise bad_request(
                        f"{names.get(camera, camera)!r}: found pictures of {video.shape[1]} x {video.shape[2]}, "
                        f"{self.robot.name!r} needs {cell[0]} x {cell[1]} (height x width); resize them before sending"
                    )

    def _state(self, request: Mapping[str, Any]) -> tuple[npt.NDArray[np.float32], set[str]]:
        """The present state (S,) and the keys that say it."""
        for key in ("observation/state", "observation.state"):
            if key in request:
                return _numbers(key, request[key], self.robot.state_dim, self.robot.state_names), {key}
        parts, keys = [], set()
        for part in self.robot.state:
            key = f"observation/{part.name}"
            if key not in request:
                raise bad_request(
                    f"the state of {self.robot.name!r} is missing: expected 'observation/state' with "
                    f"{self.robot.state_dim} numbers, or {[f'observation/{p.name}' for p in self.robot.state]} (not "
                    f"there: {key!r}); found {_some_keys(request)}"
                )
            parts.append(_numbers(key, request[key], len(part.dims), part.dims))
            keys.add(key)
        return np.concatenate(parts), keys


def _video(key: str, value: Any) -> Video:
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8:
        found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise bad_request(f"{key!r}: found {found}, expected uint8 (height, width, 3) or (frames, height, width, 3)")
    video = value[None] if value.ndim == 3 else value
    if video.ndim != 4 or video.shape[3] != 3 or 0 in video.shape:
        raise bad_request(
            f"{key!r}: found uint8 {value.shape}, expected (height, width, 3) or (frames, height, width, 3)"
        )
    return video


def _numbers(key: str, value: Any, width: int, names: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """The last of one or several vectors, (width,)."""
    array = _array(key, value)
    vector = array[-1] if array.ndim == 2 and len(array) else array.reshape(-1) if array.ndim == 0 else array
    if vector.shape != (width,):
        raise bad_request(f"{key!r}: found shape {array.shape}, expected ({width},) = {list(names)}")
    if not np.isfinite(vector).all():
        raise bad_request(f"{key!r}: not finite in {vector.tolist()}; check the robot's sensors")
    return vector


def _array(key: str, value: Any) -> npt.NDArray[np.float32]:
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        raise bad_request(f"{key!r}: found {type(value).__name__}, expected numbers")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _prompt(request: Mapping[str, Any]) -> str:
    prompt = request.get("prompt")
    if isinstance(prompt, np.ndarray) and prompt.size == 1 and prompt.dtype.kind == "U":
        prompt = str(prompt.item())
    if not isinstance(prompt, str):
        raise bad_request(f"'prompt': found {type(prompt).__name__}, expected the sentence that the robot shall follow")
    if len(prompt) > MAX_PROMPT:
        raise bad_request(f"'prompt': {len(prompt)} characters, at most {MAX_PROMPT} are taken")
    return str(prompt)


def _times(
    request: Mapping[str, Any], images: Mapping[str, Video], control_hz: float
) -> npt.NDArray[np.float64] | None:
    """Seconds of every frame, from `timestamp_s` or from `observation_index` (control steps); None without both."""
    key, unit = ("timestamp_s", 1.0) if "timestamp_s" in request else ("observation_index", control_hz)
    if request.get(key) is None:
        return None
    try:
        times = np.asarray(request[key], np.float64).reshape(-1) / unit
    except (TypeError, ValueError):
        times = np.empty(0)
    count = len(next(iter(images.values())))
    if times.shape != (count,) or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise bad_request(f"{key!r}: found {times.tolist()[:8]}, expected {count} increasing number(s), one per frame")
    return times


def _some_keys(request: Mapping[str, Any]) -> list[str]:
    keys = sorted(str(key)[:60] for key in request)
    return keys if len(keys) <= 12 else [*keys[:12], f"... {len(keys)} in all"]
