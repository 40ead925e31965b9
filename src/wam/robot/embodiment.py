"""The embodiment: everything that wam has to know about one robot, in one file.

A YAML file (see the ones in `embodiments/`) names cameras and their places on the canvas, the parts of the state and
the action with the data-set columns that they come from, rates, the chunk, the prompt and how numbers are scaled. A
new robot touches nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from wam.encoders import FRAMES_PER_LATENT

SHIPPED = Path(__file__).parent / "embodiments"
IMAGE_PREFIX = "observation.images."


class EmbodimentError(ValueError):
    """An embodiment file with an unknown, missing or contradictory field."""


@dataclass(frozen=True)
class Part:
    """A run of dimensions of the state or the action under one name, such as the seven joints of an arm.

    key: column of the data set; None = "observation.state" or "action".  start: where the run begins in that column;
    None = behind the part before it.
    relative: an action that the model knows as its difference to the state part of the same name at the chunk's start.
    gripper: (raw value when open, raw value when closed); the model knows 0 = open, 1 = closed. None: not a gripper, or
    left as it is.
    """

    name: str
    dims: tuple[str, ...]
    key: str | None = None
    start: int | None = None
    relative: bool = False
    gripper: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Only what differs from the defaults."""
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        usual = {f.name: f.default for f in dataclasses.fields(self)}
        return {name: value for name, value in given.items() if value != usual[name]}  # a start of 0 is none of them

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], source: str) -> Part:
        """`dims` may be a number: then the dimensions are called after the part."""
        values = dict(_known(cls, fields, source))
        dims, gripper = values["dims"], values.get("gripper")
        if isinstance(dims, int):
            dims = [values["name"]] if dims == 1 else [f"{values['name']}_{i}" for i in range(dims)]
        values["dims"] = tuple(dims)
        values["gripper"] = None if gripper is None else (float(gripper[0]), float(gripper[1]))
        return cls(**values)


def indexed(parts: tuple[Part, ...]) -> list[tuple[Part, range]]:
    """Every part with the places of its dimensions in the vector."""
    placed, start = [], 0
    for part in parts:
        placed.append((part, range(start, start + len(part.dims))))
        start += len(part.dims)
    return placed


