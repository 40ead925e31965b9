"""What is counted and timed of a training step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.models import TINY, tiny_model
from wam.bench.train_step import WIDE, measure, optimiser_step, wide_block


def test_flops_are_torchs_own_count() -> None:
    subject = optimiser_step("tiny", tiny_model(), batch=2, chunks=3, device="cpu")
    with FlopCounterMode(display=False) as counter:
        subject.run()
    assert subject.flops == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert subject.samples == 2 and subject.tokens % 2 == 0


def test_flops_of_the_wide_block() -> None:
    subject = wide_block(32, "cpu", replace(WIDE, dim=96, heads=4, ffn_dim=128))
    with FlopCounterMode(display=False) as counter:
        subject.run()
    assert subject.flops == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_share_of_the_peak() -> None:
    model = tiny_model()
    before = model.transformer.patch_embedding.weight.detach().clone()
    subjects = [optimiser_step("tiny", model, 2, 2, "cpu"), wide_block(8, "cpu", replace(WIDE, dim=96, heads=4))]
    seen: list[tuple[int, int]] = []
    speeds = measure(subjects, 2, "cpu", lambda done, total: seen.append((done, total)))
    assert [len(speed.seconds) for speed in speeds] == [2, 2] and seen[-1] == (6, 6)
    for speed in speeds:
        row = speed.to_dict()
        assert 0 < row["share_of_peak"] < 1.5 and row["samples_per_second"] > 0
    assert not torch.equal(before, model.transformer.patch_embedding.weight)  # it learned, so it was a real step
    assert TINY.transformer.dim == model.config.transformer.dim
