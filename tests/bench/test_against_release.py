"""The measuring stick is straight: the re-created release computes what our network and our loop compute."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from wam.bench.against_release import SMALL, Setting, acting, chunks_of, compare, denoising, gradients, training

TINY = Setting(
    replace(SMALL, dim=48, heads=2, layers=3, ffn_dim=64, in_channels=16, text_dim=12, image_dim=10, codec_hidden=16),
    grid=(2, 3),
    text=5,
    image=4,
    bf16=False,
)


def test_a_training_window_has_the_same_gradients() -> None:
    theirs, ours = gradients(TINY)
    assert set(theirs) == set(ours) and len(theirs) > 100
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max())), name
    assert max(float(gradient.abs().max()) for gradient in theirs.values()) > 1e-4


@pytest.mark.parametrize("long", [1, 10**9])
def test_in_blocks_or_under_a_mask(long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wam.model.transformer.LONG", long)
    test_a_training_window_has_the_same_gradients()


def test_all_chunks_between_two_resets_have_the_same_actions() -> None:
    theirs, ours = chunks_of(TINY)
    assert len(theirs) == len(ours) == TINY.chunks
    for chunk, (a, b) in enumerate(zip(theirs, ours, strict=True)):
        assert torch.allclose(a, b, atol=2e-3), f"chunk {chunk}"
    assert not torch.allclose(theirs[0], theirs[1], atol=0.1)


def test_both_sides_take_turns() -> None:
    rows = compare(
        [training(TINY, compile=False), denoising(TINY, compile=False), acting(TINY, compile=False)], 2, "cpu"
    )
    assert [len(row.theirs) for row in rows] == [len(row.ours) for row in rows] == [2, 2, 2]
    assert all(row.times_faster > 0 for row in rows)
