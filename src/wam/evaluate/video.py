"""Films of an episode for people: the real canvas beside the dreamed one, enlarged, with a caption, as h264 mp4."""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wam.evaluate.rollout import EpisodeResult, Frames

SCALE = 4  # nearest-neighbour enlargement: people should see the pixels that the policy saw
_GAP, _BAR, _MARGIN = 8, 28, 8
_INK, _PAPER = (235, 235, 235), (20, 20, 24)
_OPTIONS = {"crf": "20", "preset": "veryfast", "movflags": "+faststart"}
_END_SECONDS = 1.0  # the last frame stays this long


def enlarge(frames: Frames, scale: int = SCALE) -> Frames:
    """Nearest-neighbour enlargement of (..., H, W, 3)."""
    return np.repeat(np.repeat(frames, scale, axis=-3), scale, axis=-2)


def encode_mp4(frames: Frames | Iterable[Frames], fps: float) -> bytes:
    """uint8 (F, H, W, 3), RGB, at once or frame by frame -> a complete h264 mp4 that every browser plays.

    Raises ValueError for no frames or an odd height or width (4:2:0 pictures are even).
    """
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None or first.shape[0] % 2 or first.shape[1] % 2:
        found = "none" if first is None else f"shape {first.shape}"
        raise ValueError(f"a film needs at least one frame of even height and width; found {found}")
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options=_OPTIONS)
        stream.height, stream.width, stream.pix_fmt = first.shape[0], first.shape[1], "yuv420p"
        stream.thread_count = 1
        for picture in chain([first], pictures):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    return target.getvalue()


def film(episode: EpisodeResult) -> Frames:
    """The captioned film of a recorded episode, uint8 (F, H, W, 3): real on the left, dreamed on the right, if any.

    Raises ValueError when the episode was not recorded.
    """
    if episode.frames is None:
        raise ValueError(f"episode {episode.task!r} seed {episode.seed} has no frames; run it with record=True")
    real = enlarge(episode.frames)
    columns = [real]
    if episode.dreams is not None:
        columns += [np.full((*real.shape[:2], _GAP, 3), _PAPER, dtype=np.uint8), enlarge(episode.dreams)]
    body = np.concatenate(columns, axis=2)
    last = len(body) - 1
    outcome = "success" if episode.success else "failed"
    bars = [
        _bar(body.shape[2], episode.instruction, f"{outcome}, step {step}" if i == last else f"step {step}")
        for i, step in enumerate(episode.frame_steps)
    ]
    return np.concatenate([np.stack(bars), body], axis=1)


def frame_rate(episode: EpisodeResult, control_hz: float) -> float:
    """Recorded frames per second of robot time: the control rate over the steps between two looks."""
    steps = episode.frame_steps
    return control_hz / (steps[1] - steps[0]) if len(steps) > 1 else control_hz


def film_mp4(episode: EpisodeResult, control_hz: float) -> bytes:
    """`film` as mp4 in robot time; its end stands still for a second."""
    frames, fps = film(episode), frame_rate(episode, control_hz)
    return encode_mp4(np.concatenate([frames, np.repeat(frames[-1:], round(_END_SECONDS * fps), axis=0)]), fps)


def _bar(width: int, left: str, right: str) -> Frames:
    """A line of text above the picture, uint8 (_BAR, width, 3)."""
    picture = Image.new("RGB", (width, _BAR), _PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=15)
    right_start = width - _MARGIN - draw.textlength(right, font=font)
    while left and _MARGIN + draw.textlength(left, font=font) > right_start - _MARGIN:
        left = left.removesuffix("...")[:-1].rstrip()
        left = left and left + "..."
    draw.text((_MARGIN, 5), left, fill=_INK, font=font)
    draw.text((right_start, 5), right, fill=_INK, font=font)
    return np.asarray(picture)
