"""Arms with two-fingered hands behind wam's interface, as robosuite simulates them and LIBERO does on top of it.

Both step their operational-space controllers at 20 Hz with seven numbers per arm in [-1, 1]: dx, dy, dz, a rotation
vector, and the gripper (-1 opens, 1 closes). What differs between them is in `Scene`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from wam.robot.observation import Image, Observation
from wam.sim.offscreen import Offscreen, stock_view
from wam.sim.scripts import Hand, Script, Waypoint

CONTROL_HZ = 20.0
ARM_DIMS = 7
MAX_GEOMS = 2000
COLLISION_GROUP = 0  # shapes that only the physics sees

Raw = Mapping[str, Any]
"""What robosuite calls an observation: name -> array."""


@dataclass(frozen=True)
class Shot:
    """A camera of the scene; `mirrored` exchanges left and right."""

    camera: str
    mirrored: bool = False


@dataclass(frozen=True)
class Scene:
    """One task of one simulator.

    env: a robosuite environment with soft resets.  shots: every picture that can be asked for, by name.
    start: seed -> first observation; the same seed gives the same state.  state: observation -> float32 (S,).
    hands, waypoints: what a scripted expert sees and does; None for a task without one.
    max_steps: control steps after which an episode is over.
    """

    task: str
    sentence: str
    env: Any
    arms: int
    shots: Mapping[str, Shot]
    start: Callable[[int], Raw]
    state: Callable[[Raw], npt.NDArray[np.float32]]
    max_steps: int
    hands: Callable[[Raw], Sequence[Hand]] | None = None
    waypoints: tuple[Waypoint, ...] = ()


class ArmsEnv:
    """A scene as an environment that can be observed, evaluated in and, with a script, demonstrated.

    cameras: names out of `scene.shots`; empty for physics without pictures.  image_size: height and width in pixels.
    row_hz: control steps per second as the data set counts them, which time stamps follow. Raises ValueError naming an
    unknown camera.
    """

    action_repeat = 1

    def __init__(
        self, scene: Scene, cameras: tuple[str, ...] = (), image_size: int = 128, row_hz: float = CONTROL_HZ
    ) -> None:
        unknown = [name for name in cameras if name not in scene.shots]
        if unknown:
            raise ValueError(f"task {scene.task!r}: unknown camera {unknown[0]!r}; known are {sorted(scene.shots)}")
        self.scene, self.cameras, self.task = scene, cameras, scene.task
        self.row_hz = row_hz
        self._offscreen = Offscreen(_model(scene.env), image_size, MAX_GEOMS) if cameras else None
        self._option = mujoco.MjvOption()
        self._option.geomgroup[COLLISION_GROUP] = 0
        self._option.sitegroup[:] = 0
        self._raw: Raw | None = None
        self._script: Script | None = None
        self._steps = 0
        self._success = False

    @property
    def success(self) -> bool:
        """Whether the task succeeded at any time since the reset."""
        return self._success

    @property
    def finished(self) -> bool:
        """Whether the steps of an episode are used up; further steps change nothing."""
        return self._steps >= self.scene.max_steps

    @property
    def translation(self) -> tuple[int, ...]:
        """Dimensions of the action that move hands without turning them."""
        return tuple(ARM_DIMS * arm + axis for arm in range(self.scene.arms) for axis in range(3))

    def reset(self, seed: int) -> Observation:
        """Start the episode of this seed (any integer >= 0)."""
        if seed < 0:
            raise ValueError(f"seed is {seed}, expected an integer >= 0")
        for robot in self.scene.env.robots:  # a soft reset leaves fingers on their way to where they last were sent
            robot.gripper.current_action = np.zeros(robot.gripper.dof)
        with seeded(seed):
            self._raw = self.scene.start(seed)
        self._script = Script(self.scene.waypoints) if self.scene.hands else None
        self._steps, self._success = 0, False
        return self.observe()

    def step(self, action: npt.ArrayLike) -> bool:
        """One control step of `action`, (7 arms,); values beyond [-1, 1] are clipped.

        Returns whether the task has succeeded so far; nothing moves any more once `finished`. Raises ValueError for a
        wrong shape or a value that is not finite.
        """
        command = self._checked(action)
        self._current()
        if not self.finished:
            self._raw, _, _, _ = self.scene.env.step(command)
            self._steps += 1
            self._success = self._success or bool(self.scene.env._check_success())
        return self._success

    def observe(self) -> Observation:
        """The present look at the world."""
        state = self.scene.state(self._current())
        return Observation(self._pictures(), state, self.scene.sentence, self._steps / self.row_hz)

    def expert_action(self) -> npt.NDArray[np.float32]:
        """What the scripted expert, which knows where things are, does now: float32 (7 arms,).

        Raises ValueError for a task without a script.
        """
        raw = self._current()
        if self._script is None or self.scene.hands is None:
            raise ValueError(f"task {self.task!r} has no scripted expert")
        return self._script.action(self.scene.hands(raw))

    def close(self) -> None:
        if self._offscreen is not None:
            self._offscreen.close()
        self.scene.env.close()

    def _current(self) -> Raw:
        if self._raw is None:
            raise RuntimeError("call reset(seed) before anything else")
        return self._raw

    def _pictures(self) -> dict[str, Image]:
        if self._offscreen is None:
            return {}
        return {name: self._picture(self._offscreen, self.scene.shots[name]) for name in self.cameras}

    def _picture(self, offscreen: Offscreen, shot: Shot) -> Image:
        offscreen.look(self.scene.env.sim.data._data, self._option, stock_view(offscreen.model, shot.camera))
        picture = offscreen.draw()[::-1]  # OpenGL rows run from bottom to top
        return np.ascontiguousarray(picture[:, ::-1] if shot.mirrored else picture)

    def _checked(self, action: npt.ArrayLike) -> npt.NDArray[np.float32]:
        command, wanted = np.asarray(action, dtype=np.float32), (ARM_DIMS * self.scene.arms,)
        if command.shape != wanted:
            raise ValueError(
                f"action has shape {command.shape}, expected {wanted}: dx dy dz, rotation, gripper per arm"
            )
        if not np.isfinite(command).all():
            raise ValueError(f"action is {command.tolist()}, expected finite numbers in [-1, 1]")
        return np.clip(command, -1.0, 1.0)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """numpy's global random state, which robosuite draws from, set to a seed and put back afterwards."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)


def fingers(raw: Raw, arm: int) -> npt.NDArray[np.float64]:
    """The joints of both fingers, (2,); of hands with several joints per finger, the first of each."""
    joints = np.asarray(raw[f"robot{arm}_gripper_qpos"])
    return joints[[0, len(joints) // 2]]


def opening(env: Any, arm: int) -> npt.NDArray[np.float64]:
    """From one finger pad to the other, (3,) metres."""
    parts, model, data = env.robots[arm].gripper.important_geoms, env.sim.model, env.sim.data
    pads = [
        np.mean([data.geom_xpos[model.geom_name2id(geom)] for geom in parts[f"{side}_fingerpad"]], axis=0)
        for side in ("left", "right")
    ]
    apart: npt.NDArray[np.float64] = pads[0] - pads[1]
    return apart


def _model(env: Any) -> mujoco.MjModel:
    """MuJoCo's own model inside robosuite's wrapper."""
    model: mujoco.MjModel = env.sim.model._model
    return model
