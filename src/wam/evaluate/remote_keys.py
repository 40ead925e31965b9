"""How a policy server calls what a robot sees, feels and does: a small YAML file, or what its dialect usually says.

    images: {observation/image: image, observation/wrist_image: wrist_image}    # request key: camera of the robot
    image_size: [224, 224]              # resized with black borders; left out: as the robot's cameras deliver them
    state: {observation/state: [x, y, z, finger_left]}                          # request key: dimensions of the robot
    prompt: prompt
    actions: [0, 1, 2, {column: 3, above: 0.5, scale: 2, offset: -1}]           # per dimension of the robot's action
    execute: 8                          # control steps of every chunk

`scale * x + offset` of a column of the server's actions; with `above`, x is first 1 above that and 0 below.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from wam.data.files import read_yaml
from wam.robot.embodiment import Embodiment
from wam.robot.observation import Image, Observation

OPENPI_SIZE = (224, 224)


@dataclass(frozen=True)
class Column:
    """Where a dimension of the robot's action comes from, see the text above."""

    column: int
    scale: float = 1.0
    offset: float = 0.0
    above: float | None = None

    def of(self, actions: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(N, width of the server) -> (N,)."""
        x = actions[:, self.column]
        x = x if self.above is None else (x > self.above).astype(np.float32)
        return np.asarray(self.scale * x + self.offset, dtype=np.float32)


@dataclass(frozen=True)
class RemoteKeys:
    """The mapping for one server; fields as in the YAML file."""

    images: Mapping[str, str]
    state: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prompt: str = "prompt"
    image_size: tuple[int, int] | None = None
    actions: tuple[Column, ...] = ()
    execute: int | None = None

    def observation(self, look: Observation, robot: Embodiment) -> dict[str, Any]:
        """A request of one frame."""
        pictures = {key: self._sized(look.images[camera]) for key, camera in self.images.items()}
        place = {name: index for index, name in enumerate(robot.state_names)}
        state = np.asarray(look.state, dtype=np.float32)
        vectors = {key: state[[place[name] for name in names]] for key, names in self.state.items()}
        return {**pictures, **vectors, self.prompt: look.instruction}

    def robot_actions(self, actions: npt.NDArray[np.float32], robot: Embodiment) -> npt.NDArray[np.float32]:
        """(N, width of the server) -> (N, A). Raises ValueError when the server's actions are too narrow."""
        columns = self.actions or tuple(Column(index) for index in range(robot.action_dim))
        needed = 1 + max(column.column for column in columns)
        if actions.shape[1] < needed or (not self.actions and actions.shape[1] != robot.action_dim):
            raise ValueError(
                f"the server's actions have {actions.shape[1]} columns, robot {robot.name!r} has {robot.action_dim} "
                f"dimensions {list(robot.action_names)}; say in the --keys file which column is which ('actions')"
            )
        return np.stack([column.of(actions) for column in columns], axis=1)

    def check(self, robot: Embodiment, source: str) -> RemoteKeys:
        """The same. Raises ValueError naming a camera or a dimension that the robot does not have."""
        for key, camera in self.images.items():
            if camera not in robot.cameras:
                raise ValueError(
                    f"{source}: images: {key!r} is camera {camera!r}, robot {robot.name!r} has {robot.cameras}"
                )
        for key, names in self.state.items():
            unknown = [name for name in names if name not in robot.state_names]
            if unknown:
                raise ValueError(
                    f"{source}: state: {key!r} has dimension {unknown[0]!r}, robot {robot.name!r} has "
                    f"{list(robot.state_names)}"
                )
        if self.actions and len(self.actions) != robot.action_dim:
            raise ValueError(
                f"{source}: actions: {len(self.actions)} columns, robot {robot.name!r} has {robot.action_dim} "
                f"dimensions {list(robot.action_names)}"
            )
        return self

    def _sized(self, picture: Image) -> Image:
        return picture if self.image_size is None else resize_with_pad(picture, *self.image_size)


def read_keys(path: Path) -> RemoteKeys:
    """Raises ValueError naming an unknown field, or one of another form than expected."""
    fields = read_yaml(path)
    known = {f.name for f in dataclasses.fields(RemoteKeys)}
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: found {type(fields).__name__}, expected fields such as 'images' and 'state'")
    unknown = sorted(set(fields) - known)
    if unknown:
        raise ValueError(f"{path}: unknown field {unknown[0]!r}; known fields are {sorted(known)}")
    if "images" not in fields:
        raise ValueError(f"{path}: field 'images' is missing; it says which request key is which camera")
    try:
        return RemoteKeys(
            images={str(key): str(camera) for key, camera in fields["images"].items()},
            state={str(key): tuple(map(str, names)) for key, names in (fields.get("state") or {}).items()},
            prompt=str(fields.get("prompt", "prompt")),
            image_size=None if fields.get("image_size") is None else _two(fields["image_size"]),
            actions=tuple(_column(entry) for entry in fields.get("actions") or ()),
            execute=None if fields.get("execute") is None else int(fields["execute"]),
        )
    except (TypeError, ValueError, AttributeError) as problem:
        raise ValueError(f"{path}: {problem}; see `wam.evaluate.remote_keys` for the form of this file") from problem


# ---------------------------------------------------------------- what the dialects usually say


def openpi_keys(robot: Embodiment, metadata: Mapping[str, Any]) -> RemoteKeys:
    """`observation/<camera>`, `observation/<part of the state>` and `observation/state`, as for DROID and LIBERO."""
    size = metadata.get("image_resolution", OPENPI_SIZE)
    return RemoteKeys(
        images={f"observation/{camera}": camera for camera in robot.cameras},
        state={
            "observation/state": robot.state_names,
            **{f"observation/{part.name}": part.dims for part in robot.state},
        },
        image_size=None if size is None else _two(size),
        execute=metadata.get("execute", metadata.get("horizon")),
    )


def roboarena_keys(robot: Embodiment, config: Mapping[str, Any]) -> RemoteKeys:
    """The cameras and the size that the server's `PolicyServerConfig` asks for.

    Raises ValueError when the robot lacks cameras, or is not moved the way that the server acts.
    """
    external = [camera for camera in robot.cameras if "wrist" not in camera and "hand" not in camera]
    wrist = [camera for camera in robot.cameras if camera not in external]
    wanted = int(config.get("n_external_cameras", len(external)))
    needs_wrist = bool(config.get("needs_wrist_camera", bool(wrist)))
    if len(external) < wanted or (needs_wrist and not wrist):
        raise ValueError(
            f"the server needs {wanted} external cameras{' and one at the wrist' if needs_wrist else ''}, robot "
            f"{robot.name!r} has {external} and {wrist}; say in a --keys file which camera is which"
        )
    space = config.get("action_space")
    if space is not None and space not in [part.name for part in robot.action]:
        raise ValueError(
            f"the server acts in {space!r}, robot {robot.name!r} in {[part.name for part in robot.action]}; say in a "
            "--keys file which column of its actions is which dimension"
        )
    images = {f"observation/exterior_image_{i}_left": external[i] for i in range(wanted)}
    if needs_wrist:
        images["observation/wrist_image_left"] = wrist[0]
    size = config.get("image_resolution")
    return RemoteKeys(
        images=images,
        state={f"observation/{part.name}": part.dims for part in robot.state},
        image_size=None if size is None else _two(size),
    )


def gr00t_keys(robot: Embodiment, modalities: Mapping[str, Sequence[str]]) -> RemoteKeys:
    """The robot's own names, `video.<camera>` and `state.<part>`, which have to be those of the server.

    modalities: of the server, "video" -> its cameras, ...  Raises ValueError naming what the robot does not have.
    """
    parts = {part.name: part.dims for part in robot.state}
    cameras = modalities.get("video", robot.cameras)
    states = modalities.get("state", tuple(parts))
    for name, there, kind in [(n, robot.cameras, "camera") for n in cameras] + [(n, parts, "state") for n in states]:
        if name not in there:
            raise ValueError(
                f"the server needs {kind} {name!r}, robot {robot.name!r} has {sorted(there)}; say in a --keys file "
                f"which one it is: images: {{video.{name}: ...}}, state: {{state.{name}: [...]}}"
            )
    return RemoteKeys(
        images={f"video.{camera}": camera for camera in cameras},
        state={f"state.{part}": parts[part] for part in states},
        prompt=f"language.{next(iter(modalities.get('language', ())), 'annotation.human.task_description')}",
    )


# ---------------------------------------------------------------- pictures and pieces


def resize_with_pad(picture: Image, height: int, width: int) -> Image:
    """As clients of openpi do: as large as fits, bilinear, in the middle of black borders."""
    if picture.shape[:2] == (height, width):
        return picture
    ratio = max(picture.shape[1] / width, picture.shape[0] / height)
    inner = int(picture.shape[1] / ratio), int(picture.shape[0] / ratio)  # width, height
    small = np.asarray(PillowImage.fromarray(picture).resize(inner, resample=PillowImage.Resampling.BILINEAR))
    padded = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = max(0, int((height - inner[1]) / 2)), max(0, int((width - inner[0]) / 2))
    padded[top : top + inner[1], left : left + inner[0]] = small
    return padded


def _two(value: Any) -> tuple[int, int]:
    height, width = value
    return int(height), int(width)


def _column(entry: Any) -> Column:
    return Column(**entry) if isinstance(entry, dict) else Column(int(entry))
