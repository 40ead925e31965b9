"""A mask in blocks is the table, and attention over blocks gives its numbers and gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.models import TINY, tiny_model, tiny_windows, with_changes

from wam.model.attention import attend, visible
from wam.model.blocks import attend_in_blocks, blocks_of
from wam.model.passes import window_layout

CASES = [(1, None, True), (3, None, True), (4, 1, True), (5, 2, True), (3, None, False)]


@pytest.mark.parametrize(("chunks", "memory", "autoregressive"), CASES)
@pytest.mark.parametrize("dream", [True, False])
def test_blocks_are_the_table(chunks: int, memory: int | None, autoregressive: bool, dream: bool) -> None:
    config = replace(TINY.transformer, autoregressive=autoregressive, frames_per_chunk=2, actions_per_chunk=6)
    layout = window_layout(config, (2, 3), chunks, dream)
    mask = torch.zeros(len(layout), len(layout), dtype=torch.bool)
    blocks = blocks_of(layout.groups, memory, autoregressive)
    for block in blocks.blocks:
        for start, end in block.queries:
            for first, last in block.keys:
                mask[start:end, first:last] = True
    assert torch.equal(mask, visible(layout, layout, memory, autoregressive=autoregressive)[0])
    assert blocks.pairs == int(mask.sum())


def test_the_same_numbers_and_gradients() -> None:
    layout = window_layout(TINY.transformer, TINY.grid, 4)
    mask = visible(layout, layout, 2)[:, None]
    found = []
    for way in (lambda *x: attend(*x, mask), lambda *x: attend_in_blocks(*x, blocks_of(layout.groups, 2))):
        torch.manual_seed(0)
        inputs = [torch.randn(2, 3, len(layout), 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
        answer = way(*inputs)
        found.append([answer, *torch.autograd.grad(answer.square().sum(), inputs)])
    for masked, blocked in zip(*found, strict=True):
        torch.testing.assert_close(masked, blocked, atol=1e-12, rtol=1e-12)


def test_a_long_window_learns_what_a_masked_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of two starts, one of them behind a gap, which shifts its chunks."""
    windows, text = tiny_windows(batch=2, chunks=4)
    windows = with_changes(windows, chunk_index=windows.chunk_index + torch.tensor([[0], [7]]))
    gradients = []
    for long in (10**9, 1):
        monkeypatch.setattr("wam.model.transformer.LONG", long)
        model = tiny_model().double()
        inputs = with_changes(
            windows, **{n: getattr(windows, n).double() for n in ("anchor", "video", "action", "state")}
        )
        model.loss(inputs, text.double(), torch.Generator().manual_seed(1)).total.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0] and gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-9, rtol=1e-7, msg=name)
