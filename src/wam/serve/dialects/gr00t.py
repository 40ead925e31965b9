"""GR00T's dialect: msgpack over ZMQ, arrays as numpy files, observations nested by modality.

    {"endpoint": "get_action", "data": {"observation": {"video": {camera: (B, T, H, W, 3)}, "state": {part: (B, T, D)},
     "language": {key: [[sentence], ...]}}, "options": {...}}}       ->  [{part: (B, N, D)}, info]      (N1.6)
    {"endpoint": "get_action", "data": {"video.<camera>": (T, H, W, 3), "state.<part>": (T, D),
     "annotation.human.task_description": [sentence]}}               ->  {"action.<part>": (N, D)}      (N1.5)

The B robots of a request are B sessions. `options` may say what openpi's dialect may: session_id, seed, timestamp_s ...
Other endpoints: ping, reset, get_modality_config, kill. An error is a map with the one key "error".
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import numpy as np

from wam.robot.embodiment import Embodiment
from wam.serve.cadence import Cadence
from wam.serve.dialects import openpi
from wam.serve.errors import ServeError, bad_request
from wam.serve.request import Answer, Infer
from wam.serve.robot_keys import RobotKeys
from wam_client.wire import Limits, WireError, measure

LANGUAGE = "annotation.human.task_description"
MAX_ROBOTS = 64  # in one request
# what numpy.save writes in front of plain numbers and text; nothing of it is evaluated
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<dtype>[<>|=]?[biufSU]\d{1,6})', 'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>[\d, ]{0,200})\), \} *\n",
    re.DOTALL,
)
_OPTIONS = ("session_id", "seed", "timestamp_s", "observation_index", "reset")

# ---------------------------------------------------------------- bytes


def pack(value: Any) -> bytes:
    return bytes(msgpack.packb(value, default=_pack_array))


def unpack(data: bytes, limits: Limits) -> dict[str, Any]:
    """A request. Raises ServeError (BadFrame) for bytes that are none."""
    try:
        measure(data, limits)
        message = msgpack.unpackb(data, object_hook=_unpack_array, raw=False, strict_map_key=True)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as problem:
        raise ServeError("BadFrame", f"{problem}") from problem
    if not isinstance(message, dict):
        raise ServeError("BadFrame", f"found {type(message).__name__}, expected a map with 'endpoint'")
    return message


def _pack_array(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        file = io.BytesIO()
        np.save(file, value, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": file.getvalue()}
    raise TypeError(f"{type(value).__name__} has no form in GR00T's dialect")


def _unpack_array(fields: dict[Any, Any]) -> Any:
    return _read_npy(fields.get("as_npy")) if "__ndarray_class__" in fields else fields


def _read_npy(data: Any) -> np.ndarray:
    """A numpy file in memory; its header is compared with what is there before anything is allocated."""
    if not isinstance(data, bytes):
        raise WireError(f"an array's 'as_npy' must be bytes, found {type(data).__name__}")
    found = _NPY.match(data)
    if found is None:
        raise WireError("an array's 'as_npy' is no numpy file of version 1.0")
    try:
        dtype = np.dtype(found["dtype"].decode())
    except TypeError as problem:
        raise WireError(f"an array's dtype is unknown: {problem}") from problem
    shape = tuple(int(size) for size in found["shape"].split(b",") if size.strip())
    if dtype.itemsize == 0 or len(shape) > 16 or max(shape, default=0) >= 2**31:
        raise WireError(f"an array of dtype {dtype.str!r} and shape {shape} is not taken")
    content = memoryview(data)[found.end() :]
    needed = math.prod(shape) * dtype.itemsize
    if needed != len(content):
        raise WireError(f"an array of shape {shape} and dtype {dtype.str!r} needs {needed} bytes, has {len(content)}")
    array: np.ndarray = np.ndarray(shape, dtype, content, order="F" if found["fortran"] == b"True" else "C")
    return array


# ---------------------------------------------------------------- requests


def read(data: Any, keys: RobotKeys) -> list[Infer]:
    """What each robot of a `get_action` request asks. Raises ServeError (BadRequest) naming the key."""
    if not isinstance(data, dict):
        raise bad_request(f"'data': found {type(data).__name__}, expected a map")
    observation, options = _parts(data)
    flat = _flat(observation)
    batched = any(key.startswith("video.") and _dimensions(value) == 5 for key, value in flat.items())
    robots = _count(flat) if batched else 1
    return [openpi.read(_request(flat, options, b if batched else None, robots), keys) for b in range(robots)]


def is_nested(data: Any) -> bool:
    """Whether the request is of N1.6, whose answer is a list of two."""
    return isinstance(data, dict) and "observation" in data


def write(answers: Sequence[Answer], robot: Embodiment, data: Any) -> bytes:
    """The answer to `data`: per part of the action, for all robots of the request."""
    actions, start = {}, 0
    for part in robot.action:
        end = start + len(part.dims)
        actions[part.name] = np.stack([np.ascontiguousarray(answer.actions[:, start:end]) for answer in answers])
        start = end
    if not is_nested(data):
        batched = any(key.startswith("video.") and _dimensions(value) == 5 for key, value in _flat(data).items())
        return pack({f"action.{name}": array if batched else array[0] for name, array in actions.items()})
    return pack([actions, {"sessions": [_info(answer) for answer in answers]}])


def options_of(data: Any) -> dict[str, Any]:
    """The options of a request that may have some, such as `reset`. Raises ServeError."""
    options = data.get("options") if isinstance(data, dict) else None
    if options is not None and not isinstance(options, dict):
        raise bad_request(f"'options': found {type(options).__name__}, expected a map or nothing")
    return dict(options or {})


def modality_config(robot: Embodiment, cadence: Cadence, remembers: bool) -> dict[str, Any]:
    """What `get_modality_config` answers: which keys, and which control steps around the present."""
    looks = [-step * cadence.stride for step in range(cadence.frames if remembers else 1)][::-1]
    names = {
        "video": (looks, list(robot.cameras)),
        "state": ([0], [part.name for part in robot.state]),
        "action": (list(range(robot.actions_per_chunk)), [part.name for part in robot.action]),
        "language": ([0], [LANGUAGE]),
    }
    return {
        modality: {"__ModalityConfig_class__": True, "as_json": {"delta_indices": steps, "modality_keys": keys}}
        for modality, (steps, keys) in names.items()
    }


def error(message: str) -> bytes:
    return pack({"error": message})


def _parts(data: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Observation and options of either version."""
    if not is_nested(data):
        return data, {}
    if not isinstance(data["observation"], dict):
        raise bad_request(f"'observation': found {type(data['observation']).__name__}, expected a map")
    return data["observation"], options_of(data)


