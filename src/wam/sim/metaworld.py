"""Meta-World behind wam's interface: any task, any seed, pictures and proprioception instead of privileged state.

Source: Yu et al. 2019 (arXiv 1910.10897), package metaworld 3.1.1. Rates: the environment steps at 80 Hz; one control
step repeats its action `action_repeat` times, so that the default controls at 40 Hz.
"""

from __future__ import annotations

import warnings
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP

from wam.robot.observation import Observation
from wam.sim.looks import Look, repainter
from wam.sim.render import Renderer
from wam.sim.tasks import GOAL_MARKER_TASKS, TASKS
from wam.sim.tasks import task as find_task

ENV_HZ = 80.0
MAX_ENV_STEPS = 500
ACTION_DIM = 4
_MUTABLE_FIELDS = ("body_pos", "body_quat", "site_pos", "geom_rgba", "site_rgba")


class MetaWorldEnv:
    """One Meta-World task.

    task: name without version, e.g. "reach".
    cameras: names out of `wam.sim.render.CAMERAS`; empty for physics without pictures.
    image_size: height and width of a picture in pixels.
    action_repeat: environment steps per control step.
    look: "train" or a held-out look, see `wam.sim.looks.LOOKS`.

    Every seed is its own initial state, and the same seed gives the same state bit for bit, whatever was played before.
    `state` in observations is hand x, y, z in metres and the gripper opening in [0, 1]; the goal is in the pictures
    only. ValueError names what is wrong with an argument.
    """

    def __init__(
        self,
        task: str,
        *,
        cameras: tuple[str, ...] = ("top", "side"),
        image_size: int = 64,
        action_repeat: int = 2,
        look: Look = "train",
    ) -> None:
        if action_repeat < 1:
            raise ValueError(f"action_repeat is {action_repeat}, expected at least 1 environment step per action")
        self.task = find_task(task).name
        self.cameras = tuple(cameras)
        self.action_repeat = action_repeat
        self._env = _open(task)
        self._pristine = {name: getattr(self._env.model, name).copy() for name in _MUTABLE_FIELDS}
        policy: Any = ENV_POLICY_MAP[f"{task}-v3"]
        self._expert = policy()
        repaint = repainter(look)
        self._renderer = Renderer(self._env.model, self.cameras, image_size, repaint) if self.cameras else None
        self._privileged: npt.NDArray[np.float64] | None = None
        self._env_steps = 0
        self._success = False

    @property
    def control_hz(self) -> float:
        return ENV_HZ / self.action_repeat

    @property
    def hand(self) -> npt.NDArray[np.float32]:
        """Where the hand is: float32 (3,) in metres, as in the state of an observation."""
        return self._current()[:3].astype(np.float32)

    @property
    def success(self) -> bool:
        """Whether the task succeeded at any time since the reset."""
        return self._success

    @property
    def finished(self) -> bool:
        """Whether the 500 environment steps of an episode are used up; further steps change nothing."""
        return self._env_steps >= MAX_ENV_STEPS

    def reset(self, seed: int) -> Observation:
        """Start the episode of this seed (any integer >= 0)."""
        if seed < 0:
            raise ValueError(f"seed is {seed}, expected an integer >= 0")
        for name, value in self._pristine.items():
            getattr(self._env.model, name)[:] = value
        self._env.seed(seed)
        self._env.reset()
        # A reset moves bodies without recomputing positions; the first look must not be stale.
        mujoco.mj_forward(self._env.model, self._env.data)
        current = self._env._get_curr_obs_combined_no_goal()
        self._env._prev_obs = current
        self._privileged = np.hstack((current, current, self._env._get_pos_goal()))
        self._env_steps = 0
        self._success = False
        return self.observe()

    def step(self, action: npt.ArrayLike) -> bool:
        """Execute one control step of `action`, (4,) in [-1, 1] (dx, dy, dz, gripper); values beyond are clipped.

        Returns whether the task has succeeded so far; nothing moves any more once `finished`. Raises ValueError for a
        wrong shape or a value that is not finite.
        """
        command = _checked(action)
        self._current()
        for _ in range(self.action_repeat):
            if self.finished:
                break
            self._privileged, _, _, _, info = self._env.step(command)
            self._env_steps += 1
            self._success = self._success or bool(info["success"])
        return self._success

    def observe(self) -> Observation:
        """The present look at the world."""
        state = self._current()[:4].astype(np.float32)
        images = {}
        if self._renderer is not None:
            goal = self._env._target_pos if self.task in GOAL_MARKER_TASKS else None
            images = self._renderer.render(self._env.model, self._env.data, goal)
        return Observation(images, state, TASKS[self.task].sentence, self._env_steps / ENV_HZ)

    def expert_action(self) -> npt.NDArray[np.float32]:
        """What the scripted expert, which knows the goal, does now: float32 (4,), clipped to [-1, 1]."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Constant(s) may be too high": the clip below is what it asks for
            action = self._expert.get_action(self._current())
        return np.clip(np.asarray(action, dtype=np.float32), -1.0, 1.0)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
        self._env.close()

    def _current(self) -> npt.NDArray[np.float64]:
        if self._privileged is None:
            raise RuntimeError("call reset(seed) before anything else")
        return self._privileged


def _open(task: str) -> Any:
    """The environment class itself: without the benchmark's 50 fixed variations, its goal visible to the expert."""
    env = ALL_V3_ENVIRONMENTS[f"{task}-v3"]()
    env._freeze_rand_vec = False
    env.seeded_rand_vec = True
    env._set_task_called = True
    env._partially_observable = False
    env.__dict__.pop("sawyer_observation_space", None)  # it was cached with the goal clipped to zero
    return env


def _checked(action: npt.ArrayLike) -> npt.NDArray[np.float32]:
    command = np.asarray(action, dtype=np.float32)
    if command.shape != (ACTION_DIM,):
        raise ValueError(f"action has shape {command.shape}, expected ({ACTION_DIM},): dx, dy, dz, gripper")
    if not np.isfinite(command).all():
        raise ValueError(f"action is {command.tolist()}, expected finite numbers in [-1, 1]")
    return np.clip(command, -1.0, 1.0)
