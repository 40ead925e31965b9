"""The episodes that are going on: one session per robot, however many robots share a connection.

Bounded: the longest idle session makes room for a new one, unless a robot has used it a moment ago.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from wam.serve.errors import ServeError
from wam.serve.request import Who

Key = tuple[str, str, str | None]  # "session" or "connection", its name, the environment
WAITING = 2  # requests that may wait for one session
GRACE = 30.0  # seconds for which a session is not pushed out by a new one


@dataclass(eq=False)
class Session:
    """One robot's episode, as the server sees it; what it remembers lives in the worker under `number`.

    previous_time: of the present frame of the last request.  lost: why what it remembered is gone, until it was told.
    """

    key: Key
    label: str
    number: int
    seed: int
    episode: int = 0
    begun: bool = False
    chunks: int = 0
    previous_time: float | None = None
    lost: str | None = None
    last_used: float = 0.0
    waiting: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    told: set[str] = field(default_factory=set)

    def enter(self) -> None:
        """Take a place in front of the session. Raises ServeError (Busy) when there is none."""
        if self.waiting > WAITING:
            raise ServeError(
                "Busy",
                f"session {self.label}: a request is being answered and {WAITING} are waiting; wait for the answer "
                "before sending the next one",
            )
        self.waiting += 1

    def leave(self) -> None:
        self.waiting -= 1


class SessionTable:
    """Sessions by key. `drop` is told the number of every session whose memory is not needed any more."""

    def __init__(
        self,
        drop: Callable[[int], None],
        *,
        limit: int = 64,
        idle_seconds: float = 600.0,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._drop, self._limit, self._idle, self._seed, self._clock = drop, limit, idle_seconds, seed, clock
        self._sessions: dict[Key, Session] = {}
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, who: Who, connection: str, seed: int | None = None) -> Session:
        """The session of a request, a new one if need be. Raises ServeError (Busy) when there are too many."""
        key = key_of(who, connection)
        session = self._sessions.get(key)
        if session is None:
            self._make_room()
            session = Session(key, label_of(who, connection), self._number(), self._seed_of(key, 0, seed))
            self._sessions[key] = session
        session.last_used = self._clock()
        return session

    def matching(self, who: Who, connection: str) -> list[Session]:
        """All that a request without observations may mean: without an environment, every one of the session."""
        kind, name, env = key_of(who, connection)
        return [s for s in self._sessions.values() if s.key[:2] == (kind, name) and env in (None, s.key[2])]

    def by_key(self, key: Key) -> Session | None:
        return self._sessions.get(key)

    def renew(self, session: Session, seed: int | None = None) -> None:
        """A new episode in the same session."""
        self._drop(session.number)
        session.episode += 1
        session.number, session.seed = self._number(), self._seed_of(session.key, session.episode, seed)
        session.begun, session.chunks, session.previous_time, session.lost = False, 0, None, None

    def close(self, keys: Iterable[Key]) -> None:
        """Their robots are gone."""
        for key in list(keys):
            session = self._sessions.pop(key, None)
            if session is not None:
                self._drop(session.number)

    def evict_idle(self) -> list[str]:
        """End the sessions that nobody has used for long; returns their labels."""
        limit = self._clock() - self._idle
        idle = [s for s in self._sessions.values() if s.last_used < limit and not s.waiting]
        self.close(session.key for session in idle)
        return [session.label for session in idle]

    def lose_all(self, why: str) -> None:
        """What every session remembered is gone; each is told once."""
        for session in self._sessions.values():
            if session.begun:
                session.lost = why
            session.begun, session.previous_time, session.number = False, None, self._number()

    def _make_room(self) -> None:
        if len(self._sessions) < self._limit:
            return
        now = self._clock()
        old = [s for s in self._sessions.values() if not s.waiting and now - s.last_used > min(GRACE, self._idle)]
        if not old:
            raise ServeError(
                "Busy", f"{len(self._sessions)} sessions are active, at most {self._limit} are taken; ask again later"
            )
        self.close([min(old, key=lambda s: s.last_used).key])

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _seed_of(self, key: Key, episode: int, seed: int | None) -> int:
        """The client's, or one that only the server's seed, the session's name and the episode decide."""
        if seed is not None:
            return seed
        return int.from_bytes(hashlib.sha256(f"{self._seed}/{key}/{episode}".encode()).digest()[:4], "big")


def key_of(who: Who, connection: str) -> Key:
    """A named session is the same on every connection; an environment or nothing counts within its connection."""
    if who.session is not None:
        return ("session", who.session, who.env)
    return ("connection", connection, who.env)


def label_of(who: Who, connection: str) -> str:
    """For people and file names; another one for every session."""
    name = who.session if who.session is not None else connection
    label = name if who.env is None else f"{name}.{who.env}"
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in label)[:80]
    if who.env is None and plain == label:
        return label
    return f"{plain}-{hashlib.sha256(repr(key_of(who, connection)).encode()).hexdigest()[:8]}"
