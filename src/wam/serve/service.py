"""The heart of the server, without sockets: a request in, an answer out, whatever dialect it came in."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from wam.serve.backends import Source
from wam.serve.cadence import Choice, choose
from wam.serve.errors import ServeError, bad_request
from wam.serve.metadata import Served
from wam.serve.metrics import Metrics
from wam.serve.options import at_least, positive
from wam.serve.request import Answer, Infer, Reset
from wam.serve.robot_keys import MissingCamera, RobotKeys
from wam.serve.sessions import Key, Session, SessionTable
from wam.serve.supervisor import Patience, Supervisor, lost

logger = logging.getLogger(__name__)

HOUSEKEEPING = 5.0  # seconds between looks for idle sessions


@dataclass(frozen=True)
class Limits:
    """sessions: episodes at once.  waiting: requests at once, over all sessions.  idle_seconds: until a session that
    nobody uses is ended.  batch: sessions that are computed together.  patience: see `Patience`.

    Raises ValueError naming the option that would leave nobody served.
    """

    sessions: int = 64
    waiting: int = 64
    idle_seconds: float = 600.0
    batch: int = 8
    patience: Patience = Patience()

    def __post_init__(self) -> None:
        at_least(1, sessions=self.sessions, waiting=self.waiting, batch=self.batch)
        positive(idle_seconds=self.idle_seconds)


class Service:
    """A policy in a worker process, and the sessions that use it."""

    def __init__(
        self,
        source: Source,
        limits: Limits | None = None,
        *,
        seed: int = 0,
        missing_camera: MissingCamera = "error",
        on_broken: Callable[[], None] = lambda: None,
    ) -> None:
        """on_broken: called when the model cannot be started any more, see `Supervisor`."""
        self.limits, self.metrics = limits or Limits(), Metrics()
        self._missing_camera: MissingCamera = missing_camera
        self.supervisor = Supervisor(
            source,
            batch=self.limits.batch,
            patience=self.limits.patience,
            on_lost=self._lose_all,
            on_broken=on_broken,
        )
        self.sessions = SessionTable(
            self.supervisor.drop, limit=self.limits.sessions, idle_seconds=self.limits.idle_seconds, seed=seed
        )
        self._touched: dict[str, set[Key]] = defaultdict(set)  # connection -> its sessions
        self._at_once = 0
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._housekeeper: asyncio.Task[None] | None = None

    async def start(self) -> Served:
        """Load the model. Raises WorkerBroken saying why it could not be."""
        self.served = served = await self.supervisor.start()
        self.keys = RobotKeys(served.robot, self._missing_camera)
        self._housekeeper = asyncio.create_task(self._keep_house(), name="wam-serve-housekeeper")
        return served

    async def stop(self, patience: float = 30.0) -> None:
        """Take no more requests, let those in flight finish, end the worker."""
        self._stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._idle.wait()
        if self._housekeeper is not None:
            self._housekeeper.cancel()
        await self.supervisor.stop()

    @property
    def healthy(self) -> bool:
        """Whether a request would be answered now."""
        return self.supervisor.ready and not self._stopping

    # ---------------------------------------------------------------- requests

    async def infer(self, ask: Infer, connection: str, dialect: str) -> Answer:
        """The next actions. Raises ServeError."""
        began = time.perf_counter()
        self._admit()
        session = self.sessions.get(ask.who, connection, ask.seed)
        self._touched[connection].add(session.key)
        session.enter()
        self._at_once += 1
        self._idle.clear()
        try:
            async with session.lock:
                answer = await self._next_chunk(session, ask, began)
        finally:
            session.leave()
            self._at_once -= 1
            if not self._at_once:
                self._idle.set()
        self.metrics.count(answer, dialect)
        return answer

    async def reset(self, ask: Reset, connection: str, dialect: str) -> None:
        """End the episode of a session, or of all that the connection has used, if it names none."""
        self.metrics.resets.labels(dialect).inc()
        known = self.sessions.matching(ask.who, connection)
        if ask.who.session is None and ask.who.env is None:
            named = (self.sessions.by_key(key) for key in self._touched.get(connection, ()))
            known += [session for session in named if session is not None and session not in known]
        for session in known:
            session.enter()
            try:
                async with session.lock:
                    self.sessions.renew(session, ask.seed)
            finally:
                session.leave()
        if not known and ask.seed is not None:
            session = self.sessions.get(ask.who, connection, ask.seed)
            self._touched[connection].add(session.key)

    def disconnect(self, connection: str) -> None:
        """A connection is gone, and with it the sessions that have no other name; named ones may come back."""
        touched = self._touched.pop(connection, set())
        self.sessions.close(key for key in touched if key[0] == "connection")

    def refresh_metrics(self) -> None:
        """What is read rather than counted."""
        self.metrics.ready.set(self.healthy)
        self.metrics.sessions.set(len(self.sessions))
        self.metrics.pending.set(self.supervisor.pending)
        self.metrics.restarts.set(self.supervisor.restarts)

    # ---------------------------------------------------------------- one chunk

    async def _next_chunk(self, session: Session, ask: Infer, began: float) -> Answer:
        await self.supervisor.until_ready()  # before looking at what the session has lost; nothing waits from here on
        if ask.anew or (ask.seed is not None and ask.seed != session.seed and not session.begun):
            self.sessions.renew(session, ask.seed)
        if session.lost is not None:
            why, session.lost = session.lost, None
            raise lost(why)
        choice = choose(
            self.served.cadence,
            ask.seen.frames,
            ask.seen.times,
            begun=session.begun,
            previous=session.previous_time,
            remembers=self.served.remembers,
        )
        job = self._job(session, ask, choice)
        try:
            done = await self.supervisor.step(job)
        except ServeError as problem:
            if problem.name == "SessionLost":
                session.begun, session.lost = False, None  # it has been told
            raise
        if session.number == job["session"]:
            session.begun = True
            session.previous_time = None if ask.seen.times is None else float(ask.seen.times[-1])
        session.chunks += 1
        actions = np.asarray(done["actions"])
        if not np.isfinite(actions).all():
            self.sessions.renew(session, session.seed)
            raise lost("the model's actions were not finite and have been withheld")
        return Answer(
            actions=actions,
            execute=self.served.execute,
            choice=choice,
            session=session.label,
            seed=session.seed,
            chunk=session.chunks - 1,
            episode=session.episode,
            seconds=done["seconds"],
            queue_seconds=done["waited"],
            total_seconds=time.perf_counter() - began,
            batch=done["batch"],
            notes=self._notes(session, ask, choice),
            dream=done["dream"],
            send_dream=ask.wants_dream,
        )

    def _job(self, session: Session, ask: Infer, choice: Choice) -> dict[str, Any]:
        """What the worker needs, and no more. Raises ServeError for what it could not use."""
        robot, seen, frames = self.served.robot, ask.seen, list(choice.frames)
        held = ask.executing
        if held is not None and (
            held.shape[1] != robot.action_dim or len(held) >= robot.actions_per_chunk or not np.isfinite(held).all()
        ):
            raise bad_request(
                f"'executing': found shape {held.shape}, expected (n, {robot.action_dim}) finite numbers with n < "
                f"{robot.actions_per_chunk}"
            )
        whole = frames == list(range(seen.frames))
        times = np.zeros(seen.frames) if seen.times is None else seen.times
        return {
            "session": session.number,
            "seed": session.seed,
            "anew": choice.anew,
            "images": {camera: video if whole else video[frames] for camera, video in seen.images.items()},
            "state": seen.state,
            "instruction": seen.instruction,
            "times": times[frames],
            "executing": held,
        }

    def _notes(self, session: Session, ask: Infer, choice: Choice) -> tuple[str, ...]:
        """What the client should know, each thing once per session: in the answer, and in the log."""
        notes = {note: note for note in ask.notes}  # what is said once -> how it is said this time
        if ask.unknown:
            notes["unknown keys"] = f"keys that nobody needs: {list(ask.unknown)[:20]}"
        if choice.guessed:
            notes[choice.how] = f"frames: {choice.how}: {choice.why}"
        fresh = {what: note for what, note in notes.items() if what not in session.told}
        session.told.update(fresh)
        for note in fresh.values():
            logger.warning("session %s: %s", session.label, note)
        return tuple(fresh.values())

    def _admit(self) -> None:
        if self._stopping:
            raise ServeError("Unavailable", "the server is shutting down")
        if self._at_once >= self.limits.waiting:
            raise ServeError("Busy", f"{self._at_once} requests are waiting, at most {self.limits.waiting} are taken")

    def _lose_all(self, why: str) -> None:
        self.sessions.lose_all(why)

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(min(HOUSEKEEPING, self.limits.idle_seconds / 2))
            for connection, keys in list(self._touched.items()):
                keys -= {key for key in keys if self.sessions.by_key(key) is None}
                if not keys:
                    del self._touched[connection]
            for label in self.sessions.evict_idle():
                self.metrics.evicted.inc()
                logger.info("session %s: ended, nobody used it for %g s", label, self.limits.idle_seconds)
