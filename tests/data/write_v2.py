"""Copies of a data set in other layouts: v2.0 and v2.1, and pictures inside the parquet files instead of videos.

Frames are copied without loss (h264 of the decoded yuv420p frames with quantiser 0, or PNG), so a reader must find the
very same pixels.
"""

import io
import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from wam.data.dataset_meta import DatasetMeta
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.stats import FeatureStats, column_stats, image_stats
from wam.data.tables import rows_table

DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
PICTURE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def write_v2(
    root: Path, source: LeRobotDataset, version: str = "v2.1", *, images: bool = False, folder: int = 3
) -> Path:
    """Copy `source` (a v3.0 data set with videos) to layout v2.0 or v2.1.

    Args:
        root: new folder.
        source: data set to copy.
        version: `v2.0` or `v2.1`.
        images: store every camera as pictures in the parquet files.
        folder: episodes per folder (`chunks_size`).
    """
    meta = source.meta
    info = json.loads((source.root / "meta/info.json").read_text())
    statistics: list[dict[str, FeatureStats]] = []
    for episode in meta.episodes:
        columns = source.columns(episode.index)
        frames = {camera: source.frames(episode.index, camera) for camera in meta.cameras}
        table = rows_table(columns, meta.features)
        places = {"episode_chunk": episode.index // folder, "episode_index": episode.index}
        for camera, key in meta.video_keys.items():
            if images:
                table = table.append_column(key, encoded(frames[camera]))
            else:
                _copy_video(source, episode.index, camera, root / VIDEO_PATH.format(video_key=key, **places))
        _write_table(root / DATA_PATH.format(**places), table)
        stats = {name: column_stats(column) for name, column in columns.items()}
        statistics.append(stats | {key: image_stats(frames[camera]) for camera, key in meta.video_keys.items()})
    _write_meta(root, meta, _info(info, version, images, folder), statistics)
    return root


def write_v3_images(root: Path, source: LeRobotDataset) -> Path:
    """Copy a v3.0 data set with its videos turned into pictures in the parquet files, two row groups a file."""
    shutil.copytree(source.root, root, ignore=shutil.ignore_patterns("videos", "latents"))
    files: dict[Path, list[int]] = {}
    for episode in source.meta.episodes:
        files.setdefault(source.meta.data_file(episode).relative_to(source.root), []).append(episode.index)
    for path, episodes in files.items():
        table = pq.read_table(source.root / path)
        for camera, key in source.meta.video_keys.items():
            table = table.append_column(key, encoded(np.concatenate([source.frames(i, camera) for i in episodes])))
        pq.write_table(table, root / path, row_group_size=table.num_rows // 2 + 1)
    info = json.loads((root / "meta/info.json").read_text())
    info |= {"video_path": None, "features": _as_images(info["features"])}
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def encoded(frames: np.ndarray) -> pa.Array:
    """Frames uint8 (n, H, W, 3) as a column of PNG files."""
    cells = []
    for row, frame in enumerate(frames):
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, format="PNG", compress_level=1)
        cells.append({"bytes": buffer.getvalue(), "path": f"frame_{row:06d}.png"})
    return pa.array(cells, PICTURE)


def _copy_video(source: LeRobotDataset, index: int, camera: str, target: Path) -> None:
    """The frames of one episode, without loss, in a video of their own."""
    episode, fps = source.episode(index), round(source.meta.fps)
    first = round(episode.videos[camera].from_timestamp * fps)
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(source.meta.video_file(episode, camera))) as old, av.open(str(target), "w") as new:
        stream = new.add_stream("libx264", rate=fps, options={"qp": "0", "preset": "ultrafast", "g": "2"})
        size = source.meta.cameras[camera]
        stream.width, stream.height, stream.pix_fmt = size.width, size.height, "yuv420p"
        for number, frame in enumerate(old.decode(video=0)):
            if first <= number < first + episode.length:
                frame.pts, frame.time_base = number - first, Fraction(1, fps)
                new.mux(stream.encode(frame))
        new.mux(stream.encode())


def _info(info: dict[str, Any], version: str, images: bool, folder: int) -> dict[str, Any]:
    new = {key: value for key, value in info.items() if not key.endswith("_size_in_mb")}
    episodes = info["total_episodes"]
    new |= {
        "codebase_version": version,
        "total_videos": 0 if images else episodes * sum(f["dtype"] == "video" for f in info["features"].values()),
        "total_chunks": -(-episodes // folder),
        "chunks_size": folder,
        "data_path": DATA_PATH,
        "video_path": None if images else VIDEO_PATH,
    }
    if images:
        new["features"] = _as_images(info["features"])
    return new


def _as_images(features: dict[str, Any]) -> dict[str, Any]:
    plain = {key: {name: part for name, part in value.items() if name != "info"} for key, value in features.items()}
    return {key: value | ({"dtype": "image"} if value["dtype"] == "video" else {}) for key, value in plain.items()}


def _write_table(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def _write_meta(root: Path, meta: DatasetMeta, info: dict[str, Any], statistics: list[dict[str, FeatureStats]]) -> None:
    folder = root / "meta"
    folder.mkdir()
    (folder / "info.json").write_text(json.dumps(info, indent=4))
    lines: dict[str, list[dict[str, Any]]] = {
        "tasks": [{"task_index": number, "task": task} for number, task in enumerate(meta.tasks)],
        "episodes": [
            {"episode_index": e.index, "tasks": list(e.tasks), "length": e.length} | dict(e.extra)
            for e in meta.episodes
        ],
    }
    plain = [{key: _plain(stats) for key, stats in episode.items()} for episode in statistics]
    if info["codebase_version"] == "v2.1":
        lines["episodes_stats"] = [{"episode_index": i, "stats": stats} for i, stats in enumerate(plain)]
    else:
        (folder / "stats.json").write_text(json.dumps(plain[0]))
    for name, entries in lines.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def _plain(stats: FeatureStats) -> dict[str, Any]:
    names: tuple[str, ...] = ("min", "max", "mean", "std", "count")
    convert: Callable[[np.ndarray], Any] = np.ndarray.tolist
    return {name: convert(stats[name]) for name in names}
