"""The websocket with a real worker process: what comes back is what the engine would do, and errors stay small."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.engine.robots import looks, tiny_engine
from tests.serve.servers import Client, Running, TinySource, request_of, serving
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from wam.engine.engine import EngineConfig
from wam.robot.observation import Observation
from wam.serve.robot_keys import RobotKeys
from wam.serve.server import Where
from wam.serve.service import Limits
from wam.serve.websocket import Door
from wam_client.wire import packb, unpackb

CLOSE = {"rtol": 0, "atol": 1e-5}  # sessions that are computed together may differ in the last bits


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving(TinySource()) as server:
        yield server


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.url) as client:
        yield client


def episode(chunks: int, seed: int = 0, instruction: str = "push the button") -> list[list[Observation]]:
    """The looks of each call: one, then four each, a tenth of a second apart."""
    seen = looks(1 + 4 * (chunks - 1), seed, instruction)
    return [seen[:1], *(seen[i : i + 4] for i in range(1, len(seen), 4))]


def in_process(calls: list[list[Observation]], seed: int, **config: Any) -> list[np.ndarray]:
    engine = tiny_engine(EngineConfig(**config))
    session = engine.open(seed)
    return [engine.step(session, call).actions for call in calls]


# ---------------------------------------------------------------- what comes back


def test_served_equals_in_process(client: Client) -> None:
    calls = episode(6)
    replies = [client.ask(request_of(call, seed=3)) for call in calls]
    for reply, expected in zip(replies, in_process(calls, 3), strict=True):
        assert np.array_equal(reply["actions"], expected)
    assert [reply["cadence"]["how"] for reply in replies] == ["first"] + ["exact"] * 5
    assert [reply["session"]["chunk"] for reply in replies] == list(range(6))


def test_both_dialects_on_one_connection(client: Client) -> None:
    calls = episode(4)
    expected = in_process(calls, 3)
    request = request_of(calls[0], seed=3, session_id="mixed")
    assert np.array_equal(client.ask({**request, "endpoint": "infer"}), expected[0])
    assert np.array_equal(client.ask(request_of(calls[1], session_id="mixed"))["actions"], expected[1])
    assert client.ask({"endpoint": "reset", "session_id": "mixed"}) == "reset successful"
    assert np.array_equal(client.ask({**request, "endpoint": "infer"}), expected[0])


def test_one_frame_per_request_equals_a_model_without_memory(client: Client) -> None:
    calls = [call[-1:] for call in episode(4)]
    replies = [client.ask(request_of(call, seed=3)) for call in calls]
    for reply, expected in zip(replies, in_process(calls, 3, memory="none"), strict=True):
        assert np.array_equal(reply["actions"], expected)
    assert [reply["cadence"]["how"] for reply in replies] == ["first", "anew", "anew", "anew"]
    assert "no frame within" in replies[1]["cadence"]["why"]


def test_what_is_being_executed_is_held(client: Client) -> None:
    (call,) = episode(1)
    executing = np.full((2, 2), 0.25, np.float32)
    engine = tiny_engine()
    expected = engine.step(engine.open(3), call, executing).actions
    reply = client.ask(request_of(call, seed=3, executing=executing))
    assert np.array_equal(reply["actions"], expected) and (reply["actions"][:2] == 0.25).all()
    refused = client.ask(request_of(call, executing=np.zeros((4, 2), np.float32)))
    assert refused.startswith("BadRequest: 'executing'")


def test_a_reset_without_a_name_ends_all_episodes_of_the_connection(client: Client) -> None:
    calls = episode(2)
    for call in calls:
        client.ask(request_of(call, session_id="named"))
        client.ask(request_of(call))
    assert client.ask({"endpoint": "reset"}) == "reset successful"
    for extra in ({"session_id": "named"}, {}):
        reply = client.ask(request_of(calls[0], **extra))
        assert (reply["cadence"]["how"], reply["session"]["chunk"]) == ("first", 0)


def test_a_request_may_begin_a_new_episode(client: Client) -> None:
    calls = episode(2)
    for call in calls:
        client.ask(request_of(call))
    reply = client.ask(request_of(calls[0], reset=True, seed=3))
    assert np.array_equal(reply["actions"], in_process(calls[:1], 3)[0])


def test_the_example_observation_is_answered_as_it_is(client: Client) -> None:
    assert client.metadata["model"] == "tiny" and client.metadata["horizon"] == 4
    assert client.ask(client.metadata["example_observation"])["actions"].shape == (4, 2)


def test_sessions_on_one_connection_and_on_several_do_not_disturb_one_another(running: Running) -> None:
    calls = {f"robot-{i}": episode(5, seed=i, instruction=f"push button {i}") for i in range(4)}
    expected = {name: in_process(calls[name], i) for i, name in enumerate(calls)}
    found: dict[str, list[np.ndarray]] = {name: [] for name in calls}

    def drive(names: list[str]) -> None:
        with Client(running.url) as client:
            for step in range(5):
                for name in names:
                    seed = int(name[-1])
                    found[name].append(client.ask(request_of(calls[name][step], env_id=name, seed=seed))["actions"])

    threads = [
        threading.Thread(target=drive, args=(names,)) for names in (["robot-0", "robot-1"], ["robot-2"], ["robot-3"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for name in calls:
        np.testing.assert_allclose(np.stack(found[name]), np.stack(expected[name]), **CLOSE)


def test_a_named_session_outlives_its_connection(running: Running) -> None:
    calls = episode(3)
    found = []
    for call in calls:
        with Client(running.url) as client:
            found.append(client.ask(request_of(call, session_id="wanderer", seed=3))["actions"])
    assert np.array_equal(np.stack(found), np.stack(in_process(calls, 3)))


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (b"\xc1", "BadFrame: "),
        (b"", "BadFrame: "),
        ("hello", "BadFrame: a text frame"),
        (packb([1, 2]), "BadRequest: found list"),
        (packb({b"key": 1}), "BadRequest: a key is not text"),
        (packb({"prompt": "push"}), "BadRequest: camera 'front' of 'tiny' is missing"),
        (packb({"endpoint": "dance"}), "BadRequest: 'endpoint'"),
    ],
)
def test_a_bad_request_is_answered_and_the_connection_goes_on(client: Client, frame: Any, says: str) -> None:
    calls = episode(2)
    client.ask(request_of(calls[0], seed=3))
    assert client.send(frame).startswith(says)
    reply = client.ask(request_of(calls[1]))
    assert np.array_equal(reply["actions"], in_process(calls, 3)[1])


def test_an_unknown_key_is_reported_once(client: Client) -> None:
    calls = episode(2)
    first = client.ask(request_of(calls[0], surprise=1))
    assert first["notes"] == ["keys that nobody needs: ['surprise']"]
    assert "notes" not in client.ask(request_of(calls[1], surprise=1))


def test_a_guess_is_reported_once_in_words_and_every_time_in_the_reply(client: Client) -> None:
    calls = episode(3)
    requests = [{k: v for k, v in request_of(call).items() if k != "timestamp_s"} for call in calls]
    replies = [client.ask(request) for request in requests]
    assert [reply["cadence"]["how"] for reply in replies] == ["first", "assumed", "assumed"]
    assert [len(reply.get("notes", [])) for reply in replies] == [0, 1, 0]


def test_a_fault_of_the_server_does_not_take_the_connection_nor_show_its_inside(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: RobotKeys, request: Any) -> Any:
        raise RuntimeError("secret path")

    (call,) = episode(1)
    with monkeypatch.context() as patched:
        patched.setattr(RobotKeys, "read", broken)
        assert client.ask(request_of(call)) == "Internal: RuntimeError; the server's log says more"
    assert client.ask(request_of(call))["actions"].shape == (4, 2)


# ---------------------------------------------------------------- pages


def test_healthz_and_metrics(running: Running, client: Client) -> None:
    assert running.get("/healthz") == (200, "OK\n")
    before = running.metric('wam_answers_total{dialect="openpi"}')
    bad = running.metric('wam_errors_total{name="BadRequest"}')
    calls = episode(2)
    for call in calls:
        client.ask(request_of(call))
    client.ask({"prompt": "push"})
    assert running.metric('wam_answers_total{dialect="openpi"}') == before + 2
    assert running.metric('wam_errors_total{name="BadRequest"}') == bad + 1
    assert running.metric("wam_ready") == 1 and running.metric("wam_connections") >= 1
    assert running.metric('wam_stage_seconds_count{stage="denoise"}') >= 2


# ---------------------------------------------------------------- doors


@pytest.fixture(scope="module")
def guarded() -> Iterator[Running]:
    """A server that trusts nobody."""
    with serving(TinySource(), door=Door(token="secret", frame_bytes=100_000, connections=2)) as server:
        yield server


SECRET = {"Authorization": "Api-Key secret"}


def test_a_token_opens_the_door_and_nothing_else_does(guarded: Running) -> None:
    for headers in (None, {"Authorization": "Api-Key wrong"}, {"Authorization": "Bearer secret"}):
        with pytest.raises(InvalidStatus, match="401"):
            Client(guarded.url, headers)
        assert guarded.get("/metrics", headers)[0] == 401
    assert guarded.get("/healthz")[0] == 200 and guarded.get("/metrics", SECRET)[0] == 200
    with Client(guarded.url, SECRET) as client:
        assert client.ask(client.metadata["example_observation"])["actions"].shape == (4, 2)


def test_a_web_page_cannot_connect_unless_it_is_named(running: Running) -> None:
    with pytest.raises(InvalidStatus, match="403"), connect(running.url, origin=Origin("http://evil.example")):
        pass


def test_a_frame_that_is_too_large_ends_its_connection_alone(guarded: Running) -> None:
    with Client(guarded.url, SECRET) as other:
        with Client(guarded.url, SECRET) as client, pytest.raises(ConnectionClosed, match="1009"):
            client.send(packb({"junk": b"x" * 200_000}))
        assert other.ask(other.metadata["example_observation"])["actions"].shape == (4, 2)


def test_too_many_connections_are_refused(guarded: Running) -> None:
    with (
        Client(guarded.url, SECRET),
        Client(guarded.url, SECRET),
        pytest.raises(InvalidStatus, match="503"),
    ):
        Client(guarded.url, SECRET)


@pytest.fixture(scope="module")
def small() -> Iterator[Running]:
    """A server with little room and little patience."""
    with serving(TinySource(), limits=Limits(idle_seconds=0.4, waiting=3, batch=1)) as server:
        yield server


def test_too_many_requests_for_a_session_and_in_all_are_busy(small: Running) -> None:
    (call,) = episode(1)
    frame = packb(request_of(call, session_id="shared"))
    clients = [Client(small.url) for _ in range(12)]
    for client in clients:
        client.socket.send(frame)
    replies = [client.receive() for client in clients]
    busy = [reply for reply in replies if isinstance(reply, str)]
    assert busy and all(reply.startswith("Busy: ") for reply in busy) and len(busy) < len(replies)
    assert unpackb(clients[0].send(frame))["actions"].shape == (4, 2)
    for client in clients:
        client.close()


def test_idle_sessions_end_and_the_next_request_begins_anew(small: Running) -> None:
    with Client(small.url) as client:
        calls = episode(2)
        client.ask(request_of(calls[0]))
        deadline = time.monotonic() + 10
        while small.metric("wam_sessions") > 0 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert small.metric("wam_sessions_evicted_total") >= 1
        assert client.ask(request_of(calls[1]))["cadence"]["how"] == "first"


def test_a_port_that_is_taken_is_an_error(running: Running) -> None:
    with (
        pytest.raises(OSError, match="address already in use"),
        serving(TinySource(), where=Where(port=running.started.port)),
    ):
        pass
