"""The order in which training windows are drawn: seeded, shared out among processes, and exact to resume."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from wam.data.windows import WindowIndex, WindowSource


class WindowSampler:
    """Draws every window once per epoch, in a new random order each time; an endless iterator over `WindowIndex`.

    Ranks share one order and take turns, so no two ranks see the same window in an epoch. What is drawn depends on
    (seed, epoch, position) alone: `state_dict` needs no random state, resuming is exact, and all ranks together draw
    what one rank would with their batches in one.

    Args:
        source: windows.
        batch_size: windows per batch and rank.
        seed: of order and gaps.
        rank: this process.
        world_size: processes in all.
        anchors: numbers of the windows to draw; None is all of them.
    """

    def __init__(
        self,
        source: WindowSource,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        anchors: np.ndarray | None = None,
    ) -> None:
        anchors = np.arange(len(source)) if anchors is None else anchors
        if not 0 <= rank < world_size:
            raise ValueError(f"WindowSampler: rank is {rank}, expected 0 to {world_size - 1}")
        if batch_size < 1 or batch_size * world_size > len(anchors):
            raise ValueError(
                f"WindowSampler: {world_size} ranks x batch_size {batch_size}, expected 1 to {len(anchors)} windows"
            )
        self.source, self._anchors = source, anchors
        self.batch_size = batch_size
        self._identity = {"seed": seed, "windows_at_once": batch_size * world_size, "windows": len(anchors)}
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._epoch = self._batch = 0
        self._order = self._order_of_epoch()

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches per rank; windows that fill no whole batch wait for another epoch's order."""
        return len(self._anchors) // (self.batch_size * self._world_size)

    def __iter__(self) -> Iterator[WindowIndex]:
        return self

    def __next__(self) -> WindowIndex:
        if self._batch == self.batches_per_epoch:
            self._epoch, self._batch = self._epoch + 1, 0
            self._order = self._order_of_epoch()
        at_once = self.batch_size * self._world_size
        start = self._batch * at_once
        rng = np.random.default_rng([self._seed, 1, self._epoch, self._batch])
        everyone = self.source.windows(self._order[start : start + at_once], rng)
        self._batch += 1
        return everyone.part(slice(self._rank, None, self._world_size))

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers from which `load_state_dict` goes on, the same on every rank."""
        return {**self._identity, "epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken. Raises ValueError if seed, ranks x batch size, or windows differ."""
        for name, value in self._identity.items():
            if state.get(name) != value:
                raise ValueError(
                    f"WindowSampler: the saved {name} is {state.get(name)}, now it is {value}; keep it to resume"
                )
        self._epoch, self._batch = int(state["epoch"]), int(state["batch"])
        self._order = self._order_of_epoch()

    def _order_of_epoch(self) -> np.ndarray:
        """The epoch's permutation, the same on every rank."""
        return np.random.default_rng([self._seed, 0, self._epoch]).permutation(self._anchors)