@dataclass(frozen=True)
class Moments:
    """Mean, standard deviation, 1 % and 99 % quantile of every dimension, in the units that are scaled.

    Empty where nobody measured them, as long as the embodiment's normalisation does not need them.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    q01: tuple[float, ...] = ()
    q99: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], source: str) -> Moments:
        return cls(**{name: tuple(map(float, values)) for name, values in _known(cls, fields, source).items()})


@dataclass(frozen=True)
class Statistics:
    """Of states, and of actions (or differences, where relative), in the data that the model learned from."""

    state: Moments
    action: Moments

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], source: str) -> Statistics:
        parts = _known(cls, fields, source)
        return cls(**{name: Moments.from_dict(part, f"{source}.{name}") for name, part in parts.items()})


@dataclass(frozen=True)
class Embodiment:
    """One robot.

    A *raw frame* is taken every `video_stride` control steps, a *latent frame* stands for 4 raw frames, and a *chunk*
    is `frames_per_chunk` latent frames together with the `actions_per_chunk` actions executed meanwhile. Hence
    `actions_per_chunk == frames_per_chunk * 4 * video_stride`.

    canvas: rows of camera names; a name in neighbouring cells is stretched over them, None leaves a cell black.
    view_height, view_width: pixels of one cell.  crop: pictures of any size are cut to this share around their middle
    and resized to a cell; None = the cameras deliver cells.
    lower_case: whether instructions enter the prompt in lower case.
    camera_keys: the data-set feature of each camera; empty = "observation.images.<camera>".
    state_width, action_width: the model's vectors, padded with zeros; None = no padding.
    normalization: "mean_std" to zero mean and unit deviation, "quantiles" q01 and q99 to -1 and 1, cut off beyond.
    """

    name: str
    cameras: tuple[str, ...]
    canvas: tuple[tuple[str | None, ...], ...]
    view_height: int
    view_width: int
    state: tuple[Part, ...]
    action: tuple[Part, ...]
    control_hz: float
    video_stride: int
    actions_per_chunk: int
    frames_per_chunk: int = 1
    prompt_template: str = "{instruction}"
    lower_case: bool = False
    camera_keys: tuple[str, ...] = ()
    crop: float | None = None
    state_width: int | None = None
    action_width: int | None = None
    normalization: Literal["mean_std", "quantiles"] = "mean_std"
    statistics: Statistics | None = None

    def __post_init__(self) -> None:
        _check_cameras(self)
        _check_chunk(self)
        _check_vectors(self)

    # ---------------------------------------------------------------- numbers that follow

    @property
    def state_names(self) -> tuple[str, ...]:
        return tuple(name for part in self.state for name in part.dims)

    @property
    def action_names(self) -> tuple[str, ...]:
        return tuple(name for part in self.action for name in part.dims)

    @property
    def state_dim(self) -> int:
        return len(self.state_names)

    @property
    def action_dim(self) -> int:
        return len(self.action_names)

    @property
    def canvas_height(self) -> int:
        return self.view_height * len(self.canvas)

    @property
    def canvas_width(self) -> int:
        return self.view_width * len(self.canvas[0])

    @property
    def chunk_seconds(self) -> float:
        return self.actions_per_chunk / self.control_hz

    def camera_key(self, camera: str) -> str:
        """The data-set feature of a camera."""
        return self.camera_keys[self.cameras.index(camera)] if self.camera_keys else IMAGE_PREFIX + camera

    def prompt(self, instruction: str) -> str:
        """The sentence that the text encoder reads."""
        return self.prompt_template.replace("{instruction}", instruction.lower() if self.lower_case else instruction)

    # ---------------------------------------------------------------- on disk

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, without what is left at its default."""
        plain: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.default is dataclasses.MISSING or value != field.default:
                plain[field.name] = _plain(value)
        return plain

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], source: str = "embodiment") -> Embodiment:
        """Build from plain lists and numbers; unknown, missing or contradictory fields are named."""
        values = dict(_known(cls, fields, source))
        values["cameras"] = tuple(values["cameras"])
        values["canvas"] = tuple(tuple(row) for row in values["canvas"])
        for name in ("state", "action"):
            values[name] = tuple(Part.from_dict(part, f"{source}: {name}") for part in values[name])
        values["camera_keys"] = tuple(values.get("camera_keys", ()))
        if values.get("statistics") is not None:
            values["statistics"] = Statistics.from_dict(values["statistics"], f"{source}: statistics")
        return cls(**values)

    def to_yaml(self, path: Path) -> None:
        Path(path).write_text(yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=120))

    @classmethod
    def from_yaml(cls, path: Path) -> Embodiment:
        return cls.from_dict(yaml.safe_load(Path(path).read_text()), source=str(path))


def load_embodiment(name: str | Path) -> Embodiment:
    """A YAML file, or the name of a shipped robot. Raises EmbodimentError naming what there is."""
    path = Path(name) if Path(name).suffix in {".yaml", ".yml"} else SHIPPED / f"{name}.yaml"
    if not path.is_file():
        shipped = sorted(file.stem for file in SHIPPED.glob("*.yaml"))
        raise EmbodimentError(f"embodiment {str(name)!r}: no such file, and no shipped robot of that name: {shipped}")
    return Embodiment.from_yaml(path)


# ---------------------------------------------------------------- checks


