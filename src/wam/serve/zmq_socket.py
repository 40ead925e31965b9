"""The ZMQ socket of GR00T's dialect. A ROUTER instead of GR00T's REP, so that clients do not wait for one another."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable
from typing import Any

import zmq
import zmq.asyncio

from wam.serve.dialects import gr00t, openpi
from wam.serve.errors import ServeError, bad_request, refusal
from wam.serve.recording import Exchange, Recorder
from wam.serve.request import Reset, Who
from wam.serve.service import Service
from wam_client.wire import Limits

logger = logging.getLogger(__name__)

DIALECT = "gr00t"
PENDING = 64  # requests that are being answered; beyond, they wait in the socket


class ZmqDoor:
    """GR00T clients of a service. token: asked for as `api_token`.  end: ends the server, for `kill`; None: refused."""

    def __init__(
        self,
        service: Service,
        *,
        token: str | None = None,
        frame_bytes: int = 64 * 2**20,
        end: Callable[[], None] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._service, self._token, self._end, self._recorder = service, token, end, recorder
        self._limits = Limits(frame_bytes=frame_bytes)
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, frame_bytes)
        self._socket.setsockopt(zmq.RCVHWM, 4)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(PENDING)
        self._listener: asyncio.Task[None] | None = None

    def open(self, host: str, port: int) -> int:
        """Listen; returns the port, which the system chooses if it is 0. Raises OSError if it is taken."""
        try:
            self._socket.bind(f"tcp://{host}:{port or '*'}")
        except zmq.ZMQError as problem:
            raise OSError(f"tcp://{host}:{port}: {problem}") from problem
        self._listener = asyncio.create_task(self._listen(), name="wam-serve-zmq")
        return int(self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])

    async def close(self) -> None:
        """Send what is being answered, then close."""
        if self._listener is not None:
            self._listener.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10.0)
        self._socket.close()
        self._context.term()

    async def _listen(self) -> None:
        while True:
            frames = await self._socket.recv_multipart()
            await self._room.acquire()
            task = asyncio.create_task(self._answer(frames))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()

    async def _answer(self, frames: list[bytes]) -> None:
        """frames: whose request it is, an empty one, the request."""
        client = f"gr00t-{frames[0].hex()}"
        try:
            reply = await self._reply(frames[-1], client)
        except Exception as problem:
            refused = refusal(problem, client)
            self._service.metrics.errors.labels(refused.name).inc()
            logger.info("%s: %s", client, refused)
            reply = gr00t.error(str(refused))
        await self._socket.send_multipart([*frames[:-1], reply])

    async def _reply(self, frame: bytes, client: str) -> bytes:
        request = gr00t.unpack(frame, self._limits)
        token = request.get("api_token")
        if self._token is not None and not hmac.compare_digest(str(token).encode(), self._token.encode()):
            raise ServeError("Unauthorized", "Invalid API token")
        endpoint, data = str(request.get("endpoint", "get_action")), request.get("data")
        if endpoint == "get_action":
            return await self._get_action(frame, data, client)
        if endpoint == "ping":
            return gr00t.pack({"status": "ok", "message": "Server is running"})
        if endpoint == "reset":
            await self._reset(gr00t.options_of(data), client)
            return gr00t.pack({})
        if endpoint == "get_modality_config":
            served = self._service.served
            return gr00t.pack(gr00t.modality_config(served.robot, served.cadence, served.remembers))
        if endpoint == "kill":
            return self._kill()
        raise bad_request(
            f"'endpoint': found {endpoint[:80]!r}; there are get_action, reset, ping, kill, get_modality_config"
        )

    async def _get_action(self, frame: bytes, data: Any, client: str) -> bytes:
        asks = gr00t.read(data, self._service.keys)
        answers = await asyncio.gather(*(self._service.infer(ask, client, DIALECT) for ask in asks))
        reply = gr00t.write(answers, self._service.served.robot, data)
        if self._recorder is not None:
            for answer in answers:
                self._recorder.keep(Exchange(DIALECT, frame, reply, answer))
        return reply

    async def _reset(self, options: dict[str, Any], client: str) -> None:
        who = Who(openpi.who(options).session)
        await self._service.reset(Reset(who, openpi.seed(options)), client, DIALECT)

    def _kill(self) -> bytes:
        if self._end is None:
            raise ServeError("Unauthorized", "this server is not ended by clients; start it with --allow-kill for that")
        asyncio.get_running_loop().call_later(0.1, self._end)  # after the answer
        return gr00t.pack(None)
