"""Training windows: which rows belong together, and the batch the model gets of them.

A window begins with an anchor frame at row t0, followed by up to M chunks. Chunk i begins at row

    c_i = t0 + (gap + i) N          N = actions_per_chunk rows

and holds the state at row c_i, the actions at rows c_i .. c_i + N - 1, and K latent frames; latent frame k stands for
the raw frames at rows c_i + 4 s k + {s, 2s, 3s, 4s}, s = video_stride. A *gap* leaves out chunks between the anchor and
the first kept one, as a robot's sliding memory does; that first chunk then only serves as context (`loss_valid` False),
because the present it starts from is not visible.

A chunk belongs to a window if its first row exists. Near the end of an episode the last frame and the last action are
repeated, and `video_valid`, `action_valid` say which entries are real.

A window lies in one *span* of its episode: rows that a filter keeps, under one instruction (`wam.data.filters`). Where
a span ends before its episode does, only whole chunks belong to a window, so it shows nothing from behind the cut.

Where a data set says what was executed instead of the label (`executed_action`), a row that was led far astray ends
what its chunk can teach: the actions after it answer a push that nobody could foresee, and so does the video.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from wam.data.errors import DatasetError, StaleCacheError
from wam.data.filters import DatasetFilter, chosen_episodes, kept_spans
from wam.data.instructions import TASK, read_instructions
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.schema import ACTION, ENV_TASK, EXECUTED, STATE
from wam.data.vectors import columns_of, gathered
from wam.encoders.video import FRAMES_PER_LATENT
from wam.robot.embodiment import Embodiment
from wam.robot.units import Units


class Rows(Protocol):
    """One array per row of a data set; `__getitem__` takes row numbers of any shape and puts them in front."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...


class Frames(Protocol):
    """What windows show of every row of a data set: a `LatentCache`, or `PictureRows`."""

    @property
    def dataset(self) -> str:
        """Fingerprint of the data set."""

    @property
    def key(self) -> str:
        """Names what the arrays depend on besides."""

    @property
    def video_stride(self) -> int: ...

    @property
    def broken(self) -> Mapping[int, str]: ...

    @property
    def anchor(self) -> Rows:
        """The frame at a row."""

    @property
    def group(self) -> Rows:
        """The frames that one latent frame behind a row stands for."""


