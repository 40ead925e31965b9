"""Checks of the metadata against themselves: totals, lengths, offsets, places in the videos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from wam.data.lint.declared import RESTORE, DeclaredEpisode
from wam.data.lint.finding import Finding, Severity
from wam.data.lint.survey import Survey
from wam.data.schema import INFO_PATH

REWRITE = "correct the table of episodes; fetch the data set again if it is not your own"


def check_totals(survey: Survey) -> Iterator[Finding]:
    """What info.json counts is what the tables hold."""
    declared = survey.declared
    held = {
        "total_episodes": len(declared.episodes),
        "total_frames": sum(episode.length for episode in declared.episodes),
        "total_tasks": len(declared.tasks),
    }
    for name, found in held.items():
        claimed = declared.info.get(name)
        if claimed != found:
            what = f"{claimed}, while the tables hold {found}"
            yield Finding(
                "totals", "error", what, "the same number", f"correct the number, or {RESTORE}", INFO_PATH, name
            )
    numbers = [episode.index for episode in declared.episodes]
    if numbers != list(range(len(numbers))):
        wrong = next(i for i, number in enumerate(numbers) if number != i)
        what = f"episode {numbers[wrong]} in place {wrong}"
        yield Finding("totals", "error", what, "numbers 0, 1, 2, ... once each", REWRITE, field="episode_index")


def check_offsets(survey: Survey) -> Iterator[Finding]:
    """Episodes follow each other without gaps, each as long as it says."""
    expected = 0
    for episode in survey.declared.episodes:
        first = expected if episode.first is None else episode.first
        end = first + episode.length if episode.end is None else episode.end
        if (first, end) != (expected, expected + episode.length):
            found = f"length {episode.length}, rows {first} to {end}"
            what = f"rows {expected} to {expected + episode.length}"
            yield Finding(
                "offsets", "error", found, what, REWRITE, field="dataset_from_index", episodes=(episode.index,)
            )
        expected = max(expected + episode.length, end) if end > first else expected + episode.length


def check_spans(survey: Survey) -> Iterator[Finding]:
    """Every episode has a place in a video of every camera; places are as long as the episode and do not overlap."""
    declared = survey.declared
    groups: dict[tuple[str, str], list[DeclaredEpisode]] = defaultdict(list)
    for key, camera in declared.cameras.items():
        for episode in declared.episodes if camera.video else ():
            if key in episode.spans:
                groups[(key, declared.relative(episode.spans[key].file))].append(episode)
            else:
                found, what = "no video in the table of episodes", "as meta/info.json declares the camera"
                yield Finding("video-place", "error", found, what, RESTORE, field=key, episodes=(episode.index,))
    for (key, file), episodes in groups.items():
        yield from _places(survey, key, file, sorted(episodes, key=lambda e: (e.spans[key].start, e.index)))


def _places(survey: Survey, key: str, file: str, episodes: list[DeclaredEpisode]) -> Iterator[Finding]:
    """The places of the episodes in one file."""
    fps, end = survey.declared.fps, 0
    for episode in episodes:
        span, number = episode.spans[key], (episode.index,)
        first = round(span.start * fps)
        length = episode.length if span.stop is None else round((span.stop - span.start) * fps)
        if length != episode.length:
            found = f"{length} frames ({span.start:.3f} to {span.stop:.3f} s)"
            what = f"{episode.length} frames, one per row"
            yield Finding("video-place", "error", found, what, REWRITE, file, key, number)
        if first != end:
            found = f"begins at frame {first} ({span.start:.3f} s)"
            what = f"frame {end}, where the episode before it ends"
            severity: Severity = "error" if first < end else "warning"
            yield Finding("video-place", severity, found, what, REWRITE, file, key, number)
        end = max(end, first + episode.length)


def check_language(survey: Survey) -> Iterator[Finding]:
    """Every episode has an instruction that says something, and it is in the table of tasks."""
    tasks = set(survey.declared.tasks.values())
    advice = "write an instruction, or leave the episode out of training"
    for episode in survey.declared.episodes:
        number, sentences = (episode.index,), [task for task in episode.tasks if not is_empty(str(task))]
        if not sentences:
            found = repr(episode.tasks[0]) if episode.tasks else "no instruction"
            yield Finding("language", "error", found, "one sentence", advice, field="tasks", episodes=number)
        unknown = [task for task in sentences if task not in tasks]
        if unknown and tasks:
            what = "a sentence of the table of tasks"
            yield Finding("language", "error", repr(unknown[0]), what, REWRITE, field="tasks", episodes=number)
    empty = [number for number, task in survey.declared.tasks.items() if is_empty(task)]
    if empty:
        found = f"task {empty[0]} is {survey.declared.tasks[empty[0]]!r}"
        yield Finding("language", "error", found, "one sentence per task", advice, field="table of tasks")


PLACEHOLDERS = frozenset(
    (
        "none",
        "null",
        "nan",
        "na",
        "n/a",
        "todo",
        "tbd",
        "task",
        "test",
        "default",
        "unknown",
        "placeholder",
        "instruction",
    )
    + ("not provided", "no instruction", "your task here", "task description", "dummy task", "unspecified", "untitled")
)


def is_empty(sentence: str) -> bool:
    """Whether an instruction says nothing: empty, or a known placeholder."""
    words = sentence.strip().strip("<>[]().\"'!?").strip().lower()
    return not any(character.isalnum() for character in words) or words in PLACEHOLDERS
