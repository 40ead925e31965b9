"""The Sawyer told where its hand should be, instead of how far to move it: the same arm, other actions.

A data set of `wam collect` has both: `action` moves the hand by a difference, and `target` says where that difference
leads. An embodiment whose actions are called as in TARGET (`metaworld-positions`) learns the second kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from wam.sim.metaworld import MetaWorldEnv

METRES_PER_STEP = 0.01  # how far an action of 1 sends the hand in one environment step
TARGET = ("target_x", "target_y", "target_z", "gripper_effort")


def target_of(hand: npt.NDArray[np.float32], move: npt.NDArray[np.float32], repeat: int) -> npt.NDArray[np.float32]:
    """Hands (..., 3 or more) in metres and actions (..., 4) of `repeat` simulator steps -> TARGET (..., 4)."""
    where = hand[..., :3] + METRES_PER_STEP * repeat * move[..., :3]
    return np.concatenate([where, move[..., 3:]], axis=-1).astype(np.float32)


class Positioned:
    """A Meta-World task whose actions are TARGET (4,): metres, and the effort of the gripper in [-1, 1].

    A position further away than one control step reaches is approached as fast as the arm goes.
    """

    def __init__(self, env: MetaWorldEnv) -> None:
        self.env = env
        self.task, self.action_repeat = env.task, env.action_repeat
        self.reset, self.observe, self.close = env.reset, env.observe, env.close

    def step(self, action: npt.ArrayLike) -> bool:
        """Whether the task has succeeded so far. Raises ValueError for a wrong shape, or what is not finite."""
        wanted = np.asarray(action, dtype=np.float32)
        if wanted.shape != (len(TARGET),):
            raise ValueError(f"action has shape {wanted.shape}, expected ({len(TARGET)},): {', '.join(TARGET)}")
        move = (wanted[:3] - self.env.hand) / (METRES_PER_STEP * self.action_repeat)
        return self.env.step(np.append(move, wanted[3]))

    def expert_action(self) -> npt.NDArray[np.float32]:
        return target_of(self.env.hand, self.env.expert_action(), self.action_repeat)
