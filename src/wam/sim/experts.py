"""Demonstrations: the scripted expert plays, noise disturbs what is executed, the label is what the expert wanted.

Beside noise there are detours: for a while the arm is led to a random place with its gripper forced open or shut, so
that what it carried is lost. What the expert does afterwards teaches recovery, which undisturbed play never shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wam.sim.metaworld import ACTION_DIM, MetaWorldEnv
from wam.sim.tasks import PRECISE_TASKS, SPLITS, TASKS, SplitName

MAX_ROWS = 250
ROWS_AFTER_SUCCESS = 10
MAX_VARIATIONS_TRIED = 10
NOISE_WEIGHTS = (0.3, 0.4, 0.3)
NOISE_LEVELS = (0.0, 0.1, 0.28)
PRECISE_NOISE_LEVELS = (0.0, 0.04, 0.1)
DETOUR_SPACE = ((-0.4, 0.45, 0.07), (0.4, 0.85, 0.30))  # metres, corners of where the hand may be led
DETOUR_GAIN = 10.0  # action per metre of distance, as the scripted experts have it
DETOUR_START = (2, 40)  # rows
DETOUR_ROWS = (6, 18)


class ExpertFailed(RuntimeError):
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


@dataclass(frozen=True)
class Detour:
    """Rows `start <= row < end` in which the hand is led to `target`, (3,) metres, with this gripper command."""

    start: int
    end: int
    target: npt.NDArray[np.float64]
    gripper: float

    def command(self, hand: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The action (4,) that leads a hand at (3,) metres there."""
        move = np.clip(DETOUR_GAIN * (self.target - hand), -1.0, 1.0)
        return np.append(move, self.gripper).astype(np.float32)


def noise_levels(task: str) -> tuple[float, ...]:
    """Standard deviations of the disturbance that this task tolerates, in units of the action, from none to strong."""
    return PRECISE_NOISE_LEVELS if task in PRECISE_TASKS else NOISE_LEVELS


def demonstrate(env: MetaWorldEnv, split: SplitName, index: int, seed: int, detours: bool = False) -> Demonstration:
    """Record episode number `index` of this task; the result depends on nothing but the arguments.

    A failed roll-out is repeated on the same variation with the next weaker noise: dropping the variation itself would
    bias the data towards easy ones. Only if the undisturbed expert fails too does another variation take its place, a
    tenth of the split further on. Raises ExpertFailed after 10 variations, IndexError if the split is not that large.
    """
    variations = SPLITS[split]
    stride = len(variations) // MAX_VARIATIONS_TRIED
    if not 0 <= index < stride:
        raise IndexError(f"episode {index} of split {split!r}: it has room for {stride} episodes per task")
    rng = np.random.default_rng([seed, index, *env.task.encode()])
    levels = noise_levels(env.task)
    first = int(rng.choice(len(levels), p=NOISE_WEIGHTS))
    sentence = str(rng.choice(TASKS[env.task].training_sentences))
    dropped = 0
    for attempt in range(MAX_VARIATIONS_TRIED):
        variation = variations.seed(index + attempt * stride)
        for level in range(first, -1, -1):
            planned = plan_detours(rng) if detours else ()
            episode = record_episode(env, variation, levels[level], rng, sentence, planned)
            if episode is not None:
                return Demonstration(episode, dropped)
            dropped += 1
    raise ExpertFailed(f"task {env.task!r}, split {split!r}, episode {index}: all {dropped} roll-outs failed")


def plan_detours(rng: np.random.Generator) -> tuple[Detour, ...]:
    """One or two detours at random times; two thirds of them let go of what is held."""
    planned = []
    for _ in range(rng.integers(1, 3)):
        start = int(rng.integers(*DETOUR_START))
        gripper = -1.0 if rng.random() < 2 / 3 else 1.0
        planned.append(Detour(start, start + int(rng.integers(*DETOUR_ROWS)), rng.uniform(*DETOUR_SPACE), gripper))
    return tuple(planned)


def record_episode(
    env: MetaWorldEnv,
    seed: int,
    noise: float,
    rng: np.random.Generator,
    sentence: str | None = None,
    detours: tuple[Detour, ...] = (),
) -> RecordedEpisode | None:
    """Let the expert play one seed; None if it fails.

    noise: standard deviation of the gaussian disturbance of the executed dx, dy, dz (the gripper is left alone). The
    recording ends 10 rows after success, so that a policy learns to stay, and never has more than 250 rows. Row t holds
    what was seen and the action chosen at step t, and whether the task had succeeded after that action. The label stays
    the expert's wish during a detour too; `executed_action` tells that something else was done.
    """
    observation = env.reset(seed)
    images: dict[str, list[npt.NDArray[np.uint8]]] = {camera: [] for camera in env.cameras}
    states: list[npt.NDArray[np.float32]] = []
    actions: list[npt.NDArray[np.float32]] = []
    executed: list[npt.NDArray[np.float32]] = []
    successes: list[bool] = []
    while len(actions) < MAX_ROWS and not env.finished and sum(successes) <= ROWS_AFTER_SUCCESS:
        action = env.expert_action()
        leading = next((detour for detour in detours if detour.start <= len(actions) < detour.end), None)
        wanted = action if leading is None else leading.command(observation.state[:3])
        command = _disturbed(wanted, noise, rng)
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
    extra: dict[str, str | int | float] = {"env_task": env.task, "seed": seed, "noise": float(noise)}
    return RecordedEpisode(
        images={camera: np.stack(frames) for camera, frames in images.items()},
        columns=columns,
        task=sentence if sentence is not None else TASKS[env.task].sentence,
        extra=extra,
    )


def _disturbed(action: npt.NDArray[np.float32], noise: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    disturbance = np.zeros(ACTION_DIM, dtype=np.float32)
    disturbance[:3] = noise * rng.standard_normal(3)
    command: npt.NDArray[np.float32] = np.clip(action + disturbance, -1.0, 1.0).astype(np.float32)
    return command
