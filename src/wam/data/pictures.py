"""Cameras stored as pictures inside the parquet files: one encoded file (PNG or JPEG) per row, as {bytes, path}."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from wam.data.errors import DatasetError, MissingColumnError, MissingFileError, SpecMismatchError
from wam.data.recent import Recent
from wam.data.schema import Camera

ROW_GROUPS_IN_MEMORY = 8
"""Row groups of one camera whose encoded pictures stay in memory; a data file of LeRobot is at most 100 MB."""


class PictureColumns:
    """Reads pictures by row, several threads at a time.

    Args:
        root: folder of the data set, from which the paths of pictures outside the parquet files count.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._groups: Recent[tuple[Path, str, int], pa.ChunkedArray] = Recent(ROW_GROUPS_IN_MEMORY)
        self._starts: Recent[Path, np.ndarray] = Recent(1024)

    def frames(self, path: Path, column: str, rows: np.ndarray, camera: Camera) -> np.ndarray:
        """The pictures of these rows of a file (any order, repeats allowed): uint8 (n, H, W, 3) RGB.

        Raises:
            MissingColumnError, MissingFileError: the column, or a picture kept outside the file, is not there.
            DatasetError: a cell is empty or no picture.
            SpecMismatchError: a picture is no 8-bit picture of the declared size.
        """
        wanted, order = np.unique(rows, return_inverse=True)
        starts = self._starts.get(path, lambda: _row_group_starts(path))
        groups = np.searchsorted(starts, wanted, side="right") - 1
        pictures = []
        for row, group in zip(wanted.tolist(), groups.tolist(), strict=True):
            cells = self._cells(path, column, group)
            where = f"{path}: column {column!r}, row {row}"
            pictures.append(self._decode(cells[row - int(starts[group])].as_py(), where, camera))
        return np.stack(pictures)[order]

    def _cells(self, path: Path, column: str, group: int) -> pa.ChunkedArray:
        return self._groups.get((path, column, group), lambda: _read_cells(path, column, group))

    def _decode(self, cell: Any, where: str, camera: Camera) -> np.ndarray:
        """One cell, {bytes, path} or bytes, as uint8 (H, W, 3)."""
        encoded = cell.get("bytes") if isinstance(cell, dict) else cell
        name = cell.get("path") if isinstance(cell, dict) else None
        if encoded is None and name:
            if not (self._root / name).is_file():
                raise MissingFileError(f"{where}: refers to {self._root / name}, which is not there; fetch it again")
            encoded = (self._root / name).read_bytes()
        if not isinstance(encoded, bytes):
            raise DatasetError(f"{where}: the cell holds no picture; expected the bytes of a PNG file")
        try:
            with Image.open(io.BytesIO(encoded)) as picture:
                if picture.mode.startswith(("I", "F")):
                    raise SpecMismatchError(
                        f"{where}: picture of mode {picture.mode!r} (depth?), expected 8-bit colour"
                    )
                frame = np.asarray(picture.convert("RGB"))
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise DatasetError(f"{where}: no complete picture ({error}); fetch the file again") from error
        if frame.shape[:2] != (camera.height, camera.width):
            found, expected = frame.shape[:2], (camera.height, camera.width)
            raise SpecMismatchError(f"{where}: picture of {found} pixels, info.json declares {expected}")
        return frame


def _row_group_starts(path: Path) -> np.ndarray:
    """First row of every row group."""
    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return np.cumsum([0, *sizes[:-1]])


def _read_cells(path: Path, column: str, group: int) -> pa.ChunkedArray:
    with pq.ParquetFile(path) as parquet:
        if column not in parquet.schema_arrow.names:
            names = sorted(parquet.schema_arrow.names)
            raise MissingColumnError(f"{path}: no column {column!r}, which info.json declares; columns are {names}")
        return parquet.read_row_group(group, columns=[column])[column]
