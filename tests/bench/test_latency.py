"""Stages of a long episode, and the arithmetic of one pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.engine.robots import tiny_engine
from tests.models import EMBODIMENT, TINY
from wam.bench.flops import pass_flops
from wam.bench.latency import STAGES, decode, measure, synthetic
from wam.bench.limit import Limit, denoising_tokens, matmul_rate
from wam.engine.config import EngineConfig
from wam.flow.sampler import Sampler
from wam.robot.observation import Observation


@pytest.mark.parametrize("joint", [True, False])
def test_every_stage_is_timed(joint: bool) -> None:
    engine = tiny_engine(EngineConfig(Sampler(steps=2), joint_pass=joint))
    found = measure(engine, synthetic(EMBODIMENT, count=6), chunks=24)
    assert set(found.stages) == {*STAGES, "pass 1", "pass 2"}
    assert all(0 <= times.p50 <= times.p95 <= times.p99 for times in found.stages.values())
    parts = sum(found.stages[name].p50 for name in STAGES if name != "chunk")
    assert 0.3 * found.stages["chunk"].p50 < parts < 3 * found.stages["chunk"].p50
    assert (found.stages["remember"].p99 == 0) == joint
    assert found.step is not None and found.memory.start > 2**20
    assert not engine.model.transformer._forward_hooks  # nothing stays behind
    with pytest.raises(ValueError, match="at least 20"):
        measure(engine, synthetic(EMBODIMENT, count=1), chunks=3)


def test_pictures_survive_the_wire() -> None:
    images = synthetic(EMBODIMENT, count=2)
    look = decode(Observation({}, np.zeros(3, np.float32), "go", 1.5), images[0])
    assert look.images["front"].shape == (32, 32, 3) and look.images["front"].dtype == np.uint8
    assert images[0] != images[1] and look.timestamp == 1.5


def test_the_limit_is_flops_over_rate() -> None:
    config = replace(TINY.transformer, memory=2)
    apart, joint = (denoising_tokens(config, 1, 5, dream=True, joint=joint) for joint in (False, True))
    assert joint.length == apart.length + 1 and joint.keys == apart.keys + 1 and apart.keys == 3 + apart.length
    found = Limit(pass_flops(config, apart).total, 1e9)
    assert found.distance(3 * found.seconds) == pytest.approx(3)
    assert matmul_rate("cpu", torch.float32, size=64, repeats=3) > 1e6
