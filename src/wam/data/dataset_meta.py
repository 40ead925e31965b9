"""What a data set is, whatever its format version, and what the readers of all versions share."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from wam.data import schema
from wam.data.errors import DatasetError, MissingCameraError, MissingColumnError, RowCountError
from wam.data.schema import Camera, EpisodeRow, Feature

T = TypeVar("T")


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
        video_keys: camera name -> name of its feature and video folder, for cameras stored as videos.
        image_keys: camera name -> name of its column, for cameras stored as pictures inside the parquet files.
        tasks: the sentences; `task_index` counts into this tuple.
        episodes: one row per episode.
        total_rows: rows of all episodes.
        data_path: template of the parquet files.
        video_path: template of the videos.
        fingerprint: hash of the metadata files; these hold statistics of every episode, so other content gives
            another fingerprint.
        discarded: episodes that `info.json` itself marks as not to be used (`discarded_episode_indices`).
    """

    root: Path
    version: str
    fps: float
    robot_type: str
    features: Mapping[str, Feature]
    cameras: Mapping[str, Camera]
    video_keys: Mapping[str, str]
    image_keys: Mapping[str, str]
    tasks: tuple[str, ...]
    episodes: tuple[EpisodeRow, ...]
    total_rows: int
    data_path: str
    video_path: str
    fingerprint: str
    discarded: tuple[int, ...] = ()

    def data_file(self, episode: EpisodeRow) -> Path:
        """The parquet file that holds the rows of an episode."""
        return self.root / file_path(self.data_path, episode.data_chunk_index, episode.data_file_index, episode.index)

    def video_file(self, episode: EpisodeRow, camera: str) -> Path:
        """The video that holds the frames of an episode. Raises MissingCameraError."""
        camera = self.require_camera(camera)
        if camera not in self.video_keys:
            raise MissingCameraError(
                f"{self.root}/{schema.INFO_PATH}: camera {camera!r} is stored as pictures inside the parquet files "
                f"(feature {self.image_keys[camera]!r}), so it has no video; read it with `frames`"
            )
        span = episode.videos[camera]
        return self.root / file_path(
            self.video_path, span.chunk_index, span.file_index, episode.index, self.video_keys[camera]
        )

    def require_camera(self, camera: str) -> str:
        """The camera's name here, also if its feature is given (`observation.images.top`); else MissingCameraError."""
        name = camera.removeprefix(schema.IMAGE_PREFIX)
        if name not in self.cameras:
            raise MissingCameraError(
                f"{self.root}: no camera {name!r}; it has {sorted(self.cameras)}. "
                "Correct the embodiment's camera names, or record that camera"
            )
        return name


@dataclass(frozen=True)
class Declaration:
    """The features that `info.json` declares, sorted by how they are stored; columns of text are left out."""

    features: Mapping[str, Feature]
    cameras: Mapping[str, Camera]
    video_keys: Mapping[str, str]
    image_keys: Mapping[str, str]


def read_declaration(path: Path, info: Mapping[str, Any]) -> Declaration:
    """Split the features of the `info.json` at `path` into columns of numbers and cameras.

    Raises:
        MissingColumnError, DatasetError: a feature without dtype or shape, or with a shape that is no picture's.
    """
    features: dict[str, Feature] = {}
    cameras: dict[str, Camera] = {}
    keys: dict[str, dict[str, str]] = {"video": {}, "image": {}}
    for key, value in field(info, "features", path, dict).items():
        feature = read_feature(value, f"{path}: feature {key!r}")
        if isinstance(feature, Camera):
            camera = key.removeprefix(schema.IMAGE_PREFIX)
            cameras[camera], keys[value["dtype"]][camera] = feature, key
        elif feature is not None:
            features[key] = feature
    return Declaration(features, cameras, keys["video"], keys["image"])


def read_feature(value: Any, where: str) -> Feature | Camera | None:
    """One entry of `features`: numbers, or the pictures of a camera; None for a column of text.

    Raises:
        MissingColumnError, DatasetError: it has no dtype or shape, or a shape that is no picture's.
    """
    dtype = field(value, "dtype", where, str)
    if dtype in ("video", "image"):
        return _camera(value, where)
    if dtype == "string":
        return None
    return Feature(dtype, field(value, "shape", where, _shape) or (1,), _names(value.get("names")))


def _camera(value: Mapping[str, Any], where: str) -> Camera:
    """Picture size; `names` say which number of the shape is which, and the colour channels do if there are none."""
    shape, names = field(value, "shape", where, _shape), _names(value.get("names")) or ()
    if len(shape) != 3 or min(shape) < 1:
        raise DatasetError(f"{where}: field 'shape' is {list(shape)}, expected height, width and channels")
    if {"height", "width"} <= set(names):
        return Camera(shape[names.index("height")], shape[names.index("width")])
    channels_first = shape[0] == 3 and shape[-1] != 3
    height, width = shape[1:] if channels_first else shape[:2]
    return Camera(height, width)


def _names(names: Any) -> tuple[str, ...] | None:
    """Names of the dimensions, also where v2 wraps them as `{"motors": [...]}`; None if they are anything else."""
    if isinstance(names, dict) and len(names) == 1:
        names = next(iter(names.values()))
    plain = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if plain else None


