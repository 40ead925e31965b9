"""How fast training windows are loaded: from video by us and by lerobot, and from cached latents.

All loaders get the same windows in the same order, as many worker processes and one thread each, and take turns pass by
pass, so that whatever else the machine does meets all of them. What they deliver is compared before it is timed.

Each delivers what its trainer takes: lerobot pictures as floats, we bytes, which become floats on the device that needs
them. A row of its own adds that step here, so that both deliver the very same tensors.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wam.data.latent_cache import INDEX, LatentCache
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.schema import ACTION, STATE
from wam.data.vectors import columns_of
from wam.data.windows import EpisodeSelection, WindowIndex, WindowSource, WindowSpec
from wam.robot.embodiment import Embodiment

COMPARED = 2
"""Batches that are compared between two loaders."""


@dataclass(frozen=True)
class LoaderOptions:
    """What to load, and how often."""

    windows: int = 150
    """How many windows; the same ones for every loader and in every pass."""
    chunks: int = 3
    """Chunks of a window."""
    workers: int = 0
    """Processes of each loader that decodes; 0 decodes in the calling one."""
    batch: int = 8
    """Windows that are put together."""
    rounds: int = 5
    """Timed passes of each loader, after one that does not count."""
    seed: int = 0
    """Other seeds, other windows."""


@dataclass(frozen=True)
class Speed:
    """One loader's passes over all windows; seconds of the clock and of this loader's main process, pass by pass."""

    name: str
    windows: int
    seconds: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def windows_per_second(self) -> float:
        """By the median pass."""
        return self.windows / statistics.median(self.seconds)

    def times_faster(self, other: Speed) -> float:
        """Median over the rounds of how many times longer the other one took."""
        return statistics.median(theirs / ours for ours, theirs in zip(self.seconds, other.seconds, strict=True))


@dataclass(frozen=True)
class Agreement:
    """How far two loaders deliver the same: numbers equal bit for bit or not; pictures in levels of 0 to 255."""

    windows: int
    numbers_equal: bool
    picture_mean: float
    picture_max: float


@dataclass(frozen=True)
class LoaderReport:
    """What was measured; lerobot: its version and video backend, None if it was not asked for."""

    options: LoaderOptions
    speeds: tuple[Speed, ...]
    lerobot: str | None = None
    agreement: Agreement | None = None


class VideoWindows(Dataset[dict[str, np.ndarray]]):
    """Training windows as torch's `DataLoader` takes them: numbers from memory, pictures decoded from video.

    A window holds, under the names of the data set's features, states (M, S) at the first row of each chunk, actions
    (M N, A) and pictures uint8 (T, H, W, 3), every `video_stride` rows; rows past the end of an episode hold its last
    one. `joined` makes batches of them. May be sent to worker processes, and shared by threads.

    Args:
        dataset: rows and videos.
        robot: cameras, rates and columns.
        chunks: M.
        rows: first rows of the windows, counted over the whole data set.
    """

    def __init__(self, dataset: LeRobotDataset, robot: Embodiment, chunks: int, rows: np.ndarray) -> None:
        self._dataset, self._rows = dataset, rows
        self._begins = np.array([episode.dataset_from_index for episode in dataset.meta.episodes])
        length = chunks * robot.actions_per_chunk
        states = columns_of(robot.state, STATE)
        self._numbers = {name: np.arange(0, length, robot.actions_per_chunk) for name in states}
        self._numbers |= {name: np.arange(length) for name in columns_of(robot.action, ACTION) - states}
        pictures = np.arange(0, length + 1, robot.video_stride)
        keys = {**dataset.meta.video_keys, **dataset.meta.image_keys}
        self._pictures = {keys[dataset.meta.require_camera(robot.camera_key(c))]: pictures for c in robot.cameras}
        parts = [dataset.columns(index, sorted(self._numbers)) for index in range(dataset.num_episodes)]
        self._columns = {name: np.concatenate([part[name] for part in parts]) for name in self._numbers}

    @property
    def window(self) -> dict[str, list[int]]:
        """Feature -> rows after the first one of the window."""
        return {name: rows.tolist() for name, rows in (self._numbers | self._pictures).items()}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        first = int(self._rows[number])
        episode = self._dataset.episode(int(np.searchsorted(self._begins, first, side="right")) - 1)
        begin, last = episode.dataset_from_index, episode.dataset_to_index - 1
        window = {}
        for name, rows in self._numbers.items():
            window[name] = self._columns[name][np.minimum(first + rows, last)]
        for name, rows in self._pictures.items():
            window[name] = self._dataset.frames(episode.index, name, np.minimum(first + rows, last) - begin)
        return window


def joined(windows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Tensor]:
    """A batch: every field with a leading B. Pictures stay bytes."""
    return {name: torch.from_numpy(np.stack([window[name] for window in windows])) for name in windows[0]}


def with_floats(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same with pictures as float32 (B, T, 3, H, W) in 0 .. 1."""
    return {name: x.permute(0, 1, 4, 2, 3) / 255 if x.dtype == torch.uint8 else x for name, x in batch.items()}


