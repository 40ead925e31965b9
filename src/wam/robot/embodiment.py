"""The embodiment: everything that wam has to know about one robot, in one file.

A YAML file beside the weights or in `recipes/` describes cameras and their places on the canvas, state and action
dimensions, rates and the chunk. A new robot touches nothing else.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LATENT_STRIDE = 4  # raw frames per latent frame: the temporal compression of every video tokenizer used here


class EmbodimentError(ValueError):
    """An embodiment file with an unknown, missing or contradictory field."""


@dataclass(frozen=True)
class Embodiment:
    """One robot.

    A *raw frame* is taken every `video_stride` control steps, a *latent frame* stands for 4 raw frames, and a *chunk*
    is `frames_per_chunk` latent frames together with the `actions_per_chunk` actions executed meanwhile. Hence
    `actions_per_chunk == frames_per_chunk * 4 * video_stride`.
    """

    name: str
    cameras: tuple[str, ...]
    canvas: tuple[tuple[str | None, ...], ...]  # rows of camera names; None leaves a cell black
    view_height: int
    view_width: int
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    control_hz: float
    video_stride: int
    actions_per_chunk: int
    frames_per_chunk: int = 1
    prompt_template: str = "{instruction}"

    def __post_init__(self) -> None:
        placed = [camera for row in self.canvas for camera in row if camera is not None]
        if sorted(placed) != sorted(self.cameras):
            raise EmbodimentError(
                f"embodiment {self.name!r}: field 'canvas' places cameras {sorted(placed)}, but field 'cameras' lists "
                f"{sorted(self.cameras)}; name every camera exactly once in the canvas"
            )
        if len({len(row) for row in self.canvas}) != 1:
            raise EmbodimentError(
                f"embodiment {self.name!r}: field 'canvas' has rows of different lengths; fill empty cells with null"
            )
        expected = self.frames_per_chunk * LATENT_STRIDE * self.video_stride
        if self.actions_per_chunk != expected:
            raise EmbodimentError(
                f"embodiment {self.name!r}: field 'actions_per_chunk' is {self.actions_per_chunk}, but "
                f"frames_per_chunk x {LATENT_STRIDE} x video_stride = {expected}; "
                "the video and the actions of a chunk must last equally long"
            )
        if "{instruction}" not in self.prompt_template:
            raise EmbodimentError(
                f"embodiment {self.name!r}: field 'prompt_template' is {self.prompt_template!r}; it must contain "
                "'{instruction}'"
            )

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

    def prompt(self, instruction: str) -> str:
        """The sentence that the text encoder reads."""
        return self.prompt_template.replace("{instruction}", instruction)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any], source: str = "embodiment") -> Embodiment:
        """Build from plain lists and numbers; unknown or missing fields are named."""
        known = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - set(known))
        if unknown:
            raise EmbodimentError(f"{source}: unknown field {unknown[0]!r}; known fields are {sorted(known)}")
        missing = [n for n, f in known.items() if f.default is dataclasses.MISSING and n not in fields]
        if missing:
            raise EmbodimentError(f"{source}: field {missing[0]!r} is missing")
        values = dict(fields)
        for name in ("cameras", "state_names", "action_names"):
            values[name] = tuple(values[name])
        values["canvas"] = tuple(tuple(row) for row in values["canvas"])
        return cls(**values)

    def to_yaml(self, path: Path) -> None:
        plain = {key: _plain(value) for key, value in self.to_dict().items()}
        Path(path).write_text(yaml.safe_dump(plain, sort_keys=False))

    @classmethod
    def from_yaml(cls, path: Path) -> Embodiment:
        return cls.from_dict(yaml.safe_load(Path(path).read_text()), source=str(path))


def _plain(value: Any) -> Any:
    """Tuples become lists, so that the YAML file needs no Python tags."""
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


METAWORLD_SAWYER = Embodiment(
    name="metaworld-sawyer",
    cameras=("top", "side"),
    canvas=(("top", "side"),),
    view_height=64,
    view_width=64,
    state_names=("hand_x", "hand_y", "hand_z", "gripper_opening"),
    action_names=("delta_x", "delta_y", "delta_z", "gripper_effort"),
    control_hz=40.0,
    video_stride=2,
    actions_per_chunk=8,
    frames_per_chunk=1,
)
