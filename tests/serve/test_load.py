"""The load that `wam bench serve` puts on a server, in small: nobody gets another's actions."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from tests.models import EMBODIMENT
from tests.serve.servers import TinySource, serving

from wam.cli import bench_serve
from wam.engine import load_policy
from wam.robot.observation import Observation
from wam.serve.load import MemoryWatch, Robot, alone, together
from wam.serve.random_model import write_random_model
from wam.serve.service import Limits


@pytest.mark.parametrize(("batch", "tolerance"), [(1, 0.0), (4, 1e-5)])
def test_robots_together_get_what_each_gets_alone(batch: int, tolerance: float) -> None:
    """One at a time to the bit; computed together up to rounding."""
    robots = [Robot.make(EMBODIMENT, number, 6, (32, 32)) for number in range(4)]
    with serving(TinySource(), limits=Limits(batch=batch)) as running:
        expected = [alone(running.url, robot)[0] for robot in robots]
        with MemoryWatch([os.getpid()]) as memory:
            seen = together(running.url, robots, expected, 120)
        mixed_up = together(running.url, robots, expected[::-1], 12)
    assert [len(each.seconds) for each in seen] == [30] * 4
    assert not any(each.errors for each in seen)
    assert max(each.farthest for each in seen) <= tolerance
    assert max(size for each in seen for size in each.batches) <= batch
    assert len(memory.bytes) == len(memory.times)
    assert all(each.farthest > 0.1 for each in mixed_up), "a mix-up would not be noticed"


def test_a_random_model_takes_the_pictures_it_was_made_for(tmp_path: Path) -> None:
    engine = load_policy(write_random_model(tmp_path / "model", cameras=2, height=50, width=70)).engine
    assert (engine.embodiment.view_height, engine.embodiment.view_width) == (32, 64)
    picture = np.zeros((50, 70, 3), np.uint8)
    look = Observation(dict.fromkeys(engine.embodiment.cameras, picture), np.zeros(4, np.float32), "push", 0.0)
    assert np.isfinite(engine.step(engine.open(0), [look]).actions).all()


@pytest.mark.slow
def test_the_bench_runs(capsys: pytest.CaptureFixture[str]) -> None:
    bench_serve.main(bench_serve.ServeLoad(sessions=2, chunks=100, json=True))
    assert '"errors": 0' in capsys.readouterr().out
