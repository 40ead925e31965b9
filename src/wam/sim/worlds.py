"""The simulators under one interface: their tasks, what acts in them, how they are opened and demonstrated.

A simulator is imported when it is first needed: they are large, and an evaluation's main process needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol, cast

import numpy as np

from wam.robot.embodiment import METAWORLD_SAWYER, Embodiment, load_embodiment
from wam.robot.observation import Observation
from wam.sim.positions import TARGET
from wam.sim.recording import (
    Action,
    Demonstration,
    Demonstrator,
    Leader,
    RecordedEpisode,
    disturbed,
    first_success,
    record,
)
from wam.sim.tasks import TASKS, SplitName
from wam.sim.tasks import expand as expand_metaworld

if TYPE_CHECKING:
    from wam.sim.arms import ArmsEnv, Scene
    from wam.sim.looks import Look
    from wam.sim.metaworld import MetaWorldEnv

METAWORLD_HZ, ARMS_HZ = 80.0, 20.0
ARM_NOISE = (0.0, 0.1, 0.2)  # deviations of the disturbance, in units of the action


class SimulatedTask(Demonstrator, Protocol):
    """An environment of any world: it can be acted in, looked at and demonstrated."""

    @property
    def action_repeat(self) -> int: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class View:
    """How an environment is seen and controlled.

    image_size: height and width of a picture in pixels.  action_repeat: simulator steps per row.  row_hz: rows per
    second as a data set counts them, for time stamps, where that is not the simulator's rate.
    """

    cameras: tuple[str, ...]
    image_size: int
    action_repeat: int
    look: Look = "train"
    row_hz: float | None = None


def whole_repeat(hz: float, repeat: float, said: str) -> int:
    """Simulator steps per row, if rows per second are a whole number, as data sets count them; else ValueError.

    hz: simulator steps per second.  said: what asks for `repeat`, such as "--action-repeat is 3".
    """
    if repeat < 1 or repeat != round(repeat) or hz % repeat:
        raise ValueError(f"{said}, but the simulator steps at {hz:g} Hz; choose a divisor of it")
    return round(repeat)


def repeat_of(robot: Embodiment, hz: float) -> int:
    """Simulator steps per row of a robot. Raises ValueError when its rate does not divide the simulator's, `hz`."""
    said = f"embodiment {robot.name!r}: field 'control_hz' is {robot.control_hz:g}"
    return whole_repeat(hz, hz / robot.control_hz, said)


WorldName = Literal["metaworld", "robosuite", "libero"]


class World(Protocol):
    """A simulator with its tasks."""

    @property
    def hz(self) -> float:
        """Simulator steps per second."""

    @property
    def columns(self) -> Mapping[str, tuple[str, ...]]:
        """Further columns of its demonstrations, and what their dimensions are called."""

    @property
    def kept_open(self) -> int:
        """How many environments one process may keep open; those of LIBERO take 1 GB each."""

    def expand(self, names: Sequence[str]) -> tuple[str, ...]:
        """Tasks, groups of them replaced by their members. Raises ValueError with close matches for an unknown one."""

    def groups(self, tasks: Sequence[str]) -> Mapping[str, str]:
        """Task -> heading under which tables list it, in the order of the headings; of these tasks at least."""

    def robot(self, tasks: Sequence[str]) -> Embodiment:
        """What acts in these tasks, at the rate of the simulator. Raises ValueError if it is not one and the same."""

    def open(self, task: str, view: View) -> SimulatedTask:
        """Raises ValueError for a view that this world cannot give."""

    def demonstrate(
        self, env: SimulatedTask, split: SplitName, index: int, seed: int, leader: Leader | None, disturbance: float
    ) -> Demonstration:
        """Episode number `index` of this task; it depends on the arguments alone.

        leader: what leads the arm astray, for Meta-World alone.  disturbance: scale of the noise.
        """


