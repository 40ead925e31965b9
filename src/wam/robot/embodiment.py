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

from wam.robot.embodiment_checks import EmbodimentError as EmbodimentError
from wam.robot.embodiment_checks import (
    check_cameras,
    check_chunk,
    check_numbers,
    check_part,
    check_vectors,
    from_fields,
)

SHIPPED = Path(__file__).parent / "embodiments"
IMAGE_PREFIX = "observation.images."
"""Of the data-set features that hold a camera's pictures, before its name."""


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

    def __post_init__(self) -> None:
        check_part(self)

    def to_dict(self) -> dict[str, Any]:
        """Only what differs from the defaults."""
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        usual = {f.name: f.default for f in dataclasses.fields(self)}
        return {name: value for name, value in given.items() if value != usual[name]}  # a start of 0 is none of them

    @classmethod
    def from_dict(cls, fields: Any, source: str, path: str = "") -> Part:
        """`dims` may be a number: then the dimensions are called after the part. Raises as `Embodiment.from_dict`."""
        if isinstance(fields, Mapping) and type(dims := fields.get("dims")) is int:
            name = fields.get("name")
            fields = {**fields, "dims": [name] if dims == 1 else [f"{name}_{i}" for i in range(dims)]}
        return from_fields(cls, fields, source, path)


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
    def from_dict(cls, fields: Any, source: str, path: str = "") -> Moments:
        return from_fields(cls, fields, source, path)


@dataclass(frozen=True)
class Statistics:
    """Of states, and of actions (or differences, where relative), in the data that the model learned from."""

    state: Moments
    action: Moments

    @classmethod
    def from_dict(cls, fields: Any, source: str, path: str = "") -> Statistics:
        return from_fields(cls, fields, source, path)


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
        check_numbers(self)
        check_cameras(self)
        check_chunk(self)
        check_vectors(self)

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
    def from_dict(cls, fields: Any, source: str = "embodiment") -> Embodiment:
        """Build from plain lists and numbers.

        Raises:
            EmbodimentError: a field is unknown, missing, of another type, out of its range or contradicts another.
        """
        return from_fields(cls, fields, source)

    def to_yaml(self, path: Path) -> None:
        Path(path).write_text(yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=120))

    @classmethod
    def from_yaml(cls, path: Path) -> Embodiment:
        """Raises as `from_dict`, and EmbodimentError for a file that is not valid YAML."""
        return cls.from_text(Path(path).read_text(encoding="utf-8"), source=str(path))

    @classmethod
    def from_text(cls, text: str, source: str) -> Embodiment:
        """From the content of a YAML file. Raises as `from_yaml`."""
        try:
            fields = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise EmbodimentError(f"{source}: not valid YAML, correct it: {error}") from error
        return cls.from_dict(fields, source)


def load_embodiment(name: str | Path) -> Embodiment:
    """A YAML file, or the name of a shipped robot. Raises EmbodimentError naming what there is, or what is wrong."""
    return Embodiment.from_yaml(embodiment_file(name))


def embodiment_file(name: str | Path) -> Path:
    """The file that `load_embodiment` reads. Raises EmbodimentError naming what there is."""
    path = Path(name) if Path(name).suffix in {".yaml", ".yml"} else SHIPPED / f"{name}.yaml"
    if not path.is_file():
        shipped = sorted(file.stem for file in SHIPPED.glob("*.yaml"))
        raise EmbodimentError(f"embodiment {str(name)!r}: no such file, and no shipped robot of that name: {shipped}")
    return path


def _plain(value: Any) -> Any:
    """Tuples become lists and dataclasses mappings, so that the YAML file needs no Python tags."""
    if isinstance(value, Part):
        return {name: _plain(entry) for name, entry in value.to_dict().items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


METAWORLD_SAWYER = load_embodiment("metaworld-sawyer")
