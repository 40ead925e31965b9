"""Ctrl-C is for the process that a person started, never for those that it started itself."""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def deaf_to_interrupts(signals: Collection[signal.Signals] = (signal.SIGINT,)) -> Iterator[None]:
    """Processes that are started meanwhile never hear Ctrl-C, which a terminal sends to all at once.

    Not even while they import, when no handler of theirs is there yet. Here, an interrupt waits until the end. POSIX
    alone can do this; elsewhere nothing changes.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # the first process would start it, and that lifts the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