class MetaWorld:
    """50 tasks of one Sawyer arm."""

    hz = METAWORLD_HZ
    columns: Mapping[str, tuple[str, ...]] = MappingProxyType({"target": TARGET})
    kept_open = 50

    def expand(self, names: Sequence[str]) -> tuple[str, ...]:
        return expand_metaworld(names)

    def groups(self, tasks: Sequence[str]) -> Mapping[str, str]:
        return {name: task.difficulty for name, task in TASKS.items()}

    def robot(self, tasks: Sequence[str]) -> Embodiment:
        return METAWORLD_SAWYER

    def open(self, task: str, view: View) -> MetaWorldEnv:
        from wam.sim.metaworld import MetaWorldEnv

        return MetaWorldEnv(
            task,
            cameras=view.cameras,
            image_size=view.image_size,
            action_repeat=view.action_repeat,
            look=view.look,
        )

    def demonstrate(
        self, env: SimulatedTask, split: SplitName, index: int, seed: int, leader: Leader | None, disturbance: float
    ) -> Demonstration:
        from wam.sim.experts import demonstrate

        return demonstrate(cast("MetaWorldEnv", env), split, index, seed, leader, disturbance)


@dataclass(frozen=True)
class Arms:
    """Tasks of arms with two-fingered hands: all of robosuite, or all of LIBERO."""

    open_scene: Callable[[str], Scene]
    names: Callable[[Sequence[str]], tuple[str, ...]]
    robot_of: Callable[[str], str]
    hz: float = ARMS_HZ
    kept_open: int = 2

    @property
    def columns(self) -> Mapping[str, tuple[str, ...]]:
        return {}

    def expand(self, names: Sequence[str]) -> tuple[str, ...]:
        return self.names(names)

    def groups(self, tasks: Sequence[str]) -> Mapping[str, str]:
        return {task: task.partition("/")[0] for task in tasks}

    def robot(self, tasks: Sequence[str]) -> Embodiment:
        robots = sorted({self.robot_of(task) for task in tasks})
        if len(robots) != 1:
            raise ValueError(f"tasks {list(tasks)} are of the robots {robots}; take tasks of one robot together")
        return replace(load_embodiment(robots[0]), control_hz=ARMS_HZ)

    def open(self, task: str, view: View) -> ArmsEnv:
        from wam.sim.arms import ArmsEnv

        if view.look != "train" or view.action_repeat != 1:
            raise ValueError(
                f"task {task!r}: look is {view.look!r} and action repeat {view.action_repeat}; robosuite and LIBERO "
                "have one look, 'train', and one row per step of their controller"
            )
        return ArmsEnv(self.open_scene(task), view.cameras, view.image_size, view.row_hz or ARMS_HZ)

    def demonstrate(
        self, env: SimulatedTask, split: SplitName, index: int, seed: int, leader: Leader | None, disturbance: float
    ) -> Demonstration:
        translation = cast("ArmsEnv", env).translation
        if leader is not None:
            raise ValueError(f"task {env.task!r}: only in Meta-World the arm is led astray; leave such episodes out")
        rng = np.random.default_rng([seed, index, *env.task.encode()])
        first = int(rng.integers(len(ARM_NOISE)))

        def play(variation: int, level: int) -> RecordedEpisode | None:
            def execute(observation: Observation, action: Action, row: int) -> Action:
                return disturbed(action, translation, disturbance * ARM_NOISE[level], rng)

            return record(env, variation, execute, {"noise": disturbance * ARM_NOISE[level]})

        return first_success(env.task, split, index, first, play)


def _robosuite_tasks(names: Sequence[str]) -> tuple[str, ...]:
    from wam.sim.robosuite import parse

    for name in names:
        parse(name)
    return tuple(dict.fromkeys(names))


def _robosuite_robot(task: str) -> str:
    from wam.sim.robosuite import parse

    return "robosuite-two-arms" if len(parse(task)[1]) == 2 else "robosuite-arm"


def _robosuite_scene(task: str) -> Scene:
    from wam.sim.robosuite import open_scene

    return open_scene(task)


def _libero_tasks(names: Sequence[str]) -> tuple[str, ...]:
    from wam.sim.libero import expand

    return expand(names)


def _libero_scene(task: str) -> Scene:
    from wam.sim.libero import open_scene

    return open_scene(task)


WORLDS: Mapping[WorldName, World] = MappingProxyType(
    {
        "metaworld": MetaWorld(),
        "robosuite": Arms(_robosuite_scene, _robosuite_tasks, _robosuite_robot),
        "libero": Arms(_libero_scene, _libero_tasks, lambda task: "libero-panda"),
    }
)
