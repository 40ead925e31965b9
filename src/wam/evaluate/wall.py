"""A wall of small films: many episodes at once, in the robot's time, each under its task's name and its outcome."""

from __future__ import annotations

import bisect
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wam.evaluate.rollout import EpisodeResult, Frames
from wam.evaluate.video import encode_mp4, enlarge, frame_rate

_SCALE, _BAR, _EDGE, _GAP = 2, 24, 4, 8  # pixels; all even, as films are
_PAPER, _INK, _SOFT = (20, 20, 24), (235, 235, 235), (150, 150, 158)
_RUNNING, _SOLVED, _FAILED = (60, 60, 68), (74, 190, 128), (200, 92, 80)
_LETTERS = (13, 12, 11, 10, 9, 8)  # sizes of a task's name, the largest that leaves room for the outcome
_END_SECONDS = 2.0  # the last picture stays this long
_SHAPE = 16 / 9


def wall_mp4(episodes: Sequence[EpisodeResult], control_hz: float, unlearned: Collection[str] = ()) -> bytes:
    """All episodes side by side as mp4; a film that has ended shows its last frame and its outcome.

    unlearned: tasks to be marked as "new", not in the model's training.
    Raises ValueError for no episodes, or one that was not recorded.
    """
    if not episodes:
        raise ValueError("a wall needs at least one episode")
    fps = frame_rate(max(episodes, key=lambda episode: episode.frame_steps[-1:]), control_hz)
    return encode_mp4(wall(episodes, round(_END_SECONDS * fps), unlearned), fps)


def wall(episodes: Sequence[EpisodeResult], hold: int = 0, unlearned: Collection[str] = ()) -> Iterator[Frames]:
    """Frame by frame, uint8 (H, W, 3); the last one stays for `hold` frames more."""
    tiles = [_Tile.of(episode, episode.task in unlearned) for episode in episodes]
    height, width = (size + _GAP for size in tiles[0].at(0).shape[:2])
    columns = _columns(len(tiles), width / height)
    rows = math.ceil(len(tiles) / columns)
    picture = np.full((rows * height + _GAP, columns * width + _GAP, 3), _PAPER, dtype=np.uint8)
    for step in _clock(episodes):
        for place, tile in enumerate(tiles):
            row, column = divmod(place, columns)
            top, left, shown = _GAP + row * height, _GAP + column * width, tile.at(step)
            picture[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
        yield picture.copy()
    for _ in range(hold):
        yield picture.copy()


def _columns(count: int, shape: float) -> int:
    """As many as make the wall about as wide as a screen, with few places empty; a tile is `shape` as wide as high."""
    ideal = max(1, round(math.sqrt(count * _SHAPE / shape)))
    return min((ideal, ideal + 1), key=lambda columns: -count % columns)


def _clock(episodes: Sequence[EpisodeResult]) -> range:
    """The steps that are shown: evenly, until every episode has ended."""
    longest = max(episodes, key=lambda episode: episode.frame_steps[-1:]).frame_steps
    stride = longest[1] if len(longest) > 1 else 1
    return range(0, longest[-1] + stride, stride)


@dataclass(frozen=True)
class _Tile:
    """One episode's part of the wall: `running` and `ended` are its frame without pictures, uint8 (h, w, 3)."""

    episode: EpisodeResult
    running: Frames
    ended: Frames

    @classmethod
    def of(cls, episode: EpisodeResult, unlearned: bool) -> _Tile:
        if episode.frames is None:
            raise ValueError(f"episode {episode.task!r} seed {episode.seed} has no frames; run it with record=True")
        height, width = (_SCALE * size for size in episode.frames.shape[1:3])
        colour, words = (_SOLVED, "solved") if episode.success else (_FAILED, "failed")
        size = (height + _BAR + 2 * _EDGE, width + 2 * _EDGE)
        return cls(
            episode,
            _mount(size, episode.task, unlearned, "", _RUNNING),
            _mount(size, episode.task, unlearned, words, colour),
        )

    def at(self, step: int) -> Frames:
        steps, frames = self.episode.frame_steps, self.episode.frames
        assert frames is not None
        tile = (self.ended if step >= steps[-1] else self.running).copy()
        tile[_EDGE + _BAR : -_EDGE, _EDGE:-_EDGE] = enlarge(frames[bisect.bisect(steps, step) - 1], _SCALE)
        return tile


def _mount(size: tuple[int, int], name: str, unlearned: bool, outcome: str, colour: tuple[int, int, int]) -> Frames:
    """An edge in the colour of the outcome, and a line of text above where the pictures go."""
    words, ink = (f"{name} (new)", _SOFT) if unlearned else (name, _INK)
    height, width = size
    picture = Image.new("RGB", (width, height), colour)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=_LETTERS[0])
    draw.rectangle((_EDGE, _EDGE, width - _EDGE - 1, height - _EDGE - 1), fill=_PAPER)
    right = width - _EDGE - 5 - draw.textlength(outcome, font=font)
    fitting = (size for size in _LETTERS if draw.textlength(words, ImageFont.load_default(size=size)) < right - 14)
    name_font = ImageFont.load_default(size=next(fitting, _LETTERS[-1]))
    draw.text((_EDGE + 5, _EDGE + _BAR // 2), words, fill=ink, font=name_font, anchor="lm")
    draw.text((right, _EDGE + _BAR // 2), outcome, fill=colour, font=font, anchor="lm")
    return np.asarray(picture)
