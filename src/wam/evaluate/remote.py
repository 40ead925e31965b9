"""A policy behind somebody's server as a `Policy`, so that it plays the same episodes as ours.

    wam://host:port         `wam serve`: all frames of a chunk with their times, the episode's own noise
    openpi://host:port      openpi's websocket server (pi0, pi0.5, ...)
    roboarena://host:port   its relative that DreamZero's server speaks
    gr00t://host:port       GR00T's ZMQ server

All but the first are sent the present frame alone, once per chunk: what those servers remember is their own business.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wam.engine.policy import ActionChunk, Policy
from wam.evaluate.gr00t_client import Gr00tClient
from wam.evaluate.remote_keys import RemoteKeys, gr00t_keys, openpi_keys, read_keys, roboarena_keys
from wam.evaluate.rollout import Environment
from wam.robot.embodiment import Embodiment
from wam.robot.observation import Observation
from wam_client import Client, Look, PolicyError

Actions = npt.NDArray[np.float32]  # (N, A)
DIALECTS = ("wam", "openpi", "roboarena", "gr00t")
_ADDRESS = re.compile(r"(?P<dialect>[a-z0-9]+)://(?P<host>[^/:\[\]]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})/?")


@dataclass(frozen=True)
class Address:
    """Where a policy is served, and in which words."""

    dialect: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises ValueError naming the forms that there are."""
        found = _ADDRESS.fullmatch(text)
        if found is None or found["dialect"] not in DIALECTS:
            forms = ", ".join(f"{dialect}://host:port" for dialect in DIALECTS)
            raise ValueError(f"policy {text!r}: no address of a policy server; expected one of {forms}")
        return cls(found["dialect"], found["host"], int(found["port"]))

    @property
    def websocket(self) -> str:
        return f"ws://{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.dialect}://{self.host}:{self.port}"


class Remote(Protocol):
    """A connection to a server for one episode after another."""

    @property
    def execute(self) -> int | None:
        """Control steps of every chunk; None: all that the server answers."""

    @property
    def stride(self) -> int | None:
        """Control steps between the looks that it wants; None: one look per chunk."""

    @property
    def said(self) -> Mapping[str, Any]:
        """What the server says of itself, for the record."""

    def reset(self, seed: int) -> None: ...

    def act(self, observations: Sequence[Observation], executing: Actions | None) -> Actions:
        """(N, A) in robot units. Raises ValueError when `executing` is given and the dialect has no word for it."""

    def close(self) -> None: ...


class RemotePolicy:
    """A `Policy` whose thinking is done elsewhere. What it takes is reported as one stage, "remote"."""

    def __init__(self, source: RemoteSource) -> None:
        self._source, self._remote = source, source.connect()
        self._execute = self._remote.execute

    def __copy__(self) -> RemotePolicy:
        """A memory of its own needs a connection of its own."""
        return RemotePolicy(self._source)

    @property
    def execute(self) -> int:
        return self._execute or self._source.robot.actions_per_chunk

    @property
    def video_stride(self) -> int:
        return self._remote.stride or self.execute

    def reset(self, seed: int) -> None:
        self._remote.reset(seed)

    def act(self, observations: Sequence[Observation], executing: Actions | None = None) -> ActionChunk:
        """executing: (n, A), what the robot does meanwhile in any case; for `wam serve` alone.

        Raises ValueError when the server's actions are not the robot's, and what its client raises."""
        began = time.perf_counter()
        actions = self._remote.act(observations, executing)
        if not np.isfinite(actions).all():
            raise ValueError(f"{self._source.address}: the server's actions are not finite")
        if self._execute is None:
            self._execute = len(actions)  # by contract, all of them
        return ActionChunk(actions, seconds={"remote": time.perf_counter() - began})


