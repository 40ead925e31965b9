"""How long to try, and how long to wait in between."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Retry:
    """For how long a server that is not there, or not ready, is tried again. All in seconds.

    patience: in all; 0 tries once.  first, longest: between two tries, twice as long each time, each a little random
    so that many robots do not come back at once.
    """

    patience: float = 60.0
    first: float = 0.1
    longest: float = 3.0

    def __post_init__(self) -> None:
        if self.patience < 0 or not 0 < self.first <= self.longest:
            raise ValueError(f"{self}: expected patience >= 0 and 0 < first <= longest")

    def pauses(self, clock: Callable[[], float] = time.monotonic) -> Iterator[float]:
        """How long to wait before each further try; ends when the patience does."""
        end, pause = clock() + self.patience, self.first
        while (left := end - clock()) > 0:
            yield min(left, pause * random.uniform(0.75, 1.25))
            pause = min(2 * pause, self.longest)


DEFAULT_RETRY = Retry()
