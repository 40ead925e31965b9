"""What every stream of a video tokenizer has to keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def check_a_state_can_be_used_twice(
    step: Callable[[Any, Tensor], tuple[Tensor, Any]], state: Any, one: Tensor, other: Tensor
) -> None:
    """`step` is encode_next or decode_next: going on from a state in two ways leaves it as it was."""
    once, _ = step(state, one)
    step(state, other)
    again, _ = step(state, one)
    assert torch.equal(once, again)
