"""Checks of whole episodes: doubled, too short, and whether success is told without contradiction."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from wam.data.lint.finding import Finding, Severity
from wam.data.lint.rows import Columns
from wam.data.lint.survey import Survey
from wam.data.schema import BOOKKEEPING

SUCCESS = "next.success"
DONE = "next.done"
SHORT_SECONDS = 0.5
SHORT_SHARE = 0.1
"""An episode is short below half a second, below a tenth of the median length, or below one chunk of actions."""


def check_duplicates(survey: Survey) -> Iterator[Finding]:
    """No two episodes hold the same numbers."""
    same: dict[str, list[int]] = defaultdict(list)
    for number, columns in survey.rows.items():
        same[digest(columns)].append(number)
    for numbers in same.values():
        if len(numbers) > 1:
            found = "the same numbers in every row"
            advice = "keep one of them; copies are learned twice and leak from training into validation"
            yield Finding("duplicate", "error", found, "episodes that differ", advice, episodes=tuple(sorted(numbers)))


def digest(columns: Columns) -> str:
    """Hash of the columns that the recording filled in."""
    state = hashlib.sha256()
    for name in sorted(set(columns) - set(BOOKKEEPING)):
        state.update(f"{name} {columns[name].shape}".encode())
        state.update(np.ascontiguousarray(columns[name]).tobytes())
    return state.hexdigest()


def check_short(survey: Survey) -> Iterator[Finding]:
    """Every episode is long enough to learn something from."""
    lengths = [episode.length for episode in survey.declared.episodes]
    least = max(SHORT_SECONDS * survey.declared.fps, SHORT_SHARE * float(np.median(lengths)))
    if survey.embodiment is not None:
        least = max(least, survey.embodiment.actions_per_chunk + 1)
    for episode in survey.declared.episodes:
        if episode.length < least:
            found, what = f"{episode.length} rows", f"at least {int(np.ceil(least))} rows"
            advice = "an aborted recording? Leave the episode out"
            severity: Severity = "warning" if episode.length else "error"  # of no rows, nothing can be read
            yield Finding("short-episode", severity, found, what, advice, episodes=(episode.index,))


def check_success(survey: Survey) -> Iterator[Finding]:
    """Success comes once, stays, and agrees with the table of episodes."""
    ends: dict[int, bool] = {}
    for number, columns in survey.rows.items():
        if SUCCESS not in columns:
            continue
        values = columns[SUCCESS].reshape(-1).astype(bool)
        ends[number] = bool(values[-1])
        yield from _success(survey, number, values)
    failed = [number for number, success in ends.items() if not success]
    if ends and len(failed) == len(ends):
        found, advice = "never true", "fill in the column, or do not filter by success: nothing would be left"
        yield Finding("success", "warning", found, "true at the end of good episodes", advice, field=SUCCESS)
    elif failed and len(failed) <= 0.2 * len(ends):
        for number in failed:
            found, what = "false at the end", "true at the end, as in most other episodes"
            advice = "a failed demonstration? Leave it out, or filter by success"
            yield Finding("success", "warning", found, what, advice, field=SUCCESS, episodes=(number,))


def _success(survey: Survey, number: int, values: np.ndarray) -> Iterator[Finding]:
    """One episode."""
    lost = np.flatnonzero(values[:-1] & ~values[1:])
    if len(lost):
        found, what = f"true in row {lost[0]}, false in row {lost[0] + 1}", "once true, true to the end"
        advice = "decide whether the column means 'now' or 'so far', and write it so throughout"
        yield Finding("success", "warning", found, what, advice, field=SUCCESS, episodes=(number,))
    elif values[0] and len(values) > 1:
        found, what = "true from the first row on", "an episode that has to do something first"
        yield Finding("success", "warning", found, what, "look at the episode", field=SUCCESS, episodes=(number,))
    told = survey.episodes[number].extra.get("success")
    if isinstance(told, bool | int) and bool(told) != bool(values[-1]):
        found = f"the table of episodes says {bool(told)}, the last row {bool(values[-1])}"
        advice = "find out which is right before filtering by success"
        yield Finding("success", "error", found, "the same outcome", advice, field=SUCCESS, episodes=(number,))


def check_done(survey: Survey) -> Iterator[Finding]:
    """An episode is done in its last row only."""
    for number, columns in survey.rows.items():
        if DONE in columns and columns[DONE].reshape(-1)[:-1].astype(bool).any():
            row = int(columns[DONE].reshape(-1).astype(bool).argmax())
            found, what = f"true in row {row} of {len(columns[DONE])}", "true in the last row only"
            advice = "two episodes were joined, or recording went on: cut the episode there"
            yield Finding("success", "warning", found, what, advice, field=DONE, episodes=(number,))
