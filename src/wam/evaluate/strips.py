"""Pictures of a stretch of time for people: a film strip with one row per telling of it, and films side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wam.evaluate.rollout import Frames
from wam.evaluate.video import enlarge

CELL = 256  # pixels that a picture is wide, about
_GAP, _LABEL, _BAR = 6, 64, 24
_INK, _FAINT, _PAPER = (235, 235, 235), (150, 150, 158), (20, 20, 24)
_END_SECONDS = 1.0  # a film's last frame stays this long
_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def strip(caption: str, note: str, rows: Mapping[str, Frames], per_chunk: int, seconds_per_frame: float) -> Frames:
    """Picture (H, W, 3): captions left and right, times, and a row per entry of `rows`: the last frame of every chunk.

    rows: name -> frames (T, H, W, 3), the first of which all have in common; only the first row shows it.
    per_chunk: frames of a chunk.
    """
    times = range(0, len(next(iter(rows.values()))), per_chunk)
    cells = {name: [_cell(frames[t]) for t in times] for name, frames in rows.items()}
    height, width = next(iter(cells.values()))[0].shape[:2]
    size = (_LABEL + len(times) * (width + _GAP), 2 * _BAR + len(rows) * (height + _GAP) + _GAP)
    picture, font = Image.new("RGB", size, _PAPER), ImageFont.load_default(size=15)
    draw = ImageDraw.Draw(picture)
    start = size[0] - _GAP - draw.textlength(note, font=font)
    draw.text((_GAP, 4), _shortened(caption, draw, font, start - 3 * _GAP), fill=_INK, font=font)
    draw.text((start, 4), note, fill=_INK, font=font)
    for column, t in enumerate(times):
        left = _LABEL + column * (width + _GAP)
        draw.text((left, _BAR + 3), f"{t * seconds_per_frame:.2g} s", fill=_FAINT, font=font)
    for line, (name, pictures) in enumerate(cells.items()):
        top = 2 * _BAR + line * (height + _GAP)
        draw.text((_GAP, top + height // 2 - 8), name, fill=_INK, font=font)
        for column, cell in enumerate(pictures):
            if line == 0 or column > 0:
                picture.paste(Image.fromarray(cell), (_LABEL + column * (width + _GAP), top))
    return np.asarray(picture)


def below(pictures: Sequence[Frames]) -> Frames:
    """Pictures (H, W, 3) of any width under one another."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0))) for p in pictures])


def side_by_side(columns: Sequence[Sequence[Frames]], frame_rate: float) -> Frames:
    """Film (T, H, W, 3) of columns of films below each other; the shorter ones, and in the end all, stand still."""
    films = [film for column in columns for film in column]
    length = max(len(film) for film in films) + round(_END_SECONDS * frame_rate)
    scale = max(1, CELL // films[0].shape[2])
    parts: list[Frames] = []
    for column in columns:
        shown = enlarge(np.concatenate([_lengthened(film, length) for film in column], axis=1), scale)
        gap = np.broadcast_to(np.array(_PAPER, dtype=np.uint8), (*shown.shape[:2], _GAP, 3))
        parts += [gap, shown] if parts else [shown]
    return np.concatenate(parts, axis=2)


def _cell(frame: Frames) -> Frames:
    """A frame, about `CELL` pixels wide: small ones enlarged by a whole factor, large ones shrunk."""
    height, width = frame.shape[:2]
    if width <= CELL:
        return enlarge(frame, CELL // width)
    smaller = Image.fromarray(frame).resize((CELL, max(1, round(height * CELL / width))), Image.Resampling.LANCZOS)
    return np.asarray(smaller)


def _shortened(text: str, draw: ImageDraw.ImageDraw, font: _Font, width: float) -> str:
    """The text, cut off with dots to fit."""
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "...", font=font) > width:
        text = text[:-1].rstrip()
    return text + "..."


def _lengthened(frames: Frames, length: int) -> Frames:
    """The last frame stands still until there are `length` frames."""
    return np.concatenate([frames, np.repeat(frames[-1:], length - len(frames), axis=0)])
