"""The two ends of the scale: a policy that does nothing, and the scripted expert that sees the simulator's state.

Both are blind (they read no pictures), so a rollout does not render for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wam.engine.policy import ActionChunk
from wam.evaluate.rollout import Environment
from wam.robot.embodiment import METAWORLD_SAWYER, Embodiment
from wam.robot.observation import Observation


class ExpertEnvironment(Environment, Protocol):
    """An environment with a scripted solution."""

    def expert_action(self) -> npt.NDArray[np.float32]:
        """The expert's action (A,) for the present state of the simulator."""


class ConstantHold:
    """Hold still: no motion, the gripper command stays what it is at reset. The floor of every comparison."""

    blind = True

    def __init__(
        self, embodiment: Embodiment = METAWORLD_SAWYER, hold: Sequence[float] = (0.0, 0.0, 0.0, -1.0)
    ) -> None:
        """hold: the action (A,) that is sent in every step; the default keeps the Sawyer's gripper open.

        Raises ValueError when its length is not the embodiment's action size.
        """
        if len(hold) != embodiment.action_dim:
            raise ValueError(
                f"constant-hold: {len(hold)} numbers in 'hold', but embodiment {embodiment.name!r} has "
                f"{embodiment.action_dim} action dimensions {list(embodiment.action_names)}"
            )
        self.execute = embodiment.actions_per_chunk
        self.video_stride = embodiment.video_stride
        self._actions = np.tile(np.asarray(hold, dtype=np.float32), (self.execute, 1))

    def reset(self, seed: int) -> None:
        """Nothing to forget."""

    def act(self, observations: Sequence[Observation]) -> ActionChunk:
        return ActionChunk(actions=self._actions.copy())


def rest(embodiment: Embodiment) -> tuple[float, ...]:
    """The action (A,) of an arm that is moved by differences: no motion, and grippers open."""
    return tuple(part.gripper[0] if part.gripper else 0.0 for part in embodiment.action for _ in part.dims)


class Expert:
    """The scripted expert of the environment that it drives: the ceiling, since it sees the goal and every object."""

    blind = True
    execute = 1
    video_stride = 1

    def __init__(self, env: ExpertEnvironment) -> None:
        self._env = env

    def reset(self, seed: int) -> None:
        """The expert is a function of the simulator's state."""

    def act(self, observations: Sequence[Observation]) -> ActionChunk:
        action = np.clip(self._env.expert_action(), -1.0, 1.0)
        return ActionChunk(actions=np.asarray(action, dtype=np.float32)[None])