def measure(
    dataset: LeRobotDataset,
    robot: Embodiment,
    options: LoaderOptions,
    latents: Path | None = None,
    lerobot_python: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LoaderReport:
    """Time the loaders in turns, after one pass each that does not count.

    Args:
        dataset: opened.
        robot: its embodiment.
        options: which windows, how often.
        latents: folder of a finished latent cache, to time it too.
        lerobot_python: interpreter that has lerobot, to time it too.
        progress: called with (passes done, passes in all).

    Raises:
        DatasetError: the data set does not fit the embodiment, or the cache the data set.
        RuntimeError: the other interpreter failed; the message ends with its last words.
    """
    rows = np.random.default_rng(options.seed).choice(dataset.num_rows, options.windows, replace=False)
    windows = VideoWindows(dataset, robot, options.chunks, rows)
    loader = _loader(windows, options)
    passes: dict[str, Callable[[], tuple[float, float]]] = {
        "wam, video": lambda: _timed(loader),
        "wam, floats": lambda: _timed(with_floats(batch) for batch in loader),
    }
    if latents is not None:
        passes["wam, latents"] = _gathering(dataset, robot, options, rows, LatentCache.open(latents, dataset))
    backend = agreement = None
    with ExitStack() as stack:
        if lerobot_python is not None:
            ask = stack.enter_context(_lerobot(lerobot_python, dataset, windows, options))
            hello = ask({})
            backend = f"{hello['version']} ({hello['backend']})"
            agreement = _compared(windows, ask)
            passes["lerobot, video"] = lambda: _seconds(ask({"pass": True}))
        total = (options.rounds + 1) * len(passes)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in passes}
        for turn in range(options.rounds + 1):
            for place, (name, load) in enumerate(passes.items()):
                found[name].append(load())
                if progress is not None:
                    progress(turn * len(passes) + place + 1, total)
    speeds = []
    for name, taken in found.items():
        seconds, cpu = zip(*taken[1:], strict=True)
        speeds.append(Speed(name, options.windows, seconds, cpu))
    return LoaderReport(options, tuple(speeds), backend, agreement)


def finished_caches(root: Path) -> list[Path]:
    """Finished latent caches beside a data set, the newest last."""
    return sorted((path.parent for path in root.glob(f"latents/*/{INDEX}")), key=lambda path: path.stat().st_mtime)


# ---------------------------------------------------------------- one pass of each loader


def _loader(windows: VideoWindows, options: LoaderOptions) -> DataLoader[Any]:
    many = options.workers > 0
    return DataLoader(windows, options.batch, num_workers=options.workers, persistent_workers=many, collate_fn=joined)


