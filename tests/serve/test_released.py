"""Released weights behind the server: a policy for each session, and a whole checkpoint from its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.checkpoints import tiny
from tests.engine.test_released_policy import DROID, looks, policy, tokenizer

from wam.checkpoints.load import PublishedModel
from wam.checkpoints.save import save_published
from wam.encoders.wan_vae import WanVideoTokenizer
from wam.model.transformer import Transformer
from wam.serve.backends import Turn, locate
from wam.serve.metadata import Served, metadata
from wam.serve.released import PolicyBackend, ReleasedSource

__all__ = ["tokenizer"]  # a fixture


def test_sessions_share_networks_and_nothing_else(tokenizer: WanVideoTokenizer) -> None:
    served = Served("m", "r", DROID, 24, remembers=True, dreams=False, frames=4, stride=6)
    backend = PolicyBackend(served, lambda: policy(tokenizer))
    sessions = [backend.open(seed) for seed in (1, 2)]
    found = []
    for call in range(3):
        seen = [looks(10 * robot + call, 1 if call == 0 else 4) for robot in (1, 2)]
        chunks = [backend.steps([Turn(memory, each)]) for memory, each in zip(sessions, seen, strict=True)]
        found.append([chunk.actions for (chunk,) in chunks])
    for robot in (1, 2):
        alone = policy(tokenizer)
        alone.reset(robot)
        for call in range(3):
            expected = alone.act(looks(10 * robot + call, 1 if call == 0 else 4)).actions
            assert np.array_equal(found[call][robot - 1], expected)


def test_what_is_being_executed_cannot_be_held(tokenizer: WanVideoTokenizer) -> None:
    served = Served("m", "r", DROID, 24, remembers=True, dreams=False)
    backend = PolicyBackend(served, lambda: policy(tokenizer))
    with pytest.raises(ValueError, match="'executing'"):
        backend.steps([Turn(backend.open(0), looks(0, 1), executing=np.zeros((1, 8), np.float32))])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published model for DROID's pictures and numbers, as small as it can be."""
    sizes = replace(
        tiny.CONFIG, frames_per_chunk=2, actions_per_chunk=24, state_dim=64, action_dim=32, layers=1, memory=4
    )
    transformer = tiny.randomised(Transformer(sizes))
    assert isinstance(transformer, Transformer)
    whole: PublishedModel = replace(tiny.whole(), transformer=transformer)
    folder = tmp_path_factory.mktemp("released") / "model"
    save_published(whole, folder)
    return folder


def test_a_checkpoint_is_served_as_the_released_server_does(checkpoint: Path) -> None:
    assert not locate(str(checkpoint)).ours and locate("nano-metaworld").ours
    backend = ReleasedSource(str(checkpoint), threads=1).open()
    served = backend.served
    assert (served.robot.name, served.cadence.frames, served.cadence.stride) == ("droid-franka", 4, 6)
    said = metadata(served)
    assert (said["horizon"], said["frames_per_request"], said["action_space"]) == (24, 4, "joint_position")


@pytest.mark.slow
def test_a_checkpoint_acts_in_closed_loop(checkpoint: Path) -> None:
    """16 steps with guidance at DROID's size: most of a minute on a CPU."""
    backend = ReleasedSource(str(checkpoint), threads=1).open()
    session, picture = backend.open(0), np.zeros((180, 320, 3), np.uint8)
    for count in (1, 4):
        seen = [replace(look, images=dict.fromkeys(look.images, picture)) for look in looks(0, count)]
        (chunk,) = backend.steps([Turn(session, seen)])
        assert chunk.actions.shape == (24, 8) and np.isfinite(chunk.actions).all()
