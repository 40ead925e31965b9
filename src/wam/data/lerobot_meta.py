"""The metadata of a LeRobot data set, in a form that does not depend on the format version.

`read_meta` looks up the version in `meta/info.json` and calls the function that knows its layout. Another version is
another entry in `LAYOUTS`: everything above this file sees only `DatasetMeta` and `EpisodeRow`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wam.data import schema
from wam.data.errors import (
    DatasetError,
    MissingCameraError,
    MissingColumnError,
    MissingFileError,
    RowCountError,
    UnsupportedVersionError,
)
from wam.data.schema import Camera, EpisodeRow, Feature, VideoSpan
from wam.data.tables import read_committed_episodes, tasks_from_table


@dataclass(frozen=True)
class DatasetMeta:
    """What a data set is, without its content.

    Args:
        root: folder.
        version: format version, e.g. `v3.0`.
        fps: rows per second.
        robot_type: free name.
        features: columns of numbers, the bookkeeping columns included.
        cameras: camera name -> picture size.
        video_keys: camera name -> name of its feature and video folder.
        tasks: the sentences; `task_index` counts into this tuple.
        episodes: one row per episode.
        total_rows: rows of all episodes.
        data_path: template of the parquet files.
        video_path: template of the videos.
        fingerprint: hash of the metadata files; these hold statistics of every episode, so other content gives
            another fingerprint.
    """

    root: Path
    version: str
    fps: float
    robot_type: str
    features: Mapping[str, Feature]
    cameras: Mapping[str, Camera]
    video_keys: Mapping[str, str]
    tasks: tuple[str, ...]
    episodes: tuple[EpisodeRow, ...]
    total_rows: int
    data_path: str
    video_path: str
    fingerprint: str

    def data_file(self, episode: EpisodeRow) -> Path:
        """The parquet file that holds the rows of an episode."""
        return self.root / self.data_path.format(
            chunk_index=episode.data_chunk_index, file_index=episode.data_file_index
        )

    def video_file(self, episode: EpisodeRow, camera: str) -> Path:
        """The video that holds the frames of an episode. Raises MissingCameraError."""
        self.require_camera(camera)
        span = episode.videos[camera]
        return self.root / self.video_path.format(
            video_key=self.video_keys[camera], chunk_index=span.chunk_index, file_index=span.file_index
        )

    def require_camera(self, camera: str) -> None:
        """Raise MissingCameraError unless the data set has this camera."""
        if camera not in self.cameras:
            raise MissingCameraError(
                f"{self.root}: no camera {camera!r}; it has {sorted(self.cameras)}. "
                "Correct the embodiment's camera names, or record that camera"
            )


def read_meta(root: Path) -> DatasetMeta:
    """Read and cross-check the metadata of a data set.

    Raises:
        MissingFileError: no data set, or one without any finished group of files.
        UnsupportedVersionError: a format version without an entry in `LAYOUTS`.
        MissingColumnError, MissingCameraError, RowCountError: contradictions in the metadata.
    """
    path = root / schema.INFO_PATH
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file, so {root} is no LeRobot data set; check the path")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version = str(info["codebase_version"])
        if version not in LAYOUTS:
            raise UnsupportedVersionError(
                f"{path}: codebase_version is {version!r}, this reader speaks {sorted(LAYOUTS)}; convert older data "
                "sets with `python -m lerobot.datasets.v30.convert_dataset_v21_to_v30`"
            )
        return LAYOUTS[version](root, info)
    except json.JSONDecodeError as error:
        raise MissingFileError(f"{path}: not valid JSON ({error}); restore it from a copy") from error
    except KeyError as error:
        raise MissingColumnError(f"{root}/meta: field {error} is missing; restore the metadata from a copy") from error


def _read_v3(root: Path, info: dict[str, Any]) -> DatasetMeta:
    """Layout v3.0: many episodes per file, table of episodes in parquet."""
    total = int(info["total_episodes"])
    if total == 0:
        raise MissingFileError(
            f"{root}: 0 episodes; either nothing was recorded, or recording was cut off before the first group of "
            "files was complete. Reopen it for writing and go on"
        )
    features, cameras, video_keys = _features(root, info["features"])
    rows = read_committed_episodes(root, total).to_pylist()
    episodes = tuple(_episode_row(root, row, video_keys) for row in rows)
    meta = DatasetMeta(
        root=root,
        version=str(info["codebase_version"]),
        fps=float(info["fps"]),
        robot_type=str(info.get("robot_type") or "unknown"),
        features=features,
        cameras=cameras,
        video_keys=video_keys,
        tasks=_tasks(root, int(info["total_tasks"])),
        episodes=episodes,
        total_rows=int(info["total_frames"]),
        data_path=info["data_path"],
        video_path=info.get("video_path") or "",
        fingerprint=_fingerprint(info, root, total),
    )
    _check_row_counts(meta)
    return meta


LAYOUTS: Mapping[str, Callable[[Path, dict[str, Any]], DatasetMeta]] = {"v3.0": _read_v3}
"""Format version -> reader of its metadata."""


def _features(root: Path, declared: Mapping[str, Any]) -> tuple[dict[str, Feature], dict[str, Camera], dict[str, str]]:
    """Split the declared features into columns of numbers and cameras; text columns are left out."""
    features, cameras, video_keys = {}, {}, {}
    for key, value in declared.items():
        shape = tuple(int(size) for size in value["shape"])
        if value["dtype"] == "video":
            name = key.removeprefix(schema.IMAGE_PREFIX)
            channels_first = shape[0] == 3 and shape[-1] != 3
            height, width = shape[1:] if channels_first else shape[:2]
            cameras[name], video_keys[name] = Camera(height, width), key
        elif value["dtype"] == "image":
            raise DatasetError(
                f"{root}/{schema.INFO_PATH}: camera {key!r} is stored as pictures inside the parquet files; "
                "only videos are read. Record it with `use_videos=True`"
            )
        elif value["dtype"] != "string":
            names = value.get("names")
            plain = isinstance(names, list) and all(isinstance(name, str) for name in names)
            features[key] = Feature(value["dtype"], shape or (1,), tuple(names) if plain else None)
    return features, cameras, video_keys


def _episode_row(root: Path, row: Mapping[str, Any], video_keys: Mapping[str, str]) -> EpisodeRow:
    """One line of the table of episodes."""
    videos = {}
    for camera, key in video_keys.items():
        prefix = f"videos/{key}/"
        if row.get(prefix + "from_timestamp") is None:
            raise MissingCameraError(
                f"{root}/meta/episodes: episode {row['episode_index']} has no video of camera {camera!r} "
                f"(column {prefix}from_timestamp), which info.json declares; restore the metadata from a copy"
            )
        videos[camera] = VideoSpan(
            chunk_index=int(row[prefix + "chunk_index"]),
            file_index=int(row[prefix + "file_index"]),
            from_timestamp=float(row[prefix + "from_timestamp"]),
            to_timestamp=float(row[prefix + "to_timestamp"]),
        )
    return EpisodeRow(
        index=int(row["episode_index"]),
        length=int(row["length"]),
        tasks=tuple(row["tasks"]),
        data_chunk_index=int(row["data/chunk_index"]),
        data_file_index=int(row["data/file_index"]),
        dataset_from_index=int(row["dataset_from_index"]),
        dataset_to_index=int(row["dataset_to_index"]),
        videos=videos,
        extra={k: v for k, v in row.items() if schema.is_extra(k) and isinstance(v, str | int | float)},
    )


def _tasks(root: Path, total: int) -> tuple[str, ...]:
    """Sentences in the order of their index, as many as `info.json` declares."""
    path = root / schema.TASKS_PATH
    by_index = {number: task for task, number in tasks_from_table(path).items()}
    missing = [number for number in range(total) if number not in by_index]
    if missing:
        raise RowCountError(f"{path}: task {missing[0]} is missing, info.json declares {total} tasks; restore the file")
    return tuple(by_index[number] for number in range(total))


def _check_row_counts(meta: DatasetMeta) -> None:
    """The episodes must follow each other without gaps and add up to the declared number of rows."""
    expected = 0
    for episode in meta.episodes:
        if episode.dataset_from_index != expected or episode.dataset_to_index != expected + episode.length:
            raise RowCountError(
                f"{meta.root}/meta/episodes: episode {episode.index} spans rows {episode.dataset_from_index} to "
                f"{episode.dataset_to_index} with length {episode.length}; expected a start at {expected}"
            )
        expected += episode.length
    if expected != meta.total_rows:
        raise RowCountError(
            f"{meta.root}/{schema.INFO_PATH}: total_frames is {meta.total_rows}, the episodes add up to {expected}; "
            "fetch the data set again, or reopen it for writing if it is your own recording"
        )


def _fingerprint(info: Mapping[str, Any], root: Path, total: int) -> str:
    """Hash of the declaration and of the table of episodes, statistics included."""
    digest = hashlib.sha256(json.dumps(info, sort_keys=True).encode())
    table = read_committed_episodes(root, total, columns="")
    for name in sorted(table.column_names):
        digest.update(f"{name}={table[name].to_pylist()!r}\n".encode())
    return digest.hexdigest()[:16]