def _shape(values: Any) -> tuple[int, ...]:
    if any(int(value) < 0 for value in values):
        raise ValueError(values)
    return _integers(values)


def _integers(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def field(content: Mapping[str, Any], name: str, where: object, kind: Callable[[Any], T]) -> T:
    """One field of a metadata file, converted by `kind`.

    Raises:
        MissingColumnError: it is not there.
        DatasetError: `content` has no fields, or `kind` cannot read this one.
    """
    if not isinstance(content, Mapping):
        raise DatasetError(f"{where}: found {content!r}, expected an object with fields; restore the metadata")
    if content.get(name) is None:
        raise MissingColumnError(f"{where}: field {name!r} is missing; restore the metadata from a copy")
    try:
        return kind(content[name])
    except (TypeError, ValueError, OverflowError) as error:
        expected = kind.__name__.strip("_").replace("_", " ")
        raise DatasetError(
            f"{where}: field {name!r} is {content[name]!r}, expected {expected}; restore the metadata"
        ) from error


def positive_integer(value: Any) -> int:
    """A whole number of at least 1."""
    if int(value) < 1:
        raise ValueError(value)
    return int(value)


def positive_number(value: Any) -> float:
    """A finite number above 0."""
    if not 0 < float(value) < math.inf:
        raise ValueError(value)
    return float(value)


def sentences(value: Any) -> tuple[str, ...]:
    """A list of text; a text alone is none, or its letters would become instructions."""
    if not isinstance(value, list) or not all(isinstance(sentence, str) for sentence in value):
        raise TypeError(value)
    return tuple(value)


def file_path(template: str, chunk: int, file: int, episode: int, video_key: str = "") -> str:
    """A file of an episode, relative to the root. All versions share these names, whichever of them they use.

    chunk, file: numbers of the folder and of the file in it; in v2 the latter is that of the episode.
    """
    return template.format(
        chunk_index=chunk, episode_chunk=chunk, file_index=file, episode_index=episode, video_key=video_key
    )


def path_template(info: Mapping[str, Any], name: str, where: object) -> str:
    """A field that `file_path` can fill. Raises as `field`, and DatasetError for an unknown placeholder."""
    template = field(info, name, where, str)
    try:
        file_path(template, 0, 0, 0)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{where}: field {name!r} is {template!r}, expected no placeholders but chunk_index, file_index, "
            "episode_chunk, episode_index and video_key; restore the metadata"
        ) from error
    return template


def integers(info: Mapping[str, Any], name: str, where: object) -> tuple[int, ...]:
    """A list of whole numbers that may be missing."""
    return field(info, name, where, _integers) if info.get(name) else ()


def assembled(
    root: Path,
    info: Mapping[str, Any],
    declared: Declaration,
    tasks: tuple[str, ...],
    episodes: tuple[EpisodeRow, ...],
    fingerprint: str,
    table: str,
) -> DatasetMeta:
    """What every layout has in common, cross-checked. table: where the episodes were listed, relative to the root."""
    path = root / schema.INFO_PATH
    meta = DatasetMeta(
        root=root,
        version=field(info, "codebase_version", path, str),
        fps=field(info, "fps", path, positive_number),
        robot_type=str(info.get("robot_type") or "unknown"),
        features=declared.features,
        cameras=declared.cameras,
        video_keys=declared.video_keys,
        image_keys=declared.image_keys,
        tasks=tasks,
        episodes=episodes,
        total_rows=field(info, "total_frames", path, int),
        data_path=path_template(info, "data_path", path),
        video_path=path_template(info, "video_path", path) if declared.video_keys else "",
        fingerprint=fingerprint,
        discarded=integers(info, "discarded_episode_indices", path),
    )
    check_row_counts(meta, table)
    return meta


def check_row_counts(meta: DatasetMeta, table: str) -> None:
    """The episodes must follow each other without gaps and add up to the declared number of rows.

    Args:
        meta: to be checked.
        table: where the table of episodes lies, relative to the root.

    Raises:
        RowCountError: they do not.
    """
    expected = 0
    for episode in meta.episodes:
        if episode.dataset_from_index != expected or episode.dataset_to_index != expected + episode.length:
            raise RowCountError(
                f"{meta.root}/{table}: episode {episode.index} spans rows {episode.dataset_from_index} to "
                f"{episode.dataset_to_index} with length {episode.length}; expected a start at {expected}"
            )
        expected += episode.length
    if expected != meta.total_rows:
        raise RowCountError(
            f"{meta.root}/{schema.INFO_PATH}: total_frames is {meta.total_rows}, the episodes add up to {expected}; "
            "fetch the data set again, or reopen it for writing if it is your own recording"
        )


def tasks_in_order(sentences: Mapping[int, str], total: int, path: Path) -> tuple[str, ...]:
    """Sentences in the order of their index, as many as `info.json` declares, else RowCountError."""
    missing = next((number for number in range(total) if number not in sentences), None)
    if missing is not None:
        raise RowCountError(f"{path}: task {missing} is missing, info.json declares {total} tasks; restore the file")
    return tuple(sentences[number] for number in range(total))
