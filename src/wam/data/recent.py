"""What was read last stays in memory, for several threads and after a fork."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps the `limit` values that were used last.

    Two threads that miss the same key both make it; that costs time, never correctness. A process that was forked, or
    that got a pickled copy, begins with nothing: a lock may have been held elsewhere at that moment.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begin()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of `key`, made by `make` if it is not there any more."""
        if self._process != os.getpid():
            self._begin()
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._limit:
                self._values.popitem(last=False)
        return value

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._values: OrderedDict[K, V] = OrderedDict()

    def __getstate__(self) -> int:
        return self._limit

    def __setstate__(self, limit: int) -> None:
        self._limit = limit
        self._begin()
