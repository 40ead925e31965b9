"""Tools that damage a copy of the clean data set on disk: its metadata, rows and videos."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.clean_set import EPISODES, FPS, FRONT, HEIGHT, PER_FILE, WIDTH, length_of
from wam.data.schema import ACTION, STATE
from wam.data.stats import column_stats
from wam.data.tables import column_values
from wam.data.video import VideoWriter, read_frames


def data_file(episode: int) -> str:
    return f"data/chunk-000/file-{episode // PER_FILE:03d}.parquet"


def episodes_file(episode: int) -> str:
    return f"meta/episodes/chunk-000/file-{episode // PER_FILE:03d}.parquet"


def video_file(episode: int, key: str) -> str:
    return f"videos/{key}/chunk-000/file-{episode // PER_FILE:03d}.mp4"


def first_frame(episode: int) -> int:
    """Where an episode begins in its video."""
    return sum(length_of(number) for number in range(episode - episode % PER_FILE, episode))


def edit_info(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def edit_list(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change a parquet file as a list of rows."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def edit_episode_row(root: Path, episode: int, **changes: Any) -> None:
    edit_list(root / episodes_file(episode), lambda rows: rows[episode % PER_FILE].update(changes))


def edit_rows(root: Path, episode: int, change: Callable[[list[dict[str, Any]]], object], stats: bool = True) -> None:
    """Change the rows of one episode in place; the stored statistics follow, as if it had been recorded so."""

    def mine(rows: list[dict[str, Any]]) -> None:
        change([row for row in rows if row["episode_index"] == episode])

    edit_list(root / data_file(episode), mine)
    if stats:
        refresh_stats(root)


def edit_column(root: Path, column: str, change: Callable[[np.ndarray], np.ndarray], *episodes: int) -> None:
    """Change a column (T, D) of some episodes, or of all."""

    def write(rows: list[dict[str, Any]]) -> None:
        values = change(np.array([row[column] for row in rows]))
        for row, value in zip(rows, values.tolist(), strict=True):
            row[column] = value

    for episode in episodes or range(EPISODES):
        edit_rows(root, episode, write, stats=False)
    refresh_stats(root)


def refresh_stats(root: Path) -> None:
    """Statistics of columns that fit the rows again; rows that are not finite do not count."""
    path = root / "meta/stats.json"
    stored, wholes = json.loads(path.read_text()), {name: [] for name in (STATE, ACTION)}
    for first in range(0, EPISODES, PER_FILE):
        table = pq.read_table(root / data_file(first))
        numbers = table["episode_index"].to_numpy()
        parts = {name: column_values(table[name]) for name in wholes}

        def update(
            rows: list[dict[str, Any]], numbers: np.ndarray = numbers, parts: dict[str, np.ndarray] = parts
        ) -> None:
            for row in rows:
                for name, values in parts.items():
                    mine = values[(numbers == row["episode_index"]) & np.isfinite(values).all(axis=1)]
                    row |= {f"stats/{name}/{key}": value.tolist() for key, value in column_stats(mine).items()}

        edit_list(root / episodes_file(first), update)
        for name, values in parts.items():
            wholes[name].append(values[np.isfinite(values).all(axis=1)])
    for name, values in wholes.items():
        stored[name] = {key: value.tolist() for key, value in column_stats(np.concatenate(values)).items()}
    path.write_text(json.dumps(stored))


def edit_video(
    root: Path, episode: int, key: str, change: Callable[[np.ndarray], np.ndarray], fps: int = FPS, whole: bool = False
) -> None:
    """Encode the video that holds an episode again, with other frames of this episode (or of the whole file)."""
    path = root / video_file(episode, key)
    first = episode - episode % PER_FILE
    count = sum(length_of(number) for number in range(first, min(first + PER_FILE, EPISODES)))
    frames = read_frames(path, FPS, np.arange(count))
    mine = slice(None) if whole else slice(first_frame(episode), first_frame(episode) + length_of(episode))
    new = [frames[: mine.start], change(frames[mine]), frames[mine.stop :]] if not whole else [change(frames)]
    pictures = np.concatenate(new)
    writer = VideoWriter(path, fps, pictures.shape[1], pictures.shape[2])
    writer.append(pictures)
    writer.close()


def cut(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def with_gaps(root: Path) -> None:
    """Every 7th frame of episode 5 is dropped; the others keep their times."""
    path = root / video_file(5, FRONT)
    total = sum(length_of(number) for number in range(4, 8))
    frames = read_frames(path, FPS, np.arange(total))
    first = first_frame(5)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"bf": "0"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for number in range(total):
            if first < number < first + length_of(5) and (number - first) % 7 == 0:
                continue
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frames[number]), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
