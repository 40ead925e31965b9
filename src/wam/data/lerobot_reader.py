"""Reading a LeRobot data set of any version: rows as arrays, frames by exact number."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wam.data import schema
from wam.data.dataset_meta import DatasetMeta
from wam.data.errors import (
    DatasetError,
    MissingColumnError,
    MissingFileError,
    NonFiniteError,
    RowCountError,
    TruncatedVideoError,
)
from wam.data.hub import resolve_dataset
from wam.data.lerobot_meta import read_meta
from wam.data.pictures import PictureColumns
from wam.data.recent import Recent
from wam.data.schema import EpisodeRow
from wam.data.tables import column_values
from wam.data.video import count_frames
from wam.data.video_pool import VideoPool

T = TypeVar("T")
logger = logging.getLogger(__name__)

OnBroken = Literal["stop", "skip"]
"""What to do about an episode whose pictures cannot be read."""

DECODER_MEMORY = 2**28
"""Bytes that videos kept open may take together, if each holds eight pictures of 1.5 bytes a pixel."""
FILES_IN_MEMORY = 4
"""Data files whose numbers stay in memory, as episodes are mostly read in order."""


class LeRobotDataset:
    """A data set of format v2.0, v2.1 or v3.0, read only; several threads and processes may use one object.

    Opening checks that all files are there and as long as the metadata says.

    Args:
        source: folder that holds `meta/info.json`, or a Hub id.
        revision: which version of a Hub id; see `wam.data.hub`.
        check: look into every file (their headers only: about 2 ms per file).
        decoders: videos open at the same time; None: 8 to 128, as many as fit into `DECODER_MEMORY`.
        on_broken: `skip` lists episodes with a broken video in `broken`, with a warning each, instead of an error.

    Raises:
        DatasetError: one of the named errors in `wam.data.errors`.
    """

    def __init__(
        self,
        source: Path | str,
        *,
        revision: str | None = None,
        check: bool = True,
        decoders: int | None = None,
        on_broken: OnBroken = "stop",
    ) -> None:
        self.root = resolve_dataset(source, revision)
        self.meta: DatasetMeta = read_meta(self.root)
        self._tables: Recent[tuple[Path, frozenset[str]], Mapping[str, np.ndarray]] = Recent(FILES_IN_MEMORY)
        self._texts: Recent[tuple[Path, str], pa.Array] = Recent(FILES_IN_MEMORY)
        self._videos = VideoPool(_decoders(self.meta) if decoders is None else decoders)
        self._paths: dict[tuple[str, int, int], Path] = {}  # of videos, by camera and file: a path takes long to make
        self._pictures = PictureColumns(self.root)
        self.broken: Mapping[int, str] = {}
        """Episodes with a video that is not there, not complete or too short, as far as headers tell: what is wrong."""
        if check:
            self._check_tables()
            self.broken = self._check_videos(on_broken)

    @property
    def num_episodes(self) -> int:
        """Number of episodes."""
        return len(self.meta.episodes)

    @property
    def num_rows(self) -> int:
        """Rows of all episodes."""
        return self.meta.total_rows

    def episode(self, index: int) -> EpisodeRow:
        """The row of one episode in the table of episodes."""
        if not 0 <= index < self.num_episodes:
            raise IndexError(f"{self.root}: episode {index} asked for, there are 0 to {self.num_episodes - 1}")
        return self.meta.episodes[index]

    def columns(self, index: int, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Columns of one episode: name -> (T, D), or (T,) for features of shape (1,).

        Args:
            index: episode.
            names: which columns; all by default.

        Raises:
            MissingColumnError: a column is not there.
            NonFiniteError: a state or action is NaN or infinite, or a cell is empty.
        """
        episode = self.episode(index)
        asked = tuple(self.meta.features) if names is None else tuple(names)
        path = self.meta.data_file(episode)
        table = self._numbers(path, asked)
        rows = self._rows_of_episode(path, episode, table["episode_index"])
        columns = {name: table[name][rows] for name in asked}
        for name, column in columns.items():
            if schema.is_vector(name) and not np.isfinite(column).all():
                row = int(np.argwhere(~np.isfinite(column))[0, 0])
                raise NonFiniteError(
                    f"{path}: column {name!r} holds NaN or infinity at row {row} of episode "
                    f"{index}; leave this episode out, or repair its values"
                )
        return columns

    def texts(self, index: int, name: str) -> tuple[np.ndarray, list[str]]:
        """A column of text of one episode: which text stands at each row, int64 (T,), and the texts.

        An empty cell is an empty text.

        Raises:
            MissingColumnError: the column is not there, or holds no text.
        """
        episode = self.episode(index)
        path = self.meta.data_file(episode)
        rows = self._rows_of_episode(path, episode, self._numbers(path, ())["episode_index"])
        cells = self._texts.get((path, name), lambda: _read_texts(path, name))[rows].dictionary_encode()
        return cells.indices.to_numpy().astype(np.int64), cells.dictionary.to_pylist()

    def frames(self, index: int, camera: str, rows: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Exactly the frames at these rows of an episode (all by default): uint8 (n, H, W, 3) RGB.

        Raises:
            MissingCameraError: the data set has no such camera.
            IndexError: a row outside the episode.
            MissingFileError, TruncatedVideoError: the video is not there or too short.
        """
        episode = self.episode(index)
        camera = self.meta.require_camera(camera)
        wanted = np.arange(episode.length) if rows is None else np.asarray(rows, dtype=np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= episode.length):
            asked = f"rows {wanted.min()} to {wanted.max()} of camera {camera!r}"
            raise IndexError(
                f"{self.root}: {asked} of episode {index} asked for, it has rows 0 to {episode.length - 1}"
            )
        if camera in self.meta.image_keys:
            path = self.meta.data_file(episode)
            first = self._rows_of_episode(path, episode, self._numbers(path, ())["episode_index"]).start
            key = self.meta.image_keys[camera]
            return self._pictures.frames(path, key, first + wanted, self.meta.cameras[camera])
        span = episode.videos[camera]
        place = (camera, span.chunk_index, span.file_index)
        if place not in self._paths:
            self._paths[place] = self.meta.video_file(episode, camera)
        return self._videos.frames(self._paths[place], self.meta.fps, span.from_timestamp * self.meta.fps + wanted)

    # -- files -----------------------------------------------------------------------------------------------------

    def _numbers(self, path: Path, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Columns of numbers of one file, `episode_index` always among them."""
        wanted = frozenset((*names, "episode_index"))
        for name in sorted(wanted - set(self.meta.features)):
            raise MissingColumnError(
                f"{self.root}/{schema.INFO_PATH}: no column {name!r}; it has {sorted(self.meta.features)}"
            )
        return self._tables.get((path, wanted), lambda: self._read_numbers(path, sorted(wanted)))

    def _read_numbers(self, path: Path, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        table = _readable(path, lambda file: pq.read_table(file, columns=list(names)))
        _require_columns(path, names, table.column_names)
        return {name: self._column(path, name, table[name]) for name in names}

    def _column(self, path: Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
        try:
            return column_values(column)
        except ValueError as error:
            raise NonFiniteError(f"{path}: column {name!r}: {error}; repair the file or record again") from error

    def _rows_of_episode(self, path: Path, episode: EpisodeRow, episode_index: np.ndarray) -> slice:
        """Where an episode lies in its file."""
        rows = np.flatnonzero(episode_index == episode.index)
        if len(rows) != episode.length or len(rows) == 0 or rows[-1] - rows[0] + 1 != len(rows):
            raise RowCountError(
                f"{path}: {len(rows)} rows of episode {episode.index}, the table of episodes "
                f"says {episode.length}; fetch the data set again"
            )
        return slice(int(rows[0]), int(rows[-1]) + 1)

    # -- checks ----------------------------------------------------------------------------------------------------

    def _check_tables(self) -> None:
        """Every data file is there, has the declared columns, and as many rows as its episodes."""
        expected: Counter[Path] = Counter()
        for episode in self.meta.episodes:
            expected[self.meta.data_file(episode)] += episode.length
        declared = (*self.meta.features, *self.meta.image_keys.values())
        for path, rows in expected.items():
            parquet = _readable(path, pq.read_metadata)
            _require_columns(path, declared, parquet.schema.to_arrow_schema().names)
            if parquet.num_rows != rows:
                raise RowCountError(
                    f"{path}: {parquet.num_rows} rows, the table of episodes says {rows}; fetch the data set again"
                )

    def _check_videos(self, on_broken: OnBroken) -> dict[int, str]:
        """Episodes whose videos are not all there, complete and long enough, and why; with `stop`, an error for one."""
        known: dict[Path, int | DatasetError] = {}
        broken: dict[int, str] = {}
        for episode in self.meta.episodes:
            for camera, span in episode.videos.items():
                path = self.meta.video_file(episode, camera)
                if path not in known:
                    known[path] = _frames_or_error(path)
                found, needed = known[path], round(span.from_timestamp * self.meta.fps) + episode.length
                if isinstance(found, int) and found >= needed:
                    continue
                error = found if isinstance(found, DatasetError) else _too_short(path, found, episode.index, needed)
                if on_broken == "stop":
                    raise error
                broken.setdefault(episode.index, str(error))
        for index, why in broken.items():
            logger.warning("%s: episode %d is skipped: %s", self.root, index, why)
        return broken


def _decoders(meta: DatasetMeta) -> int:
    """How many videos of the largest camera may stay open."""
    pixels = max((camera.height * camera.width for camera in meta.cameras.values()), default=1)
    return min(max(DECODER_MEMORY // (12 * pixels), 8), 128)


def _frames_or_error(path: Path) -> int | DatasetError:
    try:
        return count_frames(path)
    except DatasetError as error:
        return error


def _too_short(path: Path, found: int, episode: int, needed: int) -> DatasetError:
    return TruncatedVideoError(
        f"{path}: {found} frames, the table of episodes needs {needed} for episode {episode}; copy it again, or record "
        "it again"
    )


def _readable(path: Path, read: Callable[[Path], T]) -> T:
    """What `read` returns; a file that is missing or cut off has its own error."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file, but the table of episodes refers to it; fetch it again")
    try:
        return read(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise RowCountError(f"{path}: not a complete parquet file ({error}); fetch it again") from error


def _read_texts(path: Path, name: str) -> pa.Array:
    """A column of text of a whole file."""
    _require_columns(path, [name], _readable(path, pq.read_schema).names)
    column = pq.read_table(path, columns=[name])[name]
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise MissingColumnError(f"{path}: column {name!r} holds {column.type}, expected text; name another column")
    return column.combine_chunks().fill_null("")


def _require_columns(path: Path, declared: Iterable[str], found: Sequence[str]) -> None:
    missing = sorted(set(declared) - set(found))
    if missing:
        raise MissingColumnError(
            f"{path}: no column {missing[0]!r}, which info.json declares; columns are {sorted(found)}"
        )
