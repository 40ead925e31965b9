"""Reading a LeRobot data set of any version: rows as arrays, frames by exact number."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wam.data import schema
from wam.data.dataset_meta import DatasetMeta
from wam.data.errors import MissingColumnError, MissingFileError, NonFiniteError, RowCountError, TruncatedVideoError
from wam.data.hub import resolve_dataset
from wam.data.lerobot_meta import read_meta
from wam.data.pictures import PictureColumns
from wam.data.recent import Recent
from wam.data.schema import EpisodeRow
from wam.data.tables import column_values
from wam.data.video import count_frames
from wam.data.video_pool import VideoPool

T = TypeVar("T")

FILES_IN_MEMORY = 4
"""Data files whose numbers stay in memory, as episodes are mostly read in order."""


class LeRobotDataset:
    """A data set of format v2.0, v2.1 or v3.0, read only; several threads and processes may use one object.

    Opening checks that all files are there and as long as the metadata says.

    Args:
        source: folder that holds `meta/info.json`, or a Hub id.
        revision: which version of a Hub id; see `wam.data.hub`.
        check: look into every file (their headers only: about 2 ms per file).
        decoders: videos open at the same time.

    Raises:
        DatasetError: one of the named errors in `wam.data.errors`.
    """

    def __init__(
        self, source: Path | str, *, revision: str | None = None, check: bool = True, decoders: int = 16
    ) -> None:
        self.root = resolve_dataset(source, revision)
        self.meta: DatasetMeta = read_meta(self.root)
        self._tables: Recent[tuple[Path, frozenset[str]], Mapping[str, np.ndarray]] = Recent(FILES_IN_MEMORY)
        self._videos = VideoPool(decoders)
        self._pictures = PictureColumns(self.root)
        if check:
            self._check_tables()
            self._check_videos()

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
        begin = episode.videos[camera].from_timestamp * self.meta.fps
        return self._videos.frames(self.meta.video_file(episode, camera), self.meta.fps, begin + wanted)

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

    def _check_videos(self) -> None:
        """Every video is there, complete, and as long as its episodes need."""
        expected: dict[Path, int] = {}
        for episode in self.meta.episodes:
            for camera, span in episode.videos.items():
                path = self.meta.video_file(episode, camera)
                last = round(span.from_timestamp * self.meta.fps) + episode.length
                expected[path] = max(expected.get(path, 0), last)
        for path, frames in expected.items():
            found = count_frames(path)
            if found < frames:
                raise TruncatedVideoError(
                    f"{path}: {found} frames, the table of episodes needs {frames}; copy it again, or record it again"
                )


def _readable(path: Path, read: Callable[[Path], T]) -> T:
    """What `read` returns; a file that is missing or cut off has its own error."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file, but the table of episodes refers to it; fetch it again")
    try:
        return read(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise RowCountError(f"{path}: not a complete parquet file ({error}); fetch it again") from error


def _require_columns(path: Path, declared: Iterable[str], found: Sequence[str]) -> None:
    missing = sorted(set(declared) - set(found))
    if missing:
        raise MissingColumnError(
            f"{path}: no column {missing[0]!r}, which info.json declares; columns are {sorted(found)}"
        )
