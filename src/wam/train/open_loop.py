"""Open loop: what the model would do and see in the place of the robot that was recorded.

The model remembers what really happened before a chunk and imagines that chunk, then the next one, as in the closed
loop; only that nobody executes its actions. Their distance to the recorded ones stands beside that of two policies that
hold:

    hold_mean   repeats the mean action of the training data: it never looks.
    hold_last   repeats the last action before the chunk. A robot that is commanded positions thus stays where it was
                last sent, one that is commanded changes goes on as before. Where nothing was executed yet, at the start
                of an episode, it is the mean action.

All in units of each action's standard deviation in the training data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from wam.data.mixture import Mixture
from wam.data.stats import robot_statistics
from wam.data.windows import WindowBatch, WindowIndex, WindowSource
from wam.flow.sampler import Imagined, Sampler
from wam.model.attention import ANCHOR
from wam.robot.embodiment import Embodiment
from wam.robot.normalization import SMALLEST_SCALE, Normalizer
from wam.robot.units import Units
from wam.world_action_model import WorldActionModel


@torch.no_grad()
def imagine_along(
    model: WorldActionModel, windows: WindowBatch, text: Tensor, sampler: Sampler, seed: int = 0, slot: int = 0
) -> Iterator[Imagined]:
    """Every chunk of windows without a gap, each imagined after remembering what really came before it.

    text: (B, Lt, text_dim).  A bidirectional model knows no remembered chunk, so it ends after the first.
    """
    cache, context = model.new_cache(batch=len(text)), model.context(text)
    model.remember(cache, context, windows.anchor, ANCHOR)
    velocity, generator = model.velocity(cache, context), torch.Generator().manual_seed(seed)
    frames, previous = model.config.transformer.frames_per_chunk, windows.anchor
    for chunk in range(chunks_to_imagine(model, windows)):
        noise, state = model.noise(generator, len(text)), windows.state[:, chunk]
        yield model.denoise(velocity, noise, state, chunk, sampler, previous, slot=slot)
        real = windows.video[:, :, chunk * frames : (chunk + 1) * frames]
        model.remember(cache, context, real, chunk)
        previous = real[:, :, -1:]


def chunks_to_imagine(model: WorldActionModel, windows: WindowBatch) -> int:
    """How many chunks `imagine_along` yields."""
    return windows.chunk_valid.shape[1] if model.config.transformer.autoregressive else 1


@dataclass(frozen=True)
class ErrorSums:
    """Squared errors of each dimension of an action, summed over `count` actions; (A,) and how many."""

    squares: Tensor
    count: int

    def __add__(self, other: ErrorSums) -> ErrorSums:
        return ErrorSums(self.squares + other.squares, self.count + other.count)

    def roots(self, names: tuple[str, ...]) -> dict[str, float | dict[str, float]]:
        """Root-mean-square errors: over all dimensions, and of each by its name."""
        squares = (self.squares / max(1, self.count)).tolist()
        dims = {name: square**0.5 for name, square in zip(names, squares, strict=True)}
        return {"all": (sum(squares) / len(squares)) ** 0.5, "dims": dims}


def action_errors(
    model: WorldActionModel,
    held_out: Mixture,
    place: int,
    index: WindowIndex,
    text: Tensor,
    samplers: dict[str, Sampler],
    seed: int = 0,
) -> dict[str, ErrorSums]:
    """Errors of the actions that each sampler imagines, by its name, and of both holds, on the same actions.

    place: of a member with actions.  index: windows, without a gap.  text: (B, Lt, text_dim), on the model's device.
    """
    member = held_out.members[place]
    units, slot = member.units, member.slot
    assert units is not None, "a video-only member has no actions to be wrong about"
    windows = held_out.collate(place, index).to(text.device)
    per_chunk, real = member.source.spec.actions_per_chunk, units.embodiment.action_dim
    wanted = _by_chunk(windows, per_chunk)[..., :real]
    counts = windows.has_action[:, None, None] & windows.loss_valid[:, :, None] & windows.action_valid
    mean, deviation = mean_and_deviation(units.embodiment, member.source)
    guesses = {
        "hold_mean": mean.to(text.device).expand_as(wanted),
        "hold_last": _hold_last(member.source, units, index, mean).to(text.device),
    }
    for name, sampler in samplers.items():
        imagined = imagine_along(model, windows, text, sampler, seed, slot)
        guesses[name] = torch.stack([chunk.action.float() for chunk in imagined], dim=1)[..., :real]
    chunks, unit = chunks_to_imagine(model, windows), deviation.to(text.device)
    taken = counts[:, :chunks]
    sums = {}
    for name, guess in guesses.items():
        error = (guess[:, :chunks] - wanted[:, :chunks]) / unit
        sums[name] = ErrorSums(error.square()[taken].sum(0).cpu(), int(taken.sum()))
    return sums


def without_gap(index: WindowIndex, chunks: int) -> WindowIndex:
    """The windows at the same anchors that show every chunk from there on, up to `chunks`."""
    return replace(index, gap=np.zeros_like(index.gap), chunks=np.minimum(index.chunks + index.gap, chunks))


def may_begin(source: WindowSource, episode: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Whether windows may begin at these rows of these episodes, bool (B,)."""
    anchors = source.windows(np.arange(len(source)), np.random.default_rng(0))
    width = int(max(anchors.row.max(), row.max())) + 1
    return np.isin(episode * width + row, anchors.episode * width + anchors.row)


