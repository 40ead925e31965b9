"""What the metadata of a data set claim, read as far as possible: a contradiction becomes a finding, not an end.

The reader (`wam.data.lerobot_reader`) stops at the first fault, as training must; the linter goes on to find the
others, so it has its own, forgiving look at the files of LeRobot v2.0, v2.1 and v3.0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wam.data.dataset_meta import field, file_path, path_template, positive_integer, positive_number, read_feature
from wam.data.errors import DatasetError, MissingFileError, UnsupportedVersionError
from wam.data.lint.finding import Finding
from wam.data.schema import INFO_PATH, STATS_PATH, Camera
from wam.data.tables import column_values, tasks_from_table

Line = TypeVar("Line")
Result = TypeVar("Result")
VERSIONS = ("v2.0", "v2.1", "v3.0")
RESTORE = "restore the file from a copy, or fetch the data set again"
USUAL_CHUNK = 1000
"""Episodes per folder in v2 unless a data set says otherwise."""
MOMENTS = ("mean", "min", "max")
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
        return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()


def read_declaration(root: Path) -> tuple[Declaration, list[Finding]]:
    """Metadata and what is wrong with their files.

    Raises:
        MissingFileError: no data set, or nothing to go on with: no table of episodes, no data_path.
        UnsupportedVersionError: a format version that is not in `VERSIONS`.
        DatasetError: no fps above 0, or features that are no mapping.
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
    columns, cameras = _features(field(info, "features", root / INFO_PATH, dict), findings)
    info = _usable(info, version, any(camera.video for camera in cameras.values()), findings)
    episodes, episode_stats = (_episodes_v3 if version == "v3.0" else _episodes_v2)(root, info, cameras, findings)
    if not episodes:
        raise MissingFileError(f"{root}/meta: no table of episodes can be read; {RESTORE}")
    declaration = Declaration(
        root=root,
        info=info,
        version=version,
        fps=field(info, "fps", root / INFO_PATH, positive_number),
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


def _usable(info: Mapping[str, Any], version: str, videos: bool, findings: list[Finding]) -> dict[str, Any]:
    """info.json with a stand-in for what no file can be found by. videos: whether any camera is stored so."""
    usable = dict(info)
    for name in ("data_path", "video_path") if videos and info.get("video_path") else ("data_path",):
        try:
            usable[name] = path_template(info, name, INFO_PATH)
        except DatasetError as error:
            findings.append(_broken_field(name, error))
            usable[name] = str(info[name]).replace("{", "{{").replace("}", "}}")  # itself, a file that is missing
    try:
        field(info, "chunks_size", INFO_PATH, positive_integer)
    except DatasetError as error:
        usable["chunks_size"] = USUAL_CHUNK
        if version != "v3.0":  # which numbers the folders in the table of episodes
            findings.append(_broken_field("chunks_size", error))
    return usable


def _features(
    declared: Mapping[str, Any], findings: list[Finding]
) -> tuple[dict[str, DeclaredColumn], dict[str, DeclaredCamera]]:
    columns, cameras = {}, {}
    for key, value in declared.items():
        try:
            feature = read_feature(value, f"feature {key!r}")
        except DatasetError as error:
            findings.append(_broken_field(f"features.{key}", error))
            continue
        if isinstance(feature, Camera):
            cameras[key] = DeclaredCamera(feature.height, feature.width, value["dtype"] == "video")
        elif feature is not None:
            names = _flat_names(value.get("names"))
            columns[key] = DeclaredColumn(feature.dtype, math.prod(feature.shape), names)
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
        name = path.relative_to(root).as_posix()
        try:
            table = pq.read_table(path)
            rows = table.select([n for n in table.column_names if not n.startswith("stats/")]).to_pylist()
        except (pa.ArrowException, OSError, ValueError) as error:
            findings.append(broken_table(name, error))
            continue
        lines = _each(enumerate(rows, 1), partial(_episode_v3, root, info, cameras), name, findings)
        episodes += [episode for episode in lines if episode is not None]
        numbers = [None if episode is None else episode.index for episode in lines]
        _add_stats(stats, table, numbers, name, findings)
    return episodes, stats


def _episode_v3(
    root: Path, info: Mapping[str, Any], cameras: Mapping[str, DeclaredCamera], row: Mapping[str, Any], where: str
) -> DeclaredEpisode:
    def given(name: str, kind: Callable[[Any], Result]) -> Result | None:
        return None if row.get(name) is None else field(row, name, where, kind)

    def place(prefix: str) -> tuple[int, int]:
        return field(row, f"{prefix}/chunk_index", where, int), field(row, f"{prefix}/file_index", where, int)

    number = field(row, "episode_index", where, _count)
    spans: dict[str, Span] = {}
    for key, camera in cameras.items():
        start = given(f"videos/{key}/from_timestamp", _seconds)
        if camera.video and start is not None and info.get("video_path"):
            file = root / file_path(info["video_path"], *place(f"videos/{key}"), number, key)
            spans[key] = Span(file, start, given(f"videos/{key}/to_timestamp", _seconds))
    return DeclaredEpisode(
        index=number,
        length=field(row, "length", where, _count),
        tasks=_told(row),
        data_file=root / file_path(info["data_path"], *place("data"), number),
        first=given("dataset_from_index", int),
        end=given("dataset_to_index", int),
        spans=spans,
        extra={name: value for name, value in row.items() if "/" not in name},
    )


def _add_stats(
    stats: dict[str, dict[str, dict[int, np.ndarray]]],
    table: pa.Table,
    numbers: Sequence[int | None],
    file: str,
    findings: list[Finding],
) -> None:
    """Mean, min and max of the columns of numbers, per episode; numbers: whose line it is, None = nobody knows."""
    for name in table.column_names:
        parts = name.split("/")
        if len(parts) == 3 and parts[0] == "stats" and parts[2] in MOMENTS and "images" not in parts[1]:
            try:
                values = column_values(table[name])
            except (ValueError, pa.ArrowException) as error:
                findings.append(broken_table(file, f"column {name!r}: {error}"))
                continue
            if values.dtype.kind in "fiub":
                found = stats.setdefault(parts[1], {}).setdefault(parts[2], {})
                told = zip(numbers, values.reshape(len(numbers), -1).astype(np.float64), strict=True)
                found.update((number, own) for number, own in told if number is not None)


# -- v2.0 and v2.1 -----------------------------------------------------------------------------------------------------


def _episodes_v2(
    root: Path, info: Mapping[str, Any], cameras: Mapping[str, DeclaredCamera], findings: list[Finding]
) -> tuple[list[DeclaredEpisode], EpisodeStats]:
    episodes: list[DeclaredEpisode] = []
    first: int | None = 0
    for line in _lines(root / "meta/episodes.jsonl", _line_v2, findings):
        if line is None:  # nobody knows how long it is, so nobody knows where the next one begins
            first = None
            continue
        number, length, extra = line
        folder = number // int(info["chunks_size"])
        spans = {
            key: Span(root / file_path(info["video_path"], folder, number, number, key), 0.0, None)
            for key, camera in cameras.items()
            if camera.video and info.get("video_path")
        }
        end = None if first is None else first + length
        episodes.append(
            DeclaredEpisode(
                index=number,
                length=length,
                tasks=_told(extra),
                data_file=root / file_path(info["data_path"], folder, number, number),
                first=first,
                end=end,
                spans=spans,
                extra=extra,
            )
        )
        first = end
    stats: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    if info["codebase_version"] == "v2.1":
        read = partial(_stats_line, frozenset(cameras))
        for told in _lines(root / "meta/episodes_stats.jsonl", read, findings):
            for number, key, moment, values in told or ():
                stats.setdefault(key, {}).setdefault(moment, {})[number] = values
    return episodes, stats


def _line_v2(line: Any, where: str) -> tuple[int, int, Mapping[str, Any]]:
    return field(line, "episode_index", where, _count), field(line, "length", where, _count), line


def _stats_line(cameras: Set[str], line: Any, where: str) -> list[tuple[int, str, str, np.ndarray]]:
    """[(episode, column, name of the number, values (D,))]."""
    number = field(line, "episode_index", where, int)
    return [
        (number, key, moment, field(numbers, moment, f"{where}, {key!r}", _numbers))
        for key, numbers in field(line, "stats", where, dict).items()
        if key not in cameras
        for moment in MOMENTS
    ]


# -- lines -------------------------------------------------------------------------------------------------------------


def _lines(path: Path, read: Callable[[Any, str], Result], findings: list[Finding]) -> list[Result | None]:
    """What `read` makes of the lines of a JSON lines file; see `_each`."""
    name = f"meta/{path.name}"
    if not path.is_file():
        findings.append(Finding("missing-file", "error", "no such file", "one line per episode or task", RESTORE, name))
        return []

    def parsed(text: bytes, where: str) -> Result:
        try:
            line = json.loads(text)
        except ValueError as error:
            raise DatasetError(f"{where}: {error}") from error
        return read(line, where)

    lines = enumerate(path.read_bytes().split(b"\n"), start=1)
    return _each([(number, text) for number, text in lines if text.strip()], parsed, name, findings)


def _each(
    lines: Iterable[tuple[int, Line]], read: Callable[[Line, str], Result], file: str, findings: list[Finding]
) -> list[Result | None]:
    """What `read` makes of every numbered line; None for those that it refuses, which become one finding."""
    found: list[Result | None] = []
    faults: list[DatasetError] = []
    for number, line in lines:
        try:
            found.append(read(line, f"line {number}"))
        except DatasetError as error:
            found.append(None)
            faults.append(error)
    if faults:
        more = f" ({len(faults) - 1} more lines alike)" if len(faults) > 1 else ""
        findings.append(broken_table(file, f"{faults[0]}{more}"))
    return found


def _told(line: Mapping[str, Any]) -> tuple[str, ...]:
    """The instructions of an episode; whether they say anything is another check's question."""
    tasks = line.get("tasks")
    return tuple(map(str, tasks)) if isinstance(tasks, list) else ()


def _count(value: Any) -> int:
    if int(value) < 0:
        raise ValueError(value)
    return int(value)


def _seconds(value: Any) -> float:
    if not math.isfinite(float(value)):
        raise ValueError(value)
    return float(value)


def _numbers(value: Any) -> np.ndarray:
    return np.asarray(value, dtype=np.float64).reshape(-1)


# -- tasks and statistics ----------------------------------------------------------------------------------------------


def _tasks(root: Path, version: str, findings: list[Finding]) -> dict[int, str]:
    if version != "v3.0":
        return dict(filter(None, _lines(root / "meta/tasks.jsonl", _task_line, findings)))
    path = root / "meta/tasks.parquet"
    try:
        return {int(number): str(task) for task, number in tasks_from_table(path).items()}
    except MissingFileError:
        findings.append(
            Finding("missing-file", "error", "no such file", "a table of tasks", RESTORE, "meta/tasks.parquet")
        )
    except (pa.ArrowException, ValueError, TypeError) as error:
        findings.append(broken_table("meta/tasks.parquet", error))
    return {}


def _task_line(line: Any, where: str) -> tuple[int, str]:
    return field(line, "task_index", where, int), field(line, "task", where, str)


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


def _broken_field(name: str, error: object) -> Finding:
    """A field of info.json that means nothing."""
    return Finding("broken-field", "error", str(error), "a field that can be used", RESTORE, INFO_PATH, name)
