"""Latents of a whole data set, computed once, so that training never runs the tokenizer.

A training window may start at any row, so the cache holds two latents per row t of every episode (T rows):

    anchor[t]   the frame at row t alone                            -> the first latent frame of a stream
    group[t]    the four frames at rows t+s, t+2s, t+3s, t+4s       -> the latent frame that follows row t
                encoded after the frame at row t; s = video_stride; rows past the end repeat the last frame

A window that begins at row t0 is then anchor[t0], group[t0], group[t0 + 4s], group[t0 + 8s], ... This equals streaming
the window through the tokenizer only if the tokenizer remembers nothing but the previous raw frame, as `NanoTokenizer`
does; `encode_dataset` measures this on the first episode and refuses other tokenizers.

Files of one cache (`DIRECTORY/KEY/`): `anchor.npy` and `group.npy`, float16 (rows, z, h, w), read through memory maps;
`index.json`, written last: without it the cache is unfinished. Size: 8 KB per row for 16 x 8 x 16 latents.

An episode whose pictures cannot be read stops the encoding, or is skipped: its latents stay zero, the index lists it,
and windows leave it out. Once it is repaired, encoding without skipping fills the hole.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wam.data.errors import DatasetError, MissingFileError, NonFiniteError, StaleCacheError, TokenizerMemoryError
from wam.data.files import FolderLock, read_json, write_json
from wam.data.lerobot_reader import LeRobotDataset, OnBroken
from wam.encoders.video import FRAMES_PER_LATENT, StreamingEncoder, frames_to_video
from wam.model.precision import Precision, arithmetic, compute_dtype
from wam.robot.canvas import compose
from wam.robot.embodiment import Embodiment

logger = logging.getLogger(__name__)

ARRAYS = ("anchor", "group")
INDEX, PROGRESS = "index.json", "progress.json"
ROWS_PER_BLOCK = 1024
"""Rows decoded at a time; after each block the files are flushed and the progress is noted."""
MEMORY_TOLERANCE = 0.05
"""Largest difference (latents have unit variance) between streaming two groups and encoding the second one alone."""


@dataclass(frozen=True)
class LatentCache:
    """An opened cache; arrays are memory maps and count rows over the whole data set.

    Args:
        folder: where it lies.
        key: hash of data set, tokenizer and embodiment.
        dataset: fingerprint of the data set.
        video_stride: rows between raw frames.
        anchor: float16 (rows, z, h, w).
        group: float16 (rows, z, h, w).
        broken: episodes that were skipped, as their pictures could not be read, and why; their latents are zero.
    """

    folder: Path
    key: str
    dataset: str
    video_stride: int
    anchor: np.ndarray
    group: np.ndarray
    broken: Mapping[int, str] = field(default_factory=dict)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(z, h, w)."""
        _, z, h, w = self.anchor.shape
        return z, h, w

    @classmethod
    def open(cls, folder: Path, dataset: LeRobotDataset | None = None) -> "LatentCache":
        """Open a finished cache.

        Args:
            folder: the folder `DIRECTORY/KEY`.
            dataset: if given, refuse a cache of another data set.

        Raises:
            MissingFileError: there is no finished cache.
            StaleCacheError: it was made from another data set, or its arrays do not fit its index.
        """
        path = folder / INDEX
        if not path.is_file():
            raise MissingFileError(f"{path}: no finished latent cache; run the encoding (again), it resumes")
        index = read_json(path, StaleCacheError)
        anchor, group = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS)
        expected = (index["rows"], *index["latent"])
        if anchor.shape != expected or group.shape != expected:
            found = f"{anchor.shape} and {group.shape}"
            raise StaleCacheError(f"{folder}: arrays are {found}, the index says {expected}; delete it, encode again")
        if dataset is not None and dataset.meta.fingerprint != index["dataset"]:
            raise StaleCacheError(
                f"{folder}: made from data set {index['dataset']}, {dataset.root} is {dataset.meta.fingerprint}; "
                "encode it again"
            )
        broken = {int(episode): why for episode, why in index.get("broken", {}).items()}
        return cls(folder, index["key"], index["dataset"], index["video_stride"], anchor, group, broken)


