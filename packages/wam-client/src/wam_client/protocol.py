"""What a client says and hears, without a socket: looks become a request, a frame becomes a reply or an error.

The protocol is openpi's: the server speaks first and describes itself; then every binary request, a map of
observations, is answered by a binary map with `actions`, or by a text frame, which is an error. RoboArena's bare arrays
are understood, too. `wam serve` takes more than openpi does: several frames per request with their times, the name of a
session, a reset together with the first frame, and what the robot is executing meanwhile.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from wam_client.wire import DEFAULT_LIMITS, Limits, WireError, packb, unpackb

Image = npt.NDArray[np.uint8]  # (H, W, 3)
Actions = npt.NDArray[np.float32]  # (N, A)

RETRIED = frozenset({"Busy", "Unavailable"})
"""Errors that go away by themselves: too many at once, or a model that is being started."""

_NAMED = re.compile(r"([A-Z][A-Za-z]{2,30}): (.*)", re.DOTALL)
_SERVER_ERRORS = frozenset({"BadFrame", "BadRequest", "Busy", "SessionLost", "Unavailable", "Unauthorized", "Internal"})


class PolicyError(ValueError):
    """The server says why there are no actions. name: such as "BadRequest"; "ServerError" where it gives none."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


class SessionLost(PolicyError):
    """What the server remembered of this episode is gone; the next request starts anew from the present frame."""


class ConnectionLost(ConnectionError):
    """The server is not there, or no longer; the message says for how long it was tried."""


@dataclass(frozen=True)
class Look:
    """What a robot sees at one moment.

    images: camera -> uint8 (H, W, 3).  state: float32 (S,).  prompt: what a person asked for.
    seconds: on the robot's clock, or None when it has none.
    """

    images: Mapping[str, Image]
    state: npt.NDArray[np.float32]
    prompt: str
    seconds: float | None = None


@dataclass(frozen=True)
class Reply:
    """The next actions, float32 (N, A), the first one for the moment of the last frame, and what the server adds:
    `server_timing`, `session`, `cadence`, `notes`, `dream`, or whatever else."""

    actions: Actions
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Conversation:
    """What has to be kept between requests: whose they are, and which episodes begin with the next one.

    session: a name that outlives the connection; "": the connection is the session, as with servers of openpi.
    """

    session: str = field(default_factory=lambda: uuid.uuid4().hex)
    _anew: dict[str | None, int | None] = field(default_factory=dict)

    def reset(self, seed: int | None = None, env: str | None = None) -> None:
        """A new episode begins with the next request."""
        self._anew[env] = seed

    def request(self, observation: Mapping[str, Any], env: str | None = None, *, again: bool = False) -> bytes:
        """One frame. again: sent once more, and the server may have answered it before; so it starts anew.

        Raises WireError for what cannot be sent.
        """
        own: dict[str, Any] = {}
        if self.session:
            own["session_id"] = self.session
        if env is not None:
            own["env_id"] = env
        if env in self._anew:
            own["reset"] = True
            if self._anew[env] is not None:
                own["seed"] = self._anew[env]
        elif again and self.session:
            own["reset"] = True
        return packb({**own, **observation})

    def answered(self, env: str | None = None) -> None:
        """The request was taken, and its reset with it."""
        self._anew.pop(env, None)


def observation_of(looks: Sequence[Look], executing: Actions | None = None) -> dict[str, Any]:
    """All looks since the last request, the present last, as one observation for `wam serve`.

    executing: (n, A), what the robot does in the first control steps of the answer in any case.
    Raises ValueError when there is no look, or the looks do not have the same cameras.
    """
    if not looks:
        raise ValueError("an observation needs at least one look, the present")
    present = looks[-1]
    for look in looks:
        if set(look.images) != set(present.images):
            raise ValueError(f"looks show different cameras: {sorted(look.images)} and {sorted(present.images)}")
    observation: dict[str, Any] = {
        f"observation/images/{camera}": np.stack([look.images[camera] for look in looks]) for camera in present.images
    }
    observation["observation/state"] = np.asarray(present.state, dtype=np.float32)
    observation["prompt"] = present.prompt
    times = [look.seconds for look in looks]
    if None not in times:
        observation["timestamp_s"] = np.array(times, dtype=np.float64)
    if executing is not None and len(executing):
        observation["executing"] = np.asarray(executing, dtype=np.float32)
    return observation


def metadata_of(frame: bytes | str, limits: Limits = DEFAULT_LIMITS) -> dict[str, Any]:
    """What the server says of itself in its first frame."""
    if isinstance(frame, str):
        raise error_of(frame)
    metadata = unpackb(frame, limits)
    if not isinstance(metadata, dict):
        raise WireError(f"the server's first frame holds {type(metadata).__name__}, expected a map")
    return metadata


def reply_of(frame: bytes | str, limits: Limits = DEFAULT_LIMITS) -> Reply:
    """Actions, from openpi's map or RoboArena's bare array. Raises PolicyError for a text frame."""
    if isinstance(frame, str):
        raise error_of(frame)
    answer = unpackb(frame, limits)
    fields = dict(answer) if isinstance(answer, dict) else {"actions": answer}
    if "actions" not in fields:
        raise WireError(f"the reply has no 'actions'; found {sorted(map(str, fields))[:12]}")
    actions = np.array(fields.pop("actions"), dtype=np.float32)
    if actions.ndim != 2 or not len(actions):
        raise WireError(f"the reply's actions have shape {actions.shape}, expected (N, A) with N >= 1")
    return Reply(actions, fields)


def text_of(frame: bytes | str) -> str:
    """What answers a message in words. Raises PolicyError for an error, WireError for actions."""
    if not isinstance(frame, str):
        raise WireError("found a binary frame, expected a text frame as the answer")
    problem = error_of(frame)
    if problem.name != "ServerError":
        raise problem
    return frame


def error_of(text: str) -> PolicyError:
    """A text frame as an exception. Servers of openpi send a traceback, which has no name."""
    found = _NAMED.fullmatch(text)
    if found is None or found[1] not in _SERVER_ERRORS:
        return PolicyError("ServerError", text[-2000:])
    kind = SessionLost if found[1] == "SessionLost" else PolicyError
    return kind(found[1], found[2])
