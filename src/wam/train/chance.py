"""What is random in a training step, as a function of seed, step and the window's place in the step. No state.

A window's noise is therefore the same whether one process takes the whole step, or several share it in micro-batches,
and a run that continues needs to remember no generator.
"""

from __future__ import annotations

import numpy as np
import torch


def generators(seed: int, step: int, windows: int, rank: int = 0, world: int = 1) -> list[torch.Generator]:
    """One for each of a process's `windows` windows of this step. Processes take the step's places in turn."""
    seeds = np.random.SeedSequence([seed, step]).generate_state(windows * world)[rank::world]
    return [torch.Generator().manual_seed(int(own)) for own in seeds]


def reseed(seed: int, step: int, rank: int = 0) -> None:
    """Give torch's own generators, which dropout layers draw from, a seed of this step and process."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank + 1]).generate_state(1)[0]))
