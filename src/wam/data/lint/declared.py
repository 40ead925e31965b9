"""What the metadata of a data set claim, read as far as possible: a contradiction becomes a finding, not an end.

The reader (`wam.data.lerobot_reader`) stops at the first fault, as training must; the linter goes on to find the
others, so it has its own, forgiving look at the files of LeRobot v2.0, v2.1 and v3.0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wam.data.errors import MissingFileError, UnsupportedVersionError
from wam.data.lint.finding import Finding
from wam.data.schema import INFO_PATH, STATS_PATH
from wam.data.tables import column_values, tasks_from_table

VERSIONS = ("v2.0", "v2.1", "v3.0")
RESTORE = "restore the file from a copy, or fetch the data set again"
EpisodeStats = Mapping[str, Mapping[str, Mapping[int, np.ndarray]]]
"""Column -> name of the number -> episode -> (D,)."""


@dataclass(frozen=True)
class DeclaredColumn:
    """A column of numbers: numpy type, values per row, and names of its dimensions (empty = not named)."""

    dtype: str
    width: int
    names: tuple[str, ...]

    def name(self, dim: int) -> str:
        """Name of a dimension, or its number."""
        return self.names[dim] if dim < len(self.names) else f"[{dim}]"


@dataclass(frozen=True)
class DeclaredCamera:
    """A camera; `video` is False where pictures lie inside the parquet files."""

    height: int
    width: int
    video: bool


@dataclass(frozen=True)
class Span:
    """Where the frames of an episode lie: file, and seconds from its beginning (`stop` None = the whole file)."""

    file: Path
    start: float
    stop: float | None


@dataclass(frozen=True)
class DeclaredEpisode:
    """One line of the table of episodes; `first` and `end` are row numbers in the whole data set."""

    index: int
    length: int
    tasks: tuple[str, ...]
    data_file: Path
    first: int | None
    end: int | None
    spans: Mapping[str, Span]
    extra: Mapping[str, Any]


@dataclass(frozen=True)
class Declaration:
    """All that the metadata say; cameras and columns by the name of their feature."""

    root: Path
    info: Mapping[str, Any]
    version: str
    fps: float
    columns: Mapping[str, DeclaredColumn]
    cameras: Mapping[str, DeclaredCamera]
    tasks: Mapping[int, str]
    episodes: tuple[DeclaredEpisode, ...]
    stats: Mapping[str, Any]
    episode_stats: EpisodeStats

    def relative(self, path: Path) -> str:
        """A path as findings show it."""
        return path.relative_to(self.root).as_posix()


def read_declaration(root: Path) -> tuple[Declaration, list[Finding]]:
    """Metadata and what is wrong with their files.

    Raises:
        MissingFileError: no data set, or nothing to go on with: no table of episodes, no fps, no features.
        UnsupportedVersionError: a format version that is not in `VERSIONS`.
    """
    info = _read_info(root)
    version = str(info.get("codebase_version"))
    if version not in VERSIONS:
        raise UnsupportedVersionError(
            f"{root / INFO_PATH}: codebase_version is {version!r}, expected one of {VERSIONS}"
        )
    for name in ("fps", "features", "data_path"):
        if not info.get(name):
            raise MissingFileError(f"{root / INFO_PATH}: field {name!r} is {info.get(name)!r}; {RESTORE}")
    findings: list[Finding] = []
    columns, cameras = _features(info["features"])
    episodes, episode_stats = (_episodes_v3 if version == "v3.0" else _episodes_v2)(root, info, cameras, findings)
    if not episodes:
        raise MissingFileError(f"{root}/meta: no table of episodes can be read; {RESTORE}")
    declaration = Declaration(
        root=root,
        info=info,
        version=version,
        fps=float(info["fps"]),
        columns=columns,
        cameras=cameras,
        tasks=_tasks(root, version, findings),
        episodes=tuple(sorted(episodes, key=lambda episode: episode.index)),
        stats=_stats(root, version, findings),
        episode_stats=episode_stats,
    )
    return declaration, findings


def _read_info(root: Path) -> dict[str, Any]:
    path = root / INFO_PATH
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file, so {root} is no LeRobot data set; check the path")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise MissingFileError(f"{path}: not a valid JSON object ({error}); {RESTORE}") from error


def _features(declared: Mapping[str, Any]) -> tuple[dict[str, DeclaredColumn], dict[str, DeclaredCamera]]:
    columns, cameras = {}, {}
    for key, feature in declared.items():
        shape, dtype = tuple(feature.get("shape") or (1,)), feature.get("dtype")
        if dtype in ("video", "image"):
            channels_first = shape[0] == 3 and shape[-1] != 3
            height, width = shape[1:3] if channels_first else shape[:2]
            cameras[key] = DeclaredCamera(int(height), int(width), dtype == "video")
        elif dtype != "string":
            columns[key] = DeclaredColumn(str(dtype), int(np.prod(shape)), _flat_names(feature.get("names")))
    return columns, cameras


def _flat_names(names: Any) -> tuple[str, ...]:
    """Names of dimensions: a list, or lists in a mapping such as {"motors": [...]}."""
    if isinstance(names, Mapping):
        return tuple(name for part in names.values() for name in _flat_names(part))
    if isinstance(names, list):
        return tuple(name for part in names for name in (_flat_names(part) if isinstance(part, list) else [str(part)]))
    return ()


# -- v3.0 --------------------------------------------------------------------------------------------------------------


def _episodes_v3(
    root: Path, info: Mapping[str, Any], cameras: Mapping[str, DeclaredCamera], findings: list[Finding]
) -> tuple[list[DeclaredEpisode], EpisodeStats]:
    episodes: list[DeclaredEpisode] = []
    stats: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    for path in sorted((root / "meta/episodes").glob("chunk-*/file-*.parquet")):
        try:
            table = pq.read_table(path)
            rows = table.select([n for n in table.column_names if not n.startswith("stats/")]).to_pylist()
            episodes += [_episode_v3(root, info, cameras, row) for row in rows]
            _add_stats(stats, table)
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            findings.append(broken_table(path.relative_to(root).as_posix(), error))
    return episodes, stats


def _episode_v3(
    root: Path, info: Mapping[str, Any], cameras: Mapping[str, DeclaredCamera], row: Mapping[str, Any]
) -> DeclaredEpisode:
    spans = {}
    for key, camera in cameras.items():
        start = row.get(f"videos/{key}/from_timestamp")
        if camera.video and start is not None and info.get("video_path"):
            place = {name: int(row[f"videos/{key}/{name}"]) for name in ("chunk_index", "file_index")}
            stop = row.get(f"videos/{key}/to_timestamp")
            spans[key] = Span(root / info["video_path"].format(video_key=key, **place), float(start), stop)
    place = {name: int(row[f"data/{name}"]) for name in ("chunk_index", "file_index")}
    return DeclaredEpisode(
        index=int(row["episode_index"]),
        length=int(row["length"]),
        tasks=tuple(row.get("tasks") or ()),
        data_file=root / info["data_path"].format(**place),
        first=row.get("dataset_from_index"),
        end=row.get("dataset_to_index"),
        spans=spans,
        extra={name: value for name, value in row.items() if "/" not in name},
    )


def _add_stats(stats: dict[str, dict[str, dict[int, np.ndarray]]], table: pa.Table) -> None:
    """Mean, min and max of the columns of numbers, per episode."""
    numbers = table["episode_index"].to_pylist()
    for name in table.column_names:
        parts = name.split("/")
        if len(parts) == 3 and parts[0] == "stats" and parts[2] in ("mean", "min", "max") and "images" not in parts[1]:
            values = column_values(table[name])
            if values.dtype.kind in "fiub":
                found = stats.setdefault(parts[1], {}).setdefault(parts[2], {})
                found.update(zip(numbers, values.reshape(len(values), -1).astype(np.float64), strict=True))


# -- v2.0 and v2.1 -----------------------------------------------------------------------------------------------------


def _episodes_v2(
    root: Path, info: Mapping[str, Any], cameras: Mapping[str, DeclaredCamera], findings: list[Finding]
) -> tuple[list[DeclaredEpisode], EpisodeStats]:
    episodes: list[DeclaredEpisode] = []
    chunk, first = int(info.get("chunks_size") or 1000), 0
    for line in _lines(root / "meta/episodes.jsonl", findings):
        number, length = int(line["episode_index"]), int(line["length"])
        place = {"episode_chunk": number // chunk, "episode_index": number}
        spans = {
            key: Span(root / info["video_path"].format(video_key=key, **place), 0.0, None)
            for key, camera in cameras.items()
            if camera.video and info.get("video_path")
        }
        episodes.append(
            DeclaredEpisode(
                index=number,
                length=length,
                tasks=tuple(line.get("tasks") or ()),
                data_file=root / info["data_path"].format(**place),
                first=first,
                end=first + length,
                spans=spans,
                extra=line,
            )
        )
        first += length
    stats: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    for line in _lines(root / "meta/episodes_stats.jsonl", findings) if info["codebase_version"] == "v2.1" else ():
        for key, numbers in line["stats"].items():
            if key not in cameras:
                for name in ("mean", "min", "max"):
                    values = np.asarray(numbers[name], dtype=np.float64).reshape(-1)
                    stats.setdefault(key, {}).setdefault(name, {})[int(line["episode_index"])] = values
    return episodes, stats


def _lines(path: Path, findings: list[Finding]) -> Iterator[dict[str, Any]]:
    """The lines of a JSON lines file as far as they can be read."""
    name = f"meta/{path.name}"
    if not path.is_file():
        findings.append(Finding("missing-file", "error", "no such file", "one line per episode or task", RESTORE, name))
        return
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            if text.strip():
                yield dict(json.loads(text))
        except ValueError as error:
            findings.append(broken_table(name, f"line {number}: {error}"))


# -- tasks and statistics ----------------------------------------------------------------------------------------------


def _tasks(root: Path, version: str, findings: list[Finding]) -> dict[int, str]:
    if version != "v3.0":
        return {int(line["task_index"]): str(line["task"]) for line in _lines(root / "meta/tasks.jsonl", findings)}
    path = root / "meta/tasks.parquet"
    try:
        return {number: str(task) for task, number in tasks_from_table(path).items()}
    except MissingFileError:
        findings.append(
            Finding("missing-file", "error", "no such file", "a table of tasks", RESTORE, "meta/tasks.parquet")
        )
    except (pa.ArrowException, ValueError) as error:
        findings.append(broken_table("meta/tasks.parquet", error))
    return {}


def _stats(root: Path, version: str, findings: list[Finding]) -> dict[str, Any]:
    path = root / STATS_PATH
    if not path.is_file():
        if version != "v2.1":  # which keeps statistics per episode only
            advice = "write it with `wam data stats PATH --repair`"
            findings.append(
                Finding("stats", "warning", "no such file", "statistics of every column", advice, STATS_PATH)
            )
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        findings.append(
            Finding(
                "stats",
                "error",
                f"not valid JSON: {error}",
                "statistics of every column",
                "write it again with `wam data stats PATH --repair`",
                STATS_PATH,
            )
        )
        return {}


def broken_table(file: str, error: object) -> Finding:
    """A table that cannot be read."""
    return Finding("broken-table", "error", f"cannot be read: {error}", "a complete table", RESTORE, file)
