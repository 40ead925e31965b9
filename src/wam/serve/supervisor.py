"""Keeps one worker process alive, and passes jobs and answers between it and the server's event loop.

When the worker dies, everybody who waits is told (SessionLost), what all sessions remembered is gone, and a new process
is started at once; requests that come meanwhile wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

from wam.data.interrupts import deaf_to_interrupts
from wam.serve import link
from wam.serve.backends import Source
from wam.serve.errors import ServeError, bad_request
from wam.serve.metadata import Served
from wam.serve.options import positive
from wam.serve.worker import ENDING, work

logger = logging.getLogger(__name__)

ATTEMPTS = 5  # a worker that dies so often before it is ready will not get better


class WorkerBroken(RuntimeError):
    """The worker cannot be started; the message says what it said."""


@dataclass(frozen=True)
class Patience:
    """Seconds: to load a model, to compute a step, and to wait for a worker that is being restarted.

    Raises ValueError naming the one that is not above zero.
    """

    start: float = 600.0
    step: float = 120.0
    restart: float = 60.0

    def __post_init__(self) -> None:
        positive(start_seconds=self.start, step_seconds=self.step, restart_seconds=self.restart)


class Supervisor:
    """One worker, over and over."""

    def __init__(
        self,
        source: Source,
        *,
        batch: int = 8,
        patience: Patience | None = None,
        on_lost: Callable[[str], None] = lambda why: None,
        on_broken: Callable[[], None] = lambda: None,
    ) -> None:
        """on_lost: told why, whenever what the sessions remembered is gone.  on_broken: told when there is no worker
        any more, see `broken`."""
        self._source, self._batch, self._patience = source, batch, patience or Patience()
        self._on_lost, self._on_broken = on_lost, on_broken
        self._settled = asyncio.Event()  # set while there is a worker, or none will come any more
        self._stopping = False
        self._writer: asyncio.StreamWriter | None = None
        self._process: BaseProcess | None = None
        self._jobs: dict[int, asyncio.Future[link.Message]] = {}
        self._number = self._fruitless = 0
        self._heard = 0.0  # when the worker answered somebody
        self._first: asyncio.Future[Served] | None = None
        self._life: asyncio.Task[None] | None = None
        self.restarts = 0
        self.broken: str | None = None

    @property
    def ready(self) -> bool:
        return self._settled.is_set() and self.broken is None and not self._stopping

    @property
    def pending(self) -> int:
        """Jobs that wait for an answer."""
        return len(self._jobs)

    @property
    def pid(self) -> int | None:
        """Of the worker."""
        return None if self._process is None else self._process.pid

    async def start(self) -> Served:
        """Load the model. Raises WorkerBroken saying why it could not be."""
        self._first = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(self._keep_alive(), name="wam-serve-worker")
        return await self._first

    async def until_ready(self) -> None:
        """Wait for the worker, if it is being started. Raises ServeError (Unavailable) when that takes too long."""
        try:
            async with asyncio.timeout(self._patience.restart):
                await self._settled.wait()
        except TimeoutError:
            raise ServeError("Unavailable", "the model is being started again; ask again in a moment") from None
        if not self.ready:
            raise ServeError("Unavailable", self.broken or "the server is shutting down")

    async def step(self, job: dict[str, Any]) -> link.Message:
        """The next chunk of a session.

        Raises ServeError: SessionLost if the worker died over it, Unavailable if there is none, BadRequest if the
        policy refuses it.
        """
        await self.until_ready()
        self._number += 1
        number, answer = self._number, asyncio.get_running_loop().create_future()
        self._jobs[number] = answer
        try:
            self._send({**job, "job": number})
            message = await self._answered(answer)
        except TimeoutError:
            self._kill()
            raise ServeError(
                "SessionLost",
                f"the model did not answer within {self._patience.step:g} s and has been stopped; what this session "
                "remembered is gone: reset it, or send the request again to go on from the present frame",
            ) from None
        finally:
            self._jobs.pop(number, None)
        if "failed" in message:
            raise bad_request(message["message"])
        return message

    async def _answered(self, answer: asyncio.Future[link.Message]) -> link.Message:
        """Raises TimeoutError when the worker says nothing to anybody for as long as a step may take.

        Waiting behind others is no silence: it answers them meanwhile.
        """
        asked = time.monotonic()
        while not answer.done():
            left = max(asked, self._heard) + self._patience.step - time.monotonic()
            if left <= 0:
                raise TimeoutError
            await asyncio.wait((answer,), timeout=left)
        return answer.result()

    def drop(self, session: int) -> None:
        """The session's memory is not needed any more."""
        if self._writer is not None and self.ready:
            self._send({"drop": session})

    async def stop(self) -> None:
        """End the worker, at once if it is still loading. Whoever still waits is told."""
        loading, self._stopping = not self._settled.is_set(), True
        if loading:
            self._kill()
        self._settled.set()
        if self._writer is not None:
            self._writer.close()  # the worker goes home at the end of its link
        if self._process is not None:
            await asyncio.to_thread(self._process.join, 10.0)
            self._kill()
        if self._life is not None:
            self._life.cancel()
            with suppress(asyncio.CancelledError):
                await self._life

    # ---------------------------------------------------------------- one life after another

    async def _keep_alive(self) -> None:
        while not self._stopping:
            why = await self._live()
            self._fail_all(why)
            self._on_lost(why)
            if self._stopping or self.broken is not None:
                return
            self._fruitless += 1
            if self._fruitless > ATTEMPTS:
                self._give_up(f"the model's process died {ATTEMPTS} times before it was ready; the last time: {why}")
                return
            self.restarts += 1
            logger.warning("%s; starting another", why)
            await asyncio.sleep(min(0.1 * 2**self._fruitless, 5.0))

    async def _live(self) -> str:
        """Start a worker and read what it says until it is gone; returns why."""
        ours, theirs = socket.socketpair()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=work, args=(theirs, self._source, self._batch), name="wam-serve-worker")
        began = time.monotonic()
        with deaf_to_interrupts(ENDING):  # some ms; in a thread, the server could be told to end before it is done
            self._process.start()
        theirs.close()
        ours.setblocking(False)
        reader, self._writer = await asyncio.open_connection(sock=ours)
        try:
            async with asyncio.timeout(self._patience.start):
                hello = await link.receive(reader)
            if "broken" in hello:
                self._give_up(hello["broken"])
                return "the model could not be loaded"
            self._begin(Served.from_dict(hello["ready"]), time.monotonic() - began)
            while True:
                self._hear(await link.receive(reader))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except TimeoutError:
            self._kill()
        finally:
            self._writer.close()
            self._not_ready()
        process = self._process
        await asyncio.to_thread(process.join, 10.0)
        return f"the model's process died (exit code {process.exitcode})"

    def _begin(self, served: Served, seconds: float) -> None:
        logger.info("the model is ready after %.1f s (process %s)", seconds, self.pid)
        self._fruitless = 0
        self._settled.set()
        if self._first is not None and not self._first.done():
            self._first.set_result(served)

    def _hear(self, message: link.Message) -> None:
        self._heard = time.monotonic()
        answer = self._jobs.get(message["done"] if "done" in message else message["failed"])
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _send(self, message: link.Message) -> None:
        assert self._writer is not None
        self._writer.write(link.encode(message))

    def _fail_all(self, why: str) -> None:
        for answer in self._jobs.values():
            if not answer.done():
                answer.set_exception(lost(why))

    def _give_up(self, why: str) -> None:
        self.broken = why
        self._settled.set()
        if self._first is not None and not self._first.done():
            self._first.set_exception(WorkerBroken(why))
        else:
            self._on_broken()

    def _not_ready(self) -> None:
        """Let requests wait for the next worker, if there will be one."""
        if not self._stopping and self.broken is None:
            self._settled.clear()

    def _kill(self) -> None:
        self._not_ready()
        if self._process is not None and self._process.is_alive():
            self._process.kill()


def lost(why: str) -> ServeError:
    """What a session is told whose memory is gone."""
    return ServeError(
        "SessionLost",
        f"{why}; what this session remembered is gone: reset it, or send the request again to go on from the present "
        "frame",
    )
