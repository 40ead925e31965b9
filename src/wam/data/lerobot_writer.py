"""Writing a LeRobot v3.0 data set: atomic, resumable, with pyarrow and PyAV only.

Episodes are collected in an open *file group* (`DIRECTORY/.partial`): videos are encoded as they come, rows are held
in memory. After `episodes_per_file` episodes the group is committed, in this order:

1. videos and rows are renamed into place;  2. `meta/tasks.parquet`;  3. the table of episodes of this group;
4. `meta/info.json`, whose `total_episodes` makes the group part of the data set.

A kill before step 4 leaves the old data set (plus files that nobody refers to and the next writer removes); after
it, the new one. A kill loses at most the episodes of the open group. Only one process may write at a time.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from wam.data import schema
from wam.data.errors import DatasetError, NonFiniteError, SpecMismatchError
from wam.data.files import LOCK_NAME, FolderLock, move_into_place, read_json, write_json, write_parquet
from wam.data.schema import BOOKKEEPING, DatasetSpec, EpisodeData, Extra, Feature, group_path, image_key
from wam.data.stats import FeatureStats, column_stats, image_stats, merge_stats
from wam.data.tables import (
    column_values,
    episodes_table,
    read_committed_episodes,
    rows_table,
    tasks_from_table,
    tasks_table,
)
from wam.data.video import PIXEL_FORMAT, VideoWriter

logger = logging.getLogger(__name__)


class LeRobotWriter:
    """Appends episodes to a new or an existing data set.

        with LeRobotWriter(root, spec) as writer:
            while writer.episodes_done < wanted:
                writer.add_episode(episode)

    Args:
        root: folder of the data set; created if missing.
        spec: declaration; an existing data set must have the same, unless nothing was recorded yet.
        episodes_per_file: episodes in one group of files (also: what a kill can lose at most).

    Raises:
        SpecMismatchError: the existing data set was declared otherwise.
        DatasetLockedError: another process is writing it.
    """

    def __init__(self, root: Path, spec: DatasetSpec, *, episodes_per_file: int = 100) -> None:
        if episodes_per_file < 1:
            raise ValueError(f"LeRobotWriter: episodes_per_file is {episodes_per_file}, expected >= 1")
        self.root = Path(root)
        self.spec = spec
        self.episodes_per_file = episodes_per_file
        self._closed = self._broken = False
        # committed
        self._episodes_committed = self._rows_total = 0
        self._tasks: dict[str, int] = {}
        self._extra_types: dict[str, type] | None = None
        # the open group
        self._group = 0
        self._videos: dict[str, VideoWriter] = {}
        self._columns: list[dict[str, np.ndarray]] = []
        self._episodes: list[dict[str, Any]] = []
        self._lock = FolderLock(self.root)
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise

    @property
    def episodes_done(self) -> int:
        """Episodes added so far, those of the open group included."""
        return self._episodes_committed + len(self._episodes)

    def add_episode(self, episode: EpisodeData) -> None:
        """Append one episode; every `episodes_per_file`-th call also commits the group of files.

        Raises:
            SpecMismatchError: a camera, column, shape, dtype or extra differs from the declaration.
            NonFiniteError: a column holds NaN or infinity.
        """
        if self._closed or self._broken:
            state = "finalized" if self._closed else "broken by an earlier error"
            raise ValueError(f"{self.root}: this writer is {state}; open a new LeRobotWriter to append episodes")
        columns, length = _checked(episode, self.spec, self.episodes_done)
        extra = self._checked_extra(episode)
        self._broken = True  # until the videos hold the whole episode
        videos = self._encode(episode, length)
        self._broken = False
        task_index = self._tasks.setdefault(episode.task, len(self._tasks))
        first = self._rows_total
        columns |= {
            "timestamp": (np.arange(length) / self.spec.fps).astype(np.float32),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, self.episodes_done),
            "index": first + np.arange(length),
            "task_index": np.full(length, task_index),
        }
        stats = {name: column_stats(column) for name, column in columns.items()}
        stats |= {image_key(name): image_stats(images) for name, images in episode.images.items()}
        self._episodes.append(self._episode_row(episode.task, length, first, videos, stats, extra))
        self._columns.append(columns)
        self._rows_total += length
        if len(self._episodes) >= self.episodes_per_file:
            self._commit()

    def finalize(self) -> None:
        """Commit the open group, write `meta/stats.json` and release the data set. Calling it again does nothing."""
        if self._closed:
            return
        try:
            if self._episodes and not self._broken:
                self._commit()
            if self._episodes_committed:
                self._write_stats()
        finally:
            self._release()

    def __enter__(self) -> "LeRobotWriter":
        return self

    def __exit__(self, *_: object) -> None:
        """Finalize; whole episodes are kept even when the caller failed in between."""
        self.finalize()

    # -- opening ---------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Read what is committed, drop what is not."""
        shutil.rmtree(self._partial, ignore_errors=True)
        info_path = self.root / schema.INFO_PATH
        info = read_json(info_path, DatasetError) if info_path.is_file() else None
        if info is not None and (info.get("total_episodes") != 0 or self._has_recordings()):
            _check_same_declaration(info_path, info, self._info())
            self._resume(info)
        elif info is None and any(path.name != LOCK_NAME for path in self.root.iterdir()):
            raise SpecMismatchError(
                f"{self.root}: not empty and without {schema.INFO_PATH}, so it is no LeRobot v3.0 data set; "
                "choose another folder, or empty this one"
            )
        else:
            write_json(info_path, self._info())
        self._remove_uncommitted()

    def _resume(self, info: dict[str, Any]) -> None:
        """Continue after the committed groups of files."""
        self._episodes_committed = int(info["total_episodes"])
        self._rows_total = int(info["total_frames"])
        if self._episodes_committed == 0:
            return
        rows = read_committed_episodes(self.root, self._episodes_committed).to_pylist()
        for row in rows:
            places = {(row[name], row[name[:-11] + "file_index"]) for name in row if name.endswith("chunk_index")}
            if len(places) != 1:
                raise SpecMismatchError(
                    f"{self.root}: episode {row['episode_index']} lies in files with different numbers "
                    f"{sorted(places)}, so another program wrote this data set; wam appends to its own data sets only. "
                    "Choose another folder"
                )
        chunk_index, file_index = places.pop()
        self._group = chunk_index * schema.FILES_PER_CHUNK + file_index + 1
        tasks = tasks_from_table(self.root / schema.TASKS_PATH)
        self._tasks = {task: number for task, number in tasks.items() if number < int(info["total_tasks"])}
        self._extra_types = {key: type(value) for key, value in rows[-1].items() if schema.is_extra(key)}
        logger.info("%s: resuming after %d episodes", self.root, self._episodes_committed)

    def _has_recordings(self) -> bool:
        """Whether there are rows or pictures, though perhaps of no finished group."""
        return any(path.is_file() for name in ("data", "videos") for path in (self.root / name).rglob("*"))

    def _remove_uncommitted(self) -> None:
        """Delete files of groups that never became part of the data set."""
        names = [image_key(camera) for camera in self.spec.cameras]
        folders = [self.root / "data", self.root / "meta/episodes", *(self.root / "videos" / name for name in names)]
        for path in (path for folder in folders for path in folder.glob("chunk-*/*file-*")):
            if path.name.startswith(".") or _group_number(path) >= self._group:
                logger.warning("%s: removing, its group of files was never completed", path)
                path.unlink()

    # -- one episode -----------------------------------------------------------------------------------------------

    def _encode(self, episode: EpisodeData, length: int) -> dict[str, tuple[int, int]]:
        """Append the pictures to the open videos; camera -> frame numbers (from, to) in the file."""
        spans = {}
        for name, camera in self.spec.cameras.items():
            if name not in self._videos:
                path = self._partial / f"{name}.mp4"
                self._videos[name] = VideoWriter(path, self.spec.fps, camera.height, camera.width)
            video = self._videos[name]
            spans[name] = (video.frames, video.frames + length)
            video.append(episode.images[name])
        return spans

    def _episode_row(
        self,
        task: str,
        length: int,
        first: int,
        videos: dict[str, tuple[int, int]],
        stats: dict[str, FeatureStats],
        extra: dict[str, Extra],
    ) -> dict[str, Any]:
        """One line of the table of episodes, in LeRobot's column names."""
        chunk_index, file_index = divmod(self._group, schema.FILES_PER_CHUNK)
        row: dict[str, Any] = {
            "episode_index": self.episodes_done,
            "tasks": [task],
            "length": length,
            "data/chunk_index": chunk_index,
            "data/file_index": file_index,
            "dataset_from_index": first,
            "dataset_to_index": first + length,
        }
        for camera, (start, end) in videos.items():
            prefix = f"videos/{image_key(camera)}"
            row |= {f"{prefix}/chunk_index": chunk_index, f"{prefix}/file_index": file_index}
            row |= {
                f"{prefix}/from_timestamp": start / self.spec.fps,
                f"{prefix}/to_timestamp": end / self.spec.fps,
            }
        row |= {f"stats/{key}/{name}": value.tolist() for key, part in stats.items() for name, value in part.items()}
        row |= {"meta/episodes/chunk_index": chunk_index, "meta/episodes/file_index": file_index}
        return row | extra

    def _checked_extra(self, episode: EpisodeData) -> dict[str, Extra]:
        """Extras as plain values of the same types as in the first episode."""
        extra = {key: v.item() if isinstance(v, np.generic) else v for key, v in episode.extra.items()}
        types = {key: type(value) for key, value in extra.items()}
        for key, kind in types.items():
            if kind not in (str, int, float) or not schema.is_extra(key):
                found = f"extra {key!r} is {extra[key]!r}"
                raise SpecMismatchError(f"{found}; expected a str, int or float, and a name that is not taken")
        if self._extra_types is None:
            self._extra_types = types
        if types != self._extra_types:
            raise SpecMismatchError(
                f"episode {self.episodes_done} of {self.root}: extras are {_type_names(types)}, "
                f"earlier episodes have {_type_names(self._extra_types)}; give the same keys and types throughout"
            )
        return extra

    # -- committing ------------------------------------------------------------------------------------------------

    def _commit(self) -> None:
        """Turn the open group into a part of the data set (order: see the module)."""
        self._broken = True  # a commit that failed half-way is not tried again; the next writer cleans up
        for camera, video in self._videos.items():
            video.close()
            move_into_place(video.path, self.root / group_path(schema.VIDEO_PATH, self._group, camera))
        features = {**self.spec.features, **BOOKKEEPING}
        columns = {name: np.concatenate([part[name] for part in self._columns]) for name in features}
        write_parquet(self.root / group_path(schema.DATA_PATH, self._group), rows_table(columns, features))
        write_parquet(self.root / schema.TASKS_PATH, tasks_table(self._tasks))
        write_parquet(self.root / group_path(schema.EPISODES_PATH, self._group), episodes_table(self._episodes))
        done = self.episodes_done
        write_json(self.root / schema.INFO_PATH, self._info(done, self._rows_total, len(self._tasks)))
        logger.info("%s: committed %d episodes, %d rows", self.root, done, self._rows_total)
        self._episodes_committed = done
        self._group += 1
        self._videos, self._columns, self._episodes = {}, [], []
        self._broken = False

    def _write_stats(self) -> None:
        """`meta/stats.json`: exact for columns (read back from the rows), merged over episodes for pictures."""
        features = {**self.spec.features, **BOOKKEEPING}
        stats: dict[str, FeatureStats] = {}
        paths = [self.root / group_path(schema.DATA_PATH, group) for group in range(self._group)]
        for name in features:
            parts = [column_values(pq.read_table(path, columns=[name])[name]) for path in paths]
            stats[name] = column_stats(np.concatenate(parts))
        episodes = read_committed_episodes(self.root, self._episodes_committed, columns="stats/observation.images.")
        for key in map(image_key, self.spec.cameras):
            names = [name.rsplit("/", 1)[1] for name in episodes.column_names if name.startswith(f"stats/{key}/")]
            by_name = {name: episodes[f"stats/{key}/{name}"].to_pylist() for name in names}
            stats[key] = merge_stats(
                [{name: np.array(by_name[name][row]) for name in names} for row in range(episodes.num_rows)]
            )
        content = {key: {name: value.tolist() for name, value in part.items()} for key, part in stats.items()}
        write_json(self.root / schema.STATS_PATH, content)

    def _info(self, episodes: int = 0, frames: int = 0, tasks: int = 0) -> dict[str, Any]:
        """Content of `meta/info.json`."""
        features = {name: feature.to_json() for name, feature in self.spec.features.items()}
        for name, camera in self.spec.cameras.items():
            features[image_key(name)] = _video_feature(camera, self.spec.fps)
        features |= {name: feature.to_json() for name, feature in BOOKKEEPING.items()}
        return {
            "codebase_version": schema.CODEBASE_VERSION,
            "robot_type": self.spec.robot_type,
            "total_episodes": episodes,
            "total_frames": frames,
            "total_tasks": tasks,
            "chunks_size": schema.FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": int(self.spec.fps),
            "splits": {"train": f"0:{episodes}"},
            "data_path": schema.DATA_PATH,
            "video_path": schema.VIDEO_PATH,
            "features": features,
        }

    @property
    def _partial(self) -> Path:
        """Where the videos of the open group grow."""
        return self.root / ".partial"

    def _release(self) -> None:
        self._closed = True
        self._videos = {}
        shutil.rmtree(self._partial, ignore_errors=True)
        self._lock.release()


