"""One episode of a demonstrator, written down row by row, whatever the simulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wam.robot.observation import Observation
from wam.sim.tasks import SPLITS, SplitName

MAX_ROWS = 250
ROWS_AFTER_SUCCESS = 10
MAX_VARIATIONS_TRIED = 10

Action = npt.NDArray[np.float32]
Execute = Callable[[Observation, Action, int], Action]
"""What is really done in a row, given what is seen, what the demonstrator wants, and the number of the row."""
Lead = Callable[[Observation, int], Action | None]
"""What leads the arm in a row, which is asked for in turn; None where the demonstrator does."""
Leader = Callable[[np.random.Generator, str, int], Lead]
"""Plans what leads the arm in one roll-out of (task, seed)."""


class Demonstrator(Protocol):
    """An environment that knows what to do."""

    @property
    def task(self) -> str: ...

    @property
    def cameras(self) -> tuple[str, ...]: ...

    @property
    def success(self) -> bool:
        """Whether the task succeeded at any time since the reset."""

    @property
    def finished(self) -> bool:
        """Whether further steps change nothing."""

    def reset(self, seed: int) -> Observation: ...

    def step(self, action: npt.ArrayLike) -> bool: ...

    def observe(self) -> Observation: ...

    def expert_action(self) -> Action: ...


class ExpertFailed(ValueError):
    """The expert solved none of the variations that stand for one episode."""


@dataclass(frozen=True)
class RecordedEpisode:
    """One success of T rows: camera -> uint8 (T, H, W, 3), column -> (T, ...), its sentence, and what else is known."""

    images: Mapping[str, npt.NDArray[np.uint8]]
    columns: Mapping[str, npt.NDArray[Any]]
    task: str
    extra: Mapping[str, str | int | float]


@dataclass(frozen=True)
class Demonstration:
    """One recorded success, and how many failed roll-outs were thrown away before it."""

    episode: RecordedEpisode
    dropped: int


def record(
    env: Demonstrator, seed: int, execute: Execute, extra: Mapping[str, str | int | float], sentence: str | None = None
) -> RecordedEpisode | None:
    """Let the expert play one seed; None if it fails.

    The recording ends 10 rows after success, so that a policy learns to stay, and never has more than 250 rows. Row t
    holds what was seen and the action chosen at step t, and whether the task had succeeded after that action. The label
    `action` is what the expert wanted; `executed_action` tells what was done.
    """
    observation = env.reset(seed)
    said = observation.instruction if sentence is None else sentence
    images: dict[str, list[npt.NDArray[np.uint8]]] = {camera: [] for camera in env.cameras}
    states: list[npt.NDArray[np.float32]] = []
    actions: list[Action] = []
    executed: list[Action] = []
    successes: list[bool] = []
    while len(actions) < MAX_ROWS and not env.finished and sum(successes) <= ROWS_AFTER_SUCCESS:
        action = env.expert_action()
        command = execute(observation, action, len(actions))
        for camera in env.cameras:
            images[camera].append(observation.images[camera])
        states.append(observation.state)
        actions.append(action)
        executed.append(command)
        successes.append(env.step(command))
        observation = env.observe()
    if not env.success:
        return None
    columns = {
        "observation.state": np.stack(states),
        "action": np.stack(actions),
        "executed_action": np.stack(executed),
        "next.success": np.asarray(successes, dtype=np.bool_),
    }
    pictures = {camera: np.stack(frames) for camera, frames in images.items()}
    return RecordedEpisode(pictures, columns, said, {"env_task": env.task, "seed": seed, **extra})


def first_success(
    task: str, split: SplitName, index: int, level: int, play: Callable[[int, int], RecordedEpisode | None]
) -> Demonstration:
    """Episode number `index` of a task: the first roll-out that succeeds.

    play: records one roll-out of (seed, noise level), level 0 being undisturbed; `level` is the first to try. A failed
    roll-out is repeated on the same variation with the next weaker noise: dropping the variation itself would bias the
    data towards easy ones. Only if the undisturbed expert fails too does another variation take its place, a tenth of
    the split further on. Raises ExpertFailed after 10 variations, ValueError if the split is not that large.
    """
    variations = SPLITS[split]
    stride = len(variations) // MAX_VARIATIONS_TRIED
    if not 0 <= index < stride:
        raise ValueError(f"episode {index} of split {split!r} asked for, it has 0 to {stride - 1} of every task")
    dropped = 0
    for attempt in range(MAX_VARIATIONS_TRIED):
        variation = variations.seed(index + attempt * stride)
        for weaker in range(level, -1, -1):
            episode = play(variation, weaker)
            if episode is not None:
                return Demonstration(episode, dropped)
            dropped += 1
    raise ExpertFailed(f"task {task!r}, split {split!r}, episode {index}: all {dropped} roll-outs failed")


def disturbed(action: Action, dims: Sequence[int], noise: float, rng: np.random.Generator) -> Action:
    """The action (A,) with gaussian noise of this deviation on some dimensions, clipped to [-1, 1]."""
    disturbance = np.zeros(len(action), dtype=np.float32)
    disturbance[list(dims)] = noise * rng.standard_normal(len(dims))
    command: Action = np.clip(action + disturbance, -1.0, 1.0).astype(np.float32)
    return command
