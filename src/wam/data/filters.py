"""Which parts of a data set may be drawn: whole episodes left out, ranges of rows left out, cuts between instructions.

The result is a list of *spans*: rows of one episode, kept, without a hole and under one instruction. A training window
lies in one span, so it never crosses an episode, a removed range or a change of the instruction.

Two kinds of files say which rows to keep:

    *.json    {"EPISODE": [[first, end], ...]}             rows to keep, `end` exclusive; nothing else is kept
    *.jsonl   {"episode_index": 0, "step_indices": [...]}  rows to drop, one episode per line; nothing else is dropped

The first is the format of the idle-frame ranges that Physical Intelligence published for DROID, where EPISODE is
"<recording_folderpath>--<file_path>"; the second is `meta/step_filter.jsonl` of the released DreamZero code.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wam.data.errors import DatasetError, MissingColumnError, MissingFileError
from wam.data.instructions import NO_LANGUAGE, Instructions
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.schema import EpisodeRow


@dataclass(frozen=True)
class DatasetFilter:
    """Which parts of a data set may be drawn; the default keeps everything that `info.json` does not discard.

    Args:
        episodes: only these; None keeps all.
        without: not these.
        rows: file of rows to keep (.json) or to drop (.jsonl), see the module.
        rows_key: how that .json file names an episode, filled with `episode_index` and the additional columns of the
            table of episodes: DROID's file wants `{recording_folderpath}--{file_path}`.
        success: an additional column of the table of episodes, or a column of rows: only episodes for which it is true,
            or above 0, once.
        language: leave out rows whose instruction says nothing.
        no_language: instructions that say nothing, in lower case.
    """

    episodes: tuple[int, ...] | None = None
    without: tuple[int, ...] = ()
    rows: Path | None = None
    rows_key: str = "{episode_index}"
    success: str | None = None
    language: bool = False
    no_language: tuple[str, ...] = NO_LANGUAGE

    def __post_init__(self) -> None:
        if self.rows is not None and self.rows.suffix not in (".json", ".jsonl"):
            raise ValueError(f"DatasetFilter: rows is {self.rows}; expected a .json (keep) or .jsonl (drop) file")


@dataclass(frozen=True)
class Spans:
    """Stretches of rows, in order: int64 (n,) each; `start` and `end` (exclusive) count within the episode."""

    episode: np.ndarray
    start: np.ndarray
    end: np.ndarray


def chosen_episodes(dataset: LeRobotDataset, keep: DatasetFilter) -> set[int]:
    """Episodes that a filter does not leave out by their number; nothing of the others is read. Never empty.

    Raises:
        DatasetError: a number that the data set does not have, or none is left.
    """
    for name, numbers in (("episodes", keep.episodes or ()), ("without", keep.without)):
        unknown = [number for number in numbers if not 0 <= number < dataset.num_episodes]
        if unknown:
            raise DatasetError(
                f"DatasetFilter: {name} names episode {unknown[0]}, {dataset.root} has 0 to {dataset.num_episodes - 1}"
            )
    chosen = set(range(dataset.num_episodes) if keep.episodes is None else keep.episodes)
    chosen -= {*keep.without, *dataset.meta.discarded}
    if not chosen:
        raise DatasetError(f"{dataset.root}: {keep} leaves none of {dataset.num_episodes} episodes")
    return chosen


def kept_spans(dataset: LeRobotDataset, keep: DatasetFilter, instructions: Instructions) -> Spans:
    """Apply a filter.

    Args:
        dataset: to be filtered.
        keep: the filter.
        instructions: what is said at each row of the data set.

    Raises:
        MissingFileError, DatasetError: the file of rows is missing or wrong.
        MissingColumnError: the data set does not say which episodes succeeded, or what the file calls them.
    """
    meta = dataset.meta
    chosen = chosen_episodes(dataset, keep)
    kept_rows = None if keep.rows is None else _RowFile(keep.rows, keep.rows_key, meta.episodes)
    spans = []
    for episode in meta.episodes:
        if episode.index not in chosen or not _succeeded(dataset, episode, keep.success):
            continue
        rows = slice(episode.dataset_from_index, episode.dataset_to_index)
        kept = np.ones(episode.length, dtype=bool) if kept_rows is None else kept_rows.of(episode)
        if keep.language:
            kept &= instructions.spoken[rows] > 0
        spans.append(_stretches(episode.index, kept, instructions.number[rows]))
    columns = np.concatenate([np.empty((0, 3), dtype=np.int64), *spans])
    return Spans(*columns.T)


def _stretches(episode: int, kept: np.ndarray, sentences: np.ndarray) -> np.ndarray:
    """(n, 3) episode, start, end of the stretches of kept rows (T,) with the same sentences (T, W)."""
    changes = np.flatnonzero((kept[1:] != kept[:-1]) | (sentences[1:] != sentences[:-1]).any(1)) + 1
    starts = np.concatenate([[0], changes])
    ends = np.append(changes, len(kept))
    stretches = np.stack([np.full(len(starts), episode), starts, ends], axis=1)
    chosen: np.ndarray = stretches[kept[starts]]
    return chosen


def _succeeded(dataset: LeRobotDataset, episode: EpisodeRow, name: str | None) -> bool:
    """Whether an episode counts as successful; without a name, every one does."""
    if name is None:
        return True
    if name in episode.extra:
        value = episode.extra[name]
        if isinstance(value, str):
            where = f"{dataset.root}: episode {episode.index}"
            raise DatasetError(f"{where}: field {name!r} is {value!r}, expected a truth value or a number")
        return value > 0
    if name in dataset.meta.features:
        return bool((dataset.columns(episode.index, (name,))[name] > 0).any())
    raise MissingColumnError(
        f"{dataset.root}: no {name!r} that says whether an episode succeeded; its table of episodes has "
        f"{sorted(episode.extra)}, its rows have {sorted(dataset.meta.features)}"
    )


class _RowFile:
    """A file that says which rows of which episodes to keep, or to drop."""

    def __init__(self, path: Path, key: str, episodes: Sequence[EpisodeRow]) -> None:
        if not path.is_file():
            raise MissingFileError(f"{path}: no such file; DatasetFilter.rows names it")
        self._path, self._key = path, key
        self._drops = path.suffix == ".jsonl"
        text = path.read_text(encoding="utf-8")
        try:
            self._content = _dropped(text) if self._drops else json.loads(text)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DatasetError(f"{path}: not the format that `wam.data.filters` describes ({error!r})") from error
        if not isinstance(self._content, dict):
            raise DatasetError(
                f"{path}: found a {type(self._content).__name__}, expected an object, one key an episode"
            )
        asked = [self._name(episode) for episode in episodes]
        if not self._drops and not set(asked) & set(self._content):
            raise DatasetError(
                f"{path}: names no episode of this data set: it has e.g. {next(iter(self._content), None)!r}, "
                f"expected e.g. {asked[0]!r}; correct DatasetFilter.rows_key"
            )

    def of(self, episode: EpisodeRow) -> np.ndarray:
        """bool (T,): the rows to keep."""
        name = self._name(episode)
        kept = np.full(episode.length, self._drops)
        for entry in self._content.get(name, ()):
            first, end = self._range(name, entry, episode.length)
            kept[first:end] = not self._drops
        return kept

    def _name(self, episode: EpisodeRow) -> str:
        if self._drops:
            return str(episode.index)
        try:
            return self._key.format(episode_index=episode.index, **episode.extra)
        except KeyError as error:
            raise MissingColumnError(
                f"DatasetFilter: rows_key {self._key!r} needs {error}, the table of episodes has "
                f"{sorted(episode.extra)} beside episode_index"
            ) from error

    def _range(self, name: str, entry: object, length: int) -> tuple[int, int]:
        """One entry, [first, end] or a single row, checked against the length of the episode."""
        pair = (entry, entry + 1) if isinstance(entry, int) else entry
        try:
            first, end = (int(number) for number in pair)  # type: ignore[attr-defined]
        except (TypeError, ValueError):
            raise DatasetError(f"{self._path}: episode {name!r}: found {entry!r}, expected [first, end]") from None
        if not 0 <= first <= length or not first <= end <= length:
            raise DatasetError(
                f"{self._path}: episode {name!r}: rows {first} to {end} (exclusive), the episode has {length} rows; "
                "the file belongs to another version of the data set"
            )
        return first, end


def _dropped(text: str) -> Mapping[str, list[int]]:
    """Lines of a step filter: episode -> rows to drop."""
    lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    return {str(line["episode_index"]): [int(row) for row in line["step_indices"]] for line in lines}
