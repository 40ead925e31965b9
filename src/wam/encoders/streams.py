"""Several streams of pictures as one batch: states of `VideoTokenizer`s joined and split along the batch.

A state is a tensor whose first dimension is the batch, or tuples, lists and dataclasses of such; anything else in it is
a marker that says how far the stream is. Streams go together when their states have the same shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor


def stream_shape(state: Any) -> Hashable:
    """Equal for states that can be joined: shapes without the batch, and markers."""
    if isinstance(state, Tensor):
        return (tuple(state.shape[1:]), state.dtype)
    if isinstance(state, (tuple, list)):
        return tuple(stream_shape(part) for part in state)
    if _has_fields(state):
        return (type(state), *(stream_shape(getattr(state, field.name)) for field in dataclasses.fields(state)))
    return repr(state)


def join_streams(states: Sequence[Any]) -> Any:
    """States of the same shape as the state of one batch, in order."""
    return _merged(states, torch.cat)


def split_stream(state: Any, sizes: Sequence[int]) -> list[Any]:
    """The state of a batch as the states of its parts, of so many rows each."""
    ends = list(accumulate(sizes))

    def part(start: int, end: int) -> Any:
        return _merged([state], lambda whole: whole[0][start:end])

    return [part(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _merged(states: Sequence[Any], merge: Callable[[list[Tensor]], Tensor]) -> Any:
    """One state from several: every tensor by `merge`, everything else as in the first."""
    first = states[0]
    if isinstance(first, Tensor):
        return merge(list(states))
    if isinstance(first, (tuple, list)):
        return type(first)(_merged(parts, merge) for parts in zip(*states, strict=True))
    if _has_fields(first):
        names = [field.name for field in dataclasses.fields(first)]
        return dataclasses.replace(first, **{n: _merged([getattr(s, n) for s in states], merge) for n in names})
    return first


def _has_fields(state: Any) -> bool:
    return dataclasses.is_dataclass(state) and not isinstance(state, type)
