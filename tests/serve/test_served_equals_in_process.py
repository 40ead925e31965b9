"""The shipped model on a recorded Meta-World episode: every dialect gives the actions of the same policy in process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("metaworld")

from tests.serve.dialects.test_gr00t import decode, encode
from tests.serve.servers import Client, Running, request_of, serving
from tests.serve.test_zmq_socket import Gr00tClient

from wam.engine import load_policy
from wam.engine.policy import ActionChunk
from wam.engine.wam_policy import WamPolicy
from wam.evaluate.rollout import noise_seed, rollout
from wam.robot.observation import Observation
from wam.serve.backends import CheckpointSource
from wam.serve.dialects.gr00t import LANGUAGE
from wam.serve.server import Where
from wam.sim.metaworld import MetaWorldEnv

TASK, SEED = "assembly", 2_000_000


class Witness:
    """A policy that remembers what it was asked and what it answered."""

    def __init__(self, policy: WamPolicy) -> None:
        self._policy = policy
        self.execute, self.video_stride = policy.execute, policy.video_stride
        self.asked: list[Sequence[Observation]] = []
        self.answered: list[np.ndarray] = []

    def reset(self, seed: int) -> None:
        self._policy.reset(seed)

    def act(self, observations: Sequence[Observation]) -> ActionChunk:
        chunk = self._policy.act(observations)
        self.asked.append(list(observations))
        self.answered.append(chunk.actions)
        return chunk


@pytest.fixture(scope="module")
def recorded() -> Witness:
    witness = Witness(load_policy("nano-metaworld"))
    env = MetaWorldEnv(TASK)
    rollout(env, witness, SEED, max_env_steps=240)
    env.close()
    assert len(witness.asked) >= 10
    return witness


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    source = CheckpointSource("nano-metaworld", threads=1)
    with serving(source, where=Where(port=0, zmq_port=0)) as server:
        yield server


def assert_same(found: list[np.ndarray], recorded: Witness) -> None:
    """Nothing is lost on the way: the same numbers to the bit."""
    assert np.array_equal(np.stack(found), np.stack(recorded.answered))


def test_openpi(running: Running, recorded: Witness) -> None:
    seed = noise_seed(TASK, SEED)
    with Client(running.url) as client:
        replies = [client.ask(request_of(list(looks), seed=seed)) for looks in recorded.asked]
    assert_same([reply["actions"] for reply in replies], recorded)
    assert {reply["cadence"]["how"] for reply in replies[1:]} == {"exact"}


def test_roboarena(running: Running, recorded: Witness) -> None:
    extra: dict[str, Any] = {"endpoint": "infer", "session_id": "episode", "seed": noise_seed(TASK, SEED)}
    with Client(running.url) as client:
        assert_same([client.ask(request_of(list(looks), **extra)) for looks in recorded.asked], recorded)


def test_gr00t(running: Running, recorded: Witness) -> None:
    found = []
    with Gr00tClient(running.started.zmq_port) as client:
        for looks in recorded.asked:
            observation = {
                "video": {name: np.stack([[look.images[name] for look in looks]]) for name in ("top", "side")},
                "state": {"hand": looks[-1].state[None, None]},
                "language": {LANGUAGE: [[looks[-1].instruction]]},
            }
            data = {"observation": observation, "options": {"seed": noise_seed(TASK, SEED)}}
            actions, _ = client.call("get_action", data)
            found.append(actions["hand"][0])
    assert_same(found, recorded)
    assert decode(encode({"a": found[0]}))["a"].dtype == np.float32
