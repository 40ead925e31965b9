"""What is said at every row of a data set: one sentence, or several wordings of the same instruction.

Most data sets name one sentence per row, in the column `task_index`. DROID has up to three wordings of each, in
`language_instruction`, `language_instruction_2` and `language_instruction_3`, some of them empty or "not provided".
Such a column holds numbers of sentences in the table of tasks, or the sentences themselves.

A window has one of the wordings that say something, drawn anew each time; where none does, it has the first. (The
released code draws from all three, those that say nothing included.)
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np

from wam.data.errors import DatasetError
from wam.data.lerobot_reader import LeRobotDataset

TASK = "task_index"
NO_LANGUAGE = ("", "not provided")
"""Sentences that say nothing: what the converted DROID has where nobody described the episode."""


@dataclass(frozen=True)
class Instructions:
    """What is said at every row of a data set.

    sentences: all that are said.  number: int64 (rows, W), the sentences of W wordings, those that say something first.
    spoken: int64 (rows,), how many of them say something.
    """

    sentences: tuple[str, ...]
    number: np.ndarray
    spoken: np.ndarray

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
        """Which wording to use at these rows (B,): int64 (B,); None, and nothing is drawn, if there is only one."""
        return rng.integers(0, np.maximum(self.spoken[rows], 1)) if self.number.shape[1] > 1 else None

    def said(self, rows: np.ndarray, wording: np.ndarray | None) -> np.ndarray:
        """Numbers of the sentences at these rows: int64 (B,). wording: what `draw` returned; None: the first."""
        chosen: np.ndarray = self.number[rows, 0 if wording is None else wording]
        return chosen


def read_instructions(
    dataset: LeRobotDataset,
    chosen: Set[int],
    columns: Sequence[str] = (TASK,),
    no_language: Sequence[str] = NO_LANGUAGE,
) -> Instructions:
    """Read the instructions of some episodes; the rows of all others say sentence 0.

    Args:
        dataset: where they stand.
        chosen: episodes to read.
        columns: one for each wording, numbers of tasks or text.
        no_language: sentences that say nothing, in lower case.

    Raises:
        MissingColumnError: a column is not there.
        DatasetError: a column holds neither text nor numbers of tasks, or names no column at all.
    """
    if not columns:
        raise DatasetError(f"{dataset.root}: no column of instructions is named; expected at least {TASK!r}")
    numbered = any(column in dataset.meta.features for column in columns)
    known: dict[str, int] = {}
    tasks = [known.setdefault(sentence, len(known)) for sentence in dataset.meta.tasks] if numbered else []
    number = np.zeros((dataset.num_rows, len(columns)), dtype=np.int64)
    for index in sorted(chosen):
        episode = dataset.episode(index)
        rows = slice(episode.dataset_from_index, episode.dataset_to_index)
        for place, column in enumerate(columns):
            number[rows, place] = _sentences(dataset, index, column, known, tasks)
    silent = np.array([sentence.strip().lower() in no_language for sentence in known], dtype=bool)[number]
    first = np.argsort(silent, axis=1, kind="stable")
    return Instructions(tuple(known), np.take_along_axis(number, first, axis=1), (~silent).sum(1))


def _sentences(
    dataset: LeRobotDataset, index: int, column: str, known: dict[str, int], task_sentences: list[int]
) -> np.ndarray:
    """Numbers of the sentences in one column of an episode, int64 (T,); those not known yet are added.

    task_sentences: the number of every task's sentence, which several tasks may have.
    """
    if column not in dataset.meta.features:
        numbers, texts = dataset.texts(index, column)
        said: np.ndarray = np.array([known.setdefault(text, len(known)) for text in texts], dtype=np.int64)[numbers]
        return said
    tasks: np.ndarray = dataset.columns(index, (column,))[column]
    if tasks.ndim != 1 or tasks.dtype.kind not in "iu" or tasks.min() < 0 or tasks.max() >= len(dataset.meta.tasks):
        raise DatasetError(
            f"{dataset.root}: column {column!r} of episode {index} is {tasks.dtype} {tasks.shape}, {tasks.min()} to "
            f"{tasks.max()}; expected text, or numbers of the {len(dataset.meta.tasks)} tasks"
        )
    named: np.ndarray = np.array(task_sentences, dtype=np.int64)[tasks]
    return named
