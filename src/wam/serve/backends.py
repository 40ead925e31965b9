"""What stands behind the server and decides: a model on an engine, or a policy without one, to debug clients.

A backend lives in the worker process and is made there by a `Source`, which is small and picklable.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wam.checkpoints.model_folder import CONFIG, read_config
from wam.checkpoints.recognise import describes_ours, read_fields
from wam.checkpoints.source import resolve as resolve_source
from wam.engine.engine import Engine
from wam.engine.load import load_policy, resolve
from wam.engine.policy import ActionChunk
from wam.engine.session import Session
from wam.engine.warm_up import warm_up
from wam.robot.embodiment import Embodiment, load_embodiment
from wam.robot.observation import Observation
from wam.serve.metadata import Served
from wam.serve.recording import recorded_actions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Turn:
    """One session's part of a step. memory: what `open` made.  anew: start from the present look, the last one."""

    memory: Any
    looks: Sequence[Observation]
    anew: bool = False
    executing: npt.NDArray[np.float32] | None = None


class Backend(Protocol):
    """A policy for many robots."""

    @property
    def served(self) -> Served: ...

    @property
    def together(self) -> bool:
        """Whether a step may take several turns; otherwise it gets one at a time."""

    def open(self, seed: int) -> Any:
        """The memory of a new session."""

    def steps(self, turns: Sequence[Turn]) -> list[ActionChunk]:
        """The next chunk of each. Raises ValueError, before anything has changed, naming what does not fit."""

    def warm_up(self, sessions: int) -> None:
        """Let everything that happens once happen now, for up to so many sessions together."""


class Source(Protocol):
    """Where a backend comes from; picklable."""

    def open(self) -> Backend: ...


# ---------------------------------------------------------------- a model


@dataclass(frozen=True)
class CheckpointSource:
    """A model that `wam train` wrote: a folder, a Hub id ("owner/name", "owner/name@revision") or a shipped name.

    options: of `load_policy`.
    """

    checkpoint: str
    options: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None

    def open(self) -> EngineBackend:
        import torch

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        found = locate(self.checkpoint)
        return EngineBackend(load_policy(found.folder, **self.options).engine, found.name, found.revision)


class EngineBackend:
    """All sessions on one engine, which computes them together."""

    together = True

    def __init__(self, engine: Engine, model: str = "unnamed", revision: str = "unknown") -> None:
        self._engine, config = engine, engine.config
        self.served = Served(
            model, revision, engine.embodiment, engine.execute, config.memory == "slide", config.decode_video
        )

    def open(self, seed: int) -> Session:
        return self._engine.open(seed)

    def steps(self, turns: Sequence[Turn]) -> list[ActionChunk]:
        for turn in turns:
            if turn.anew:
                turn.memory.forget()
        return self._engine.steps(
            [turn.memory for turn in turns],
            [turn.looks for turn in turns],
            [turn.executing for turn in turns],
        )

    def warm_up(self, sessions: int) -> None:
        self._engine.text_encoder.encode(["warm up"])  # loads it
        warm_up(self._engine, sessions)


@dataclass(frozen=True)
class Located:
    """What a user typed. ours: written by `wam train`.  revision: the Hub's commit, or a digest of the folder."""

    folder: Path
    name: str
    revision: str
    ours: bool


def locate(checkpoint: str) -> Located:
    """Find a model; one on the Hub is downloaded once. Raises OSError or ValueError naming what was tried."""
    source = resolve_source(checkpoint)
    revision = source.revision or _digest(source.folder)
    return Located(source.folder, source.name, revision, _is_ours(source.folder))


def _is_ours(folder: Path) -> bool:
    return describes_ours(read_fields(folder / CONFIG))


def _digest(folder: Path) -> str:
    """Of the configuration and of the sizes of the weights: tells versions apart, and costs nothing."""
    config = folder / CONFIG
    digest = hashlib.sha256(config.read_bytes() if config.is_file() else b"")
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(f"{file.name} {file.stat().st_size}".encode())
    return f"sha256:{digest.hexdigest()[:12]}"


# ---------------------------------------------------------------- without a model


@dataclass(frozen=True)
class EchoSource:
    """Which robot is to hold still."""

    robot: Embodiment

    def open(self) -> EchoBackend:
        return EchoBackend(self.robot)


class EchoBackend:
    """Every answer tells the robot to stay where it is: the form of an answer without a model behind it."""

    together = True

    def __init__(self, robot: Embodiment) -> None:
        self.served = Served("echo", "none", robot, robot.actions_per_chunk, remembers=True, dreams=False)

    def open(self, seed: int) -> None:
        return None

    def steps(self, turns: Sequence[Turn]) -> list[ActionChunk]:
        robot = self.served.robot
        held = [hold(robot, turn.looks[-1].state) for turn in turns]
        return [ActionChunk(np.tile(action, (robot.actions_per_chunk, 1))) for action in held]

    def warm_up(self, sessions: int) -> None:
        """Nothing happens once."""


def hold(robot: Embodiment, state: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The action (A,) that changes nothing: parts that the state has under the same names stay where they are, all
    others, which are moved by differences, get zeros."""
    where = dict(zip(robot.state_names, state, strict=True))
    return np.array([where.get(name, 0.0) for name in robot.action_names], np.float32)


@dataclass(frozen=True)
class ReplaySource:
    """A file of `--record`, or an episode of a LeRobot data set, whose robot must then be named."""

    file: str
    robot: Embodiment | None = None
    episode: int = 0

    def open(self) -> ReplayBackend:
        actions, robot = recorded_actions(Path(self.file), self.robot, self.episode)
        return ReplayBackend(robot, actions, Path(self.file).name)


class ReplayBackend:
    """Plays what was recorded, chunk by chunk, whatever the robot sees; every session from the beginning."""

    together = True

    def __init__(self, robot: Embodiment, actions: npt.NDArray[np.float32], name: str) -> None:
        """actions: (L, A) in robot units."""
        self._chunks = len(actions) // robot.actions_per_chunk
        if not self._chunks:
            raise ValueError(f"{name}: {len(actions)} actions, less than a chunk of {robot.actions_per_chunk}")
        if left := len(actions) % robot.actions_per_chunk:
            logger.warning("%s: the last %d of %d actions fill no chunk and are not played", name, left, len(actions))
        self._actions = actions[: self._chunks * robot.actions_per_chunk].reshape(self._chunks, -1, robot.action_dim)
        self._name = name
        self.served = Served(f"replay:{name}", "none", robot, robot.actions_per_chunk, remembers=True, dreams=False)

    def open(self, seed: int) -> list[int]:
        return [0]

    def steps(self, turns: Sequence[Turn]) -> list[ActionChunk]:
        if any(turn.memory[0] >= self._chunks for turn in turns):
            raise ValueError(f"{self._name}: all {self._chunks} recorded chunks have been played; reset to play again")
        chunks = []
        for turn in turns:
            chunks.append(ActionChunk(self._actions[turn.memory[0]]))
            turn.memory[0] += 1
        return chunks

    def warm_up(self, sessions: int) -> None:
        """Nothing happens once."""


def robot_of(name: str) -> Embodiment:
    """A robot's name, its YAML file, or a checkpoint that knows one. Raises OSError or ValueError naming it."""
    if Path(name).suffix in (".yaml", ".yml"):
        return load_embodiment(name)
    try:
        return read_config(resolve(name)).embodiments[0]
    except FileNotFoundError:
        return load_embodiment(name)
