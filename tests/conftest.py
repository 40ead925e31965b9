"""What every test can rely on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """Commands set how many threads torch computes with, and the next test compares sums to the last bit."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