def _flat(observation: Mapping[str, Any]) -> dict[str, Any]:
    """Nested keys joined with dots."""
    flat: dict[str, Any] = {}
    for key, value in observation.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": each for inner, each in value.items()})
        else:
            flat[str(key)] = value
    return flat


def _count(flat: Mapping[str, Any]) -> int:
    """Robots of a batched request, the same for every array."""
    counts = {key: len(value) for key, value in flat.items() if isinstance(value, np.ndarray) and value.ndim}
    robots = set(counts.values())
    if len(robots) != 1 or not 1 <= max(robots) <= MAX_ROBOTS:
        raise bad_request(f"the first dimension counts the robots, 1 to {MAX_ROBOTS} of them; found {counts}")
    return robots.pop()


def _request(flat: Mapping[str, Any], options: Mapping[str, Any], robot: int | None, robots: int) -> dict[str, Any]:
    """One robot's share, in openpi's words. robot: None where nothing is batched."""
    request: dict[str, Any] = {key: options[key] for key in _OPTIONS if key in options}
    if robots > 1:
        request["env_id"] = str(robot)
    for key, value in flat.items():
        modality, _, name = key.partition(".")
        if modality in ("video", "state") and isinstance(value, np.ndarray) and robot is not None:
            value = value[robot]
        if modality == "video":
            request[f"observation/images/{name}"] = value
        elif modality == "state":
            request[f"observation/{name}"] = value
        elif modality in ("language", "annotation") or key == "task":
            request["prompt"] = _sentence(key, value, robot or 0)
        else:
            request[key] = value
    if "prompt" not in request:
        raise bad_request(f"language: no sentence; expected the key {LANGUAGE!r} under 'language'")
    return request


def _sentence(key: str, value: Any, robot: int) -> str:
    """The sentence for one robot among lists of lists, one for each or one for all."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)) and value:
        value = value[robot] if len(value) > robot else value[0]
    while isinstance(value, (list, tuple)) and value:
        value = value[-1]
    if not isinstance(value, str):
        raise bad_request(f"{key!r}: found {type(value).__name__}, expected a sentence for each robot")
    return value


def _dimensions(value: Any) -> int:
    return value.ndim if isinstance(value, np.ndarray) else 0


def _info(answer: Answer) -> dict[str, Any]:
    return {
        "id": answer.session,
        "seed": answer.seed,
        "chunk": answer.chunk,
        "cadence": answer.choice.how,
        "guessed": answer.choice.guessed,
        "server_ms": 1e3 * answer.total_seconds,
        "notes": list(answer.notes),
    }
