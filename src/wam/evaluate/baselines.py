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
from wam.realtime import Rest
from wam.robot.embodiment import METAWORLD_SAWYER, Embodiment, Part, indexed
from wam.robot.observation import Observation
from wam.sim.positions import TARGET

OPEN_AND_CLOSED = (-1.0, 1.0)  # Meta-World's effort of the gripper


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


def standing(embodiment: Embodiment, state: npt.NDArray[np.float32] | None = None) -> Rest:
    """How a robot stands still: no motion, positions where they are at present, grippers open at first, then kept.

    Positions are actions relative to a part of the state, and Meta-World's targets. state: (S,), the present one.
    Raises ValueError naming an action that is a position, when the state is unknown or has no part of that name.
    """
    action: list[float] = []
    keep: list[int] = []
    for part, places in indexed(embodiment.action):
        if part.relative or part.dims == TARGET[:3]:
            action += _present(embodiment, part, state)
            keep += places
            continue
        for place, dim in zip(places, part.dims, strict=True):
            gripper = part.gripper or (OPEN_AND_CLOSED if dim == TARGET[3] else None)
            action.append(gripper[0] if gripper else 0.0)
            keep += [place] if gripper else []
    return Rest(tuple(action), tuple(keep))


def _present(embodiment: Embodiment, part: Part, state: npt.NDArray[np.float32] | None) -> list[float]:
    """The part of the state that this action leads."""
    for known, places in indexed(embodiment.state):
        if state is not None and (known.name, len(known.dims)) == (part.name, len(part.dims)):
            present: list[float] = state[list(places)].tolist()
            return present
    found = "no state is known" if state is None else f"the state has no part {part.name!r} of {len(part.dims)} numbers"
    raise ValueError(
        f"embodiment {embodiment.name!r}: action {part.name!r} is a position to hold still at, but {found}"
    )


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
