"""The process that holds the model: takes what has arrived, steps those sessions together, answers, again and again.

Batches form by themselves: while one is computed, the next requests arrive. A session that is alone never waits.
"""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from wam.data.errors import PLAIN
from wam.engine.policy import ActionChunk
from wam.robot.observation import Observation
from wam.serve.backends import Backend, Source, Turn
from wam.serve.link import Message, WorkerEnd

logger = logging.getLogger(__name__)

ENDING = (signal.SIGINT, signal.SIGTERM)  # sent to all processes at once, but the server's business


def work(link: socket.socket, source: Source, batch: int) -> None:
    """The life of the process. It ends when the server does, however that ends."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # blocked so far, which processes of ours would inherit
    server = WorkerEnd(link)
    try:
        backend = source.open()
        backend.warm_up(batch)
    except PLAIN as problem:  # the user's to mend, and the message says how
        server.send({"broken": str(problem)})
        return
    except Exception as problem:  # whatever it is, the server must say it and stop
        logger.exception("the model could not be loaded")
        server.send({"broken": f"{type(problem).__name__}: {problem}"})
        return
    with suppress(EOFError, ConnectionError):  # the server is gone
        server.send({"ready": backend.served.to_dict()})
        Worker(server, backend, batch).run()


class Worker:
    """Sessions by number, and the jobs that wait for them."""

    def __init__(self, server: WorkerEnd, backend: Backend, batch: int) -> None:
        self._server, self._backend, self._batch = server, backend, batch if backend.together else 1
        self._memories: dict[int, Any] = {}
        self._waiting: list[tuple[float, Message]] = []

    def run(self) -> None:
        """Until the server is gone (EOFError). Any error that is not about a request ends the process: a new one is
        better than one in an unknown state."""
        while True:
            while not self._waiting or self._server.waiting():
                self._take(self._server.receive())
            jobs, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
            self._answer(jobs)

    def _take(self, message: Message) -> None:
        if "drop" in message:
            self._memories.pop(message["drop"], None)
        else:
            self._waiting.append((time.perf_counter(), message))

    def _answer(self, jobs: Sequence[tuple[float, Message]]) -> None:
        began = time.perf_counter()
        turns = [self._turn(job) for _, job in jobs]
        try:
            chunks = self._backend.steps(turns)
        except ValueError as problem:
            if len(jobs) > 1:  # one of them does not fit: find out which
                for alone in jobs:
                    self._answer([alone])
                return
            self._server.send({"failed": jobs[0][1]["job"], "message": str(problem)})
            return
        spent = time.perf_counter() - began
        for (arrived, job), chunk in zip(jobs, chunks, strict=True):
            self._server.send(_done(job["job"], chunk, spent, began - arrived, len(jobs)))

    def _turn(self, job: Message) -> Turn:
        number = job["session"]
        if number not in self._memories:
            self._memories[number] = self._backend.open(job["seed"])
        return Turn(self._memories[number], looks_of(job), job["anew"], job["executing"])


def looks_of(job: Mapping[str, Any]) -> list[Observation]:
    """The looks of a job, all with the present state: the model reads no other."""
    images, state, times = job["images"], np.array(job["state"]), job["times"]  # torch wants a state it may write to
    return [
        Observation({camera: video[i] for camera, video in images.items()}, state, job["instruction"], float(times[i]))
        for i in range(len(times))
    ]


def _done(job: int, chunk: ActionChunk, spent: float, waited: float, batch: int) -> Message:
    return {
        "done": job,
        "actions": np.ascontiguousarray(chunk.actions, np.float32),
        "dream": chunk.dream,
        "seconds": dict(chunk.seconds) or {"act": spent},
        "waited": waited,
        "batch": batch,
    }
