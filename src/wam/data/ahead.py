"""Batches one step ahead: while a step is computed, a thread gathers what the next ones need."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

B = TypeVar("B")
B_co = TypeVar("B_co", covariant=True)


class Resumable(Protocol[B_co]):
    """An endless iterator that can say where it is, and go on from there; `Mixture` is one."""

    def __next__(self) -> B_co: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Ahead(Generic[B]):
    """The same batches in the same order, taken early; resuming is as exact as that of what it wraps.

    Latents lie in memory maps: what is not in memory yet is waited for in the thread, not in the step.

    Args:
        batches: what to take from; nobody else may while this does.
        depth: batches in the works or waiting.
    """

    def __init__(self, batches: Resumable[B], depth: int = 2) -> None:
        self._batches, self._depth = batches, depth
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._coming: deque[Future[tuple[B, dict[str, Any]]]] = deque()
        self._state: dict[str, Any] | None = None
        self.waited = 0.0
        """Seconds that callers have waited for a batch."""

    def __iter__(self) -> Iterator[B]:
        return self

    def __next__(self) -> B:
        """The next batch; what went wrong while it was made is raised here."""
        began = time.perf_counter()
        self._order()
        batch, self._state = self._coming.popleft().result()
        self._order()
        self.waited += time.perf_counter() - began
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Where the caller is, whatever has been taken ahead."""
        return self._batches.state_dict() if self._state is None else self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken. Raises as what it wraps."""
        while self._coming:
            self._coming.popleft().exception()  # whatever it is, nobody asked for it
        self._batches.load_state_dict(state)
        self._state = None

    def _order(self) -> None:
        while len(self._coming) < self._depth:
            self._coming.append(self._thread.submit(self._make))

    def _make(self) -> tuple[B, dict[str, Any]]:
        return next(self._batches), self._batches.state_dict()
