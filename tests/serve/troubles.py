"""A backend that gets into the trouble that a sentence names; for a worker process."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wam.engine.policy import ActionChunk
from wam.robot.embodiment import METAWORLD_SAWYER
from wam.serve.backends import Backend, EchoBackend, Turn
from wam.serve.metadata import Served


@dataclass(frozen=True)
class TroubleSource:
    """refuses: do not load, for the user to mend.  fails: do not load, by a fault of ours.  dies_if: die while loading
    when this file exists.  loads: for so many seconds."""

    refuses: str = ""
    fails: str = ""
    dies_if: Path | None = None
    loads: float = 0.0

    def open(self) -> Backend:
        if self.refuses:
            raise FileNotFoundError(self.refuses)
        if self.fails:
            raise RuntimeError(self.fails)
        if self.dies_if is not None and self.dies_if.exists():
            os._exit(7)
        time.sleep(self.loads)
        return TroubleBackend()


class TroubleBackend:
    """Holds still, unless a robot is told "crash", "hang", "slow", "refuse" or "nan"."""

    together = True

    def __init__(self) -> None:
        self._echo = EchoBackend(METAWORLD_SAWYER)

    @property
    def served(self) -> Served:
        return self._echo.served

    def open(self, seed: int) -> Any:
        return self._echo.open(seed)

    def steps(self, turns: Sequence[Turn]) -> list[ActionChunk]:
        told = {turn.looks[-1].instruction for turn in turns}
        if "crash" in told:
            os._exit(3)
        if "hang" in told:
            time.sleep(1000)
        if "slow" in told:
            time.sleep(1.0)
        if "refuse" in told:
            raise ValueError("the policy does not like this")
        chunks = self._echo.steps(turns)
        for turn, chunk in zip(turns, chunks, strict=True):
            if turn.looks[-1].instruction == "nan":
                chunk.actions[0, 0] = float("nan")
        return chunks

    def warm_up(self, sessions: int) -> None:
        """Nothing."""
