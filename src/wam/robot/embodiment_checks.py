"""What the fields of an embodiment may be: their types as they come from a file, and their ranges.

People write these files by hand, so every fault is an `EmbodimentError` that names the field.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from wam.encoders import FRAMES_PER_LATENT

if TYPE_CHECKING:
    from wam.robot.embodiment import Embodiment, Part

T = TypeVar("T")
SAID: Mapping[Any, str] = {
    str: "text (in quotes if it looks like a number or a yes)",
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
}


class EmbodimentError(ValueError):
    """An embodiment file with an unknown, missing or contradictory field."""


# ---------------------------------------------------------------- types


def from_fields(cls: type[T], fields: object, source: str, path: str = "") -> T:
    """A dataclass from the plain lists and numbers of a file.

    Args:
        cls: its annotations say what every field must be; a dataclass among them has a `from_dict` like this.
        fields: name -> value.
        source: the file.
        path: where in it: "state[0]".

    Raises:
        EmbodimentError: a field is unknown, missing, of another type or, says `cls`, out of its range.
    """
    if not isinstance(fields, Mapping):
        where = f"field {path!r} is" if path else "found"
        raise EmbodimentError(f"{source}: {where} {fields!r}, expected fields with names and values")
    known = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(map(str, set(fields) - set(known)))
    if unknown:
        raise EmbodimentError(f"{source}: unknown field {_at(path, unknown[0])!r}; known fields are {sorted(known)}")
    missing = [name for name, f in known.items() if f.default is dataclasses.MISSING and name not in fields]
    if missing:
        raise EmbodimentError(f"{source}: field {_at(path, missing[0])!r} is missing")
    types = get_type_hints(cls)
    values = {name: _typed(value, types[name], source, _at(path, name)) for name, value in fields.items()}
    try:
        return cls(**values)
    except EmbodimentError as error:  # of ranges, which know no file
        raise EmbodimentError(f"{source}: {error}") from None


def _typed(value: Any, kind: Any, source: str, path: str) -> Any:
    """A value as the type that it is declared to be: lists become tuples."""
    choices = get_args(kind)
    if get_origin(kind) is UnionType:
        kind = next(choice for choice in choices if choice is not NoneType)
        return None if value is None else _typed(value, kind, source, path)
    if hasattr(kind, "from_dict"):
        return kind.from_dict(value, source, path)
    if get_origin(kind) is tuple:
        if isinstance(value, list | tuple) and (choices[-1] is Ellipsis or len(choices) == len(value)):
            return tuple(_typed(item, choices[0], source, f"{path}[{i}]") for i, item in enumerate(value))
    elif get_origin(kind) is Literal:
        if value in choices:
            return value
    elif kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    elif isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
        return value
    raise EmbodimentError(f"{source}: field {path!r} is {value!r}, expected {_said(kind)}")


def _said(kind: Any) -> str:
    """A type in words."""
    choices = get_args(kind)
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, choices))
    if get_origin(kind) is tuple:
        return "a list" if choices[-1] is Ellipsis else f"a list of {len(choices)} numbers"
    return SAID[kind]


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


# ---------------------------------------------------------------- ranges


def check_part(part: Part) -> None:
    """Raises EmbodimentError."""
    where = f"part {part.name!r}: field"
    twice = [name for name, often in Counter(part.dims).items() if often > 1]
    if twice or not part.dims:
        found = f"names {twice[0]!r} twice" if twice else "names no dimension"
        raise EmbodimentError(f"{where} 'dims' {found}; give every dimension a name of its own, or their number")
    if part.start is not None and part.start < 0:
        raise EmbodimentError(f"{where} 'start' is {part.start}, expected the number of a dimension, from 0 on")
    if part.gripper is not None and part.gripper[0] == part.gripper[1]:
        raise EmbodimentError(
            f"{where} 'gripper' is {list(part.gripper)}, expected two different raw values: when open, when closed"
        )


def check_numbers(e: Embodiment) -> None:
    """Sizes, rates and shares. Raises EmbodimentError."""
    for name in ("view_height", "view_width", "video_stride", "actions_per_chunk", "frames_per_chunk"):
        if getattr(e, name) < 1:
            raise EmbodimentError(f"embodiment {e.name!r}: field {name!r} is {getattr(e, name)}, expected at least 1")
    if not 0 < e.control_hz < math.inf:
        raise EmbodimentError(
            f"embodiment {e.name!r}: field 'control_hz' is {e.control_hz}, expected control steps per second above 0"
        )
    if e.crop is not None and not 0 < e.crop <= 1:
        raise EmbodimentError(f"embodiment {e.name!r}: field 'crop' is {e.crop}, expected a share in (0, 1]")


def check_cameras(e: Embodiment) -> None:
    """Every camera has one place in the canvas. Raises EmbodimentError."""
    if not e.cameras:
        raise EmbodimentError(f"embodiment {e.name!r}: field 'cameras' is empty, but a model learns from video")
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


def check_chunk(e: Embodiment) -> None:
    """Video and actions of a chunk last equally long, and its prompt holds the instruction. Raises EmbodimentError."""
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


def check_vectors(e: Embodiment) -> None:
    """Parts, widths and statistics of state and action fit each other. Raises EmbodimentError."""
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
