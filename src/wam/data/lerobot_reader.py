"""Reading a LeRobot data set: rows as arrays, frames by exact number."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wam.data.errors import MissingColumnError, MissingFileError, NonFiniteError, RowCountError, TruncatedVideoError
from wam.data.lerobot_meta import DatasetMeta, read_meta
from wam.data.schema import ACTION, STATE, EpisodeRow
from wam.data.tables import column_values
from wam.data.video import count_frames, read_frames


class LeRobotDataset:
    """A data set on disk, read only. Opening checks that all files are there and as long as the metadata says.

    Args:
        root: folder that holds `meta/info.json`.
        check: look into every file (their headers only: about 2 ms per file).

    Raises:
        DatasetError: one of the named errors in `wam.data.errors`.
    """

    def __init__(self, root: Path, *, check: bool = True) -> None:
        self.root = Path(root)
        self.meta: DatasetMeta = read_meta(self.root)
        self._file_in_memory: tuple[Path, dict[str, np.ndarray]] | None = None
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
            NonFiniteError: a state or action is NaN or infinite.
        """
        episode = self.episode(index)
        table = self._rows_of_file(self.meta.data_file(episode))
        for name in names or ():
            if name not in table:
                raise MissingColumnError(f"{self.root}: no column {name!r}; it has {sorted(table)}")
        rows = self._rows_of_episode(episode, table["episode_index"])
        columns = {name: table[name][rows] for name in (names or table)}
        for name in (STATE, ACTION):
            if name in columns and not np.isfinite(columns[name]).all():
                row = int(np.argwhere(~np.isfinite(columns[name]))[0, 0])
                raise NonFiniteError(
                    f"{self.meta.data_file(episode)}: column {name!r} holds NaN or infinity at row {row} of episode "
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
        path = self.meta.video_file(episode, camera)
        wanted = np.arange(episode.length) if rows is None else np.asarray(rows, dtype=np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= episode.length):
            asked = f"rows {wanted.min()} to {wanted.max()}"
            raise IndexError(f"{path}: {asked} of episode {index} asked for, it has rows 0 to {episode.length - 1}")
        first = round(episode.videos[camera].from_timestamp * self.meta.fps)
        return read_frames(path, self.meta.fps, first + wanted)

    # -- files -----------------------------------------------------------------------------------------------------

    def _rows_of_file(self, path: Path) -> Mapping[str, np.ndarray]:
        """All columns of numbers of one file; the last file stays in memory, as episodes are mostly read in order."""
        if self._file_in_memory is None or self._file_in_memory[0] != path:
            names = list(self.meta.features)
            table = pq.read_table(path, columns=names)
            self._file_in_memory = (path, {name: self._column(path, name, table[name]) for name in names})
        return self._file_in_memory[1]

    def _column(self, path: Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
        try:
            return column_values(column)
        except ValueError as error:
            raise NonFiniteError(f"{path}: column {name!r}: {error}; repair the file or record again") from error

    def _rows_of_episode(self, episode: EpisodeRow, episode_index: np.ndarray) -> slice:
        """Where an episode lies in its file."""
        rows = np.flatnonzero(episode_index == episode.index)
        if len(rows) != episode.length or len(rows) == 0 or rows[-1] - rows[0] + 1 != len(rows):
            raise RowCountError(
                f"{self.meta.data_file(episode)}: {len(rows)} rows of episode {episode.index}, the table of episodes "
                f"says {episode.length}; fetch the data set again"
            )
        return slice(int(rows[0]), int(rows[-1]) + 1)

    # -- checks ----------------------------------------------------------------------------------------------------

    def _check_tables(self) -> None:
        """Every data file is there, has the declared columns, and as many rows as its episodes."""
        expected: Counter[Path] = Counter()
        for episode in self.meta.episodes:
            expected[self.meta.data_file(episode)] += episode.length
        for path, rows in expected.items():
            if not path.is_file():
                raise MissingFileError(f"{path}: no such file, but the table of episodes refers to it; fetch it again")
            try:
                parquet = pq.read_metadata(path)
            except pa.ArrowInvalid as error:
                raise RowCountError(f"{path}: not a complete parquet file ({error}); fetch it again") from error
            names = parquet.schema.to_arrow_schema().names
            missing = sorted(set(self.meta.features) - set(names))
            if missing:
                raise MissingColumnError(
                    f"{path}: no column {missing[0]!r}, which info.json declares; columns are {sorted(names)}"
                )
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
