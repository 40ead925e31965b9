"""Looking at the pictures: every video decoded once, small, and reduced to a few numbers per frame.

Frames are found by their time stamps, as the reader does it: frame i is shown i / fps seconds after the first one.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from wam.data.lint.declared import Declaration, DeclaredEpisode

HEIGHT, WIDTH = 48, 64
"""Size at which pictures are compared."""
TOLERANCE = 0.25
"""Frames by which a time stamp may differ from i / fps, as in the reader."""
SAMPLE = 8
"""Episodes whose pictures are looked at when it has to go fast."""
TINY_EPISODES = 2000
"""Evenly spread episodes whose films are kept small, frame by frame."""
Place = tuple[int, str]
"""Episode and camera."""


@dataclass(frozen=True)
class Header:
    """What a video file says about itself; `error` is set when it cannot be opened."""

    frames: int = 0
    height: int = 0
    width: int = 0
    fps: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Film:
    """The pictures of one episode and camera; n frames, of which those in `missing` are not there.

    Args:
        brightness: mean of each frame, 0 to 255, (n,).
        contrast: standard deviation inside each frame, (n,).
        motion: mean absolute difference to the frame before, (n,); 0 for the first.
        mean: average picture, uint8 (24, 32, 3).
        tiny: every frame in grey, uint8 (n, 12, 16): about 200 bytes; kept of `TINY_EPISODES` episodes, else empty.
        missing: rows without a frame.
        error: why decoding ended early.
    """

    brightness: np.ndarray
    contrast: np.ndarray
    motion: np.ndarray
    mean: np.ndarray
    tiny: np.ndarray
    missing: tuple[int, ...] = ()
    error: str = ""


@dataclass
class _Film:
    """A film while it is being decoded."""

    length: int
    keep_tiny: bool
    brightness: np.ndarray = field(init=False)
    contrast: np.ndarray = field(init=False)
    motion: np.ndarray = field(init=False)
    seen: np.ndarray = field(init=False)
    total: np.ndarray = field(init=False)
    tiny: np.ndarray = field(init=False)
    previous: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.brightness, self.contrast, self.motion = (np.zeros(self.length, np.float32) for _ in range(3))
        self.seen = np.zeros(self.length, bool)
        self.total = np.zeros((HEIGHT, WIDTH, 3), np.float64)
        self.tiny = np.zeros((self.length if self.keep_tiny else 0, HEIGHT // 4, WIDTH // 4), np.uint8)

    def add(self, row: int, picture: np.ndarray) -> None:
        values = picture.astype(np.float32)
        self.brightness[row], self.contrast[row] = values.mean(), values.std(axis=(0, 1)).mean()
        if self.previous is not None:
            self.motion[row] = np.abs(values - self.previous).mean()
        self.previous, self.seen[row] = values, True
        self.total += values
        if self.keep_tiny:
            self.tiny[row] = values.mean(2).reshape(HEIGHT // 4, 4, WIDTH // 4, 4).mean((1, 3))

    def done(self, error: str) -> Film:
        average = self.total / max(int(self.seen.sum()), 1)
        mean = average.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean((1, 3)).round().astype(np.uint8)
        missing = tuple(np.flatnonzero(~self.seen).tolist())
        return Film(self.brightness, self.contrast, self.motion, mean, self.tiny, missing, error if missing else "")


def read_headers(declared: Declaration) -> dict[Path, Header]:
    """The headers of all videos that episodes refer to and that exist."""
    paths = {span.file for episode in declared.episodes for span in episode.spans.values()}
    return {path: _header(path) for path in sorted(paths) if path.is_file()}


def read_films(
    declared: Declaration,
    headers: Mapping[Path, Header],
    *,
    fast: bool,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Place, Film]:
    """Decode all episodes of all cameras, or `SAMPLE` evenly spread episodes; those without rows have no film.

    Args:
        headers: only files without an error are decoded.
        workers: threads.
        progress: called with (files done, files in all).
    """
    episodes = tuple(episode for episode in declared.episodes if episode.length)
    if fast and len(episodes) > SAMPLE:
        chosen = np.unique(np.linspace(0, len(episodes) - 1, SAMPLE).round().astype(int))
        episodes = tuple(episodes[number] for number in chosen)
    jobs: list[Callable[[], dict[Place, Film]]] = []
    for (path, key), group in _by_file(episodes).items():
        if path in headers and not headers[path].error:
            jobs.append(partial(_decode_video, declared, path, key, group, fast))
    for key, camera in declared.cameras.items():
        if not camera.video:
            jobs += [partial(_decode_pictures, declared, key, episode) for episode in episodes]
    films: dict[Place, Film] = {}
    with ThreadPoolExecutor(workers) as pool:
        for done, part in enumerate(pool.map(lambda job: job(), jobs), start=1):
            films |= part
            if progress is not None:
                progress(done, len(jobs))
    return films


def _by_file(episodes: Sequence[DeclaredEpisode]) -> dict[tuple[Path, str], list[DeclaredEpisode]]:
    groups: dict[tuple[Path, str], list[DeclaredEpisode]] = defaultdict(list)
    for episode in episodes:
        for key, span in episode.spans.items():
            groups[(span.file, key)].append(episode)
    return groups


def _keeps_tiny(declared: Declaration, episode: DeclaredEpisode) -> bool:
    return episode.index % (1 + len(declared.episodes) // TINY_EPISODES) == 0


def _header(path: Path) -> Header:
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or 0)
            return Header(int(stream.frames), int(stream.height), int(stream.width), rate)
    except (av.error.FFmpegError, IndexError) as error:
        return Header(error=str(error) or type(error).__name__)


def _decode_video(
    declared: Declaration, path: Path, key: str, episodes: Sequence[DeclaredEpisode], seek: bool
) -> dict[Place, Film]:
    """The films of the episodes that lie in one file.

    seek: jump from episode to episode instead of decoding what lies between them.
    """
    ordered = sorted(episodes, key=lambda episode: episode.spans[key].start)
    films = {episode.index: _Film(episode.length, _keeps_tiny(declared, episode)) for episode in ordered}
    firsts = {episode.index: round(episode.spans[key].start * declared.fps) for episode in ordered}
    error = ""
    try:
        for part in ([episode] for episode in ordered) if seek else [ordered]:
            end = max(firsts[episode.index] + episode.length for episode in part)
            for number, picture in _pictures(path, declared.fps, firsts[part[0].index], end):
                for episode in part:
                    row = number - firsts[episode.index]
                    if 0 <= row < episode.length and not films[episode.index].seen[row]:
                        films[episode.index].add(row, picture)
    except (av.error.FFmpegError, IndexError, ValueError) as reason:
        error = str(reason) or type(reason).__name__
    return {(number, key): film.done(error) for number, film in films.items()}


def _pictures(path: Path, fps: float, first: int, end: int) -> Iterator[tuple[int, np.ndarray]]:
    """(frame number, small picture) of the frames `first` to `end` - 1; damage raises and is not smoothed over."""
    convert = VideoReformatter()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        stream.codec_context.options = {"err_detect": "explode"}
        if stream.time_base is None:
            raise ValueError("the video stream has no time base")
        ticks, start = 1.0 / (fps * float(stream.time_base)), stream.start_time or 0
        if first:
            container.seek(start + round(first * ticks), stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.pts is None:
                continue
            number = round((frame.pts - start) / ticks)
            if number >= end:
                return
            if number >= first and abs((frame.pts - start) / ticks - number) <= TOLERANCE:
                small = convert.reformat(
                    frame, width=WIDTH, height=HEIGHT, format="rgb24", interpolation=Interpolation.AREA
                )
                yield number, small.to_ndarray()


def _decode_pictures(declared: Declaration, key: str, episode: DeclaredEpisode) -> dict[Place, Film]:
    """The film of one episode whose pictures lie in the parquet file."""
    film, error = _Film(episode.length, _keeps_tiny(declared, episode)), ""
    try:
        filters = [("episode_index", "=", episode.index)]
        cells = pq.read_table(episode.data_file, columns=[key], filters=filters)[key].to_pylist()
        for row, cell in enumerate(cells[: episode.length]):
            with Image.open(io.BytesIO(cell["bytes"])) as picture:
                film.add(row, np.asarray(picture.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BOX)))
    except (pa.ArrowException, OSError, KeyError, TypeError) as reason:
        error = str(reason) or type(reason).__name__
    return {(episode.index, key): film.done(error)}
