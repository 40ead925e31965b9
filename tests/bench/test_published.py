"""Chunks of a published model are timed rung by rung; here of a small stand-in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.bench.test_against_release import TINY
from wam.bench.published import ONE_STEP, RUNGS, Rung, measure, setting_of
from wam.engine.released_loop import ReleasedSampler


def test_every_rung_is_timed_and_what_cannot_run_says_why() -> None:
    rungs = [
        RUNGS[0],
        RUNGS[1],
        Rung("8 of 16", sampler=ReleasedSampler(skip=8)),
        Rung("one step", sampler=ONE_STEP),
        Rung("fp8", sampler=ONE_STEP, weights="fp8-dynamic"),
    ]
    seen: list[int] = []
    rows = measure(replace(TINY, bf16=True), rungs, 2, lambda done, total: seen.append(done))
    assert [len(row.seconds) for row in rows] == [2, 2, 2, 2, 0]
    assert rows[-1].failure is not None and "CUDA" in rows[-1].failure
    assert seen == list(range(1, 13))
    assert rows[0].median > rows[3].median  # 32 passes against one


def test_a_preset() -> None:
    assert setting_of("dreamzero-droid", "cpu").config.dim == 5120
    with pytest.raises(ValueError, match="dreamzero-droid"):
        setting_of("no-such-model", "cpu")