@dataclass(frozen=True)
class WindowSpec:
    """Shape of a window.

    Args:
        chunks: M, chunks per window at most (longer ones are cut, shorter ones padded).
        actions_per_chunk: N, rows per chunk.
        video_stride: rows between raw frames.
        frames_per_chunk: K, latent frames per chunk.
        min_chunks: windows with fewer chunks are not drawn.
        gap_probability: share of windows with a gap, among those long enough to have one.
        whole_chunks: leave out chunks whose video runs past the end of the episode.
        stray: a row whose executed action differs from its label by more than this in any dimension was led astray.
    """

    chunks: int = 4
    actions_per_chunk: int = 8
    video_stride: int = 2
    frames_per_chunk: int = 1
    min_chunks: int = 1
    gap_probability: float = 0.0
    whole_chunks: bool = False
    stray: float = 1.0

    def __post_init__(self) -> None:
        rows = FRAMES_PER_LATENT * self.video_stride * self.frames_per_chunk
        if self.actions_per_chunk != rows:
            raise ValueError(
                f"WindowSpec: {self.actions_per_chunk} actions per chunk, but {self.frames_per_chunk} latent frames x "
                f"{FRAMES_PER_LATENT} raw frames x stride {self.video_stride} = {rows} rows; they must be equal"
            )
        if not 1 <= self.min_chunks <= self.chunks:
            raise ValueError(f"WindowSpec: min_chunks is {self.min_chunks}, expected 1 to chunks = {self.chunks}")
        if not 0.0 <= self.gap_probability <= 1.0:
            raise ValueError(f"WindowSpec: gap_probability is {self.gap_probability}, expected 0 to 1")

    @property
    def rows_per_latent(self) -> int:
        """Rows that one latent frame stands for."""
        return FRAMES_PER_LATENT * self.video_stride

    def available(self, end: np.ndarray, row: np.ndarray, cut: np.ndarray | bool = False) -> np.ndarray:
        """How many chunks follow an anchor at `row` in spans that end before row `end` (any shape, elementwise).

        Where `cut`, the episode goes on behind the span: its frames must not be seen, and cannot be repeated.
        """
        last = end - 1 - np.where(np.logical_or(cut, self.whole_chunks), self.actions_per_chunk, 0)
        chunks: np.ndarray = np.maximum((last - row) // self.actions_per_chunk + 1, 0)
        return chunks


@dataclass(frozen=True)
class EpisodeSelection:
    """Which episodes are drawn from, and which of them keep their actions; a hash of the episode number decides.

    Args:
        split: `train`, `validation` (held out), or `all`.
        validation_share: share of episodes held out; of a data set at least one, unless the share is zero.
        labelled_share: share of episodes that keep their actions, at least one unless the share is zero; the others
            are video only. Growing the share adds episodes and never drops one.
        drop_unlabelled: do not draw video-only episodes at all (baseline without video data).
        seed: other seeds, other choices.
    """

    split: Literal["train", "validation", "all"] = "train"
    validation_share: float = 0.05
    labelled_share: float = 1.0
    drop_unlabelled: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("validation_share", "labelled_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"EpisodeSelection: {name} is {getattr(self, name)}, expected 0 to 1")

    def of_few(self, episodes: Sequence[int]) -> "EpisodeSelection":
        """The same with shares that hold out at least one of these episodes, and leave at least one with its actions.

        Of few episodes all may be on the other side of a share. A share of zero stays so; a single episode is learned.
        """
        fitted = self
        if self.validation_share > 0.0 and len(episodes) > 1:
            first = min(_fraction("split", self.seed, episode) for episode in episodes)
            fitted = replace(fitted, validation_share=max(self.validation_share, math.nextafter(first, 1.0)))
        training = replace(fitted, split="all" if self.split == "all" else "train", drop_unlabelled=False)
        learned = [episode for episode in episodes if training.is_drawn(episode)]
        if self.labelled_share > 0.0 and learned:
            first = min(_fraction("label", self.seed, episode) for episode in learned)
            fitted = replace(fitted, labelled_share=max(self.labelled_share, math.nextafter(first, 1.0)))
        return fitted

    def is_labelled(self, episode: int) -> bool:
        """Whether the actions of this episode may be used."""
        return _fraction("label", self.seed, episode) < self.labelled_share

    def is_drawn(self, episode: int) -> bool:
        """Whether windows of this episode may be drawn."""
        held_out = _fraction("split", self.seed, episode) < self.validation_share
        in_split = self.split == "all" or held_out == (self.split == "validation")
        return in_split and (self.is_labelled(episode) or not self.drop_unlabelled)


def _fraction(purpose: str, seed: int, episode: int) -> float:
    """A number in [0, 1) that looks random and depends on nothing but the arguments."""
    digest = hashlib.blake2b(f"{purpose}/{seed}/{episode}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / 2**56


@dataclass(frozen=True)
class WindowIndex:
    """Which windows: int64 (B,) each; `row` counts within the episode, `gap` and `chunks` count chunks.

    wording: which of the wordings of the instruction; None: the first.
    """

    episode: np.ndarray
    row: np.ndarray
    chunks: np.ndarray
    gap: np.ndarray
    wording: np.ndarray | None = None

    def part(self, rows: slice) -> "WindowIndex":
        """Some of them."""
        wording = None if self.wording is None else self.wording[rows]
        return WindowIndex(self.episode[rows], self.row[rows], self.chunks[rows], self.gap[rows], wording)


@dataclass(frozen=True)
class WindowBatch:
    """B windows of M chunks (K latent frames, N actions each); actions and states in robot units.

    Args:
        anchor: float32 (B, z, 1, h, w).
        video: float32 (B, z, M K, h, w).
        action: float32 (B, M N, A).
        state: float32 (B, M, S).
        chunk_index: int64 (B, M), number of each chunk since the anchor.
        chunk_valid: bool (B, M), False for padding behind a short window.
        video_valid: bool (B, M K), False where frames were repeated past the end of the episode, or show a detour.
        action_valid: bool (B, M, N), False where actions were repeated past the end, or follow a detour in their chunk.
        loss_valid: bool (B, M), False for padding and for the first chunk behind a gap.
        has_action: bool (B,), False for video-only episodes; their actions are zero.
        text_id: int64 (B,), which sentence of `WindowSource.sentences`.
        episode: int64 (B,).
        row: int64 (B,), row of the anchor.
        embodiment: int64 (B,), slot of the robot; 0 until `in_model_units` sets it.
        action_dims: bool (B, A), False for padding.
        beside: float32 (B, c, 1 + M K, h, w), channels beside every frame, for models that have them.
        image: float32 (B, n, d), features of the first picture, for models that look at it.

    With pictures in place of latents (`wam.data.picture_rows`) anchor and video are uint8, 3 and 12 channels of pixels.
    """

    anchor: Tensor
    video: Tensor
    action: Tensor
    state: Tensor
    chunk_index: Tensor
    chunk_valid: Tensor
    video_valid: Tensor
    action_valid: Tensor
    loss_valid: Tensor
    has_action: Tensor
    text_id: Tensor
    episode: Tensor
    row: Tensor
    embodiment: Tensor
    action_dims: Tensor
    beside: Tensor | None = None
    image: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """What there is, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def to(self, device: torch.device | str) -> "WindowBatch":
        """The same batch on another device."""
        return replace(self, **{name: x.to(device) for name, x in self.tensors().items()})


def in_model_units(batch: WindowBatch, units: Units, slot: int = 0) -> WindowBatch:
    """The same windows with states and actions as the model knows them, for the robot in this slot of the model."""
    (count, chunks, _), labelled = batch.state.shape, batch.has_action[:, None, None]
    by_chunk = batch.action.reshape(count, chunks, -1, batch.action.shape[-1])
    action = units.action_to_model(by_chunk, batch.state).flatten(1, 2)
    state = units.state_to_model(batch.state)
    return replace(
        batch,
        action=torch.where(labelled, action, torch.zeros_like(action)),
        state=torch.where(labelled, state, torch.zeros_like(state)),
        embodiment=torch.full_like(batch.embodiment, slot),
        action_dims=units.action_dims.expand(len(action), -1),
    )


class WindowSource:
    """All windows of a data set: columns in memory, latents through the cache's memory maps.

    Args:
        dataset: rows.
        cache: latents, or pictures, of the same data set.
        spec: shape of the windows.
        selection: episodes.
        keep: parts of the data set that may be drawn.
        robot: whose states and actions to take, from where its file says; None: the two columns as they are.
        instructions: columns of the instruction, one for each wording; see `wam.data.instructions`.

    Raises:
        StaleCacheError: the cache belongs to another data set or video stride.
        MissingColumnError: the data set lacks dimensions of the robot.
        DatasetError: no window is left to draw.
    """

    def __init__(
        self,
        dataset: LeRobotDataset,
        cache: Frames,
        spec: WindowSpec,
        selection: EpisodeSelection | None = None,
        keep: DatasetFilter | None = None,
        robot: Embodiment | None = None,
        instructions: Sequence[str] = (TASK,),
    ) -> None:
        _check_cache(dataset, cache, spec)
        self.spec = spec
        self.cache = cache
        keep = keep or DatasetFilter()
        asked = chosen_episodes(dataset, keep)
        self.skipped = {episode: why for episode, why in cache.broken.items() if episode in asked}
        """Episodes that would be drawn, had their pictures been readable, and what is wrong with them."""
        keep = replace(keep, without=(*keep.without, *self.skipped))
        chosen = chosen_episodes(dataset, keep)
        self._instructions = read_instructions(dataset, chosen, instructions, keep.no_language)
        self._state, self._action = _all_rows(dataset, robot, chosen)
        self._astray = _rows_led_astray(dataset, spec.stray, chosen)
        self._length = np.array([episode.length for episode in dataset.meta.episodes])
        self._spans = kept_spans(dataset, keep, self._instructions)
        whose = np.unique(self._spans.episode).tolist()
        self.selection = (selection or EpisodeSelection()).of_few(whose)
        self._offset = np.array([episode.dataset_from_index for episode in dataset.meta.episodes])
        self._env_task = [episode.extra.get(ENV_TASK) for episode in dataset.meta.episodes]
        self._labelled = np.array([self.selection.is_labelled(i) for i in range(dataset.num_episodes)])
        drawn = [i for i in whose if self.selection.is_drawn(i)]
        self.episodes = np.array(drawn, dtype=np.int64)
        self._end = self._end_of_span()
        self._anchors = self._all_anchors()
        if len(self) == 0:
            raise DatasetError(
                f"{dataset.root}: no window to draw: {len(self.episodes)} of {dataset.num_episodes} episodes selected "
                f"by {self.selection} and {keep}, windows need {spec.min_chunks} chunks of {spec.actions_per_chunk} "
                "rows"
            )

    def __len__(self) -> int:
        """Number of anchors, i.e. of windows that are drawn once per epoch."""
        return len(self._anchors)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What `text_id` counts."""
        return self._instructions.sentences

    @property
    def labelled_episodes(self) -> np.ndarray:
        """Those drawn episodes that keep their actions."""
        labelled: np.ndarray = self.episodes[self._labelled[self.episodes]]
        return labelled

    @property
    def env_tasks(self) -> tuple[str, ...]:
        """The tasks of those episodes by their simulator's names, as far as they were recorded with one; sorted."""
        names = {self._env_task[episode] for episode in self.labelled_episodes}
        return tuple(sorted(name for name in names if isinstance(name, str)))

    def labelled_anchors(self) -> np.ndarray:
        """Numbers of the windows of episodes that keep their actions."""
        return np.flatnonzero(self._labelled[self._anchors[:, 0]])

    def labelled_rows(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """States (T, S) and actions (T, A) of every drawn episode that keeps its actions: what statistics are taken of.

        States of the others do not count: the model never sees them, `in_model_units` puts zeros in their place.
        """
        for episode in self.labelled_episodes:
            rows = self._kept_rows(episode)
            yield self._state[rows], self._action[rows]

    def windows(self, anchors: np.ndarray, rng: np.random.Generator) -> WindowIndex:
        """The longest windows at these anchors (numbers below `len(self)`); gaps and wordings are drawn from `rng`."""
        episode, row = self._anchors[anchors].T
        end = self._end[self._offset[episode] + row]
        available = self.spec.available(end, row, end < self._length[episode])
        widest = available - max(2, self.spec.min_chunks)  # one chunk of context, one to learn from
        with_gap = (rng.random(len(anchors)) < self.spec.gap_probability) & (widest >= 1)
        gap = np.where(with_gap, rng.integers(1, np.maximum(widest, 1) + 1), 0)
        wording = self._instructions.draw(self._offset[episode] + row, rng)
        return WindowIndex(episode, row, np.minimum(available - gap, self.spec.chunks), gap, wording)

    def collate(self, index: WindowIndex) -> WindowBatch:
        """Gather windows into a batch; nothing is encoded, and nothing decoded where there are latents."""
        spec = self.spec
        end = self._end[self._offset[index.episode] + index.row]
        last = end - 1
        position = np.arange(spec.chunks)
        chunk_valid = position < index.chunks[:, None]
        chunk_index = index.gap[:, None] + position
        chunk_row = index.row[:, None] + chunk_index * spec.actions_per_chunk
        latent_row = chunk_row[:, :, None] + np.arange(spec.frames_per_chunk) * spec.rows_per_latent
        action_row = chunk_row[:, :, None] + np.arange(spec.actions_per_chunk)
        # rows past the end of the span hold its last row, or the last latent frame that shows nothing behind a cut
        shown = last - np.where(end < self._length[index.episode], spec.rows_per_latent, 0)
        anchor = self.cache.anchor[self._offset[index.episode] + index.row]
        video = self.cache.group[self._global(index, latent_row, shown)]
        kept = np.uint8 if video.dtype == np.uint8 else np.float32  # half precision is for storage alone
        action = self._action[self._global(index, action_row, last)]
        labelled = self._labelled[index.episode]
        video_valid = chunk_valid[:, :, None] & (latent_row + spec.rows_per_latent <= last[:, None, None])
        action_valid = chunk_valid[:, :, None] & (action_row <= last[:, None, None])
        if self._astray is not None:
            astray = np.maximum.accumulate(
                self._astray[self._global(index, action_row, last)].reshape(action_row.shape), -1
            )
            video_valid &= ~astray[:, :, spec.rows_per_latent - 1 :: spec.rows_per_latent]
            action_valid[:, :, 1:] &= ~astray[:, :, :-1]
        arrays = {
            "anchor": anchor[:, :, None].astype(kept),
            "video": np.ascontiguousarray(np.moveaxis(video, 2, 1), dtype=kept),
            "action": np.where(labelled[:, None, None], action, np.float32(0)),
            "state": self._state[self._global(index, chunk_row, last)],
            "chunk_index": chunk_index,
            "chunk_valid": chunk_valid,
            "video_valid": video_valid.reshape(len(last), -1),
            "action_valid": action_valid,
            "loss_valid": chunk_valid & ((position > 0) | (index.gap[:, None] == 0)),
            "has_action": labelled,
            "text_id": self._instructions.said(self._offset[index.episode] + index.row, index.wording),
            "episode": index.episode,
            "row": index.row,
            "embodiment": np.zeros(len(last), dtype=np.int64),
            "action_dims": np.ones((len(last), action.shape[-1]), dtype=bool),
        }
        return WindowBatch(**{name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()})

    def _global(self, index: WindowIndex, rows: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Rows within episodes, (B, ...) -> rows in the whole data set, held at row `last` (B,), (B, n)."""
        held: np.ndarray = self._offset[index.episode][:, None] + np.minimum(rows.reshape(len(rows), -1), last[:, None])
        return held

    def _kept_rows(self, episode: int) -> np.ndarray:
        """Rows in the whole data set of the spans of an episode."""
        rows = np.arange(self._offset[episode], self._offset[episode] + self._length[episode])
        kept: np.ndarray = rows[self._end[rows] > 0]
        return kept

    def _end_of_span(self) -> np.ndarray:
        """int64 (rows of the data set,): where the span of a row ends, within its episode; 0 for rows not kept."""
        ends = np.zeros(int(self._length.sum()), dtype=np.int64)
        for episode, start, end in zip(self._spans.episode, self._spans.start, self._spans.end, strict=True):
            ends[self._offset[episode] + start : self._offset[episode] + end] = end
        return ends

    def _all_anchors(self) -> np.ndarray:
        """(anchors, 2): episode and row of every window with at least `min_chunks` chunks."""
        parts = [np.empty((0, 2), dtype=np.int64)]
        drawn = np.isin(self._spans.episode, self.episodes)
        for episode, start, end in zip(*(array[drawn] for array in vars(self._spans).values()), strict=True):
            rows = np.arange(start, end)
            rows = rows[self.spec.available(end, rows, end < self._length[episode]) >= self.spec.min_chunks]
            parts.append(np.stack([np.full(len(rows), episode), rows], axis=1))
        return np.concatenate(parts)


def _all_rows(dataset: LeRobotDataset, robot: Embodiment | None, chosen: Set[int]) -> tuple[np.ndarray, np.ndarray]:
    """States and actions of the whole data set, zero where an episode is not chosen: that one may be broken."""
    state, action = (robot.state, robot.action) if robot is not None else (None, None)
    names = {TASK}  # every data set has it, so that a robot without parts has rows too
    for parts, column in ((state, STATE), (action, ACTION)):
        names |= {column} if parts is None else columns_of(parts, column)
    found: dict[int, tuple[np.ndarray, ...]] = {}
    for episode in sorted(chosen):
        rows = dataset.columns(episode, sorted(names))
        vectors = (
            rows[column] if parts is None else gathered(rows, parts, column)
            for parts, column in ((state, STATE), (action, ACTION))
        )
        found[episode] = tuple(vector.astype(np.float32, copy=False) for vector in vectors)
    blank = [column[:1] * 0 for column in next(iter(found.values()), ())]
    episodes = [
        found.get(episode.index) or [column.repeat(episode.length, axis=0) for column in blank]
        for episode in dataset.meta.episodes
    ]
    states, actions = (np.concatenate(parts) for parts in zip(*episodes, strict=True))
    return states, actions


def _rows_led_astray(dataset: LeRobotDataset, stray: float, chosen: Set[int]) -> np.ndarray | None:
    """bool (rows,), or None for a data set that does not tell what was executed."""
    if EXECUTED not in dataset.meta.features:
        return None
    astray = np.zeros(dataset.num_rows, dtype=bool)
    for number in chosen:
        rows, episode = dataset.columns(number, (ACTION, EXECUTED)), dataset.episode(number)
        far = (np.abs(rows[EXECUTED] - rows[ACTION]) > stray).reshape(episode.length, -1).any(-1)
        astray[episode.dataset_from_index : episode.dataset_to_index] = far
    return astray


def _check_cache(dataset: LeRobotDataset, cache: Frames, spec: WindowSpec) -> None:
    if cache.dataset != dataset.meta.fingerprint or len(cache.anchor) != dataset.num_rows:
        raise StaleCacheError(
            f"latents {cache.key}: made from data set {cache.dataset}, {dataset.root} is {dataset.meta.fingerprint}; "
            "encode it again"
        )
    if cache.video_stride != spec.video_stride:
        raise StaleCacheError(
            f"latents {cache.key}: video stride is {cache.video_stride}, WindowSpec has {spec.video_stride}; "
            "encode again"
        )
