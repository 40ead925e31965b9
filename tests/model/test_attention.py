"""The table: who may look at whom, and no gradient where it says no."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from tests.models import TINY, tiny_model, tiny_windows

from wam.model.attention import ANCHOR, EMPTY, Kind, Layout, visible
from wam.model.passes import window_layout
from wam.model.transformer import Pass

CHUNKS = 4


def allowed(query: tuple[Kind, int], key: tuple[Kind, int], memory: int | None) -> bool:
    """The table of attention.py's docstring, written once more, slowly and by hand."""
    (qk, qc), (kk, kc) = query, key
    if qk == Kind.STATE:
        return kk == Kind.STATE and kc == qc
    if kk == Kind.CLEAN:
        if kc == ANCHOR:
            return True
        newest = qc if qk == Kind.CLEAN else qc - 1
        return kc <= newest and (memory is None or kc > newest - memory)
    return qk != Kind.CLEAN and kc == qc


@pytest.mark.parametrize("memory", [None, 1, 2, 3])
def test_mask_is_the_table_for_every_pair_of_tokens(memory: int | None) -> None:
    layout = window_layout(TINY.transformer, TINY.grid, CHUNKS)
    mask = visible(layout, layout, memory)[0]
    tokens = list(zip(map(Kind, layout.kind.tolist()), layout.chunk[0].tolist(), strict=True))
    for (i, query), (j, key) in product(enumerate(tokens), repeat=2):
        assert mask[i, j] == allowed(query, key, memory), f"{query} -> {key} with memory {memory}"


def test_shifting_all_chunks_leaves_the_mask_alone_but_for_the_anchor() -> None:
    layout = window_layout(TINY.transformer, TINY.grid, CHUNKS)
    moved = layout.shifted(torch.tensor([5, 0]))
    assert torch.equal(visible(moved, moved, 2)[0], visible(layout, layout, 2)[0])
    assert (moved.chunk[0] == ANCHOR).sum() == (layout.chunk[0] == ANCHOR).sum()


def test_empty_cache_places_are_never_seen() -> None:
    layout = window_layout(TINY.transformer, TINY.grid, 2)
    empty = Layout(
        **{**vars(layout), "kind": torch.zeros_like(layout.kind), "chunk": torch.full_like(layout.chunk, EMPTY)}
    )
    assert not visible(layout, empty, 3).any()


def groups(layout: Layout) -> dict[tuple[Kind, int], torch.Tensor]:
    keys = list(zip(map(Kind, layout.kind.tolist()), layout.chunk[0].tolist(), strict=True))
    return {key: torch.tensor([k == key for k in keys]) for key in dict.fromkeys(keys)}


def test_no_gradient_reaches_a_forbidden_token() -> None:
    """Differentiate each group's output through the whole network by each group's input, for every pair of kinds."""
    torch.manual_seed(0)
    model = tiny_model().double()
    windows, text = tiny_windows(batch=1, chunks=CHUNKS)
    layout = window_layout(TINY.transformer, TINY.grid, CHUNKS)
    clean = torch.cat([windows.anchor, windows.video[:, :, :-1]], dim=2)
    inputs = Pass(
        layout=layout,
        sigma=torch.rand(1, int(layout.sigma_slot.max()) + 1, dtype=torch.float64),
        embodiment=torch.zeros(1, dtype=torch.long),
        video=torch.cat([clean, windows.video], dim=2).double(),
        action=windows.action.double(),
        state=windows.state.double(),
    )
    context = model.context(text.double())
    given: list[tuple[Any, ...]] = []
    for block in (model.transformer.blocks[0], model.transformer.blocks[-1]):
        block.register_forward_pre_hook(lambda _, args: given.append(args))
    model.transformer(inputs, context)
    entered, last = given[0][0], given[1]
    whole = model.transformer.blocks[-1](*last[:4], model.transformer.geometry(layout).mask, *last[5:8])
    places = groups(layout)
    reach = reachable(places)
    for query, rows in places.items():
        gradient = torch.autograd.grad(whole[0, rows].square().sum(), entered, retain_graph=True)[0][0]
        for key, columns in places.items():
            flows = bool(gradient[columns].abs().max() > 0)
            assert flows == reach[query, key], f"{query} <- {key}: gradient {'leaks' if flows else 'is missing'}"


def reachable(places: dict[tuple[Kind, int], torch.Tensor]) -> dict[tuple[tuple[Kind, int], tuple[Kind, int]], bool]:
    """What may flow through several layers: the transitive closure of the table (self always, by the residual)."""
    names, memory = list(places), TINY.transformer.memory
    reach = {(q, k): q == k or allowed(q, k, memory) for q, k in product(names, repeat=2)}
    for _ in range(TINY.transformer.layers - 1):
        reach = {
            (q, k): any((allowed(q, via, memory) or q == via) and reach[via, k] for via in names)
            for q, k in product(names, repeat=2)
        }
    return reach
