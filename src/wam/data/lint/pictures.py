"""Checks of the videos: there, complete, of the declared size and rate, neither black nor frozen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wam.data.lint.declared import RESTORE
from wam.data.lint.films import Film, Header
from wam.data.lint.finding import Finding
from wam.data.lint.survey import Survey
from wam.data.schema import STATE

BLACK, FLAT = 4.0, 2.0
"""A frame below this brightness, or of one colour up to this contrast (both of 255), shows nothing."""
STILL = 0.02
"""Motion (of 255) up to which two frames are the same picture, encoded twice."""
RATE_TOLERANCE = 0.005


def check_videos(survey: Survey) -> Iterator[Finding]:
    """Every video that episodes refer to opens, and has their frames, size and rate."""
    for (path, key), users in _users(survey).items():
        file, header = survey.declared.relative(path), survey.headers.get(path)
        if header is None:
            expected = "a video that the table of episodes refers to"
            yield Finding("missing-file", "error", "no such file", expected, RESTORE, file, key, users)
        elif header.error:
            advice = "the write was cut off or the copy is damaged: copy it again, or leave these episodes out"
            yield Finding(
                "broken-video", "error", f"cannot be opened: {header.error}", "a video", advice, file, key, users
            )
        else:
            yield from _header(survey, file, key, header)
            yield from _length(survey, path, key, header)


def _users(survey: Survey) -> dict[tuple[Path, str], tuple[int, ...]]:
    """(video, camera) -> its episodes."""
    users: dict[tuple[Path, str], tuple[int, ...]] = defaultdict(tuple)
    for episode in survey.declared.episodes:
        for key, span in episode.spans.items():
            users[(span.file, key)] += (episode.index,)
    return users


def _header(survey: Survey, file: str, key: str, header: Header) -> Iterator[Finding]:
    camera, fps = survey.declared.cameras[key], survey.declared.fps
    if (header.height, header.width) != (camera.height, camera.width):
        found, what = (
            f"{header.height} x {header.width} pixels",
            f"{camera.height} x {camera.width}, as in meta/info.json",
        )
        advice = "correct meta/info.json, or encode the video again: pictures would be squeezed or refused"
        yield Finding("picture-size", "error", found, what, advice, file, key)
    if header.fps and abs(header.fps / fps - 1) > RATE_TOLERANCE:
        found, what = f"{header.fps:.3f} frames per second", f"{fps:g}, one frame per row"
        advice = "encode the video again at the rate of the rows: pictures and numbers drift apart"
        yield Finding("video-rate", "error", found, what, advice, file, key)


def _length(survey: Survey, path: Path, key: str, header: Header) -> Iterator[Finding]:
    """As many frames as its episodes have rows."""
    fps, file = survey.declared.fps, survey.declared.relative(path)
    ends = {
        episode.index: round(episode.spans[key].start * fps) + episode.length
        for episode in survey.declared.episodes
        if key in episode.spans and episode.spans[key].file == path
    }
    complete = {number for (number, camera), film in survey.films.items() if camera == key and not film.missing}
    short = tuple(number for number, end in ends.items() if end > header.frames and number not in complete)
    last = max(ends.values())
    if header.frames and short:
        found, what = f"{header.frames} frames", f"{last} frames, one per row of its episodes"
        advice = "frames were lost: copy the video again, or leave these episodes out"
        yield Finding("short-video", "error", found, what, advice, file, key, short)
    elif header.frames > last:
        found, what = f"{header.frames} frames", f"{last} frames, one per row of its episodes"
        advice = "rows or frames were dropped: make sure that the frames that are there belong to their rows"
        yield Finding("long-video", "warning", found, what, advice, file, key, (max(ends, key=lambda e: ends[e]),))


def check_films(survey: Survey) -> Iterator[Finding]:
    """What was decoded is complete, and shows something that moves when the robot does."""
    for (number, key), film in survey.films.items():
        span = survey.episodes[number].spans.get(key)
        file = survey.declared.relative(span.file) if span else ""
        header = survey.headers.get(span.file) if span else None
        end = round(span.start * survey.declared.fps) + survey.episodes[number].length if span else 0
        lost_anyway = header is not None and 0 < header.frames < end
        if film.missing and not lost_anyway:
            yield _incomplete(film, file, key, number)
        if not film.missing:
            yield from _black(film, file, key, number)
            yield from _frozen(survey, film, file, key, number)


def _incomplete(film: Film, file: str, key: str, number: int) -> Finding:
    if film.error:
        found = f"cannot be decoded from row {film.missing[0]} on: {film.error}"
        advice = "the file is damaged: copy it again, or leave the episode out"
        return Finding("broken-video", "error", found, "pictures for all rows", advice, file, key, (number,))
    found = f"no frame at the time of row {film.missing[0]} ({len(film.missing)} rows without a frame)"
    advice = "the video has gaps or a varying rate: encode it again with one frame per row"
    return Finding("video-times", "error", found, "frame i at i / fps seconds", advice, file, key, (number,))


def _black(film: Film, file: str, key: str, number: int) -> Iterator[Finding]:
    dark = film.brightness < BLACK
    empty = dark | (film.contrast < FLAT)
    share, run, row = float(empty.mean()), *longest_run(empty)
    if share > 0.5 or run >= 3:
        kind = "black" if dark[row] else "of one colour"
        found, what = (
            f"{int(empty.sum())} of {len(empty)} frames are {kind}, first at row {row}",
            "a picture of the scene",
        )
        advice = "the camera was off or covered: leave the episode out, or this camera in it"
        yield Finding("black-video", "error" if share > 0.5 else "warning", found, what, advice, file, key, (number,))


def _frozen(survey: Survey, film: Film, file: str, key: str, number: int) -> Iterator[Finding]:
    """A long stretch without any change in the picture while the robot moves (or, without a state, at all)."""
    still = film.motion < STILL
    still[0] = False
    if (film.contrast < FLAT).mean() > 0.5:
        return  # black, which has its own finding
    run, row = longest_run(still)
    if run < max(8, 0.3 * len(still)):
        return
    state = survey.vectors(STATE).get(number) if STATE in survey.declared.columns else None
    if state is not None:
        moved, usual = np.ptp(state[row : row + run], axis=0), np.ptp(survey.sample(STATE), axis=0)
        if not len(moved) or (moved[usual > 0] / usual[usual > 0]).max(initial=0.0) < 0.1:
            return  # the robot stands still too
    found = f"{run} frames from row {row} on show the same picture"
    what = "a picture that changes while the robot moves" if state is not None else "a picture that changes"
    advice = "the camera hung: leave the episode out, or this camera in it"
    yield Finding("frozen-video", "error", found, what, advice, file, key, (number,))


def longest_run(flags: np.ndarray) -> tuple[int, int]:
    """Length and start of the longest stretch of True; (0, 0) if there is none."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    best = int((ends - starts).argmax())
    return int(ends[best] - starts[best]), int(starts[best])