def encode_dataset(
    dataset: LeRobotDataset,
    tokenizer: StreamingEncoder,
    embodiment: Embodiment,
    out_dir: Path,
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
    device: torch.device | str = "cpu",
    precision: Precision = "auto",
    on_broken: OnBroken = "stop",
) -> LatentCache:
    """Encode all episodes, or go on where an earlier call was cut off, or just open the finished cache.

    Args:
        dataset: source of the frames.
        tokenizer: in evaluation mode, on `device`.
        embodiment: cameras, canvas and video stride.
        out_dir: parent of the cache folder; the folder is named by the key.
        batch: rows per call of the tokenizer.
        progress: called with (episodes done, episodes in all).
        device: where the tokenizer is.
        precision: arithmetic of the tokenizer; latents are stored in half precision in any case. `auto` goes on with
            the cache that is there, and otherwise takes what the hardware does best. The caller's own autocast does not
            count.
        on_broken: an episode whose pictures cannot be read ends it all, or is left out with a warning; what an earlier
            call has skipped, `stop` tries again.

    Raises:
        ValueError: a batch of no rows.
        MissingCameraError: the data set lacks a camera of the embodiment.
        MissingFileError, TruncatedVideoError, DatasetError: pictures of an episode cannot be read, or those of none.
        TokenizerMemoryError: the tokenizer remembers more than one frame (see the module).
        NonFiniteError: a latent is NaN or infinite.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch} rows per call of the tokenizer, expected at least 1")
    for camera in embodiment.cameras:
        dataset.meta.require_camera(embodiment.camera_key(camera))
    dtype, key = _dtype_and_key(dataset, tokenizer, embodiment, out_dir, precision, device)
    folder = out_dir / key
    if (folder / INDEX).is_file():
        cache = LatentCache.open(folder, dataset)
        if on_broken == "skip" or not cache.broken:
            _warn(folder, cache.broken)
            return cache
    with FolderLock(folder):
        done, broken = _progress(folder)
        total = dataset.num_episodes
        logger.info("%s: encoding episodes %d to %d", folder, done, total - 1)
        with arithmetic(dtype, device):
            sample = _first_readable(dataset, embodiment, on_broken)
            shape = check_memory(tokenizer, sample, embodiment.video_stride, device)
        anchor, group = (_open_array(folder / f"{name}.npy", (dataset.num_rows, *shape), done) for name in ARRAYS)
        again = sorted(broken) if on_broken == "stop" else []
        for episodes in _blocks(dataset, [*again, *range(done, total)], ROWS_PER_BLOCK):
            canvases, faults = _readable(dataset, embodiment, episodes, on_broken)
            _warn(folder, faults)
            with arithmetic(dtype, device):
                _encode_block(dataset, tokenizer, embodiment, canvases, batch, anchor, group, device)
            anchor.flush()
            group.flush()
            broken = {episode: why for episode, why in broken.items() if episode not in canvases} | faults
            done = max(done, episodes[-1] + 1)
            write_json(folder / PROGRESS, {"episodes_done": done, "broken": broken})
            if progress is not None:
                progress(done, total)
        index = {
            "key": key,
            "dataset": dataset.meta.fingerprint,
            "tokenizer": tokenizer_fingerprint(tokenizer),
            "embodiment": embodiment.name,
            "precision": str(dtype).removeprefix("torch."),
            "video_stride": embodiment.video_stride,
            "rows": dataset.num_rows,
            "latent": list(shape),
            "broken": broken,
        }
        write_json(folder / INDEX, index)
    return LatentCache.open(folder, dataset)


def cache_key(
    dataset: LeRobotDataset,
    tokenizer: StreamingEncoder,
    embodiment: Embodiment,
    dtype: torch.dtype = torch.bfloat16,
) -> str:
    """Hash of everything that the latents depend on.

    What is left at its default (bfloat16, no crop, cameras under their own names) adds nothing, so that caches from
    before one could choose, which were made so, keep their key.
    """
    parts: dict[str, Any] = {
        "dataset": dataset.meta.fingerprint,
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "canvas": embodiment.canvas,
        "view": (embodiment.view_height, embodiment.view_width),
        "video_stride": embodiment.video_stride,
    }
    if dtype is not torch.bfloat16:
        parts["precision"] = str(dtype)
    if embodiment.crop is not None:
        parts["crop"] = embodiment.crop
    if embodiment.camera_keys:
        parts["camera_keys"] = {camera: embodiment.camera_key(camera) for camera in embodiment.cameras}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _dtype_and_key(
    dataset: LeRobotDataset,
    tokenizer: StreamingEncoder,
    embodiment: Embodiment,
    out_dir: Path,
    precision: Precision,
    device: torch.device | str,
) -> tuple[torch.dtype, str]:
    """Arithmetic and name of the cache: as asked for, or of the cache that is there, or the fastest on this device."""
    best = compute_dtype(precision, device)
    possible = dict.fromkeys((best, torch.bfloat16, torch.float32) if precision == "auto" else (best,))
    keys = {dtype: cache_key(dataset, tokenizer, embodiment, dtype) for dtype in possible}
    chosen = next((dtype for dtype, key in keys.items() if (out_dir / key).is_dir()), best)
    return chosen, keys[chosen]


def tokenizer_fingerprint(tokenizer: StreamingEncoder) -> str:
    """Hash of class and weights of a tokenizer that is a torch module."""
    if not isinstance(tokenizer, nn.Module):
        raise TypeError(f"tokenizer is a {type(tokenizer).__name__}, expected a torch module, whose weights are hashed")
    digest = hashlib.sha256(type(tokenizer).__name__.encode())
    for name, value in sorted(tokenizer.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().reshape(-1).clone().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def episode_canvases(dataset: LeRobotDataset, embodiment: Embodiment, episode: int) -> np.ndarray:
    """All frames of an episode as canvases: uint8 (T, H, W, 3)."""
    views = {camera: dataset.frames(episode, embodiment.camera_key(camera)) for camera in embodiment.cameras}
    length = dataset.episode(episode).length
    return np.stack([compose({name: view[t] for name, view in views.items()}, embodiment) for t in range(length)])


def group_rows(row: np.ndarray, last: np.ndarray | int, video_stride: int) -> np.ndarray:
    """Rows of the four raw frames that follow `row` (n,): (n, 4), held at `last`, the final row of the episode."""
    steps = video_stride * np.arange(1, FRAMES_PER_LATENT + 1)
    held: np.ndarray = np.minimum(row[:, None] + steps, np.asarray(last).reshape(-1, 1))
    return held


@torch.inference_mode()
def check_memory(
    tokenizer: StreamingEncoder, canvases: np.ndarray, video_stride: int, device: torch.device | str
) -> tuple[int, int, int]:
    """Latent shape (z, h, w). Raises TokenizerMemoryError if a group depends on more than the frame before it."""
    starts = np.array([0, FRAMES_PER_LATENT * video_stride])
    rows = group_rows(starts, len(canvases) - 1, video_stride)
    before = np.minimum(starts, len(canvases) - 1)
    first, second = (_video(canvases[None, group], device) for group in rows)
    _, state = tokenizer.encode_first(_video(canvases[None, before[:1]], device))
    _, state = tokenizer.encode_next(state, first)
    streamed, _ = tokenizer.encode_next(state, second)
    _, restarted = tokenizer.encode_first(_video(canvases[None, before[1:]], device))
    alone, _ = tokenizer.encode_next(restarted, second)
    difference = (streamed - alone).abs().max().item()
    if difference > MEMORY_TOLERANCE:
        raise TokenizerMemoryError(
            f"{type(tokenizer).__name__}: a latent changes by {difference:.3f} when the tokenizer forgets all but the "
            f"last frame (at most {MEMORY_TOLERANCE} allowed); this cache is for tokenizers that remember one frame"
        )
    _, z, _, h, w = alone.shape
    return z, h, w


@torch.inference_mode()
def _encode_block(
    dataset: LeRobotDataset,
    tokenizer: StreamingEncoder,
    embodiment: Embodiment,
    pictures: Mapping[int, np.ndarray],
    batch: int,
    anchor: np.ndarray,
    group: np.ndarray,
    device: torch.device | str,
) -> None:
    """Encode episodes, given by number with their canvases, in batches of rows that may span several of them."""
    if not pictures:
        return
    canvases = np.concatenate(list(pictures.values()))
    lengths = np.array([len(frames) for frames in pictures.values()])
    last = np.repeat(np.cumsum(lengths) - 1, lengths)
    following = group_rows(np.arange(len(canvases)), last, embodiment.video_stride)
    begins = [dataset.episode(episode).dataset_from_index for episode in pictures]
    places = np.concatenate([begin + np.arange(length) for begin, length in zip(begins, lengths, strict=True)])
    for start in range(0, len(canvases), batch):
        rows = slice(start, start + batch)
        first, state = tokenizer.encode_first(_video(canvases[rows, None], device))
        following_latent, _ = tokenizer.encode_next(state, _video(canvases[following[rows]], device))
        anchor[places[rows]] = _half(first, pictures)
        group[places[rows]] = _half(following_latent, pictures)


def _readable(
    dataset: LeRobotDataset, embodiment: Embodiment, episodes: Sequence[int], on_broken: OnBroken
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """Canvases of the episodes whose pictures can be read, and what is wrong with the others."""
    canvases: dict[int, np.ndarray] = {}
    faults: dict[int, str] = {}
    for episode in episodes:
        if episode in dataset.broken:
            faults[episode] = dataset.broken[episode]
            continue
        try:
            canvases[episode] = episode_canvases(dataset, embodiment, episode)
        except DatasetError as error:
            if on_broken == "stop":
                raise type(error)(f"episode {episode}: {error}; or skip such episodes with on_broken") from error
            faults[episode] = str(error)
    return canvases, faults


def _first_readable(dataset: LeRobotDataset, embodiment: Embodiment, on_broken: OnBroken) -> np.ndarray:
    """Canvases of the first episode that can be read."""
    for episode in range(dataset.num_episodes):
        canvases, _ = _readable(dataset, embodiment, [episode], on_broken)
        if canvases:
            return canvases[episode]
    raise DatasetError(f"{dataset.root}: the pictures of none of {dataset.num_episodes} episodes can be read")


def _warn(folder: Path, broken: Mapping[int, str]) -> None:
    for episode, why in broken.items():
        logger.warning("%s: episode %d is skipped: %s", folder, episode, why)


def _video(frames: np.ndarray, device: torch.device | str) -> Tensor:
    """uint8 (B, T, H, W, 3) -> float (B, 3, T, H, W) in [-1, 1] on the device."""
    return frames_to_video(np.ascontiguousarray(frames)).to(device)


def _half(latent: Tensor, episodes: Mapping[int, object]) -> np.ndarray:
    """(B, z, 1, h, w) -> float16 (B, z, h, w), refusing what float16 cannot hold."""
    with np.errstate(over="ignore"):
        half: np.ndarray = latent[:, :, 0].float().cpu().numpy().astype(np.float16)
    if not np.isfinite(half).all():
        raise NonFiniteError(
            f"latents of episodes {min(episodes)} to {max(episodes)} hold NaN or values beyond 65504; "
            "the tokenizer is broken or not normalised"
        )
    return half


def _blocks(dataset: LeRobotDataset, episodes: Sequence[int], rows: int) -> Iterator[list[int]]:
    """Some episodes at a time, with about `rows` rows."""
    block: list[int] = []
    held = 0
    for episode in episodes:
        block.append(episode)
        held += dataset.episode(episode).length
        if held >= rows:
            yield block
            block, held = [], 0
    if block:
        yield block


def _progress(folder: Path) -> tuple[int, dict[int, str]]:
    """How many episodes earlier calls have done with, and which of these they skipped, and why."""
    path = folder / PROGRESS
    content: dict[str, Any] = read_json(path, StaleCacheError) if path.is_file() else {"episodes_done": 0}
    return int(content["episodes_done"]), {int(number): why for number, why in content.get("broken", {}).items()}


def _open_array(path: Path, shape: tuple[int, ...], done: int) -> np.memmap:
    """A writable memory map: the existing one if some episodes are done, else a new one."""
    if done:
        existing: np.memmap = np.load(path, mmap_mode="r+")
        if existing.shape == shape:
            return existing
        raise StaleCacheError(
            f"{path}: shape is {existing.shape}, expected {shape}; delete the folder and encode again"
        )
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
