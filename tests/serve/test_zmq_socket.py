"""GR00T clients on a real ZMQ socket; the client's half follows the documented format."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zmq
from tests.engine.robots import looks, tiny_engine
from tests.serve.dialects.test_gr00t import decode, encode
from tests.serve.servers import Running, TinySource, serving

from wam.robot.observation import Observation
from wam.serve.dialects.gr00t import LANGUAGE
from wam.serve.server import Where
from wam.serve.websocket import Door


class Gr00tClient:
    """A REQ socket, as GR00T's `PolicyClient`."""

    def __init__(self, port: int | None, token: str | None = None) -> None:
        self.socket = zmq.Context.instance().socket(zmq.REQ)
        self.socket.setsockopt(zmq.RCVTIMEO, 30_000)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(f"tcp://127.0.0.1:{port}")
        self.token = token

    def call(self, endpoint: str, data: Any = None) -> Any:
        request = {"endpoint": endpoint}
        if data is not None:
            request["data"] = data
        if self.token is not None:
            request["api_token"] = self.token
        return self.send(encode(request))

    def send(self, frame: bytes) -> Any:
        self.socket.send(frame)
        return decode(self.socket.recv())

    def __enter__(self) -> Gr00tClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving(TinySource(), where=Where(port=0, zmq_port=0)) as server:
        yield server


@pytest.fixture
def client(running: Running) -> Iterator[Gr00tClient]:
    with Gr00tClient(running.started.zmq_port) as client:
        yield client


def observation(robots: list[list[Observation]]) -> dict[str, Any]:
    return {
        "video": {"front": np.stack([[look.images["front"] for look in seen] for seen in robots])},
        "state": {"state": np.stack([[seen[-1].state] for seen in robots])},
        "language": {LANGUAGE: [[seen[-1].instruction] for seen in robots]},
    }


def test_served_equals_in_process_for_every_robot_of_a_request(client: Gr00tClient) -> None:
    seen = [looks(9, seed) for seed in (0, 1)]
    engine = tiny_engine()
    sessions = [engine.open(3), engine.open(3)]
    for part in (slice(0, 1), slice(1, 5), slice(5, 9)):
        now = [robot[part] for robot in seen]
        expected = [engine.step(session, robot).actions for session, robot in zip(sessions, now, strict=True)]
        actions, info = client.call("get_action", {"observation": observation(now), "options": {"seed": 3}})
        np.testing.assert_allclose(actions["action"], np.stack(expected), rtol=0, atol=1e-5)
    assert [session["cadence"] for session in info["sessions"]] == ["assumed", "assumed"]


def test_ping_and_modality_config(client: Gr00tClient) -> None:
    assert client.call("ping") == {"status": "ok", "message": "Server is running"}
    config = client.call("get_modality_config")
    assert config["video"]["as_json"] == {"delta_indices": [-3, -2, -1, 0], "modality_keys": ["front"]}


def test_reset_begins_a_new_episode(client: Gr00tClient) -> None:
    now = [looks(1)]
    first, _ = client.call("get_action", {"observation": observation(now), "options": {"seed": 3}})
    client.call("get_action", {"observation": observation([looks(4)]), "options": None})
    assert client.call("reset", {"options": {"seed": 3}}) == {}
    again, info = client.call("get_action", {"observation": observation(now), "options": None})
    assert info["sessions"][0]["cadence"] == "first"
    assert all(np.array_equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (b"\xc1", "BadFrame"),
        (b"", "BadFrame"),
        (encode({"endpoint": "dance"}), "BadRequest: 'endpoint': found 'dance'"),
        (encode({"endpoint": "get_action"}), "BadRequest: 'data'"),
        (encode({"endpoint": "kill"}), "Unauthorized: .*--allow-kill"),
    ],
)
def test_what_cannot_be_answered_is_an_error_and_the_server_goes_on(
    client: Gr00tClient, frame: bytes, says: str
) -> None:
    reply = client.send(frame)
    assert reply.keys() == {"error"}
    with pytest.raises(ValueError, match=says):
        raise ValueError(reply["error"])
    assert client.call("ping")["status"] == "ok"


def test_a_token_is_asked_for_and_a_client_may_end_the_server_if_that_was_allowed() -> None:
    where = Where(port=0, zmq_port=0, allow_kill=True)
    with serving(TinySource(), where=where, door=Door(token="secret")) as running:
        with Gr00tClient(running.started.zmq_port) as stranger:
            assert stranger.call("kill") == {"error": "Unauthorized: Invalid API token"}
        with Gr00tClient(running.started.zmq_port, "secret") as friend:
            assert friend.call("ping")["status"] == "ok" and not running.server.ending
            assert friend.call("kill") is None
        deadline = time.monotonic() + 5
        while not running.server.ending and time.monotonic() < deadline:
            time.sleep(0.05)
        assert running.server.ending
