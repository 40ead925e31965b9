"""Writing and reading video, frame by frame, with PyAV.

Our own videos carry exact presentation times i / fps, no reordering (no B-frames) and frequent key frames: a seek
decodes at most `KEYFRAME_INTERVAL - 1` frames that nobody asked for.

Videos of other programs are found by presentation time as well, whatever their codec, order of decoding, distance of
key frames, time base or start: frame i is the one shown i / fps seconds after the first one. A seek that lands behind
the frame is repeated from further back, and a frame that is not there is an error, never its neighbour.

Damage that the decoder notices is an error too, also where it would paint over it. What still decodes without a
complaint cannot be told from a picture: mp4 has no checksums.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from wam.data.errors import MissingFileError, TruncatedVideoError

CODEC = "libx264"
PIXEL_FORMAT = "yuv420p"
KEYFRAME_INTERVAL = 4
OPTIONS = {"crf": "12", "g": str(KEYFRAME_INTERVAL), "bf": "0", "preset": "veryfast"}
"""Visually lossless: the pictures are training data, and small."""

TOLERANCE = 0.25
"""Frames by which a presentation time may differ from i / fps: container rounding, not another frame."""
STRICT = {"err_detect": "explode"}
"""Decoders otherwise hide damage: a missing block is taken from the frame before."""
FORWARD = 16
"""Frames that are decoded rather than skipped by a seek."""
REORDERED = 17
"""Packets among which the first frame to be shown is found: no codec here holds back more than 16 frames."""
SEEK_BACK = (0, 16, 64, 256, 1024)
"""Frames before the wanted one at which to look for a key frame; then the start of the file."""


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


class VideoFile:
    """An opened video, decoded by frame number; for one thread at a time.

    Reading on where the last call ended needs no seek.

    Args:
        path: file.
        fps: frames per second that the data set declares.

    Raises:
        MissingFileError: no such file.
        TruncatedVideoError: it cannot be opened, or holds no video.
    """

    def __init__(self, path: Path, fps: float) -> None:
        if not path.is_file():
            raise MissingFileError(f"{path}: no such video; fetch the data set again, or record it again")
        self.path = path
        self._convert = VideoReformatter()  # kept: setting up a colour conversion costs more than a small frame
        self._decoded: Iterator[VideoFrame] = iter(())
        self._frame: VideoFrame | None = None
        self._damaged = False
        self._wanted = 0.0
        """Presentation time, in ticks, from which frames are looked for."""
        self._passed: int | None = None
        """That of the last frame before it."""
        with _naming(path):
            self._container = av.open(str(path))
            try:
                self._stream = self._container.streams.video[0]
                if self._stream.codec_context is None:
                    raise IndexError("no decoder for its video stream")
                self._stream.thread_count = 1
                self._stream.codec_context.options = STRICT
                self._in_order = not self._stream.codec_context.has_b_frames
                if self._stream.time_base is None:
                    raise IndexError("the video stream has no time base")
                self._frames_per_tick = fps * float(self._stream.time_base)
                self._start = self._first_time()
            except BaseException:
                self._container.close()
                raise

    def frames(self, numbers: Sequence[float] | np.ndarray) -> np.ndarray:
        """Exactly these frames (any order, repeats allowed): uint8 (n, H, W, 3) RGB.

        Args:
            numbers: frame numbers; fractions are allowed, as an episode may begin between two frame times, and the
                nearest frame must lie within `TOLERANCE`.

        Raises:
            TruncatedVideoError: a frame is not there or damaged, or the file is.
        """
        wanted = np.asarray(numbers, dtype=np.float64)
        if wanted.size == 0:
            raise ValueError(f"VideoFile.frames({self.path.name}): no frame asked for")
        in_order = bool((wanted[1:] > wanted[:-1]).all())
        wanted, places = (wanted, None) if in_order else np.unique(wanted, return_inverse=True)
        with _naming(self.path):
            pictures = np.stack([self._picture(number) for number in wanted.tolist()])
        return pictures if places is None else pictures[places]

    def close(self) -> None:
        """Give the decoder back."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _picture(self, number: float) -> np.ndarray:
        """Frame `number`, decoded from where the last call ended, or else from further and further back."""
        self._wanted = self._start + (number - TOLERANCE) / self._frames_per_tick
        if -TOLERANCE <= number - self._number() <= FORWARD and self._advance(number):
            return self._converted()
        for back in (*(back for back in SEEK_BACK if back < number), number):
            landed = self._seek(number, back)
            if not landed and back != number:
                continue
            if self._advance(number):
                return self._converted()
            if back >= SEEK_BACK[-1]:
                break
        raise TruncatedVideoError(f"{self.path}: frame {number:.10g} is damaged; copy the video again")

    def _converted(self) -> np.ndarray:
        assert self._frame is not None
        picture: np.ndarray = self._convert.reformat(self._frame, format="rgb24", threads=1).to_ndarray()
        return picture

    def _seek(self, number: float, back: float) -> bool:
        """Decode the first frame from the key frame before `number - back`; whether it is whole, and not behind it."""
        ticks = self._start + round(max(number - back, 0) / self._frames_per_tick)
        self._container.seek(ticks, stream=self._stream, backward=True)
        self._decoded = self._frames_from_here()
        landed = self._decode_next() and self._frame is not None and not self._frame.is_corrupt
        return landed and self._number() <= number + TOLERANCE

    def _advance(self, number: float) -> bool:
        """Decode until frame `number`; whether it is whole. Raises TruncatedVideoError if it is simply not there."""
        while self._frame is not None and self._frame.pts is not None and self._frame.pts < self._wanted:
            self._passed = self._frame.pts
            self._decode_next()
        if not self._damaged and (self._frame is None or self._number() > number + TOLERANCE):
            previous = -np.inf if self._passed is None else (self._passed - self._start) * self._frames_per_tick
            after = "it ends there" if self._frame is None else f"the next one is {self._number():.10g}"
            raise TruncatedVideoError(
                f"{self.path}: frame {number:.10g} is not there (the last one before is {previous:.10g}, {after}, in "
                "frames of info.json's fps); the video is shorter than the episode table says, or skips frames, or has "
                "another fps. Copy it again, or record it again"
            )
        return not self._damaged and self._frame is not None and not self._frame.is_corrupt

    def _packets(self) -> Iterator["Packet[VideoStream]"]:
        """Packets from where the container stands, but for those of frames that nobody asks for or refers to.

        Where frames are decoded in the order in which they are shown, that is all before the last key frame.
        """
        held: list[Packet[VideoStream]] = []
        for packet in self._container.demux(self._stream):
            if self._in_order and packet.is_keyframe:
                held.clear()
            held.append(packet)
            if self._in_order and packet.pts is not None and packet.pts < self._wanted:
                self._passed = packet.pts
                continue
            yield from held
            held.clear()

    def _frames_from_here(self) -> Iterator[VideoFrame]:
        """Frames in order of presentation. After a fault they count as damaged, until the next key frame behind it.

        A fault need not be in the file: the first frames after a seek may refer to frames before it.
        """
        fault: int | None = None
        for packet in self._packets():
            whole = not packet.is_corrupt
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                whole, frames = False, []
            if not whole:
                fault, self._damaged = max(fault or 0, packet.pts or 0), True
            for frame in frames:
                if frame.pts is None:
                    continue
                if fault is not None and frame.key_frame and frame.pts > fault:
                    fault = None
                self._damaged = fault is not None
                yield frame

    def _decode_next(self) -> bool:
        """Whether there was another frame."""
        self._frame = next(self._decoded, None)
        return self._frame is not None

    def _number(self) -> float:
        """Number of the decoded frame, -inf before the first one."""
        if self._frame is None or self._frame.pts is None:
            return -np.inf
        return (self._frame.pts - self._start) * self._frames_per_tick

    def _first_time(self) -> int:
        """Presentation time of the first frame, in ticks: headers say less reliably than packets when it is."""
        packets = islice(self._container.demux(self._stream), REORDERED)
        times = [packet.pts for packet in packets if packet.pts is not None and not packet.is_discard]
        if not times:
            raise IndexError("no packet has a presentation time")
        return min(times)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn errors of the decoder into one that says which file and what to do."""
    try:
        yield
    except (av.error.FFmpegError, IndexError, UnicodeDecodeError) as error:
        raise TruncatedVideoError(
            f"{path}: not a complete video ({error}); the write was cut off or the copy is damaged. "
            "Copy it again, or reopen the data set for writing to drop unfinished files"
        ) from error


def read_frames(path: Path, fps: float, indices: Sequence[float] | np.ndarray) -> np.ndarray:
    """Open a video for one call of `VideoFile.frames`: uint8 (n, H, W, 3) RGB. Raises as `VideoFile`."""
    with VideoFile(path, fps) as video:
        return video.frames(indices)


def count_frames(path: Path) -> int:
    """Number of frames that the index of the file declares, or that its packets hold if it has none.

    Nothing is decoded. Raises as `VideoFile`.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such video; fetch the data set again, or record it again")
    with _naming(path), av.open(str(path)) as container:
        stream = container.streams.video[0]
        return int(stream.frames) or sum(packet.size > 0 for packet in container.demux(stream))
