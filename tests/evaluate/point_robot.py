"""A point on a table that has to reach a dot: the smallest robot with a camera, for tests of the evaluation itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from wam.engine.policy import ActionChunk
from wam.robot.embodiment import Embodiment, Part
from wam.robot.observation import Observation

SIZE = 16
POINT = Embodiment(
    name="point",
    cameras=("top",),
    canvas=(("top",),),
    view_height=SIZE,
    view_width=SIZE,
    state=(Part("state", ("x", "y")),),
    action=(Part("action", ("dx", "dy")),),
    control_hz=10.0,
    video_stride=2,
    actions_per_chunk=8,
)


class PointEnv:
    """Goal in the red channel, robot in the green one; solved within 0.1 of the goal. Counts what is asked of it."""

    action_repeat = 2

    def __init__(self, task: str = "near") -> None:
        if task == "broken":
            raise RuntimeError("this simulator does not start")
        self.task, self.renders, self.steps = task, 0, 0

    def reset(self, seed: int) -> Observation:
        if self.task == "crash" and seed == 1:
            raise RuntimeError("the arm fell off")
        if self.task == "die" and seed == 1:
            os._exit(7)
        angle = np.random.default_rng(seed).uniform(0, 2 * np.pi)
        self.goal = {"far": 9.0}.get(self.task, 0.8) * np.array([np.cos(angle), np.sin(angle)])
        self.place, self.steps, self.success = np.zeros(2), 0, False
        return self.observe()

    def step(self, action: np.ndarray) -> bool:
        self.place = self.place + 0.1 * np.clip(action, -1, 1)
        self.steps += 1
        self.success = self.success or bool(np.abs(self.place - self.goal).max() < 0.1)
        return self.success

    def observe(self) -> Observation:
        self.renders += 1
        picture = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
        for channel, place in enumerate((self.goal, self.place)):
            column, row = np.clip(((place + 1) / 2 * SIZE).astype(int), 0, SIZE - 1)
            picture[row, column, channel] = 255
        return Observation({"top": picture}, self.place.astype(np.float32), "Reach the <red> dot.", self.steps / 10)

    def expert_action(self) -> np.ndarray:
        return np.clip(10 * (self.goal - self.place), -5, 5)

    def close(self) -> None:
        pass


@dataclass
class PointPolicy:
    """Walks towards the red pixel with noise that its seed fixes; remembers what it was given."""

    execute: int = 8
    video_stride: int = 2
    noise: float = 0.3
    dream: bool = False
    looks: list[int] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    def reset(self, seed: int) -> None:
        self.seeds.append(seed)
        self._random = np.random.default_rng(seed)

    def act(self, observations: Sequence[Observation]) -> ActionChunk:
        self.looks.append(len(observations))
        picture = observations[-1].images["top"]
        row, column = np.argwhere(picture[..., 0] == 255)[0]
        goal = np.array([column + 0.5, row + 0.5]) / SIZE * 2 - 1
        path = np.linspace(0, 1, 9)[1:, None] * (goal - observations[-1].state)
        actions = np.diff(path, axis=0, prepend=0) * 10 + self.noise * self._random.normal(size=(8, 2))
        dream = np.full((4, SIZE, SIZE, 3), 0, np.uint8) if self.dream else None
        if dream is not None:
            dream += (10 * len(self.looks) + np.arange(4, dtype=np.uint8))[:, None, None, None]
        return ActionChunk(actions.astype(np.float32), dream, {"think": 0.001 if len(self.looks) > 1 else 9.0})


@dataclass(frozen=True)
class PointSource:
    """Loads a PointPolicy in a worker."""

    noise: float = 0.3

    def __call__(self):
        policy = PointPolicy(noise=self.noise)
        return lambda env: policy


class BrokenSource:
    """A policy that cannot be loaded."""

    def __call__(self):
        raise FileNotFoundError("runs/nowhere: no checkpoint there")
