"""What every test can rely on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Of this process and those that tests start: on tiny networks more threads only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"

import torch  # noqa: E402  reads the number of threads when it is imported


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """Commands set how many threads torch computes with, and the next test compares sums to the last bit."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
