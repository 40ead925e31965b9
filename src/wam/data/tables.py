"""The parquet tables of a LeRobot v3.0 data set: rows, episodes, tasks."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wam.data.errors import MissingColumnError, MissingFileError, RowCountError, SpecMismatchError
from wam.data.schema import Feature


def rows_table(columns: Mapping[str, np.ndarray], features: Mapping[str, Feature]) -> pa.Table:
    """Table of rows: a feature of shape (1,) becomes a plain column, (D,) a column of lists with D entries."""
    arrays = {}
    for name, feature in features.items():
        flat = pa.array(np.ascontiguousarray(columns[name]).reshape(-1), type=pa.from_numpy_dtype(feature.dtype))
        size = feature.shape[0]
        arrays[name] = flat if size == 1 else pa.FixedSizeListArray.from_arrays(flat, size)
    return pa.table(arrays)


def column_values(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers as an array (n,) or, for lists of one length D, (n, D), in its own dtype.

    Raises:
        ValueError: a cell is null, or lists differ in length.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if array.null_count:
        raise ValueError(f"{array.null_count} empty cells")
    if not isinstance(array, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
        return np.asarray(array.to_numpy(zero_copy_only=False))
    flat = column_values(array.flatten())
    if len(array) and len(flat) % len(array):
        raise ValueError("lists of different lengths")
    return flat.reshape(len(array), -1) if len(array) else flat.reshape(0, 0)


def episodes_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Table of episodes from plain rows that all have the same keys."""
    return pa.Table.from_pylist([dict(row) for row in rows])


def read_committed_episodes(root: Path, total: int, columns: str | None = None) -> pa.Table:
    """The first `total` lines of the table of episodes, in order.

    Args:
        root: folder of the data set.
        total: `total_episodes` of `info.json`; files beyond it are unfinished and not looked at.
        columns: keep only columns that begin so ("" keeps all); `None` keeps all but the statistics.

    Raises:
        MissingFileError, RowCountError: files are missing or hold fewer or other lines than `total` promises.
        SpecMismatchError: the files do not declare their columns alike.
    """
    parts: list[pa.Table] = []
    found = 0
    for path in sorted((root / "meta/episodes").glob("chunk-*/file-*.parquet")):
        if found >= total:
            break
        names = pq.read_schema(path).names
        keep = [n for n in names if (not n.startswith("stats/") if columns is None else n.startswith(columns))]
        table = pq.read_table(path, columns=list(dict.fromkeys(["episode_index", *keep])))
        parts.append(table)
        found += table.num_rows
    if not parts:
        raise MissingFileError(f"{root}/meta/episodes: no table of episodes, info.json promises {total} episodes")
    try:
        table = pa.concat_tables(parts, promote_options="default").slice(0, min(total, found))
    except pa.ArrowException as error:
        raise SpecMismatchError(
            f"{root}/meta/episodes: a column has another type in another file ({error}); write them with one type"
        ) from error
    numbers = table["episode_index"].to_numpy()
    if len(numbers) != total or not np.array_equal(numbers, np.arange(len(numbers))):
        raise RowCountError(
            f"{root}/meta/episodes: {len(numbers)} lines, last number {numbers[-1] if len(numbers) else None}; "
            f"info.json promises episodes 0 to {total - 1} in order. Fetch the data set again"
        )
    return table


def tasks_table(tasks: Mapping[str, int]) -> pa.Table:
    """Table of tasks as pandas writes a frame whose index is the sentence (LeRobot looks sentences up by index)."""
    table = pa.table({"task_index": pa.array(tasks.values(), pa.int64()), "task": pa.array(tasks.keys(), pa.string())})
    integer = {"pandas_type": "int64", "numpy_type": "int64", "metadata": None}
    text = {"pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    pandas_metadata = {
        "index_columns": ["task"],
        "column_indexes": [{"name": None, "field_name": None, **text, "metadata": {"encoding": "UTF-8"}}],
        "columns": [
            {"name": "task_index", "field_name": "task_index", **integer},
            {"name": "task", "field_name": "task", **text},
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas_metadata)})


def tasks_from_table(path: Path) -> dict[str, int]:
    """Sentence -> task index. Reads our tables and those of pandas with an unnamed index.

    Raises:
        MissingFileError, MissingColumnError: no file, or not a table of tasks.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; every data set has a table of tasks")
    table = pq.read_table(path)
    sentences = next((name for name in ("task", "__index_level_0__") if name in table.column_names), None)
    if sentences is None or "task_index" not in table.column_names:
        raise MissingColumnError(f"{path}: columns are {table.column_names}, expected 'task_index' and 'task'")
    if any(pa.types.is_nested(table[name].type) for name in (sentences, "task_index")):
        raise MissingColumnError(f"{path}: column {sentences!r} or 'task_index' holds lists, expected one task a row")
    return dict(zip(table[sentences].to_pylist(), table["task_index"].to_pylist(), strict=True))
