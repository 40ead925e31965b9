"""What a video file keeps of a picture's colour: half the resolution.

Training pictures come out of h264 or AV1 files, which store 4:2:0: brightness for every pixel, colour for every 2 x 2.
A live camera frame is sharper in colour, so that things of one or two pixels (a puck, a goal mark) look different from
everything the model was trained on. Live frames are therefore brought to 4:2:0 before they are encoded.
"""

from __future__ import annotations

import threading
from functools import lru_cache

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from wam.robot.observation import Image


def subsample_chroma(picture: Image) -> Image:
    """uint8 (H, W, 3), H and W even -> the same picture with its colour at half the resolution, as a video keeps it."""
    if picture.shape[0] % 2 or picture.shape[1] % 2:
        height, width = picture.shape[:2]
        raise ValueError(f"picture of {height} x {width} pixels: 4:2:0 needs an even height and width")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    there, back = _reformatters(threading.get_ident())
    halved = back.reformat(there.reformat(frame, format="yuv420p"), format="rgb24")
    return np.asarray(halved.to_ndarray(), dtype=np.uint8)


@lru_cache(maxsize=64)
def _reformatters(thread: int) -> tuple[VideoReformatter, VideoReformatter]:
    """One for each way, for each thread: starting one takes as long as fifty pictures."""
    return VideoReformatter(), VideoReformatter()
