"""Servers for tests: in a thread of this process, on a free port of the loopback, with processes of their own."""

from __future__ import annotations

import asyncio
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from tests.engine.robots import tiny_engine
from websockets.sync.client import ClientConnection, connect

from wam.engine.engine import EngineConfig
from wam.serve.backends import Backend, EngineBackend, Source
from wam.serve.server import Started, WamServer
from wam_client.wire import packb, unpackb


@dataclass(frozen=True)
class TinySource:
    """The tiny engine of the engine's tests."""

    config: EngineConfig | None = None

    def open(self) -> Backend:
        return EngineBackend(tiny_engine(self.config), "tiny", "test")


@dataclass
class Running:
    """A server and the thread that it runs in."""

    server: WamServer
    started: Started
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.started.port}"

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
        """Status and text of a page."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.started.port}{path}", headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=10) as page:
                return page.status, page.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    def metric(self, line: str) -> float:
        """The value of a metric, by name and labels as on the page; 0 if it is not there."""
        page = self.get("/metrics")[1]
        found = [row.rsplit(" ", 1)[1] for row in page.splitlines() if row.rsplit(" ", 1)[0] == line]
        return float(found[0]) if found else 0.0


@contextmanager
def serving(source: Source, *args: Any, **options: Any) -> Iterator[Running]:
    """Options as of WamServer; the port is a free one unless `where` says otherwise."""
    from wam.serve.server import Where

    options.setdefault("where", Where(port=0))
    ready: list[Running | BaseException] = []
    began, end = threading.Event(), threading.Event()

    async def live() -> None:
        server = WamServer(source, *args, **options)
        try:
            ready.append(Running(server, await server.start(), asyncio.get_running_loop()))
        except BaseException as problem:
            ready.append(problem)
            return
        finally:
            began.set()
        await asyncio.to_thread(end.wait)
        await server.stop()

    thread = threading.Thread(target=lambda: asyncio.run(live()), name="server-under-test")
    thread.start()
    try:
        assert began.wait(120), "the server did not start"
        if isinstance(ready[0], BaseException):
            raise ready[0]
        yield ready[0]
    finally:
        end.set()
        thread.join(60)
        assert not thread.is_alive(), "the server did not stop"


class Client:
    """A client without manners or opinions: sends what it is told, returns what comes back."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self._open = ExitStack()
        self.socket: ClientConnection = self._open.enter_context(
            connect(url, compression=None, max_size=None, additional_headers=headers, open_timeout=20, close_timeout=5)
        )
        self.hello = self.receive()
        self.metadata: dict[str, Any] = unpackb(self.hello)

    def receive(self, timeout: float = 60.0) -> Any:
        return self.socket.recv(timeout)

    def send(self, frame: bytes | str) -> Any:
        """One request, its raw reply."""
        self.socket.send(frame)
        return self.receive()

    def ask(self, request: dict[str, Any]) -> Any:
        """One request; the reply decoded, text as it is."""
        reply = self.send(packb(request))
        return reply if isinstance(reply, str) else unpackb(reply)

    def close(self) -> None:
        self._open.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def request_of(observations: list[Any], **extra: Any) -> dict[str, Any]:
    """Observations of the engine as one request, with time stamps."""
    cameras = observations[-1].images
    return {
        **{f"observation/images/{name}": np.stack([look.images[name] for look in observations]) for name in cameras},
        "observation/state": observations[-1].state,
        "prompt": observations[-1].instruction,
        "timestamp_s": np.array([look.timestamp for look in observations]),
        **extra,
    }
