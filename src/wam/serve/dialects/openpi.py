"""openpi's dialect: a map of observations in, a map with `actions` out; an error is a text frame.

On top of openpi's own keys a request may say `session_id` or `env_id` (whose robot it is), `reset` (true: a new episode
begins with this frame), `seed`, `timestamp_s` or `observation_index` (one number per frame), `executing` (n, A), and
`dream` (true: send the imagined video along, if the server decodes it). Observations: see `robot_keys.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from wam.serve.errors import bad_request
from wam.serve.request import Actions, Answer, Infer, Who
from wam.serve.robot_keys import RobotKeys
from wam_client.wire import packb

CONTROL = frozenset(
    {"session_id", "env_id", "reset", "seed", "timestamp_s", "observation_index", "executing", "dream", "endpoint"}
)
MAX_ID = 200  # characters


def read(request: Mapping[str, Any], keys: RobotKeys) -> Infer:
    """Raises ServeError (BadRequest) naming the key."""
    seen, used, notes = keys.read(request)
    return Infer(
        seen,
        who(request),
        anew=bool(_scalar(request, "reset", (bool, np.bool_, int, np.integer)) or False),
        seed=seed(request),
        executing=_executing(request),
        wants_dream=bool(_scalar(request, "dream", (bool, np.bool_)) or False),
        unknown=tuple(sorted(request.keys() - used - CONTROL)),
        notes=tuple(notes),
    )


def write(answer: Answer, previous_seconds: float | None = None) -> bytes:
    """previous_seconds: of this connection's last answer, sending included; openpi calls it `prev_total_ms`."""
    timing = {
        "infer_ms": 1e3 * sum(answer.seconds.values()),
        "queue_ms": 1e3 * answer.queue_seconds,
        "server_ms": 1e3 * answer.total_seconds,
        **{f"{stage}_ms": 1e3 * seconds for stage, seconds in answer.seconds.items()},
    }
    if previous_seconds is not None:
        timing["prev_total_ms"] = 1e3 * previous_seconds
    reply: dict[str, Any] = {
        "actions": answer.actions,
        "server_timing": timing,
        "session": {"id": answer.session, "seed": answer.seed, "chunk": answer.chunk, "batch": answer.batch},
        "cadence": {"how": answer.choice.how, "guessed": answer.choice.guessed, "why": answer.choice.why},
    }
    if answer.notes:
        reply["notes"] = list(answer.notes)
    if answer.send_dream and answer.dream is not None:
        reply["dream"] = answer.dream
    return packb(reply)


def who(request: Mapping[str, Any]) -> Who:
    """Whose request it is."""
    return Who(_name(request, "session_id"), _name(request, "env_id"))


def seed(request: Mapping[str, Any]) -> int | None:
    value = _scalar(request, "seed", (int, np.integer))
    if value is not None and not 0 <= int(value) < 2**63:
        raise bad_request(f"'seed': found {value}, expected an integer from 0 to 2^63 - 1")
    return None if value is None else int(value)


def _name(request: Mapping[str, Any], key: str) -> str | None:
    """A short text or an integer; RoboArena's own test sends an array of one."""
    value = request.get(key)
    if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "iuU":
        value = value.item()
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, np.integer)) or not 0 < len(str(value)) <= MAX_ID:
        raise bad_request(f"{key!r}: found {type(value).__name__}, expected a name of 1 to {MAX_ID} characters")
    return str(value)


def _scalar(request: Mapping[str, Any], key: str, kinds: tuple[type, ...]) -> Any:
    value = request.get(key)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if value is not None and not isinstance(value, kinds):
        raise bad_request(f"{key!r}: found {type(value).__name__}, expected {kinds[0].__name__}")
    return value


def _executing(request: Mapping[str, Any]) -> Actions | None:
    value = request.get("executing")
    if value is None:
        return None
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.ndim != 2:
        raise bad_request("'executing': expected an array of floats (n, action dims), what the robot is executing")
    return value.astype(np.float32)
