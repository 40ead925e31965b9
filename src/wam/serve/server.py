"""A server from its options: the service, its doors, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wam.serve.backends import Source
from wam.serve.metadata import Served
from wam.serve.options import a_port, positive
from wam.serve.recording import Recorder
from wam.serve.robot_keys import MissingCamera
from wam.serve.service import Limits, Service
from wam.serve.supervisor import WorkerBroken
from wam.serve.websocket import Door, WebSocketDoor
from wam.serve.zmq_socket import ZmqDoor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Where:
    """Addresses. Port 0: the system chooses one.  zmq_port: of the GR00T dialect, None: not spoken.
    allow_kill: let GR00T clients end the server.  Raises ValueError naming what is no port."""

    host: str = "127.0.0.1"
    port: int = 8000
    zmq_port: int | None = None
    allow_kill: bool = False

    def __post_init__(self) -> None:
        a_port(port=self.port, zmq_port=self.zmq_port or 0)


@dataclass(frozen=True)
class Record:
    """Where to keep exchanges, and how many bytes of them. Raises ValueError for none."""

    folder: Path
    budget_bytes: int = 10 * 2**30

    def __post_init__(self) -> None:
        positive(record_gb=self.budget_bytes / 2**30)


@dataclass(frozen=True)
class Started:
    """Where a server listens and what it serves."""

    host: str
    port: int
    zmq_port: int | None
    served: Served


class WamServer:
    """`start`, then `stop`; or `run`, which does both."""

    def __init__(
        self,
        source: Source,
        where: Where | None = None,
        door: Door | None = None,
        limits: Limits | None = None,
        *,
        seed: int = 0,
        missing_camera: MissingCamera = "error",
        record: Record | None = None,
    ) -> None:
        self.service = Service(source, limits, seed=seed, missing_camera=missing_camera, on_broken=self.end)
        self._where, self._door, self._record = where or Where(), door or Door(), record
        self._recorder: Recorder | None = None
        self._websocket: WebSocketDoor | None = None
        self._zmq: ZmqDoor | None = None
        self._end = asyncio.Event()

    async def start(self) -> Started:
        """Load the model, then listen. Raises WorkerBroken, or OSError when a port is taken."""
        served = await self.service.start()
        where, record = self._where, self._record
        if record is not None:
            self._recorder = Recorder(record.folder, served, record.budget_bytes)
        self._websocket = WebSocketDoor(self.service, self._door, self._recorder)
        try:
            port = await self._websocket.open(where.host, where.port)
            zmq_port = None if where.zmq_port is None else self._open_zmq(where.host, where.zmq_port)
        except OSError:
            await self.stop()
            raise
        return Started(where.host, port, zmq_port, served)

    def _open_zmq(self, host: str, port: int) -> int:
        self._zmq = ZmqDoor(
            self.service,
            token=self._door.token,
            frame_bytes=self._door.frame_bytes,
            end=self.end if self._where.allow_kill else None,
            recorder=self._recorder,
        )
        return self._zmq.open(host, port)

    def end(self) -> None:
        """Let `run` return."""
        self._end.set()

    @property
    def ending(self) -> bool:
        """Whether it was told to end."""
        return self._end.is_set()

    async def run(self, on_started: Callable[[Started], None] = lambda started: None) -> None:
        """Serve until SIGTERM, SIGINT or `end`; then finish what is in flight and close.

        Raises WorkerBroken when the model cannot be started, or not again.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with suppress(NotImplementedError):  # not on every system
                loop.add_signal_handler(number, self._end.set)
        starting, ending = asyncio.ensure_future(self.start()), asyncio.ensure_future(self._end.wait())
        try:
            await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                on_started(starting.result())
            await ending
            logger.info("shutting down")
        finally:
            starting.cancel()
            ending.cancel()
            await self.stop()
        if self.service.supervisor.broken is not None:
            raise WorkerBroken(self.service.supervisor.broken)

    async def stop(self) -> None:
        """Finish what is in flight, then close everything."""
        await self.service.stop()
        if self._websocket is not None:
            await self._websocket.close()
        if self._zmq is not None:
            await self._zmq.close()
        if self._recorder is not None:
            await asyncio.to_thread(self._recorder.close)
