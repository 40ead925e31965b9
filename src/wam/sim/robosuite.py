"""robosuite tasks with one or two arms under the operational-space pose controller.

Source: Zhu et al. 2020 (arXiv 2009.12293), package robosuite 1.4.0 with mujoco 3.3.0. A task is "Lift", or "Lift/UR5e"
for another arm than the Panda, or "TwoArmLift/Panda+UR5e" for two.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from wam.sim.arms import CONTROL_HZ, Raw, Scene, Shot, fingers, opening
from wam.sim.scripts import Hand, Waypoint, pick, pick_and_place

ARMS = ("Panda", "UR5e", "IIWA", "Kinova3")  # those that this version simulates with mujoco 3.3
MAX_STEPS = 200
CAMERAS = ("agentview", "frontview", "birdview", "sideview")
STACK_HEIGHT = 0.045  # metres from one cube to the cube on it, and a little room


@dataclass(frozen=True)
class Task:
    """hands: (environment, observation) -> what a script sees."""

    sentence: str
    arms: int = 1
    hands: Callable[[Any, Raw], Sequence[Hand]] | None = None
    waypoints: tuple[Waypoint, ...] = ()


def _cube(env: Any, raw: Raw) -> Sequence[Hand]:
    return [Hand(raw["robot0_eef_pos"], opening(env, 0), raw["cube_pos"], _edge(raw["cube_quat"]))]


def _cubes(env: Any, raw: Raw) -> Sequence[Hand]:
    along = _edge(raw["cubeA_quat"])
    return [Hand(raw["robot0_eef_pos"], opening(env, 0), raw["cubeA_pos"], along, raw["cubeB_pos"])]


def _handles(env: Any, raw: Raw) -> Sequence[Hand]:
    """A handle is a bar across the line from the middle of the pot, so the hand opens along that line."""
    return [
        Hand(
            raw[f"robot{arm}_eef_pos"],
            opening(env, arm),
            raw[f"handle{arm}_xpos"],
            raw[f"handle{arm}_xpos"] - raw["pot_pos"],
        )
        for arm in range(2)
    ]


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "Lift": Task("Lift the red cube.", hands=_cube, waypoints=pick(0.15)),
        "Stack": Task(
            "Stack the red cube on the green cube.", hands=_cubes, waypoints=pick_and_place(0.12, STACK_HEIGHT)
        ),
        "Door": Task("Open the door."),
        "NutAssemblySquare": Task("Put the square nut on the square peg."),
        "PickPlaceCan": Task("Put the can into its bin."),
        "Wipe": Task("Wipe the table clean."),
        "TwoArmLift": Task("Lift the pot with both hands.", 2, _handles, pick(0.25, speed=0.5)),
        "TwoArmHandover": Task("Hand the hammer over from one arm to the other.", 2),
        "TwoArmPegInHole": Task("Put the peg of one arm into the hole of the other.", 2),
    }
)
SCRIPTED = tuple(name for name, task in TASKS.items() if task.hands is not None)


def parse(name: str) -> tuple[str, tuple[str, ...]]:
    """Task and its arms. Raises ValueError naming what is unknown."""
    task, _, given = name.partition("/")
    if task not in TASKS:
        close = difflib.get_close_matches(task, TASKS, n=3, cutoff=0.4) or sorted(TASKS)
        raise ValueError(f"unknown robosuite task {task!r}; did you mean one of {close}?")
    arms = tuple(given.split("+")) if given else ("Panda",) * TASKS[task].arms
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown or len(arms) != TASKS[task].arms:
        found = f"unknown arm {unknown[0]!r}" if unknown else f"{len(arms)} arms"
        raise ValueError(f"robosuite task {name!r}: {found}; it has {TASKS[task].arms}, each one of {list(ARMS)}")
    return task, arms


def open_scene(name: str) -> Scene:
    """Raises ValueError for an unknown task or arm, ImportError without the extra `arms`."""
    task, arms = parse(name)
    known = TASKS[task]
    env = _make(task, arms)
    shots = {camera: Shot(camera) for camera in CAMERAS}
    shots |= {f"robot{arm}_eye_in_hand": Shot(f"robot{arm}_eye_in_hand") for arm in range(len(arms))}
    see = known.hands
    return Scene(
        task=name,
        sentence=known.sentence,
        env=env,
        arms=len(arms),
        shots=shots,
        start=lambda seed: dict(env.reset()),
        state=lambda raw: proprioception(raw, len(arms)),
        max_steps=MAX_STEPS,
        hands=None if see is None else lambda raw: see(env, raw),
        waypoints=known.waypoints,
    )


def proprioception(raw: Raw, arms: int) -> npt.NDArray[np.float32]:
    """Per arm the hand's position in metres, its quaternion (x, y, z, w) and both finger joints: float32 (9 arms,)."""
    parts = [
        np.concatenate([raw[f"robot{arm}_eef_pos"], raw[f"robot{arm}_eef_quat"], fingers(raw, arm)])
        for arm in range(arms)
    ]
    return np.concatenate(parts).astype(np.float32)


def import_quietly() -> Any:
    """robosuite, without the warnings about a file of settings with which it greets every import.

    Raises ImportError that says how to install it.
    """
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    try:
        import robosuite
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{error}: robosuite and LIBERO come with the extra `arms`: pip install 'wam[arms]'"
        ) from error
    return robosuite


def _make(task: str, arms: Sequence[str]) -> Any:
    suite = import_quietly()
    options = {"env_configuration": "single-arm-opposed"} if len(arms) == 2 else {}
    return suite.make(
        task,
        robots=list(arms),
        controller_configs=suite.load_controller_config(default_controller="OSC_POSE"),
        has_renderer=False,
        has_offscreen_renderer=False,  # we draw the model ourselves
        use_camera_obs=False,
        control_freq=CONTROL_HZ,
        hard_reset=False,
        ignore_done=True,
        **options,
    )


def _edge(quaternion: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The x axis of a body with this quaternion (x, y, z, w), in the plane: (2,)."""
    x, y, z, w = quaternion
    return np.array([1 - 2 * (y * y + z * z), 2 * (x * y + z * w)])
