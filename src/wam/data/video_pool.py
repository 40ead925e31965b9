"""Open videos shared by several threads: each is lent to one thread at a time, and only so many are open."""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from wam.data.video import VideoFile

Key = tuple[str, float]
"""Path and frames per second of a video."""


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
        return self._lent + self._resting

    def frames(self, path: Path, fps: float, numbers: np.ndarray) -> np.ndarray:
        """As `VideoFile.frames`, on an opened video."""
        with self._borrow(path, fps) as video:
            return video.frames(numbers)

    def close(self) -> None:
        """Close the videos that are not lent."""
        with self._change:
            while self._waiting:
                self._close_oldest()

    @contextmanager
    def _borrow(self, path: Path, fps: float) -> Iterator[VideoFile]:
        """A video of this thread's own; one in which something failed is closed, not lent again."""
        if self._process != os.getpid():
            self._begin()
        key = (str(path), fps)
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
                    self._waiting.setdefault(key, []).append(video)
                    self._waiting.move_to_end(key)
                    self._resting += 1
                self._change.notify()
            if video is not None and not healthy:
                video.close()

    def _take(self, key: Key) -> VideoFile | None:
        """The waiting video of this key, or the right to open one (None)."""
        with self._change:
            self._change.wait_for(lambda: self._lent < self.limit)
            self._lent += 1
            if key in self._waiting:
                return self._taken(key)
            if self.num_open > self.limit:
                self._close_oldest()
            return None

    def _taken(self, key: Key) -> VideoFile:
        """Take a waiting video of this key off the list."""
        video = self._waiting[key].pop()
        if not self._waiting[key]:
            del self._waiting[key]
        self._resting -= 1
        return video

    def _close_oldest(self) -> None:
        """Close a video of the file that nobody has asked for longest."""
        self._taken(next(iter(self._waiting))).close()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._change = threading.Condition()
        self._waiting: OrderedDict[Key, list[VideoFile]] = OrderedDict()
        self._lent = self._resting = 0

    def __getstate__(self) -> int:
        return self.limit

    def __setstate__(self, limit: int) -> None:
        self.limit = limit
        self._begin()