# -------------------------------------------------------------------------------- actions, as the model knows them


def mean_and_deviation(robot: Embodiment, source: WindowSource) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each action in model units, both (A,); the latter is 1 where it never moves.

    Of the robot's statistics, or measured on `source` where those are quantiles alone.
    """
    assert robot.statistics is not None, "checked by Units"
    scaling = known = robot.statistics.action
    if not (known.mean and known.std):
        known = robot_statistics(robot, source.labelled_rows()).action
    from_moments = Normalizer.from_quantiles if robot.normalization == "quantiles" else Normalizer.from_mean_std
    normalizer, deviation = from_moments(scaling), torch.tensor(known.std)
    scaled = torch.where(deviation > SMALLEST_SCALE, deviation / torch.tensor(normalizer.scale), 1.0)
    return normalizer.normalize(torch.tensor(known.mean)), scaled


def _by_chunk(windows: WindowBatch, per_chunk: int) -> Tensor:
    """Actions (B, M, N, A)."""
    count, rows, dims = windows.action.shape
    return windows.action.reshape(count, rows // per_chunk, per_chunk, dims)


def _hold_last(source: WindowSource, units: Units, index: WindowIndex, mean: Tensor) -> Tensor:
    """Per chunk the action before it, or the mean one, repeated, in model units: (B, M, N, A)."""
    windows, real = source.collate(index), units.embodiment.action_dim
    by_chunk = _by_chunk(windows, source.spec.actions_per_chunk)
    before, known = _before(source, index)
    last = torch.cat([before[:, None], by_chunk[:, :-1, -1]], dim=1)
    held = units.action_to_model(last[:, :, None].expand_as(by_chunk), windows.state)[..., :real]
    held[~known, 0] = mean
    return held


def _before(source: WindowSource, index: WindowIndex) -> tuple[Tensor, Tensor]:
    """The action in the row before each anchor, (B, A) in robot units, and whether there is one, (B,) bool."""
    back = np.minimum(index.row, source.spec.actions_per_chunk)
    known = (back > 0) & may_begin(source, index.episode, index.row - back)
    start, one = np.where(known, index.row - back, index.row), np.ones_like(back)
    actions = source.collate(WindowIndex(index.episode, start, chunks=one, gap=0 * one)).action
    return actions[torch.arange(len(start)), torch.from_numpy(np.maximum(back, 1) - 1)], torch.from_numpy(known)