@dataclass(frozen=True)
class RemoteSource:
    """What a worker process needs to connect; small and picklable.

    robot: what acts in the environment.  keys: see `remote_keys`.  execute: of every chunk; the server's own when left
    out.  token_file: of a server that asks for one.
    """

    address: Address
    robot: Embodiment
    keys: Path | None = None
    execute: int | None = None
    token_file: Path | None = None

    def __call__(self) -> Callable[[Environment], Policy]:
        policy = RemotePolicy(self)
        return lambda env: policy

    def connect(self) -> Remote:
        token = None if self.token_file is None else self.token_file.read_text(encoding="utf-8").strip()
        keys = None if self.keys is None else read_keys(self.keys).check(self.robot, str(self.keys))
        made: dict[str, Callable[..., Remote]] = {
            "wam": _Wam,
            "openpi": _Openpi,
            "roboarena": _RoboArena,
            "gr00t": _Gr00t,
        }
        return made[self.address.dialect](self, keys, token)

    def embodiment(self) -> Embodiment:
        return self.robot

    def describe(self) -> dict[str, Any]:
        """What a result folder remembers: the server is asked what it is."""
        described: dict[str, Any] = {"policy": str(self.address), "options": {"execute": self.execute}}
        if self.keys is not None:
            described["keys"] = self.keys.read_text(encoding="utf-8")
        remote = self.connect()
        try:
            return {**described, "server": dict(remote.said)}
        finally:
            remote.close()


# ---------------------------------------------------------------- the dialects


class _Wam:
    """Our own server: the same answers as the model in this process."""

    def __init__(self, source: RemoteSource, keys: RemoteKeys | None, token: str | None) -> None:
        if keys is not None:
            raise ValueError(f"{source.address}: --keys is for servers of others; this one knows the robot's own names")
        self._client = Client(f"{source.address.websocket}/wam", token=token)
        self._robot, said = source.robot, self._client.metadata
        self._require_same_robot(said, source)
        self.execute: int | None = source.execute or int(said["execute"])
        self.stride: int | None = int(said["video_stride"]) if said["remembers"] else None
        if said["remembers"] and self.execute != said["execute"]:
            raise ValueError(f"execute={self.execute}: the server remembers whole chunks of {said['execute']} steps")

    @property
    def said(self) -> Mapping[str, Any]:
        return _plain(self._client.metadata)

    def close(self) -> None:
        self._client.close()

    def reset(self, seed: int) -> None:
        self._client.reset(seed)

    def act(self, observations: Sequence[Observation], executing: Actions | None) -> Actions:
        looks = [
            Look({camera: o.images[camera] for camera in self._robot.cameras}, o.state, o.instruction, o.timestamp)
            for o in observations
        ]
        return self._client.act(looks, executing).actions

    def _require_same_robot(self, said: Mapping[str, Any], source: RemoteSource) -> None:
        robot = source.robot
        if said.get("server") != "wam":
            raise ValueError(f"{source.address}: this is no `wam serve`; try openpi://, roboarena:// or gr00t://")
        for name, own in (
            ("cameras", list(robot.cameras)),
            ("state_names", list(robot.state_names)),
            ("action_names", list(robot.action_names)),
            ("control_hz", robot.control_hz),
        ):
            if said[name] != own:
                raise ValueError(
                    f"{source.address}: {name} of its robot {said['embodiment']!r} are {said[name]}, those of "
                    f"{robot.name!r} in this simulator {own}; serve a model of this robot"
                )


class _Openpi:
    """One frame per chunk; the connection is the session."""

    def __init__(self, source: RemoteSource, keys: RemoteKeys | None, token: str | None) -> None:
        self._client = Client(source.address.websocket, token=token, session="")
        self._robot, self._ours = source.robot, self._client.metadata.get("server") == "wam"
        self._keys = keys or openpi_keys(source.robot, self._client.metadata)
        self.execute: int | None = source.execute or self._keys.execute or source.robot.actions_per_chunk
        self.stride: int | None = None

    @property
    def said(self) -> Mapping[str, Any]:
        return _plain(self._client.metadata)

    def close(self) -> None:
        self._client.close()

    def reset(self, seed: int) -> None:
        """openpi has no word for it: a new connection is a new episode. `wam serve` takes the seed, too."""
        self._client.close()
        if self._ours:
            self._client.reset(seed)

    def act(self, observations: Sequence[Observation], executing: Actions | None) -> Actions:
        _refuse(executing, "openpi")
        reply = self._client.infer(self._keys.observation(observations[-1], self._robot))
        return self._keys.robot_actions(reply.actions, self._robot)


