"""Layouts v2.0 and v2.1: one parquet file per episode, one video per episode and camera, the metadata in JSON lines.

    meta/info.json              as in v3.0, with other path templates and `chunks_size`, episodes per folder
    meta/episodes.jsonl         {"episode_index", "tasks", "length"} and whatever the recorder added
    meta/tasks.jsonl            {"task_index", "task"}
    meta/stats.json             v2.0: statistics of the whole data set
    meta/episodes_stats.jsonl   v2.1: statistics of every episode

Format: `lerobot.common.datasets` 0.1 (v2.0) and `lerobot.datasets` 0.3.3 (v2.1), behaviour, not code.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from wam.data import schema
from wam.data.dataset_meta import (
    DatasetMeta,
    assembled,
    field,
    positive_integer,
    positive_number,
    read_declaration,
    sentences,
    tasks_in_order,
)
from wam.data.errors import DatasetError, MissingFileError, RowCountError
from wam.data.schema import EpisodeRow, VideoSpan

EPISODES_PATH = "meta/episodes.jsonl"
TASKS_PATH = "meta/tasks.jsonl"
STATS_PATHS = ("meta/episodes_stats.jsonl", "meta/stats.json")


def read_v2(root: Path, info: dict[str, Any]) -> DatasetMeta:
    """Read and cross-check the metadata of a v2.0 or v2.1 data set. Raises as `read_meta`."""
    path = root / schema.INFO_PATH
    declared = read_declaration(path, info)
    return assembled(
        root,
        info,
        declared,
        tasks=_tasks(root, field(info, "total_tasks", path, int)),
        episodes=_episodes(root, info, tuple(declared.video_keys)),
        fingerprint=_fingerprint(root),
        table=EPISODES_PATH,
    )


def _episodes(root: Path, info: Mapping[str, Any], cameras: tuple[str, ...]) -> tuple[EpisodeRow, ...]:
    """The episodes in order of their numbers, which must be 0, 1, 2, ... as many as `info.json` declares."""
    path = root / EPISODES_PATH
    fps = field(info, "fps", root / schema.INFO_PATH, positive_number)
    per_folder = field(info, "chunks_size", root / schema.INFO_PATH, positive_integer)
    total = field(info, "total_episodes", root / schema.INFO_PATH, int)
    lines = {field(line, "episode_index", where, int): (where, line) for where, line in _json_lines(path)}
    astray = sorted(set(lines) ^ set(range(min(total, len(lines) + 1))))  # a promise may be of any size
    if astray or total == 0:
        raise RowCountError(
            f"{path}: {len(lines)} different episodes, the first one missing or too many is "
            f"{astray[0] if astray else 0}; info.json promises episodes 0 to {total - 1}. Fetch the data set again"
        )
    lengths = [field(lines[index][1], "length", lines[index][0], int) for index in range(total)]
    ends = list(accumulate(lengths))
    rows = []
    for index, (length, end) in enumerate(zip(lengths, ends, strict=True)):
        where, line = lines[index]
        folder = index // per_folder
        rows.append(
            EpisodeRow(
                index=index,
                length=length,
                tasks=field(line, "tasks", where, sentences),
                data_chunk_index=folder,
                data_file_index=index,
                dataset_from_index=end - length,
                dataset_to_index=end,
                videos={camera: VideoSpan(folder, index, 0.0, length / fps) for camera in cameras},
                extra=schema.extras(line),
            )
        )
    return tuple(rows)


def _tasks(root: Path, total: int) -> tuple[str, ...]:
    path = root / TASKS_PATH
    lines = _json_lines(path)
    sentences = {field(line, "task_index", where, int): field(line, "task", where, str) for where, line in lines}
    return tasks_in_order(sentences, total, path)


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every line with its place, `FILE:NUMBER`; empty lines are skipped."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; every v2 data set has one. Fetch the data set again")
    with path.open(encoding="utf-8") as lines:
        for number, text in enumerate(lines, start=1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except json.JSONDecodeError as error:
                raise DatasetError(f"{path}:{number}: not valid JSON ({error}); fetch the file again") from error
            if not isinstance(line, dict):
                raise DatasetError(f"{path}:{number}: found {text.strip()!r}, expected an object with fields")
            yield f"{path}:{number}", line


def _fingerprint(root: Path) -> str:
    """Hash of the metadata files; without any statistics among them, the sizes of all other files stand in."""
    digest = hashlib.sha256()
    statistics = [name for name in STATS_PATHS if (root / name).is_file()]
    for name in (schema.INFO_PATH, EPISODES_PATH, TASKS_PATH, *statistics):
        digest.update(name.encode() + b"\0" + hashlib.sha256((root / name).read_bytes()).digest())
    if not statistics:
        for path in sorted(path for folder in ("data", "videos") for path in (root / folder).rglob("*.*")):
            digest.update(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]
