"""Batches that were taken ahead are the same ones, and a run resumes as if nothing had been."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.data.synthetic import EMBODIMENT
from wam.data.ahead import Ahead
from wam.data.latent_cache import LatentCache
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.mixture import Member, Mixture
from wam.data.stats import robot_statistics
from wam.data.windows import EpisodeSelection, WindowBatch, WindowSource, WindowSpec
from wam.robot.units import Units


class Counting:
    """0, 1, 2, ...; a number takes `seconds`, and number `broken` cannot be made."""

    def __init__(self, seconds: float = 0.0, broken: int = -1) -> None:
        self.number, self.seconds, self.broken = 0, seconds, broken
        self.threads: set[int] = set()

    def __next__(self) -> int:
        self.threads.add(threading.get_ident())
        time.sleep(self.seconds)
        if self.number == self.broken:
            raise ValueError(f"number {self.number} is broken")
        self.number += 1
        return self.number - 1

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["number"]


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_resuming_does_not_lose_what_was_taken_ahead(taken: int) -> None:
    ahead = Ahead(Counting(), depth=3)
    assert [next(ahead) for _ in range(taken)] == list(range(taken))
    state = ahead.state_dict()
    assert state == {"number": taken}
    for other in (Ahead(Counting(), depth=2), ahead):
        next(other)
        other.load_state_dict(state)
        assert other.state_dict() == state
        assert [next(other) for _ in range(4)] == list(range(taken, taken + 4))


def test_batches_are_made_while_the_caller_works() -> None:
    slow = Counting(seconds=0.05)
    ahead = Ahead(slow)
    next(ahead)
    before = ahead.waited
    for number in range(1, 6):
        time.sleep(0.12)
        assert next(ahead) == number
    assert ahead.waited - before < 0.1, "five batches of 0.05 s should have been ready"
    assert threading.get_ident() not in slow.threads and len(slow.threads) == 1


def test_what_goes_wrong_ahead_is_raised_where_it_is_wanted() -> None:
    ahead = Ahead(Counting(broken=2), depth=4)
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(ValueError, match="number 2 is broken"):
        next(ahead)


def test_a_mixture_gives_the_same_batches(dataset: LeRobotDataset, cache: LatentCache) -> None:
    source = WindowSource(dataset, cache, WindowSpec(chunks=2, gap_probability=0.5), EpisodeSelection("all"))
    robot = replace(EMBODIMENT, statistics=robot_statistics(EMBODIMENT, source.labelled_rows()))

    def mixture() -> Mixture:
        return Mixture([Member("one", source, Units(robot))], batch_size=16, seed=4)

    plain, ahead = mixture(), Ahead(mixture())
    for _ in range(20):
        one, other = next(plain), next(ahead)
        assert isinstance(other, WindowBatch)
        assert one.tensors().keys() == other.tensors().keys()
        for name, values in one.tensors().items():
            assert torch.equal(values, getattr(other, name)), name
    assert plain.state_dict() == ahead.state_dict()