def _check_cameras(e: Embodiment) -> None:
    placed = {camera for row in e.canvas for camera in row if camera is not None}
    if placed != set(e.cameras) or len(set(e.cameras)) != len(e.cameras):
        raise EmbodimentError(
            f"embodiment {e.name!r}: field 'canvas' places cameras {sorted(placed)}, but field 'cameras' lists "
            f"{sorted(e.cameras)}; place every camera in the canvas"
        )
    if len({len(row) for row in e.canvas}) != 1:
        raise EmbodimentError(
            f"embodiment {e.name!r}: field 'canvas' has rows of different lengths; fill empty cells with null"
        )
    for camera in e.cameras:
        cells = [(i, j) for i, row in enumerate(e.canvas) for j, cell in enumerate(row) if cell == camera]
        if cells != [(cells[0][0], cells[0][1] + i) for i in range(len(cells))]:
            raise EmbodimentError(
                f"embodiment {e.name!r}: field 'canvas' tears camera {camera!r} apart: a camera fills neighbouring "
                "cells of one row"
            )
    if e.camera_keys and len(e.camera_keys) != len(e.cameras):
        raise EmbodimentError(
            f"embodiment {e.name!r}: field 'camera_keys' has {len(e.camera_keys)} entries for {len(e.cameras)} cameras"
        )
    if e.crop is not None and not 0 < e.crop <= 1:
        raise EmbodimentError(f"embodiment {e.name!r}: field 'crop' is {e.crop}, expected a share in (0, 1]")


def _check_chunk(e: Embodiment) -> None:
    expected = e.frames_per_chunk * FRAMES_PER_LATENT * e.video_stride
    if e.actions_per_chunk != expected:
        raise EmbodimentError(
            f"embodiment {e.name!r}: field 'actions_per_chunk' is {e.actions_per_chunk}, but frames_per_chunk x "
            f"{FRAMES_PER_LATENT} x video_stride = {expected}; the video and the actions of a chunk must last equally "
            "long"
        )
    if "{instruction}" not in e.prompt_template:
        raise EmbodimentError(
            f"embodiment {e.name!r}: field 'prompt_template' is {e.prompt_template!r}; it must contain "
            "'{instruction}'"
        )


def _check_vectors(e: Embodiment) -> None:
    states = {part.name: len(part.dims) for part in e.state}
    for vector, parts in (("state", e.state), ("action", e.action)):
        names = [part.name for part in parts]
        if len(set(names)) != len(names):
            raise EmbodimentError(f"embodiment {e.name!r}: field {vector!r} names a part twice: {names}")
        width, needed = getattr(e, f"{vector}_width"), sum(len(part.dims) for part in parts)
        if width is not None and width < needed:
            raise EmbodimentError(
                f"embodiment {e.name!r}: field '{vector}_width' is {width}, but its parts have {needed} dimensions"
            )
        for name in ("q01", "q99") if e.normalization == "quantiles" else ("mean", "std"):
            values = None if e.statistics is None else getattr(getattr(e.statistics, vector), name)
            if values is not None and len(values) != needed:
                raise EmbodimentError(
                    f"embodiment {e.name!r}: field 'statistics.{vector}.{name}' has {len(values)} dimensions, the "
                    f"{vector} has {needed}"
                )
    for part in e.action:
        if part.relative and states.get(part.name) != len(part.dims):
            raise EmbodimentError(
                f"embodiment {e.name!r}: action {part.name!r} is relative, but the state has no part of that name with "
                f"{len(part.dims)} dimensions; found {states}"
            )
    if e.normalization not in ("mean_std", "quantiles"):
        raise EmbodimentError(
            f"embodiment {e.name!r}: field 'normalization' is {e.normalization!r}, expected 'mean_std' or 'quantiles'"
        )


def _known(cls: type, fields: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """The fields, once it is certain that none is unknown or missing."""
    known = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise EmbodimentError(f"{source}: unknown field {unknown[0]!r}; known fields are {sorted(known)}")
    missing = [name for name, f in known.items() if f.default is dataclasses.MISSING and name not in fields]
    if missing:
        raise EmbodimentError(f"{source}: field {missing[0]!r} is missing")
    return fields


def _plain(value: Any) -> Any:
    """Tuples become lists and dataclasses mappings, so that the YAML file needs no Python tags."""
    if isinstance(value, Part):
        return {name: _plain(entry) for name, entry in value.to_dict().items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


METAWORLD_SAWYER = load_embodiment("metaworld-sawyer")
