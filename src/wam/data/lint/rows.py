"""The rows of every episode, read from the parquet files as far as possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wam.data.lint.declared import RESTORE, Declaration, DeclaredEpisode, broken_table
from wam.data.lint.finding import Finding
from wam.data.tables import column_values

Columns = Mapping[str, np.ndarray]
"""Column -> (T, D), or (T,) where D = 1."""


def read_rows(
    declared: Declaration, findings: list[Finding], progress: Callable[[int, int], None] | None = None
) -> dict[int, Columns]:
    """Rows per episode, without those that are not there; what is wrong goes to `findings`."""
    rows: dict[int, Columns] = {}
    by_file = sorted(declared.episodes, key=lambda episode: (str(episode.data_file), episode.index))
    for path, group in groupby(by_file, key=lambda episode: episode.data_file):
        episodes = tuple(group)
        table = _read_table(declared, path, episodes, findings)
        if table is not None:
            rows.update(_split(declared, path, episodes, table, findings))
        if progress is not None:
            progress(len(rows), len(declared.episodes))
    return rows


def _read_table(
    declared: Declaration, path: Path, episodes: Sequence[DeclaredEpisode], findings: list[Finding]
) -> dict[str, np.ndarray] | None:
    """The declared columns of one file; None when it cannot be read."""
    name, numbers = declared.relative(path), tuple(episode.index for episode in episodes)
    if not path.is_file():
        expected = "a file that the table of episodes refers to"
        findings.append(Finding("missing-file", "error", "no such file", expected, RESTORE, name, episodes=numbers))
        return None
    try:
        there = pq.read_schema(path).names
        table = pq.read_table(path, columns=[column for column in declared.columns if column in there])
    except (pa.ArrowException, OSError) as error:
        findings.append(broken_table(name, error))
        return None
    columns = {}
    for column in declared.columns:
        if column not in there:
            advice = "write the column again, or take it out of meta/info.json"
            found = f"no such column; there are {sorted(there)}"
            findings.append(
                Finding("missing-column", "error", found, "as in meta/info.json", advice, name, column, numbers)
            )
            continue
        values = _values(declared, column, table[column], name, numbers, findings)
        if values is not None:
            columns[column] = values
    return columns


def _values(
    declared: Declaration,
    column: str,
    chunks: pa.ChunkedArray,
    file: str,
    numbers: tuple[int, ...],
    findings: list[Finding],
) -> np.ndarray | None:
    """A column as an array; None when it is none."""
    expected = declared.columns[column]
    advice = "repair the column, or record again"
    try:
        values = column_values(chunks)
    except (ValueError, pa.ArrowException) as error:
        what = f"{expected.width} numbers in every row"
        findings.append(Finding("column-shape", "error", f"{error}", what, advice, file, column, numbers))
        return None
    width = 1 if values.ndim == 1 else values.shape[1] if len(values) else expected.width
    if values.dtype.kind not in "fiub" or width != expected.width:
        found, what = f"{width} x {values.dtype} per row", f"{expected.width} x {expected.dtype}, as in meta/info.json"
        advice = "correct the shape in meta/info.json, or write the column again"
        findings.append(Finding("column-shape", "error", found, what, advice, file, column, numbers))
        return None
    return values


def _split(
    declared: Declaration,
    path: Path,
    episodes: Sequence[DeclaredEpisode],
    table: Mapping[str, np.ndarray],
    findings: list[Finding],
) -> Iterator[tuple[int, Columns]]:
    """The rows of each episode of one file."""
    total = max((len(values) for values in table.values()), default=0)
    numbers = table.get("episode_index")
    if numbers is None:  # only the lengths tell where an episode begins
        numbers = np.repeat([e.index for e in episodes], [e.length for e in episodes])[:total]
    file = declared.relative(path)
    unowned = sorted(set(np.unique(numbers).tolist()) - {episode.index for episode in episodes})
    if unowned:
        found = f"rows of episode {unowned[0]}, which the table of episodes does not place here"
        advice = "correct the table of episodes or the column episode_index; fetch the data set again"
        findings.append(Finding("row-count", "error", found, "rows of its own episodes only", advice, file))
    for episode in episodes:
        mine = np.flatnonzero(numbers == episode.index)
        if len(mine) != episode.length:
            advice = "correct the length in the table of episodes; fetch the data set again"
            found, expected = f"{len(mine)} rows", f"{episode.length} rows, says the table of episodes"
            finding = Finding("row-count", "error", found, expected, advice, file, "episode_index", (episode.index,))
            findings.append(finding)
        if len(mine):
            if mine[-1] - mine[0] + 1 != len(mine):
                found = f"its rows lie in several stretches between rows {mine[0]} and {mine[-1]} of the file"
                advice = "sort the file by episode_index and frame_index"
                finding = Finding("row-numbers", "error", found, "one stretch", advice, file, "episode_index")
                findings.append(finding)
            yield episode.index, {name: values[mine] for name, values in table.items() if len(values) == total}
