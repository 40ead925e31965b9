"""What a LeRobot data set consists of: names, paths and the shapes of its parts. The paths are those of v3.0.

There, many episodes share a file. Files come in *groups* with one number each: a table of rows, one video per camera
and a table of episodes. The position of an episode inside those files is in its episode row, never in the row time
stamps (these restart at 0 in every episode).

Format: https://huggingface.co/docs/lerobot/lerobot-dataset-v3 and `lerobot.datasets` 0.4.4 (behaviour, not code).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from wam.robot.embodiment import IMAGE_PREFIX as IMAGE_PREFIX

CODEBASE_VERSION = "v3.0"
INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
TASKS_PATH = "meta/tasks.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

FILES_PER_CHUNK = 1000
"""Files in one `chunk-...` folder."""

STATE = "observation.state"
ACTION = "action"
EXECUTED = "executed_action"
ENV_TASK = "env_task"  # of the table of episodes: the task by its simulator's name, where there was one

EPISODE_COLUMNS = ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index")
"""Standard columns of the table of episodes; the other standard ones have a '/' in their name."""

Extra = str | int | float
"""A value of an additional column of the table of episodes."""


@dataclass(frozen=True)
class Feature:
    """One column of numbers: `dtype` is a numpy name (`float32`, `int64`, `bool`), `shape` that of one row."""

    dtype: str
    shape: tuple[int, ...] = (1,)
    names: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """As LeRobot writes it in `info.json`."""
        return {"dtype": self.dtype, "shape": list(self.shape), "names": list(self.names) if self.names else None}


@dataclass(frozen=True)
class Camera:
    """Picture size in pixels."""

    height: int
    width: int


BOOKKEEPING: Mapping[str, Feature] = MappingProxyType(
    {
        "timestamp": Feature("float32"),
        "frame_index": Feature("int64"),
        "episode_index": Feature("int64"),
        "index": Feature("int64"),
        "task_index": Feature("int64"),
    }
)
"""Columns that every data set has and the writer fills in itself."""


@dataclass(frozen=True)
class DatasetSpec:
    """The declaration of a data set.

    Args:
        fps: rows (and frames of every camera) per second.
        robot_type: free name of the robot.
        features: column name -> feature, without the bookkeeping columns.
        cameras: camera name (`top`, not `observation.images.top`) -> picture size.
    """

    fps: int
    robot_type: str
    features: Mapping[str, Feature]
    cameras: Mapping[str, Camera]

    def __post_init__(self) -> None:
        if self.fps < 1 or self.fps != int(self.fps):
            raise ValueError(f"DatasetSpec.fps is {self.fps}; LeRobot data sets have a whole number >= 1")
        for name, feature in self.features.items():
            if name in BOOKKEEPING or name.startswith(IMAGE_PREFIX) or "/" in name:
                raise ValueError(f"DatasetSpec.features: {name!r} is a reserved name or holds '/'; choose another")
            if len(feature.shape) != 1:
                raise ValueError(f"DatasetSpec.features[{name!r}]: shape {feature.shape}; flatten it to one dimension")
        for name, camera in self.cameras.items():
            if camera.height % 2 or camera.width % 2:
                raise ValueError(f"DatasetSpec.cameras[{name!r}]: {camera}; h264 with yuv420p needs even sizes")


@dataclass(frozen=True)
class EpisodeData:
    """One recorded episode of T rows.

    Args:
        images: camera name -> uint8 (T, H, W, 3), RGB.
        columns: feature name -> array (T, ...); a feature of shape (1,) may come as (T,).
        task: the instruction, one sentence.
        extra: additional columns of the episode table (e.g. `env_task`, `seed`, `noise`); the same keys and types in
            every episode of a data set.
    """

    images: Mapping[str, np.ndarray]
    columns: Mapping[str, np.ndarray]
    task: str
    extra: Mapping[str, Extra] = field(default_factory=dict)


@dataclass(frozen=True)
class VideoSpan:
    """Where the frames of one episode lie: the file, and seconds from its beginning (end exclusive)."""

    chunk_index: int
    file_index: int
    from_timestamp: float
    to_timestamp: float


@dataclass(frozen=True)
class EpisodeRow:
    """One line of the episode table.

    Args:
        index: number of the episode in the data set.
        length: rows T.
        tasks: the instructions given in it.
        data_chunk_index: folder of its rows.
        data_file_index: file of its rows.
        dataset_from_index: number of its first row in the whole data set.
        dataset_to_index: one past its last row.
        videos: camera name -> where its frames lie.
        extra: additional columns.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    data_chunk_index: int
    data_file_index: int
    dataset_from_index: int
    dataset_to_index: int
    videos: Mapping[str, VideoSpan]
    extra: Mapping[str, Extra]


def is_extra(column: str) -> bool:
    """Whether a column of the table of episodes is an additional one."""
    return column not in EPISODE_COLUMNS and "/" not in column


def extras(row: Mapping[str, Any]) -> dict[str, Extra]:
    """The additional columns of one line of the table of episodes, as far as they are plain values."""
    return {key: value for key, value in row.items() if is_extra(key) and isinstance(value, str | int | float)}


def is_vector(column: str) -> bool:
    """Whether a column holds states or actions by its name: `action`, `actions`, `observation.state.arm`, `state`."""
    return column.removeprefix("observation.").startswith(("state", "action"))


def image_key(camera: str) -> str:
    """`top` -> `observation.images.top`."""
    return IMAGE_PREFIX + camera


def group_path(template: str, group: int, camera: str | None = None) -> str:
    """Path, relative to the root, of one file of group number `group`."""
    chunk_index, file_index = divmod(group, FILES_PER_CHUNK)
    video_key = image_key(camera) if camera is not None else ""
    return template.format(video_key=video_key, chunk_index=chunk_index, file_index=file_index)
