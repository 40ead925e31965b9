"""The websocket: openpi's and RoboArena's dialects, `GET /healthz` and `GET /metrics`, all on one port.

Every connection is answered in order, one request at a time. A request that cannot be answered gets a text frame,
"NAME: message" (`errors.py`), and the connection stays open, so that the client may go on.
"""

from __future__ import annotations

import asyncio
import hmac
import http
import itertools
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Origin

from wam.serve.dialects import openpi, roboarena
from wam.serve.errors import ServeError, bad_request, refusal
from wam.serve.metadata import handshake
from wam.serve.options import at_least, positive
from wam.serve.recording import Exchange, Recorder
from wam.serve.request import Reset
from wam.serve.service import Service
from wam_client.wire import Limits as WireLimits
from wam_client.wire import WireError, packb, unpackb

logger = logging.getLogger(__name__)

PING_SECONDS, PING_TIMEOUT = 20.0, 120.0  # a client may be deep in a simulation step


@dataclass(frozen=True)
class Door:
    """Who may come in, and what they may bring.

    token: asked for as `Authorization: Api-Key <token>`, None: anybody.  origins: web pages that may connect; without
    any, no browser can.  frame_bytes: of one request.  connections: at once.  send_seconds: for a client
    to take a reply.

    Raises ValueError naming the option that would let nobody in.
    """

    token: str | None = None
    origins: tuple[str, ...] = ()
    frame_bytes: int = 64 * 2**20
    connections: int = 256
    send_seconds: float = 10.0

    def __post_init__(self) -> None:
        at_least(1, connections=self.connections)
        positive(frame_mb=self.frame_bytes / 2**20, send_seconds=self.send_seconds)


class WebSocketDoor:
    """Connections to a service."""

    def __init__(self, service: Service, door: Door | None = None, recorder: Recorder | None = None) -> None:
        self._service, self._door, self._recorder = service, door or Door(), recorder
        self._limits = WireLimits(frame_bytes=self._door.frame_bytes)
        self._names = itertools.count(1)
        self._server: Server | None = None
        self._open = 0

    async def open(self, host: str, port: int) -> int:
        """Listen; returns the port, which the system chooses if it is 0."""
        self._server = await serve(
            self._converse,
            host,
            port,
            compression=None,
            max_size=self._door.frame_bytes,
            max_queue=2,
            origins=[None, *map(Origin, self._door.origins)],
            process_request=self._process_request,
            ping_interval=PING_SECONDS,
            ping_timeout=PING_TIMEOUT,
            server_header=None,
        )
        return int(next(iter(self._server.sockets)).getsockname()[1])

    async def close(self) -> None:
        """Close the connections (going away)."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    # ---------------------------------------------------------------- before the conversation

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path == "/healthz":
            healthy = self._service.healthy
            status = http.HTTPStatus.OK if healthy else http.HTTPStatus.SERVICE_UNAVAILABLE
            return connection.respond(status, "OK\n" if healthy else "the model is not ready\n")
        if not self._knows(request.headers.get("Authorization")):
            return connection.respond(
                http.HTTPStatus.UNAUTHORIZED, "Unauthorized: expected Authorization: Api-Key TOKEN\n"
            )
        if path == "/metrics":
            self._service.refresh_metrics()
            self._service.metrics.connections.set(self._open)
            self._service.metrics.record_dropped.set(0 if self._recorder is None else self._recorder.dropped)
            return connection.respond(http.HTTPStatus.OK, self._service.metrics.text())
        if self._open >= self._door.connections:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "Busy: too many connections\n")
        return None

    def _knows(self, authorization: str | None) -> bool:
        if self._door.token is None:
            return True
        return hmac.compare_digest((authorization or "").encode(), f"Api-Key {self._door.token}".encode())

    # ---------------------------------------------------------------- the conversation

    async def _converse(self, socket: ServerConnection) -> None:
        name = f"connection-{next(self._names)}"
        path = "/" if socket.request is None else socket.request.path.partition("?")[0]
        self._open += 1
        logger.info("%s: from %s", name, socket.remote_address)
        try:
            await socket.send(packb(handshake(self._service.served, path)))
            previous: float | None = None
            async for frame in socket:
                began = time.perf_counter()
                await self._send(socket, await self._reply(frame, name, previous))
                previous = time.perf_counter() - began
        except ConnectionClosed:
            pass
        except ConnectionError as problem:
            logger.info("%s: %s", name, problem)
        finally:
            self._open -= 1
            self._service.disconnect(name)
            logger.info("%s: closed", name)

    async def _send(self, socket: ServerConnection, reply: bytes | str) -> None:
        """A client that does not take its reply, or has left requests behind on leaving, is cut off."""
        try:
            async with asyncio.timeout(self._door.send_seconds):
                await socket.send(reply)
        except TimeoutError:
            socket.transport.abort()
            raise ConnectionError(f"the client did not take its reply within {self._door.send_seconds:g} s") from None

    async def _reply(self, frame: bytes | str, name: str, previous: float | None) -> bytes | str:
        """The reply to a frame: binary, or text for the end of an episode and for errors."""
        try:
            return await self._answer(self._request(frame), frame, name, previous)
        except Exception as problem:
            refused = refusal(problem, name)
        self._service.metrics.errors.labels(refused.name).inc()
        logger.info("%s: %s", name, refused)
        return str(refused)

    def _request(self, frame: bytes | str) -> Mapping[str, Any]:
        if isinstance(frame, str):
            raise ServeError("BadFrame", "a text frame; requests are binary, a msgpack map")
        try:
            request = unpackb(frame, self._limits)
        except WireError as problem:
            raise ServeError("BadFrame", str(problem)) from problem
        if not isinstance(request, dict):
            raise bad_request(f"found {type(request).__name__}, expected a map of observations")
        if not all(isinstance(key, str) for key in request):
            raise bad_request("a key is not text")
        return request

    async def _answer(
        self, request: Mapping[str, Any], frame: bytes | str, name: str, previous: float | None
    ) -> bytes | str:
        arena = roboarena.is_roboarena(request)
        dialect = "roboarena" if arena else "openpi"
        ask = roboarena.read(request, self._service.keys) if arena else openpi.read(request, self._service.keys)
        if isinstance(ask, Reset):
            await self._service.reset(ask, name, dialect)
            return roboarena.RESET_DONE
        answer = await self._service.infer(ask, name, dialect)
        reply = roboarena.write(answer) if arena else openpi.write(answer, previous)
        if self._recorder is not None and isinstance(frame, bytes):
            self._recorder.keep(Exchange(dialect, frame, reply, answer))
        return reply
