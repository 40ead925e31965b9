"""Statistics of columns and pictures: per episode, over a data set, and for normalisation.

LeRobot keeps min, max, mean, std, count and five quantiles of every feature, per episode (columns `stats/...` of the
episode table) and over the data set (`meta/stats.json`). Pictures are scaled to [0, 1], reduced per colour channel and
stored as (3, 1, 1).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wam.data.errors import NonFiniteError
from wam.data.schema import ACTION, STATE
from wam.robot.embodiment import Embodiment, Moments, Statistics
from wam.robot.units import as_learned, opened_state

QUANTILES: Mapping[str, float] = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
MAX_IMAGES = 32
"""Pictures of one episode that enter its statistics."""

MOST_VECTORS = 20_000_000
"""Actions that a robot's statistics are taken of at most: some gigabytes while they are sorted."""

FeatureStats = dict[str, np.ndarray]
"""`min max mean std count q01 q10 q50 q90 q99` of one feature; `count` has shape (1,)."""


def column_stats(column: np.ndarray) -> FeatureStats:
    """Statistics over the rows of one column: (T, D) or (T,) -> arrays of shape (D,) or (1,), float64."""
    values = np.asarray(column, dtype=np.float64).reshape(len(column), -1)
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
        "count": np.array([len(values)], dtype=np.int64),
    } | dict(zip(QUANTILES, quantiles, strict=True))


def image_stats(images: np.ndarray) -> FeatureStats:
    """Statistics per channel of at most `MAX_IMAGES` evenly spread pictures: uint8 (T, H, W, 3) -> (3, 1, 1).

    A picture has only 256 values, so everything follows exactly from three histograms.
    """
    rows = np.unique(np.linspace(0, len(images) - 1, min(len(images), MAX_IMAGES)).round().astype(int))
    pixels = np.ascontiguousarray(images[rows]).reshape(-1, 3)
    shares = np.stack([np.bincount(pixels[:, channel], minlength=256) for channel in range(3)]) / len(pixels)
    levels = np.arange(256) / 255.0
    mean = shares @ levels
    cumulated = np.cumsum(shares, axis=1)
    stats = {
        "min": levels[(shares > 0).argmax(1)],
        "max": levels[255 - (shares[:, ::-1] > 0).argmax(1)],
        "mean": mean,
        "std": np.sqrt((shares * (levels - mean[:, None]) ** 2).sum(1)),
    } | {key: levels[(cumulated >= share - 1e-9).argmax(1)] for key, share in QUANTILES.items()}
    return {key: value.reshape(3, 1, 1) for key, value in stats.items()} | {"count": np.array([len(rows)])}


def merge_stats(parts: Sequence[FeatureStats]) -> FeatureStats:
    """Combine statistics of disjoint parts: exact but for quantiles, which are averaged by count (as LeRobot does)."""
    counts = np.stack([part["count"] for part in parts]).astype(np.float64)
    shape = (len(parts),) + (1,) * parts[0]["mean"].ndim
    weights = (counts / counts.sum()).reshape(shape)
    means = np.stack([part["mean"] for part in parts])
    mean = (means * weights).sum(0)
    variance = (np.stack([part["std"] for part in parts]) ** 2 * weights + (means - mean) ** 2 * weights).sum(0)
    merged = {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": counts.sum(0).astype(np.int64),
    }
    quantiles = {key: (np.stack([part[key] for part in parts]) * weights).sum(0) for key in QUANTILES}
    return merged | quantiles


@dataclass(frozen=True)
class VectorStats:
    """Statistics of a vector with D dimensions, as tuples of D floats; `count` is the number of rows."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    min: tuple[float, ...]
    max: tuple[float, ...]
    q01: tuple[float, ...]
    q99: tuple[float, ...]
    count: int

    @classmethod
    def of(cls, rows: np.ndarray, name: str = "rows") -> "VectorStats":
        """Compute them from (n, D). Raises NonFiniteError if a value is NaN or infinite."""
        if not np.isfinite(rows).all():
            row = int(np.argwhere(~np.isfinite(rows).reshape(len(rows), -1).all(1))[0, 0])
            raise NonFiniteError(f"{name}: NaN or infinity at row {row}; remove that episode or repair its values")
        stats = column_stats(rows)
        vectors = {key: tuple(stats[key].tolist()) for key in ("mean", "std", "min", "max", "q01", "q99")}
        return cls(**vectors, count=len(rows))


def robot_statistics(embodiment: Embodiment, episodes: Iterable[tuple[np.ndarray, np.ndarray]]) -> Statistics:
    """What scales a robot's states and actions, from pairs of states (T, S) and actions (T, A), one per episode.

    Where an action is relative, its statistics are those of the differences to the state at the start of the chunk,
    pooled over every chunk that fits into an episode and over all places in it, as the released code pools them. Where
    that is more than `MOST_VECTORS` actions, every second, third, ... episode counts.

    Raises NonFiniteError if a value is NaN or infinite, ValueError without episodes.
    """
    pairs = [(np.asarray(state), np.asarray(action)) for state, action in episodes]
    if not pairs:
        raise ValueError(f"embodiment {embodiment.name!r}: no episode with actions to take statistics from")
    relative = any(part.relative for part in embodiment.action)
    vectors = sum(len(state) for state, _ in pairs) * (embodiment.actions_per_chunk if relative else 1)
    pairs = pairs[:: max(1, -(-vectors // MOST_VECTORS))]
    learned = [_as_learned(embodiment, state, action, relative) for state, action in pairs]
    states, actions = (np.concatenate(parts) for parts in zip(*learned, strict=True))
    state, action = VectorStats.of(states, STATE), VectorStats.of(actions, ACTION)
    return Statistics(*(Moments(part.mean, part.std, part.q01, part.q99) for part in (state, action)))


def _as_learned(
    embodiment: Embodiment, state: np.ndarray, action: np.ndarray, relative: bool
) -> tuple[np.ndarray, np.ndarray]:
    """States (T, S) and actions (n, A) of one episode, not yet scaled."""
    count = embodiment.actions_per_chunk if relative and len(action) >= embodiment.actions_per_chunk else 1
    starts = np.arange(len(action) - count + 1)
    chunks = torch.from_numpy(action[starts[:, None] + np.arange(count)])
    learned = as_learned(embodiment, chunks, torch.from_numpy(state[starts]))
    return opened_state(embodiment, torch.from_numpy(state)).numpy(), learned.flatten(0, 1).numpy()
