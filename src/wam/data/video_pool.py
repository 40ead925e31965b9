"""Open videos shared by several threads: each is lent to one thread at a time, and only so many are open."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from wam.data.video import VideoFile


class VideoPool:
    """Lends opened videos. A video that stays open costs no new header, and reading on in it no seek.

    A process that was forked, or that got a pickled copy, opens its own: two processes would share a file position.

    Args:
        limit: videos open at the same time, lent or waiting; a thread that wants one more waits until one is free.
    """

    def __init__(self, limit: int = 16) -> None:
        if limit < 1:
            raise ValueError(f"VideoPool: limit is {limit}, expected at least 1")
        self.limit = limit
        self._begin()

    @property
    def num_open(self) -> int:
        """Videos that are open now."""
        return self._lent + len(self._waiting)

    def frames(self, path: Path, fps: float, numbers: np.ndarray) -> np.ndarray:
        """As `VideoFile.frames`, on an opened video."""
        with self._borrow(path, fps) as video:
            return video.frames(numbers)

    def close(self) -> None:
        """Close the videos that are not lent."""
        with self._change:
            while self._waiting:
                self._waiting.pop()[1].close()

    @contextmanager
    def _borrow(self, path: Path, fps: float) -> Iterator[VideoFile]:
        """A video of this thread's own; one in which something failed is closed, not lent again."""
        if self._process != os.getpid():
            self._begin()
        key = (path, fps)
        video = self._take(key)
        healthy = False
        try:
            if video is None:
                video = VideoFile(path, fps)
            yield video
            healthy = True
        finally:
            with self._change:
                self._lent -= 1
                if video is not None and healthy:
                    self._waiting.append((key, video))
                self._change.notify()
            if video is not None and not healthy:
                video.close()

    def _take(self, key: tuple[Path, float]) -> VideoFile | None:
        """The waiting video of this key, or the right to open one (None)."""
        with self._change:
            self._change.wait_for(lambda: self._lent < self.limit)
            self._lent += 1
            for place in reversed(range(len(self._waiting))):
                if self._waiting[place][0] == key:
                    return self._waiting.pop(place)[1]
            if self.num_open > self.limit:
                self._waiting.pop(0)[1].close()  # the one not used for longest
            return None

    def _begin(self) -> None:
        self._process = os.getpid()
        self._change = threading.Condition()
        self._waiting: list[tuple[tuple[Path, float], VideoFile]] = []
        self._lent = 0

    def __getstate__(self) -> int:
        return self.limit

    def __setstate__(self, limit: int) -> None:
        self.limit = limit
        self._begin()
