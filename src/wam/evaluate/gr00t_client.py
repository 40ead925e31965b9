"""A client of GR00T's policy server (N1.6): msgpack over ZMQ, arrays as numpy files, never pickled."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from wam_client import ConnectionLost, PolicyError, WireError

MAX_BYTES = 64 * 2**20  # of an answer
Actions = npt.NDArray[np.float32]  # (N, width of the part)


class Gr00tClient:
    """timeout: seconds to wait for an answer. Raises ConnectionLost when there is none, PolicyError for an error."""

    def __init__(self, host: str, port: int, token: str | None = None, timeout: float = 120.0) -> None:
        import zmq  # the `serve` extra

        self._where, self._token, self._timeout = f"tcp://{host}:{port}", token, timeout
        self._zmq: Any = zmq
        self._socket: Any = None

    def modalities(self) -> dict[str, tuple[str, ...]]:
        """Of video, state, action and language: the keys that the server knows; empty when it says none."""
        found = self._ask("get_modality_config")
        return {name: keys for name, entry in dict(found or {}).items() if (keys := _keys_of(entry))}

    def reset(self) -> None:
        self._ask("reset", {"options": None})

    def get_action(
        self, observation: Mapping[str, Any], options: Mapping[str, Any] | None = None
    ) -> dict[str, Actions]:
        """observation: "video.<camera>" (H, W, 3), "state.<part>" (D,), "language.<key>" a sentence, of one robot.

        Returns part -> (N, D).
        """
        nested: dict[str, dict[str, Any]] = {"video": {}, "state": {}, "language": {}}
        for key, value in observation.items():
            modality, _, name = key.partition(".")
            if modality not in nested:
                raise ValueError(f"{key!r}: a key of GR00T's server begins with video., state. or language.")
            nested[modality][name] = [[value]] if modality == "language" else np.asarray(value)[None, None]
        answer = self._ask("get_action", {"observation": nested, "options": dict(options or {}) or None})
        parts = answer[0] if isinstance(answer, (list, tuple)) and answer else answer
        if not isinstance(parts, dict) or not parts:
            raise WireError(f"{self._where}: the answer is {type(parts).__name__}, expected a map of actions")
        return {str(name): _of_one_robot(str(name), value) for name, value in parts.items()}

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
        self._socket = None

    def _ask(self, endpoint: str, data: Mapping[str, Any] | None = None) -> Any:
        zmq = self._zmq
        if self._socket is None:
            self._socket = zmq.Context.instance().socket(zmq.REQ)
            self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.connect(self._where)
        request: dict[str, Any] = {"endpoint": endpoint}
        if data is not None:
            request["data"] = data
        if self._token is not None:
            request["api_token"] = self._token
        self._socket.send(msgpack.packb(request, default=_pack_array))
        if not self._socket.poll(1000 * self._timeout, zmq.POLLIN):
            self.close()  # a REQ socket that waits cannot ask again
            raise ConnectionLost(f"{self._where}: no answer within {self._timeout:g} s")
        answer = msgpack.unpackb(self._socket.recv(), object_hook=_unpack_array, raw=False)
        if isinstance(answer, dict) and set(answer) == {"error"}:
            raise PolicyError("ServerError", str(answer["error"]))
        return answer


def _keys_of(entry: Any) -> tuple[str, ...]:
    """`modality_keys` of a ModalityConfig, however deep it is wrapped."""
    inner = entry.get("as_json", entry) if isinstance(entry, dict) else entry
    inner = json.loads(inner) if isinstance(inner, (str, bytes)) else inner
    keys = inner.get("modality_keys", ()) if isinstance(inner, dict) else ()
    return tuple(str(key) for key in keys)


def _of_one_robot(name: str, value: Any) -> Actions:
    """(1, N, D), (N, D) or (N,) -> (N, D)."""
    array = np.asarray(value, dtype=np.float32)
    array = array[0] if array.ndim == 3 and len(array) == 1 else array
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or not len(array):
        raise WireError(f"action {name!r}: found shape {np.shape(value)}, expected (1, N, D)")
    return array


def _pack_array(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        file = io.BytesIO()
        np.save(file, np.asarray(value), allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": file.getvalue()}
    raise TypeError(f"{type(value).__name__} has no form in GR00T's dialect")


def _unpack_array(fields: dict[Any, Any]) -> Any:
    if "__ndarray_class__" in fields:
        return np.load(io.BytesIO(fields["as_npy"]), allow_pickle=False)
    return fields
