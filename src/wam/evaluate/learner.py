"""A policy that begins demonstrations which the expert has to finish: recovery from the learner's own mistakes.

DAgger (Ross, Gordon and Bagnell, AISTATS 2011: arXiv 1011.0686) asks the expert about the states that a learner gets
into. Labels of the rows that the learner leads are the expert's too, but what follows a row that was led far astray is
not learned from within its chunk, so most of what is learned comes after the expert has taken over (as in HG-DAgger,
arXiv 1810.02890).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wam.engine.policy import Policy
from wam.evaluate.rollout import noise_seed
from wam.evaluate.sources import PolicySource
from wam.robot.observation import Observation
from wam.sim.recording import Action, Lead
from wam.sim.worlds import View

TAKEOVER = (8, 120)  # rows, the first and one behind the last at which the expert may take over


class Learner:
    """A `Leader`: the policy acts until a random row, as it would in a rollout."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    @classmethod
    def of(cls, checkpoint: str) -> Learner:
        """A trained model, on one thread."""
        import torch

        from wam.engine import load_policy

        torch.set_num_threads(1)
        return cls(load_policy(checkpoint))

    def __call__(self, rng: np.random.Generator, task: str, seed: int) -> Lead:
        """One roll-out; the policy's noise is that of an evaluation of this episode."""
        takeover, policy = int(rng.integers(*TAKEOVER)), self._policy
        policy.reset(noise_seed(task, seed))
        looks: list[Observation] = []
        planned: Sequence[Action] = ()

        def lead(observation: Observation, row: int) -> Action | None:
            nonlocal planned
            if row >= takeover:
                return None
            if row % policy.video_stride == 0:
                looks.append(observation)
            if row % policy.execute == 0:
                planned = list(policy.act(looks).actions)
                looks.clear()
            return np.clip(planned[row % policy.execute], -1.0, 1.0)

        return lead


def check_view(checkpoint: str, view: View, hz: float) -> None:
    """Raises ValueError naming what a model would see or do at another size or rate than it has learned.

    hz: simulator steps per second.
    """
    robot = PolicySource("wam", Path(checkpoint)).embodiment()
    found = {"cameras": view.cameras, "picture size": view.image_size, "rows per second": hz / view.action_repeat}
    wanted = {"cameras": robot.cameras, "picture size": robot.view_height, "rows per second": robot.control_hz}
    for name, value in found.items():
        if value != wanted[name]:
            raise ValueError(
                f"--learner {checkpoint}: it has learned with {name} {wanted[name]}, but {value} is recorded; give "
                "--embodiment the robot that it was trained on"
            )
