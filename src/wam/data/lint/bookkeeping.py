"""Checks of the columns that every data set has: time stamps, row numbers, task numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from wam.data.lint.finding import Finding
from wam.data.lint.rows import Columns
from wam.data.lint.survey import Survey

RATE_TOLERANCE = 0.02
"""Share by which the rate of the rows may differ from the declared one."""


def check_times(survey: Survey) -> Iterator[Finding]:
    """Time stamps begin at 0 and advance by 1 / fps."""
    fps = survey.declared.fps
    for episode, columns in survey.rows.items():
        times = columns.get("timestamp")
        if times is not None and np.isfinite(times).all() and len(times) > 1:
            yield from _times(times.astype(np.float64).reshape(-1), fps, episode)


def _times(times: np.ndarray, fps: float, episode: int) -> Iterator[Finding]:
    steps, number = np.diff(times), (episode,)
    expected = f"{1 / fps:.4f} s between rows (fps {fps:g})"
    back = np.flatnonzero(steps <= 0)
    if len(back):
        row = int(back[0])
        found = f"{times[row]:.4f} s in row {row} is followed by {times[row + 1]:.4f} s"
        advice = "sort the rows by time; a clock that was set back means that the recording is broken"
        yield Finding(
            "time-stamps", "error", found, "time stamps that rise", advice, field="timestamp", episodes=number
        )
        return
    rate = 1 / float(np.median(steps))
    if abs(rate / fps - 1) > RATE_TOLERANCE:
        advice = "correct fps in meta/info.json, or resample rows and videos to one rate"
        found = f"{rate:.2f} rows per second"
        yield Finding("time-stamps", "error", found, expected, advice, field="timestamp", episodes=number)
        return
    jumps = np.flatnonzero(np.abs(steps - 1 / fps) > 0.5 / fps)
    if len(jumps):
        row = int(jumps[0])
        found = f"{steps[row]:.4f} s between rows {row} and {row + 1} ({len(jumps)} such jumps)"
        advice = "rows were lost there: cut the episode in two, or record again"
        yield Finding("time-stamps", "error", found, expected, advice, field="timestamp", episodes=number)
    if abs(times[0]) > 0.5 / fps:
        found, advice = f"the first row is at {times[0]:.4f} s", "subtract the first time stamp of every episode"
        what = "0 s: time stamps restart in every episode"
        yield Finding("time-stamps", "warning", found, what, advice, field="timestamp", episodes=number)


def check_row_numbers(survey: Survey) -> Iterator[Finding]:
    """`frame_index` counts from 0 in every episode, `index` over the whole data set."""
    advice = "number the rows again; rows may be missing, doubled or in another order"
    for number, columns in survey.rows.items():
        first = survey.episodes[number].first
        for column, start in (("frame_index", 0), ("index", first)):
            if column not in columns or start is None:
                continue
            values = columns[column].reshape(-1)
            wrong = np.flatnonzero(values != start + np.arange(len(values)))
            if len(wrong):
                row = int(wrong[0])
                found, expected = f"{values[row]} in row {row}", f"{start + row}"
                yield Finding(
                    "row-numbers",
                    "error",
                    found,
                    expected if len(wrong) == 1 else f"{start}, {start + 1}, ... (row {row}: {start + row})",
                    advice,
                    field=column,
                    episodes=(number,),
                )


def check_task_numbers(survey: Survey) -> Iterator[Finding]:
    """`task_index` points into the table of tasks, to a sentence that the table of episodes has too."""
    tasks = survey.declared.tasks
    for number, columns in survey.rows.items():
        if "task_index" in columns and tasks:
            yield from _task_numbers(columns, tasks, survey.episodes[number].tasks, number)


def _task_numbers(columns: Columns, tasks: Mapping[int, str], told: tuple[str, ...], number: int) -> Iterator[Finding]:
    used = np.unique(columns["task_index"]).tolist()
    outside = [index for index in used if index not in tasks]
    if outside:
        found, what = f"task {outside[0]}", f"a task of the table of tasks: {min(tasks)} to {max(tasks)}"
        advice = "correct task_index, or restore the table of tasks"
        yield Finding("task-index", "error", found, what, advice, field="task_index", episodes=(number,))
        return
    other = [tasks[index] for index in used if tasks[index] not in told]
    if other and told:
        found, what = f"the rows say {other[0]!r}, the table of episodes {told[0]!r}", "the same sentence"
        advice = "find out which is right: the rows are what training reads"
        yield Finding("task-index", "error", found, what, advice, field="task_index", episodes=(number,))
