"""Layout v3.0: many episodes per file, and the metadata in parquet tables."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wam.data import schema
from wam.data.dataset_meta import DatasetMeta, assembled, field, read_declaration, sentences, tasks_in_order
from wam.data.errors import MissingCameraError, MissingFileError
from wam.data.schema import EpisodeRow, VideoSpan
from wam.data.tables import read_committed_episodes, tasks_from_table

TABLE = "meta/episodes"


def read_v3(root: Path, info: dict[str, Any]) -> DatasetMeta:
    """Read and cross-check the metadata of a v3.0 data set. Raises as `read_meta`."""
    path = root / schema.INFO_PATH
    total = field(info, "total_episodes", path, int)
    if total == 0:
        raise MissingFileError(
            f"{root}: 0 episodes; either nothing was recorded, or recording was cut off before the first group of "
            "files was complete. Reopen it for writing and go on"
        )
    declared = read_declaration(path, info)
    rows = read_committed_episodes(root, total).to_pylist()
    return assembled(
        root,
        info,
        declared,
        tasks=_tasks(root, field(info, "total_tasks", path, int)),
        episodes=tuple(_episode_row(root, row, declared.video_keys) for row in rows),
        fingerprint=_fingerprint(info, root, total),
        table=TABLE,
    )


def _episode_row(root: Path, row: Mapping[str, Any], video_keys: Mapping[str, str]) -> EpisodeRow:
    """One line of the table of episodes."""
    where = f"{root}/{TABLE}: episode {row['episode_index']}"
    videos = {}
    for camera, key in video_keys.items():
        prefix = f"videos/{key}/"
        if row.get(prefix + "from_timestamp") is None:
            raise MissingCameraError(
                f"{where} has no video of camera {camera!r} "
                f"(column {prefix}from_timestamp), which info.json declares; restore the metadata from a copy"
            )
        videos[camera] = VideoSpan(
            chunk_index=field(row, prefix + "chunk_index", where, int),
            file_index=field(row, prefix + "file_index", where, int),
            from_timestamp=field(row, prefix + "from_timestamp", where, float),
            to_timestamp=field(row, prefix + "to_timestamp", where, float),
        )
    return EpisodeRow(
        index=field(row, "episode_index", where, int),
        length=field(row, "length", where, int),
        tasks=field(row, "tasks", where, sentences),
        data_chunk_index=field(row, "data/chunk_index", where, int),
        data_file_index=field(row, "data/file_index", where, int),
        dataset_from_index=field(row, "dataset_from_index", where, int),
        dataset_to_index=field(row, "dataset_to_index", where, int),
        videos=videos,
        extra=schema.extras(row),
    )


def _tasks(root: Path, total: int) -> tuple[str, ...]:
    path = root / schema.TASKS_PATH
    return tasks_in_order({number: task for task, number in tasks_from_table(path).items()}, total, path)


def _fingerprint(info: Mapping[str, Any], root: Path, total: int) -> str:
    """Hash of the declaration and of the table of episodes, statistics included."""
    digest = hashlib.sha256(json.dumps(info, sort_keys=True).encode())
    table = read_committed_episodes(root, total, columns="")
    for name in sorted(table.column_names):
        digest.update(f"{name}={table[name].to_pylist()!r}\n".encode())
    return digest.hexdigest()[:16]
