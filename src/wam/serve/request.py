"""What a robot asks, whatever dialect it speaks, and what it is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from wam.serve.cadence import Choice

Video = npt.NDArray[np.uint8]  # (T, H, W, 3)
Actions = npt.NDArray[np.float32]  # (N, A)


@dataclass(frozen=True)
class Seen:
    """What a robot saw since it asked last; the last frame is the present.

    images: camera -> uint8 (T, H, W, 3), all of the same T.  state: float32 (S,), of the present.
    times: float64 (T,), seconds on the robot's clock, or None when it does not say.
    """

    images: Mapping[str, Video]
    state: npt.NDArray[np.float32]
    instruction: str
    times: npt.NDArray[np.float64] | None = None

    @property
    def frames(self) -> int:
        return len(next(iter(self.images.values())))


@dataclass(frozen=True)
class Who:
    """Whose request it is: a session by name, one of several robots on a connection, or the connection itself."""

    session: str | None = None
    env: str | None = None


@dataclass(frozen=True)
class Infer:
    """Asks for the next actions.

    anew: forget the episode first.  seed: of the noise, for a new episode.  executing: (n, A) in robot units, what the
    robot does in the first control steps whatever the answer is.  wants_dream: send the imagined video along.
    unknown: keys that nobody needs.  notes: what had to be assumed.
    """

    seen: Seen
    who: Who = Who()
    anew: bool = False
    seed: int | None = None
    executing: Actions | None = None
    wants_dream: bool = False
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reset:
    """Ends an episode: of one session, or of all that this connection has."""

    who: Who = Who()
    seed: int | None = None


@dataclass(frozen=True)
class Answer:
    """The next actions, and how they came about.

    execute: how many of the actions should be executed before asking again.
    session: its label; chunk: number of this answer in its episode, both from 0.
    seconds: per stage of the model; queue_seconds: waiting for the model; total_seconds: in this server.
    batch: how many sessions were computed together.  dream: if the server decodes it; send_dream: the client wants it.
    """

    actions: Actions
    execute: int
    choice: Choice
    session: str
    seed: int
    chunk: int
    episode: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    queue_seconds: float = 0.0
    total_seconds: float = 0.0
    batch: int = 1
    notes: tuple[str, ...] = ()
    dream: Video | None = None
    send_dream: bool = False
