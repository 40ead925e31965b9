"""Linting a data set: gather, run every check, and see whether the reader agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wam.data.lerobot_reader import LeRobotDataset
from wam.data.lint import (
    actions,
    alignment,
    appearance,
    bookkeeping,
    episodes,
    fits,
    metadata,
    pictures,
    statistics,
    units,
    values,
)
from wam.data.lint.declared import read_declaration
from wam.data.lint.films import read_films, read_headers
from wam.data.lint.finding import Finding, Report, merged
from wam.data.lint.rows import read_rows
from wam.data.lint.survey import Survey
from wam.robot.embodiment import Embodiment

Check = Callable[[Survey], Iterator[Finding]]
Progress = Callable[[str, int, int], None]
"""Called with (what is being read, done, in all)."""

CHECKS: tuple[Check, ...] = (
    metadata.check_totals,
    metadata.check_offsets,
    metadata.check_spans,
    metadata.check_language,
    bookkeeping.check_times,
    bookkeeping.check_row_numbers,
    bookkeeping.check_task_numbers,
    fits.check_embodiment,
    values.check_finite,
    values.check_constant,
    values.check_saturated,
    values.check_outliers,
    values.check_jumps,
    actions.check_action_is_state,
    actions.check_held,
    actions.check_gripper_range,
    actions.check_gripper_sign,
    units.check_units_between_episodes,
    units.check_units_of_pairs,
    units.check_units_of_joints,
    episodes.check_duplicates,
    episodes.check_short,
    episodes.check_success,
    episodes.check_done,
    statistics.check_stats,
    statistics.check_episode_stats,
    pictures.check_videos,
    pictures.check_films,
    alignment.check_shifted,
    alignment.check_cuts,
    appearance.check_cameras,
)

NAMES: Mapping[str, str] = {
    "totals": "info.json counts other episodes, rows or tasks than there are",
    "missing-file": "a file that the metadata refer to is not there",
    "broken-table": "a table cannot be read",
    "broken-field": "a field of info.json has no meaning",
    "offsets": "lengths and row numbers in the table of episodes contradict each other",
    "video-place": "the place of an episode in a video is missing, too long or short, or overlaps another",
    "language": "an instruction is missing, empty or a placeholder",
    "missing-column": "a declared column is not in a file",
    "column-shape": "a column has another shape or type than declared",
    "row-count": "an episode has more or fewer rows than declared",
    "row-numbers": "rows are missing, doubled or out of order",
    "time-stamps": "time stamps go back, jump, or have another rate than declared",
    "task-index": "a row points to no task, or to another than the table of episodes",
    "control-rate": "the rows have another rate than the embodiment",
    "embodiment-cameras": "a camera of the embodiment is missing or has another name",
    "embodiment-dims": "a column of the embodiment is missing, has another width or another order",
    "view-shape": "pictures do not fit the cells of the embodiment",
    "not-finite": "NaN or infinity",
    "constant": "a dimension never moves",
    "saturated": "a measurement is cut off at a limit",
    "outlier": "a value far beyond the quantiles",
    "jump": "the state jumps",
    "action-is-state": "the action is a copy of the state",
    "action-held": "actions change only every k rows",
    "gripper-still": "the gripper never moves",
    "gripper-range": "the gripper has other raw values than the embodiment says",
    "gripper-sign": "open and closed are exchanged",
    "units": "degrees and radians, or other units, are mixed",
    "duplicate": "episodes with the same content",
    "short-episode": "a very short episode",
    "success": "success is told with contradictions",
    "stats": "statistics are missing or do not fit the data",
    "broken-video": "a video cannot be opened or decoded",
    "short-video": "a video has fewer frames than its episodes have rows",
    "long-video": "a video has more frames than its episodes have rows",
    "picture-size": "a video has another size than declared",
    "video-rate": "a video has another rate than the rows",
    "video-times": "frames are not at i / fps seconds",
    "black-video": "pictures are black or of one colour",
    "frozen-video": "the picture stands still while the robot moves",
    "shifted-video": "pictures are early or late against the state",
    "cut": "the picture changes all at once inside an episode",
    "swapped-cameras": "two cameras are exchanged",
    "turned": "the picture is upside down or mirrored",
    "colours": "red and blue are exchanged",
    "reader": "the reader refuses the data set although no check found an error",
}
"""Every name that a finding may carry, and what it means."""


@dataclass(frozen=True)
class Options:
    """How thoroughly to look.

    Args:
        embodiment: the robot that the data are meant for; without it, only the data set itself is looked at.
        fast: decode the pictures of a few evenly spread episodes only.
        workers: threads that decode.
    """

    embodiment: Embodiment | None = None
    fast: bool = False
    workers: int = 1


def lint(root: Path, options: Options | None = None, progress: Progress | None = None) -> Report:
    """Look at a data set (LeRobot v2.0, v2.1 or v3.0) from metadata to pictures.

    Raises:
        DatasetError: there is nothing that can be looked at (see `read_declaration`).
    """
    return examine(root, options, progress)[1]


def examine(root: Path, options: Options | None = None, progress: Progress | None = None) -> tuple[Survey, Report]:
    """As `lint`, with everything that was looked at, for a page that shows it."""
    survey, findings = gather(root, options or Options(), progress)
    for check in CHECKS:
        findings += check(survey)
    findings = [*merged(findings)]
    if not any(finding.severity == "error" for finding in findings):
        findings += _reader_agrees(survey)
    declared = survey.declared
    return survey, Report(
        root=str(root),
        version=declared.version,
        episodes=len(declared.episodes),
        rows=sum(episode.length for episode in declared.episodes),
        findings=merged(findings),
        films=len(survey.films),
        all_films=len(declared.episodes) * len(declared.cameras),
    )


def gather(root: Path, options: Options, progress: Progress | None = None) -> tuple[Survey, list[Finding]]:
    """Everything that the checks look at, and the faults that show while reading."""

    def stage(name: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(name, done, total) if progress is not None else None

    declared, findings = read_declaration(Path(root))
    rows = read_rows(declared, findings, stage("rows"))
    headers = read_headers(declared)
    films = read_films(declared, headers, fast=options.fast, workers=options.workers, progress=stage("pictures"))
    return Survey(declared, rows, headers, films, options.embodiment), findings


def _reader_agrees(survey: Survey) -> Iterator[Finding]:
    """What passes here must open for training."""
    try:
        LeRobotDataset(survey.declared.root)
    except (ValueError, OSError, KeyError) as error:
        what = "a data set that can be opened for training"
        yield Finding("reader", "error", str(error), what, "see the message; it says what to do")
