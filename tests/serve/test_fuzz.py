"""Malformed frames and clients without manners: no crash, no hang, no growth, and nobody else notices."""

from __future__ import annotations

import itertools
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serve.malformed import malformed, request
from tests.serve.servers import Client, Running, TinySource, request_of, serving
from tests.serve.test_websocket import episode, in_process
from tests.serve.test_zmq_socket import Gr00tClient
from websockets.exceptions import ConnectionClosed

from wam.serve.server import Where
from wam.serve.websocket import Door
from wam_client.wire import packb

COUNTS = [2_000, pytest.param(100_000, marks=pytest.mark.slow)]
GROWTH = 40 * 2**20  # bytes that a process may grow while it is bothered; a leak of 1 kB per frame would show


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving(
        TinySource(), where=Where(port=0, zmq_port=0), door=Door(frame_bytes=2**20, send_seconds=1.0)
    ) as server:
        yield server


class Bystander(threading.Thread):
    """A robot that drives on; its actions must be those of the engine alone."""

    def __init__(self, running: Running, seed: int) -> None:
        super().__init__()
        self._running, self._seed, self._end = running, seed, threading.Event()
        self.found: list[np.ndarray] = []
        self.errors: list[str] = []
        self.slowest = 0.0

    def run(self) -> None:
        calls = episode(20, self._seed)
        with Client(self._running.url) as client:
            for step in itertools.count():
                if self._end.is_set():
                    return
                began = time.monotonic()
                reply = client.ask(request_of(calls[step % 20], reset=step % 20 == 0, seed=self._seed))
                self.slowest = max(self.slowest, time.monotonic() - began)
                if isinstance(reply, str):
                    self.errors.append(reply)
                    return
                self.found.append(reply["actions"])
                time.sleep(0.02)

    def stop(self) -> None:
        """Raises AssertionError unless it was answered a few times, and everything it was answered is right."""
        deadline = time.monotonic() + 60
        while self.is_alive() and len(self.found) <= 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        self._end.set()
        self.join(60)
        assert not self.errors and len(self.found) > 3
        expected = np.stack(in_process(episode(20, self._seed), self._seed))
        for step, actions in enumerate(self.found):
            np.testing.assert_allclose(actions, expected[step % 20], rtol=0, atol=1e-5)
        assert self.slowest < 30.0  # it was never left hanging, however busy the machine


@pytest.mark.parametrize("count", COUNTS)
def test_malformed_frames_are_refused_one_by_one(running: Running, count: int) -> None:
    worker = running.server.service.supervisor.pid
    assert worker is not None
    frames = malformed(seed=1)
    with Client(running.url) as client:
        for frame in itertools.islice(frames, 500):  # whatever is allocated once, is now
            client.send(frame)
        before = resident(os.getpid()), resident(worker)
        bystander = Bystander(running, seed=5)
        bystander.start()
        for number, frame in enumerate(itertools.islice(frames, count)):
            reply = client.send(frame)
            assert isinstance(reply, str) and reply.startswith(("BadFrame: ", "BadRequest: ")), (number, frame[:200])
        bystander.stop()
        assert client.ask(request())["actions"].shape == (4, 2)
    assert running.server.service.supervisor.pid == worker, "the worker was restarted"
    grown = resident(os.getpid()) - before[0], resident(worker) - before[1]
    assert max(grown) < GROWTH, f"bytes grown, server and worker: {grown}"
    assert 'name="Internal"' not in running.get("/metrics")[1]


@pytest.mark.parametrize("count", [500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_malformed_frames_are_refused_by_the_zmq_socket(running: Running, count: int) -> None:
    before = resident(os.getpid())
    with Gr00tClient(running.started.zmq_port) as client:
        for frame in itertools.islice(malformed(seed=2), count):
            assert client.send(frame).keys() == {"error"}
        assert client.call("ping")["status"] == "ok"
    assert resident(os.getpid()) - before < GROWTH
    assert 'name="Internal"' not in running.get("/metrics")[1]


@pytest.mark.parametrize("count", [60, pytest.param(3_000, marks=pytest.mark.slow)])
def test_clients_without_manners(running: Running, count: int) -> None:
    """Requests without reading, texts, closing in the middle, resets of nothing, garbage before and after the
    handshake; meanwhile a robot drives on."""
    chance, frames = random.Random(3), malformed(seed=3)
    good = packb(request())
    bystander = Bystander(running, seed=6)
    bystander.start()

    def pipelined(client: Client) -> None:
        for _ in range(5):
            client.socket.send(good)

    def leaves_in_the_middle(client: Client) -> None:
        client.socket.send(good)
        client.socket.socket.shutdown(socket.SHUT_RDWR)

    def talks(client: Client) -> None:
        assert client.send("hello?").startswith("BadFrame")

    def resets_nothing(client: Client) -> None:
        assert client.ask({"endpoint": "reset", "session_id": "nobody"}) == "reset successful"

    def in_pieces(client: Client) -> None:
        client.socket.send([good[:10], good[10:100], good[100:]])
        assert isinstance(client.receive(), bytes)

    def too_large(client: Client) -> None:
        with pytest.raises(ConnectionClosed):
            client.send(b"x" * (2**20 + 1))

    def pings(client: Client) -> None:
        for _ in range(50):
            client.socket.ping()

    def not_even_http(client: Client) -> None:
        with socket.create_connection(("127.0.0.1", running.started.port), timeout=5) as raw:
            raw.sendall(next(frames))

    def breaks_the_protocol(client: Client) -> None:
        client.socket.socket.sendall(chance.randbytes(50))

    kinds: list[Any] = [
        pipelined,
        leaves_in_the_middle,
        talks,
        resets_nothing,
        in_pieces,
        too_large,
        pings,
        not_even_http,
        breaks_the_protocol,
    ]
    for number in range(count):
        with suppress(ConnectionClosed, OSError), Client(running.url) as client:
            kinds[number % len(kinds)](client)
    bystander.stop()
    deadline = time.monotonic() + 20
    while running.metric("wam_connections") > 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert running.metric("wam_connections") == 0
    with Client(running.url) as client:
        assert client.ask(request())["actions"].shape == (4, 2)