def _group_number(path: Path) -> int:
    """`.../chunk-001/file-002.parquet` -> 1002."""
    chunk_index, file_index = path.parent.name.removeprefix("chunk-"), path.stem.removeprefix("file-")
    return int(chunk_index) * schema.FILES_PER_CHUNK + int(file_index)


def _checked(episode: EpisodeData, spec: DatasetSpec, number: int) -> tuple[dict[str, np.ndarray], int]:
    """Columns in the declared dtype and shape (T, D), and T; raises if anything differs from the declaration."""
    where = f"episode {number}"
    _same_names(where, "cameras", set(episode.images), set(spec.cameras))
    _same_names(where, "columns", set(episode.columns), set(spec.features))
    lengths = {name: len(array) for name, array in {**episode.images, **episode.columns}.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise SpecMismatchError(f"{where}: rows per camera and column are {lengths}; expected one number above 0")
    if not episode.task.strip():
        raise SpecMismatchError(f"{where}: the task is empty; give one sentence")
    length = next(iter(lengths.values()))
    for name, camera in spec.cameras.items():
        images, size = episode.images[name], (length, camera.height, camera.width, 3)
        if images.shape != size or images.dtype != np.uint8:
            found = f"{images.dtype} {images.shape}"
            raise SpecMismatchError(f"{where}: camera {name!r} is {found}, expected uint8 {size}")
    names = spec.features
    return {n: _checked_column(f"{where}: column {n!r}", episode.columns[n], names[n], length) for n in names}, length


def _checked_column(where: str, column: np.ndarray, feature: Feature, length: int) -> np.ndarray:
    """The column in the declared dtype and shape (T, D)."""
    column, expected = np.asarray(column), (length, *feature.shape)
    if column.shape == (length,) and feature.shape == (1,):
        column = column[:, None]
    if column.shape != expected or not np.can_cast(column.dtype, feature.dtype, "same_kind"):
        found = f"{column.dtype} {column.shape}"
        raise SpecMismatchError(f"{where} is {found}, expected {feature.dtype} {expected}")
    if column.dtype.kind == "f" and not np.isfinite(column).all():
        row = int(np.argwhere(~np.isfinite(column))[0, 0])
        raise NonFiniteError(f"{where} holds NaN or infinity at row {row}; drop this episode")
    return column.astype(feature.dtype)


def _same_names(where: str, kind: str, found: set[str], expected: set[str]) -> None:
    if found != expected:
        raise SpecMismatchError(
            f"{where}: {kind} are {sorted(found)}, declared are {sorted(expected)}; "
            f"missing {sorted(expected - found)}, unknown {sorted(found - expected)}"
        )


def _check_same_declaration(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    for key in ("codebase_version", "fps", "robot_type", "features", "data_path", "video_path", "chunks_size"):
        if found.get(key) != expected[key]:
            raise SpecMismatchError(
                f"{path}: {key} is {found.get(key)!r}, this writer declares {expected[key]!r}; "
                "choose another folder, or declare the same"
            )


def _video_feature(camera: schema.Camera, fps: int) -> dict[str, Any]:
    """A camera as LeRobot declares it."""
    return {
        "dtype": "video",
        "shape": [camera.height, camera.width, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": camera.height,
            "video.width": camera.width,
            "video.codec": "h264",
            "video.pix_fmt": PIXEL_FORMAT,
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
        },
    }


def _type_names(types: dict[str, type]) -> dict[str, str]:
    return {key: kind.__name__ for key, kind in types.items()}
