"""`--env.type=wam_sim`: Meta-World as the shipped models know it (two small cameras, 40 control steps per second).

LeRobot's own Meta-World environment has one camera of another size and another rate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from wam.robot.embodiment import METAWORLD_SAWYER as ROBOT
from wam.robot.observation import Observation

GYM_ID = "wam_sim/MetaWorld-v0"
_PIXELS = (ROBOT.view_height, ROBOT.view_width, 3)


def _features() -> dict[str, PolicyFeature]:
    views = {f"pixels/{camera}": PolicyFeature(FeatureType.VISUAL, _PIXELS) for camera in ROBOT.cameras}
    return {
        ACTION: PolicyFeature(FeatureType.ACTION, (ROBOT.action_dim,)),
        "agent_pos": PolicyFeature(FeatureType.STATE, (ROBOT.state_dim,)),
        **views,
    }


def _features_map() -> dict[str, str]:
    views = {f"pixels/{camera}": f"{OBS_IMAGES}.{camera}" for camera in ROBOT.cameras}
    return {ACTION: ACTION, "agent_pos": OBS_STATE, **views}


@EnvConfig.register_subclass("wam_sim")
@dataclass
class WamSimConfig(EnvConfig):
    """task: of Meta-World, without version, e.g. "reach".  episode_length: control steps; 250 are a whole episode."""

    task: str | None = "reach"
    fps: int = int(ROBOT.control_hz)
    episode_length: int = 250
    features: dict[str, PolicyFeature] = field(default_factory=_features)
    features_map: dict[str, str] = field(default_factory=_features_map)

    @property
    def gym_id(self) -> str:
        return GYM_ID

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {"task": self.task, "episode_length": self.episode_length}


class WamSimEnv(gym.Env):
    """One task of Meta-World, with LeRobot's names for what is seen. The episode ends with success."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": int(ROBOT.control_hz)}

    def __init__(self, task: str, episode_length: int = 250, render_mode: str = "rgb_array") -> None:
        from wam.sim.metaworld import MetaWorldEnv  # the `sim` extra

        self._env = MetaWorldEnv(task, cameras=ROBOT.cameras, image_size=ROBOT.view_height)
        self.task, self.task_description, self.render_mode = task, "", render_mode
        self._max_episode_steps, self._steps, self._next_seed = episode_length, 0, 0
        views = {camera: spaces.Box(0, 255, _PIXELS, np.uint8) for camera in ROBOT.cameras}
        state = spaces.Box(-np.inf, np.inf, (ROBOT.state_dim,), np.float32)
        self.observation_space = spaces.Dict({"pixels": spaces.Dict(views), "agent_pos": state})
        self.action_space = spaces.Box(-1.0, 1.0, (ROBOT.action_dim,), np.float32)
        self._now: Observation | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The initial state of this seed; without one, of the seed after the last."""
        seed = self._next_seed if seed is None else seed
        super().reset(seed=seed)
        self._next_seed, self._steps = seed + 1, 0
        look = self._env.reset(seed)
        self.task_description = look.instruction
        return self._seen(look), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        solved = self._env.step(action)
        self._steps += 1
        over = self._steps >= self._max_episode_steps
        return self._seen(self._env.observe()), float(solved), solved, over and not solved, {"is_success": solved}

    def render(self) -> np.ndarray:
        """All cameras side by side, uint8 (H, W, 3)."""
        look = self._env.observe() if self._now is None else self._now
        return np.concatenate([look.images[camera] for camera in ROBOT.cameras], axis=1)

    def close(self) -> None:
        self._env.close()

    def _seen(self, look: Observation) -> dict[str, Any]:
        self._now = look
        return {"pixels": dict(look.images), "agent_pos": np.asarray(look.state, dtype=np.float32)}


if GYM_ID not in gym.registry:
    # without wrappers, behind which LeRobot does not find `task_description`
    gym.register(GYM_ID, entry_point=WamSimEnv, order_enforce=False)