def _gathering(
    dataset: LeRobotDataset, robot: Embodiment, options: LoaderOptions, rows: np.ndarray, cache: LatentCache
) -> Callable[[], tuple[float, float]]:
    """Gather the latents of all windows once, as a training run does, which needs no workers for it."""
    spec = WindowSpec(options.chunks, robot.actions_per_chunk, robot.video_stride, robot.frames_per_chunk)
    source = WindowSource(dataset, cache, spec, EpisodeSelection("all"), robot=robot)
    begins = np.array([episode.dataset_from_index for episode in dataset.meta.episodes])
    lengths = np.array([episode.length for episode in dataset.meta.episodes])
    episode = np.searchsorted(begins, rows, side="right") - 1
    row = rows - begins[episode]
    chunks = np.minimum(spec.available(lengths[episode], row), options.chunks)
    index = WindowIndex(episode, row, chunks, np.zeros_like(row))
    batches = [index.part(slice(start, start + options.batch)) for start in range(0, len(rows), options.batch)]
    return lambda: _timed(source.collate(batch) for batch in batches)


def _timed(batches: Any) -> tuple[float, float]:
    """Seconds of the clock and of the processor until all batches have come."""
    began, spent = time.perf_counter(), time.process_time()
    for _ in batches:
        pass
    return time.perf_counter() - began, time.process_time() - spent


# ---------------------------------------------------------------- the other interpreter

Ask = Callable[[Mapping[str, Any]], dict[str, Any]]


@contextmanager
def _lerobot(python: Path, dataset: LeRobotDataset, windows: VideoWindows, options: LoaderOptions) -> Iterator[Ask]:
    """A process in which lerobot has opened the data set. Ask with {} for its first answer."""
    script = Path(__file__).with_name("lerobot_loader.py")
    asked = {
        "root": str(dataset.root),
        "fps": dataset.meta.fps,
        "window": windows.window,
        "rows": windows._rows.tolist(),
        "workers": options.workers,
        "batch": options.batch,
        "compared": COMPARED,
    }
    with tempfile.TemporaryFile("w+") as words:
        process = subprocess.Popen(
            [python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words, text=True
        )
        assert process.stdin is not None and process.stdout is not None
        to, back = process.stdin, process.stdout

        def ask(wish: Mapping[str, Any]) -> dict[str, Any]:
            try:
                to.write(json.dumps(wish or asked) + "\n")
                to.flush()
                answer: dict[str, Any] = json.loads(back.readline())
            except (BrokenPipeError, json.JSONDecodeError) as error:
                process.wait()
                words.seek(0)
                raise RuntimeError(f"{python} {script.name} failed: {words.read()[-1500:].strip()}") from error
            return answer

        try:
            yield ask
        finally:
            if process.poll() is None:
                to.write(json.dumps({"end": True}) + "\n")  # closing does not tell: our workers hold the pipe open too
            to.close()
            back.close()
            process.wait()


def _seconds(answer: Mapping[str, Any]) -> tuple[float, float]:
    return answer["seconds"], answer["cpu"]


def _compared(windows: VideoWindows, ask: Ask) -> Agreement:
    """The first windows of both loaders side by side."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "windows.npz"
        ask({"save": str(path)})
        theirs = dict(np.load(path))
    count = len(next(iter(theirs.values())))
    batch = with_floats(joined([windows[number] for number in range(count)]))
    ours = {name: tensor.numpy() for name, tensor in batch.items()}
    numbers: Sequence[str] = [name for name in theirs if theirs[name].ndim != 5]
    apart = [np.abs(ours[name] - theirs[name]) * 255 for name in theirs if theirs[name].ndim == 5]
    return Agreement(
        windows=count,
        numbers_equal=all(np.array_equal(ours[name], theirs[name]) for name in numbers),
        picture_mean=float(np.mean([differences.mean() for differences in apart])),
        picture_max=float(max(differences.max() for differences in apart)),
    )
