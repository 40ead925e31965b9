"""Two ways to think without blocking: on a thread of its own, and in virtual time with a delay that is known."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic

from wam_client.clock import Clock
from wam_client.executor import Chunk, Look, Request, Thought

Think = Callable[[Request[Look]], Chunk]


def answered(think: Think[Look], request: Request[Look]) -> Thought[Look]:
    """Think; an exception is an answer too."""
    try:
        return Thought(request, think(request))
    except Exception as error:
        return Thought(request, error)


class ThreadWorker(Generic[Look]):
    """Thinks on one daemon thread. Use it as a context manager, or `close` it."""

    def __init__(self, think: Think[Look]) -> None:
        self._think = think
        self._asked: queue.Queue[Request[Look] | None] = queue.Queue()
        self._answered: queue.Queue[Thought[Look]] = queue.Queue()
        self._busy = False
        self._thread = threading.Thread(target=self._work, name="wam-thinking", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        return self._busy

    def submit(self, request: Request[Look]) -> None:
        if self._busy:
            raise RuntimeError("still busy with the last question; poll() first")
        self._busy = True
        self._asked.put(request)

    def poll(self) -> Thought[Look] | None:
        try:
            thought = self._answered.get_nowait()
        except queue.Empty:
            return None
        self._busy = False
        return thought

    def close(self, patience: float = 30.0) -> None:
        """Let the running thought end, for so many seconds at most; a process that ends before it may crash."""
        self._asked.put(None)
        self._thread.join(patience)

    def __enter__(self) -> ThreadWorker[Look]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _work(self) -> None:
        while (request := self._asked.get()) is not None:
            self._answered.put(answered(self._think, request))


class SimulatedWorker(Generic[Look]):
    """Thinks at once and answers later: `delay` after the question, on any clock. The same every time.

    delay: how long the thought takes, on the clock's scale, given the question; asked after the thought, so it may also
    say how long it really took.
    """

    def __init__(self, think: Think[Look], clock: Clock, delay: Callable[[Request[Look]], float]) -> None:
        self._think, self._clock, self._delay = think, clock, delay
        self._waiting: tuple[float, Thought[Look]] | None = None

    @property
    def busy(self) -> bool:
        return self._waiting is not None

    def submit(self, request: Request[Look]) -> None:
        if self._waiting is not None:
            raise RuntimeError("still busy with the last question; poll() first")
        thought = answered(self._think, request)
        self._waiting = self._clock.now() + self._delay(request), thought

    def poll(self) -> Thought[Look] | None:
        if self._waiting is None or self._clock.now() < self._waiting[0]:
            return None
        (_, thought), self._waiting = self._waiting, None
        return thought