class _RoboArena:
    """One frame per chunk, a session name per episode, all actions executed."""

    def __init__(self, source: RemoteSource, keys: RemoteKeys | None, token: str | None) -> None:
        self._client = Client(source.address.websocket, token=token, session="")
        self._robot, self._session = source.robot, ""
        self._ours = self._client.metadata.get("server") == "wam"
        self._seed: dict[str, int] = {}
        self._keys = keys or roboarena_keys(source.robot, self._client.metadata)
        self.execute: int | None = source.execute or self._keys.execute
        self.stride: int | None = None

    @property
    def said(self) -> Mapping[str, Any]:
        return _plain(self._client.metadata)

    def close(self) -> None:
        self._client.close()

    def reset(self, seed: int) -> None:
        if self._session:
            said = self._client.say({"endpoint": "reset", "session_id": self._session})
            if said != "reset successful":
                raise PolicyError("ServerError", said[-2000:])
        self._session, self._seed = uuid.uuid4().hex, {"seed": seed} if self._ours else {}

    def act(self, observations: Sequence[Observation], executing: Actions | None) -> Actions:
        _refuse(executing, "RoboArena")
        present = self._keys.observation(observations[-1], self._robot)
        present.setdefault("observation/cartesian_position", np.zeros(6, np.float32))  # asked for, used by nobody
        reply = self._client.infer({**present, "endpoint": "infer", "session_id": self._session, **self._seed})
        self._seed = {}
        return self._keys.robot_actions(reply.actions, self._robot)


class _Gr00t:
    """One frame per chunk; actions arrive part by part."""

    def __init__(self, source: RemoteSource, keys: RemoteKeys | None, token: str | None) -> None:
        self._client = Gr00tClient(source.address.host, source.address.port, token)
        self._robot, self._modalities = source.robot, self._client.modalities()
        self._options: dict[str, Any] = {}
        self._keys = keys or gr00t_keys(source.robot, self._modalities)
        self.execute: int | None = source.execute or self._keys.execute
        self.stride: int | None = None

    @property
    def said(self) -> Mapping[str, Any]:
        return {"modalities": {name: list(keys) for name, keys in self._modalities.items()}}

    def close(self) -> None:
        self._client.close()

    def reset(self, seed: int) -> None:
        """GR00T's own policies take no notice of the options; `wam serve` does."""
        self._client.reset()
        self._options = {"session_id": uuid.uuid4().hex, "seed": seed}

    def act(self, observations: Sequence[Observation], executing: Actions | None) -> Actions:
        """Parts in the robot's order if they are its own; in the server's order where `keys` says which is which."""
        _refuse(executing, "GR00T")
        parts = self._client.get_action(self._keys.observation(observations[-1], self._robot), self._options)
        order = tuple(part.name for part in self._robot.action)
        if self._keys.actions or set(order) != set(parts):
            order = tuple(name for name in self._modalities.get("action", ()) if name in parts) or tuple(parts)
        actions = np.concatenate([parts[name] for name in order], axis=1)
        return self._keys.robot_actions(actions, self._robot)


def _refuse(executing: Actions | None, dialect: str) -> None:
    if executing is not None:
        raise ValueError(f"{dialect}'s dialect cannot say what is being executed; leave out --prefix, or use wam://")


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The short and simple part of what a server says, ready for JSON."""
    simple = (str, int, float, bool, type(None))
    return {
        key: value
        for key, value in metadata.items()
        if isinstance(value, simple) or (isinstance(value, list) and all(isinstance(entry, simple) for entry in value))
    }
