"""Rows of a cache: looked at in place, put side by side, each with its own place in time."""

from __future__ import annotations

import pytest
import torch
from tests.models import TINY

from wam.model.attention import ANCHOR, EMPTY
from wam.model.kv_cache import KVCache

CONFIG = TINY.transformer  # memory 2, one frame of 4 tokens per chunk


def cache(rows: int, joint: bool = False) -> KVCache:
    return KVCache(CONFIG, rows, frame_tokens=4, joint=joint)


def see(kept: KVCache, chunk: int | list[int], value: float) -> None:
    """What a clean pass does: keys and values into the scratch, then commit."""
    for layer in range(CONFIG.layers):
        new = torch.full((len(kept), CONFIG.heads, 4, CONFIG.head_dim), value)
        kept.extender(layer)(new, -new)
    kept.commit(chunk)


def held(kept: KVCache, row: int) -> dict[int, float]:
    """Chunk -> the value that was written for it."""
    keys = kept.keys[0, row, 0, : kept.kept, 0]
    return {int(c): float(k) for c, k in zip(kept.chunk[row], keys, strict=True) if c != EMPTY}


def test_rows_are_at_places_of_their_own_in_time() -> None:
    kept = cache(2)
    see(kept, ANCHOR, 1.0)
    see(kept.rows(slice(1, 2)), 0, 2.0)
    see(kept, [0, 1], 3.0)
    see(kept, [1, 2], 4.0)
    assert held(kept, 0) == {ANCHOR: 1.0, 0: 3.0, 1: 4.0}
    assert held(kept, 1) == {ANCHOR: 1.0, 1: 3.0, 2: 4.0}  # chunk 0 has been written over
    assert torch.equal(kept.values[:, :, :, : kept.kept], -kept.keys[:, :, :, : kept.kept])


def test_every_second_row_can_be_reset_alone() -> None:
    kept = cache(4)
    see(kept, ANCHOR, 1.0)
    kept.rows(slice(1, None, 2)).reset()
    assert [bool(held(kept, row)) for row in range(4)] == [True, False, True, False]


def test_sessions_side_by_side_and_back() -> None:
    one, other, room = cache(1), cache(1), cache(3)
    for chunk, value in ((ANCHOR, 1.0), (0, 2.0)):
        see(one, chunk, value)
    see(other, ANCHOR, 5.0)
    for row, own in enumerate((one, other)):
        room.rows(slice(row, row + 1)).load(own)
    assert held(room, 0) == held(one, 0) and held(room, 1) == held(other, 0) and not held(room, 2)
    see(room.rows(slice(0, 2)), [1, 0], 7.0)
    one.take(room.rows(slice(0, 1)), 1)
    other.take(room.rows(slice(1, 2)), 0)
    assert held(one, 0) == {ANCHOR: 1.0, 0: 2.0, 1: 7.0} and held(other, 0) == {ANCHOR: 5.0, 0: 7.0}
    see(room.rows(slice(0, 1)), ANCHOR, 9.0)
    one.take(room.rows(slice(0, 1)), ANCHOR)
    assert held(one, 0) == {ANCHOR: 9.0}  # an anchor begins anew


def test_a_pass_that_does_not_fit_is_named() -> None:
    tokens = torch.zeros(1, CONFIG.heads, 4 + 4 + 5, CONFIG.head_dim)  # clean and noisy frame, actions and state
    cache(1, joint=True).extender(0)(tokens, tokens)
    with pytest.raises(ValueError, match="a pass of 13 tokens does not fit the scratch of 9"):
        cache(1).extender(0)(tokens, tokens)


def test_a_memory_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="memory=0: a cache has room for one chunk at least"):
        KVCache(CONFIG, 1, 4, memory=0)
