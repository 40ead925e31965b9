"""Writing and reading h264 video, frame by frame, with PyAV.

Frames carry exact presentation times i / fps and no reordering (no B-frames), so frame i of a file is found by its
time alone. Key frames are frequent: a seek decodes at most `KEYFRAME_INTERVAL - 1` frames that nobody asked for.
"""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from wam.data.errors import MissingFileError, TruncatedVideoError

CODEC = "libx264"
PIXEL_FORMAT = "yuv420p"
KEYFRAME_INTERVAL = 4
OPTIONS = {"crf": "12", "g": str(KEYFRAME_INTERVAL), "bf": "0", "preset": "veryfast"}
"""Visually lossless: the pictures are training data, and small."""


class VideoWriter:
    """Encodes frames into one mp4 file; the file is readable only after `close`."""

    def __init__(self, path: Path, fps: int, height: int, width: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.frames = 0
        self._container = av.open(str(path), "w", format="mp4")
        stream = self._container.add_stream(CODEC, rate=fps, options=OPTIONS)
        assert isinstance(stream, VideoStream)
        self._stream = stream
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, PIXEL_FORMAT
        self._stream.thread_count = 1
        self._convert = VideoReformatter()  # kept: setting up a colour conversion costs more than a small frame

    def append(self, images: np.ndarray) -> None:
        """Add uint8 (T, H, W, 3) RGB frames at the end."""
        for image in images:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = self._convert.reformat(frame, format=PIXEL_FORMAT)
            frame.pts = self.frames
            self._container.mux(self._stream.encode(frame))
            self.frames += 1

    def close(self) -> None:
        """Write what the encoder still holds, and the index."""
        self._container.mux(self._stream.encode())
        self._container.close()


def read_frames(path: Path, fps: float, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Decode exactly the frames `indices` (any order, repeats allowed) of one file: uint8 (n, H, W, 3) RGB.

    Raises:
        MissingFileError: no such file.
        TruncatedVideoError: the file cannot be opened, or has no frame with one of these numbers.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such video; fetch the data set again, or record it again")
    wanted = np.asarray(indices, dtype=np.int64)
    if wanted.size == 0:
        raise ValueError(f"read_frames({path.name}): no frame asked for")
    decoded: dict[int, np.ndarray] = {}
    try:
        with av.open(str(path)) as container:
            _decode(container, fps, set(wanted.tolist()), decoded)
    except (av.error.FFmpegError, IndexError) as error:
        raise TruncatedVideoError(
            f"{path}: not a complete video ({error}); the write was cut off or the copy is damaged. "
            "Copy it again, or reopen the data set for writing to drop unfinished files"
        ) from error
    missing = sorted(set(wanted.tolist()) - decoded.keys())
    if missing:
        raise TruncatedVideoError(
            f"{path}: frame {missing[0]} is not there ({len(missing)} of {wanted.size} frames missing); "
            "the video is shorter than the episode table says. Copy it again, or record it again"
        )
    return np.stack([decoded[index] for index in wanted.tolist()])


def count_frames(path: Path) -> int:
    """Number of frames that the index of the file declares (nothing is decoded). Raises as `read_frames`."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such video; fetch the data set again, or record it again")
    try:
        with av.open(str(path)) as container:
            return int(container.streams.video[0].frames)
    except (av.error.FFmpegError, IndexError) as error:
        raise TruncatedVideoError(f"{path}: not a complete video ({error}); copy it again") from error


def _decode(container: InputContainer, fps: float, wanted: set[int], out: dict[int, np.ndarray]) -> None:
    """Fill `out` with the wanted frames: one seek per stretch of nearby frames, then straight decoding."""
    stream = container.streams.video[0]
    stream.thread_count = 1
    if stream.time_base is None:
        raise IndexError("the video stream has no time base")
    convert = VideoReformatter()
    ticks_per_frame = 1.0 / (fps * float(stream.time_base))
    for first, last in _stretches(sorted(wanted)):
        container.seek(round(first * ticks_per_frame), stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.pts is None:
                continue
            index = round(frame.pts / ticks_per_frame)
            if index in wanted and index not in out:
                out[index] = convert.reformat(frame, format="rgb24").to_ndarray()
            if index >= last:
                break


def _stretches(indices: list[int], gap: int = 4 * KEYFRAME_INTERVAL) -> list[tuple[int, int]]:
    """Group sorted frame numbers: within a stretch, neighbours are less than `gap` apart."""
    stretches: list[tuple[int, int]] = []
    for index in indices:
        if stretches and index - stretches[-1][1] < gap:
            stretches[-1] = (stretches[-1][0], index)
        else:
            stretches.append((index, index))
    return stretches
