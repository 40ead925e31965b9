"""Both clients against the real server, told to hold still (`--echo`), and against servers that misbehave."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.client.live import Live, rude_server, start, wam_serve
from websockets.sync.server import ServerConnection

from wam_client import AsyncClient, Client, ConnectionLost, Look, PolicyError, Reply, Retry, WireError, packb

SHORT = Retry(patience=0.5, first=0.05, longest=0.1)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with wam_serve("--echo", "metaworld-sawyer") as live:
        yield live


class Blocking:
    """`AsyncClient` with the face of `Client`, so that both take the same tests."""

    def __init__(self, url: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = AsyncClient(url, **options)
        self._loop.run_until_complete(self._client.__aenter__())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def infer(self, *args: Any) -> Reply:
        return self._loop.run_until_complete(self._client.infer(*args))

    def act(self, *args: Any, **named: Any) -> Reply:
        return self._loop.run_until_complete(self._client.act(*args, **named))

    def say(self, *args: Any) -> str:
        return self._loop.run_until_complete(self._client.say(*args))

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())

    def __enter__(self) -> Blocking:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        self._loop.close()


Connect = Callable[..., Any]
both = pytest.mark.parametrize("connect", [Client, Blocking], ids=["sync", "async"])


def look(seconds: float) -> Look:
    picture = np.zeros((64, 64, 3), np.uint8)
    return Look({"top": picture, "side": picture}, np.zeros(4, np.float32), "push the puck to the goal", seconds)


@both
def test_the_server_describes_itself_and_takes_its_own_example(live: Live, connect: Connect) -> None:
    with connect(live.url) as client:
        said = client.metadata
        assert said["embodiment"] == "metaworld-sawyer"
        assert (said["horizon"], said["execute"], said["video_stride"]) == (8, 8, 2)
        reply = client.infer(said["example_observation"])
        assert reply.actions.shape == (8, 4)
        assert reply.fields["cadence"]["how"] == "first"


@both
def test_whole_chunks_of_looks_go_on_exactly(live: Live, connect: Connect) -> None:
    with connect(live.url) as client:
        client.reset(seed=11)
        first = client.act([look(0.0)])
        then = client.act([look(0.05 * i) for i in range(1, 5)])
        assert [reply.fields["cadence"]["how"] for reply in (first, then)] == ["first", "exact"]
        assert [reply.fields["session"]["chunk"] for reply in (first, then)] == [0, 1]
        assert first.fields["session"]["seed"] == then.fields["session"]["seed"] == 11
        client.reset(seed=12)
        again = client.act([look(0.0)])
        assert (again.fields["session"]["seed"], again.fields["session"]["chunk"]) == (12, 0)


@both
def test_several_episodes_on_one_client(live: Live, connect: Connect) -> None:
    with connect(live.url) as client:
        for env, seed in (("a", 1), ("b", 2)):
            client.reset(seed, env)
        replies = [client.act([look(0.0)], env=env) for env in ("a", "b")]
        assert [reply.fields["session"]["seed"] for reply in replies] == [1, 2]


@both
def test_a_mistake_is_named_and_the_connection_stays(live: Live, connect: Connect) -> None:
    with connect(live.url) as client:
        observation = dict(client.metadata["example_observation"])
        del observation["observation/images/side"]
        with pytest.raises(PolicyError, match="camera 'side'") as caught:
            client.infer(observation)
        assert caught.value.name == "BadRequest"
        assert client.infer(client.metadata["example_observation"]).actions.shape == (8, 4)
        assert client.reconnects == 0


@both
def test_a_message_is_answered_by_words(live: Live, connect: Connect) -> None:
    with connect(live.url) as client:
        client.close()  # a later message connects again
        assert client.say({"endpoint": "reset"}) == "reset successful"
        with pytest.raises(PolicyError) as caught:
            client.say({"prompt": "go"})
        assert caught.value.name == "BadRequest"
        with pytest.raises(WireError, match="found a binary frame, expected a text frame"):
            client.say(client.metadata["example_observation"])


@both
def test_a_named_session_outlives_its_connection(live: Live, connect: Connect) -> None:
    with connect(live.url, session=f"robot-{connect.__name__}") as client:
        client.act([look(0.0)])
        client.close()
        reply = client.act([look(0.05 * i) for i in range(1, 5)])
        assert reply.fields["cadence"]["how"] == "exact"
        assert client.reconnects == 1


@both
def test_nobody_there(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    with pytest.raises(ConnectionLost, match="nobody answers, tried for"):
        connect("ws://127.0.0.1:9", retry=SHORT)
    assert 0.4 < time.monotonic() - began < 5
    (warning,) = (line.getMessage() for line in caplog.records if line.levelname == "WARNING")
    assert warning.startswith("ws://127.0.0.1:9: nobody answers (") and warning.endswith("tried again for up to 0.5 s")


@pytest.mark.slow
@both
def test_a_wrong_token_is_not_tried_twice(tmp_path: Path, connect: Connect) -> None:
    (tmp_path / "token").write_text("secret")
    with wam_serve("--echo", "metaworld-sawyer", "--token-file", str(tmp_path / "token")) as guarded:
        began = time.monotonic()
        with pytest.raises(PolicyError) as caught:
            connect(guarded.url, token="guess")
        assert caught.value.name == "Unauthorized"
        assert time.monotonic() - began < 5
        with connect(guarded.url, token="secret") as client:
            assert client.metadata["server"] == "wam"


@pytest.mark.slow
@both
def test_a_server_that_is_started_again_is_found_again(connect: Connect) -> None:
    first = start("--echo", "metaworld-sawyer")
    with connect(first.url) as client:
        client.act([look(0.0)])
        first.process.kill()
        first.process.wait()
        later: list[Live] = []
        thread = threading.Thread(target=lambda: later.append(start("--echo", "metaworld-sawyer", port=first.port)))
        thread.start()
        try:
            reply = client.act([look(0.05 * i) for i in range(1, 5)])
        finally:
            thread.join()
            later[0].stop()
        assert reply.fields["cadence"]["how"] == "first"
        assert client.reconnects == 1


@both
def test_what_a_dead_worker_forgot_is_told_once_and_then_it_goes_on(live: Live, connect: Connect) -> None:
    with connect(live.url) as client:
        client.act([look(0.0)])
        live.kill_worker()
        with pytest.raises(PolicyError) as caught:
            client.act([look(0.05 * i) for i in range(1, 5)])
        assert caught.value.name == "SessionLost"
        reply = client.act([look(0.05 * i) for i in range(1, 5)])
        assert reply.fields["cadence"]["how"] == "first"
        assert client.reconnects == 0


# ---------------------------------------------------------------- servers that misbehave


@both
def test_a_traceback_is_an_error_and_the_next_request_connects_again(connect: Connect) -> None:
    """As servers of openpi do: a traceback as text, then they hang up."""
    connections = []

    def converse(socket: ServerConnection) -> None:
        connections.append(socket)
        socket.send(packb({"model": "pi"}))
        socket.recv()
        if len(connections) == 1:
            socket.send("Traceback (most recent call last):\nKeyError: 'observation/state'")
            socket.close(1011)
        else:
            socket.send(packb({"actions": np.ones((2, 3))}))

    with rude_server(converse) as url, connect(url, session="x") as client:
        with pytest.raises(PolicyError, match="KeyError: 'observation/state'") as caught:
            client.infer({"prompt": "go"})
        assert caught.value.name == "ServerError"
        assert client.infer({"prompt": "go"}).actions.shape == (2, 3)


@both
def test_no_answer_is_an_error_after_the_timeout(connect: Connect) -> None:
    def converse(socket: ServerConnection) -> None:
        socket.send(packb({}))
        for _ in socket:
            pass

    with rude_server(converse) as url, connect(url, timeout=0.3, retry=Retry(patience=0)) as client:
        began = time.monotonic()
        with pytest.raises(ConnectionLost, match=r"no answer within 0\.3 s"):
            client.infer({"prompt": "go"})
        assert time.monotonic() - began < 4


@both
def test_a_server_that_hangs_up_on_every_request_is_given_up(connect: Connect) -> None:
    """As for a request that is larger than it takes."""
    asked = []

    def converse(socket: ServerConnection) -> None:
        socket.send(packb({}))
        asked.append(socket.recv())
        socket.close(1009)

    with rude_server(converse) as url, connect(url, retry=Retry(patience=1.0)) as client:
        began = time.monotonic()
        with pytest.raises(ConnectionLost, match="the connection broke"):
            client.infer({"prompt": "go"})
        assert time.monotonic() - began < 10
        assert 2 <= len(asked) < 20, "tried again, and with pauses"


@both
def test_busy_is_asked_again_until_the_patience_ends(connect: Connect) -> None:
    asked = []

    def converse(socket: ServerConnection) -> None:
        socket.send(packb({}))
        for frame in socket:
            asked.append(frame)
            socket.send("Busy: 64 requests are waiting" if len(asked) % 10 < 3 else packb(np.zeros((1, 2))))

    with rude_server(converse) as url, connect(url, retry=SHORT) as client:
        assert client.infer({}).actions.shape == (1, 2)
        assert len(asked) == 3
        assert asked[0] == asked[1] == asked[2]
        asked[:] = [b""] * 9
        client._retry = Retry(patience=0)
        getattr(client, "_client", client)._retry = Retry(patience=0)
        with pytest.raises(PolicyError, match="Busy"):
            client.infer({})


@both
def test_a_request_that_was_lost_on_the_way_is_repeated_and_begins_anew(connect: Connect) -> None:
    from wam_client import unpackb

    asked: list[dict[str, Any]] = []

    def converse(socket: ServerConnection) -> None:
        socket.send(packb({}))
        for frame in socket:
            asked.append(unpackb(frame))
            if len(asked) == 2:
                socket.socket.close()
                return
            socket.send(packb({"actions": np.zeros((1, 2))}))

    with rude_server(converse) as url, connect(url, session="s") as client:
        client.infer({"n": 1})
        client.infer({"n": 2})
        client.infer({"n": 3})
    assert asked == [
        {"session_id": "s", "n": 1},
        {"session_id": "s", "n": 2},
        {"session_id": "s", "reset": True, "n": 2},
        {"session_id": "s", "n": 3},
    ]
