"""Demonstrations: the scripted expert plays, noise disturbs what is executed, the label is what the expert wanted.

Beside noise something else may lead the arm for a while; what the expert does afterwards teaches recovery, which
undisturbed play never shows. Detours go to a random place with the gripper forced open or shut, so that what it carried
is lost; a learner makes its own mistakes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from wam.robot.observation import Observation
from wam.sim.metaworld import MetaWorldEnv
from wam.sim.positions import target_of
from wam.sim.recording import Action, Demonstration, Lead, Leader, RecordedEpisode, disturbed, first_success, record
from wam.sim.tasks import PRECISE_TASKS, TASKS, SplitName

NOISE_WEIGHTS = (0.3, 0.4, 0.3)
NOISE_LEVELS = (0.0, 0.1, 0.28)
PRECISE_NOISE_LEVELS = (0.0, 0.04, 0.1)
TRANSLATION = (0, 1, 2)
DETOUR_SPACE = ((-0.4, 0.45, 0.07), (0.4, 0.85, 0.30))  # metres, corners of where the hand may be led
DETOUR_GAIN = 10.0  # action per metre of distance, as the scripted experts have it
DETOUR_START = (2, 40)  # rows
DETOUR_ROWS = (6, 18)


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


def demonstrate(
    env: MetaWorldEnv,
    split: SplitName,
    index: int,
    seed: int,
    leader: Leader | None = None,
    disturbance: float = 1.0,
) -> Demonstration:
    """Record episode number `index` of this task; the result depends on nothing but the arguments.

    leader: what leads the arm astray.  disturbance: scale of the noise levels; 0 shows the expert undisturbed.
    Raises ExpertFailed and another ValueError as `first_success`.
    """
    rng = np.random.default_rng([seed, index, *env.task.encode()])
    levels = [disturbance * level for level in noise_levels(env.task)]
    first = int(rng.choice(len(levels), p=NOISE_WEIGHTS))
    sentence = str(rng.choice(TASKS[env.task].training_sentences))

    def play(variation: int, level: int) -> RecordedEpisode | None:
        lead = None if leader is None else leader(rng, env.task, variation)
        return record_episode(env, variation, levels[level], rng, sentence, lead)

    return first_success(env.task, split, index, first, play)


def detours(rng: np.random.Generator, task: str, seed: int) -> Lead:
    """A `Leader`: detours that `plan_detours` draws."""
    return along(plan_detours(rng))


def along(planned: Sequence[Detour]) -> Lead:
    """What leads the arm through these detours."""

    def lead(observation: Observation, row: int) -> Action | None:
        leading = next((detour for detour in planned if detour.start <= row < detour.end), None)
        return None if leading is None else leading.command(observation.state[:3])

    return lead


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
    lead: Lead | None = None,
) -> RecordedEpisode | None:
    """Let the expert play one seed; None if it fails.

    noise: standard deviation of the gaussian disturbance of the executed dx, dy, dz (the gripper is left alone). The
    label stays the expert's wish while something else leads; `executed_action` tells what was done, and `target` where
    the wish leads (see `wam.sim.positions`).
    """

    def execute(observation: Observation, action: Action, row: int) -> Action:
        led = None if lead is None else lead(observation, row)
        return disturbed(action if led is None else led, TRANSLATION, noise, rng)

    episode = record(env, seed, execute, {"noise": float(noise)}, sentence or TASKS[env.task].sentence)
    if episode is None:
        return None
    target = target_of(episode.columns["observation.state"], episode.columns["action"], env.action_repeat)
    return replace(episode, columns={**episode.columns, "target": target})
