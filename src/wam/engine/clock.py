"""Seconds per stage of a step."""

from __future__ import annotations

import time


class StageClock:
    """`lap(stage)` gives a stage the time since the last lap."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self._last = now - self._last, now
