"""Workers for tests of the crew; a module of its own, so that a spawned process imports little."""

from __future__ import annotations

import os
import time


class Squarer:
    """Squares numbers; fails on 13, refuses 19, dies on 17, is slow on 0."""

    def run(self, job: int) -> tuple[int, int]:
        if job == 13:
            raise ZeroDivisionError("unlucky")
        if job == 19:
            raise ValueError("19 is not a number for squares")
        if job == 17:
            os._exit(3)
        if job == 0:
            time.sleep(0.3)
        return job * job, os.getpid()

    def close(self) -> None:
        pass


class Unbuildable(Squarer):
    def __init__(self) -> None:
        raise OSError("no licence for this simulator")
