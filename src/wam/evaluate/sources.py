"""Recipes that a worker process follows to build its environments and its policy; small, frozen and picklable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from wam.data.files import read_json
from wam.engine.policy import Policy
from wam.evaluate.baselines import ConstantHold, Expert, ExpertEnvironment, standing
from wam.evaluate.rollout import Environment
from wam.robot.embodiment import METAWORLD_SAWYER, Embodiment
from wam.robot.observation import Observation

if TYPE_CHECKING:
    from wam.sim.looks import Look
    from wam.sim.worlds import WorldName

PolicyFor = Callable[[Environment], Policy]
"""The policy that drives this environment: one and the same for a learned policy, bound to it for the expert."""

PolicyKind = Literal["wam", "constant-hold", "expert"]
Wording = Literal["canonical", "unseen"]
_WHOLE_FILE = 256 * 2**20  # bytes; of larger files the fingerprint reads the two ends


@dataclass(frozen=True)
class MetaWorldSource:
    """Meta-World environments with the cameras, picture size, control rate and kind of action of one embodiment.

    look: "train" or a held-out look. wording: "canonical", or "unseen" for a sentence that training data never uses.
    """

    look: Look = "train"
    wording: Wording = "canonical"
    embodiment: Embodiment = METAWORLD_SAWYER

    def __call__(self, task: str) -> ExpertEnvironment:
        """Raises ValueError for an unknown task, or a control rate that does not divide the simulator's."""
        from wam.sim.metaworld import ENV_HZ, MetaWorldEnv  # the `sim` extra; only workers need it
        from wam.sim.positions import TARGET, Positioned
        from wam.sim.tasks import TASKS
        from wam.sim.worlds import repeat_of

        moved = MetaWorldEnv(
            task,
            cameras=self.embodiment.cameras,
            image_size=self.embodiment.view_height,
            action_repeat=repeat_of(self.embodiment, ENV_HZ),
            look=self.look,
        )
        env = Positioned(moved) if self.embodiment.action_names == TARGET else moved
        return env if self.wording == "canonical" else Reworded(env, TASKS[task].unseen_sentence)


@dataclass(frozen=True)
class ArmsSource:
    """robosuite or LIBERO environments with the cameras and picture size of one embodiment."""

    world: WorldName
    embodiment: Embodiment

    def __call__(self, task: str) -> ExpertEnvironment:
        """Raises ValueError for an unknown task or camera, or an embodiment with other dimensions than the arms."""
        from wam.sim.worlds import WORLDS, View  # the `sim` extra; only workers need it

        robot, world = self.embodiment, WORLDS[self.world]
        arms = world.robot([task])
        for vector in ("state_dim", "action_dim"):
            if getattr(robot, vector) != getattr(arms, vector):
                raise ValueError(
                    f"embodiment {robot.name!r}: {vector} is {getattr(robot, vector)}, but task {task!r} is one of "
                    f"{arms.name!r} with {getattr(arms, vector)}; evaluate it in tasks of its own kind of robot"
                )
        return world.open(task, View(robot.cameras, robot.view_height, 1, row_hz=robot.control_hz))


def trained_tasks(checkpoint: Path | str) -> tuple[str, ...] | None:
    """The Meta-World tasks that a model has learned: "tasks", names or groups, in its training.json; None without.

    Of the tasks of other simulators, which stand there too, nothing is said.
    """
    from wam.engine.load import resolve
    from wam.sim.tasks import GROUPS, TASKS, expand

    path = resolve(checkpoint) / "training.json"
    names = read_json(path).get("tasks") or [] if path.exists() else []
    return expand([name for name in names if name in GROUPS or name in TASKS]) or None


def shipped_for(tasks: Sequence[str]) -> str:
    """The first shipped model that has learned all of these Meta-World tasks; the first of all where none has."""
    from wam.checkpoints.model_folder import SHIPPED

    names = sorted(path.name for path in SHIPPED.glob("*/"))
    return next((name for name in names if set(tasks) <= set(trained_tasks(name) or ())), names[0])


class Reworded:
    """An environment that asks for its task in other words; everything else is passed through."""

    def __init__(self, env: ExpertEnvironment, sentence: str) -> None:
        self._env, self._sentence = env, sentence
        self.task, self.action_repeat = env.task, env.action_repeat
        self.step, self.expert_action, self.close = env.step, env.expert_action, env.close

    def reset(self, seed: int) -> Observation:
        return replace(self._env.reset(seed), instruction=self._sentence)

    def observe(self) -> Observation:
        return replace(self._env.observe(), instruction=self._sentence)


NEWER: Mapping[str, Any] = {"shift": 1.0, "device": "cpu"}
"""Options of a loop that folders of results from before them do not name, and what they are when left out."""


@dataclass(frozen=True)
class PolicySource:
    """Which policy to load.

    checkpoint: folder of a trained model or name of a shipped one; only for kind "wam".
    options: passed to `wam.engine.load_policy`, e.g. {"steps": 4, "guidance": 1.0, "execute": 8}.
    robot: whose arm the baseline "constant-hold" holds still.
    """

    kind: PolicyKind = "wam"
    checkpoint: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    robot: Embodiment = METAWORLD_SAWYER

    def __post_init__(self) -> None:
        if (self.kind == "wam") != (self.checkpoint is not None):
            found = "none was given" if self.checkpoint is None else f"{self.checkpoint} was given"
            needs = "needs a checkpoint folder" if self.kind == "wam" else "takes no checkpoint"
            raise ValueError(f"policy {self.kind!r} {needs}; {found}")

    def __call__(self) -> PolicyFor:
        if self.kind == "constant-hold":
            hold = ConstantHold(self.robot, standing(self.robot).action)
            return lambda env: hold
        if self.kind == "expert":
            return lambda env: Expert(cast(ExpertEnvironment, env))
        from wam.engine import load_policy  # imports torch; baselines do without

        assert self.checkpoint is not None  # checked when the source was made
        policy = load_policy(self.checkpoint, **self.options)
        return lambda env: policy

    def folder(self) -> Path | None:
        """Where the checkpoint is, shipped or not; None for baselines. Raises FileNotFoundError when it is nowhere."""
        if self.checkpoint is None:
            return None
        from wam.engine.load import resolve

        return resolve(self.checkpoint)

    def embodiment(self) -> Embodiment:
        """Of the checkpoint; `robot` for baselines.

        Raises FileNotFoundError when the checkpoint has no config.json.
        """
        folder = self.folder()
        if folder is None:
            return self.robot
        path = folder / "config.json"
        if not path.exists():
            raise FileNotFoundError(f"{path}: no checkpoint there; give the folder that `wam train` wrote")
        fields, wanted = read_json(path), self.options.get("robot")
        if not fields.get("embodiments"):
            raise ValueError(f"{path}: field 'embodiments' is missing; give the folder that `wam train` wrote")
        found = [Embodiment.from_dict(robot, f"{path}: embodiments") for robot in fields["embodiments"]]
        chosen = [robot for robot in found if wanted in (None, robot.name)]
        if not chosen:
            raise ValueError(f"{path}: robot {wanted!r} is not among {[robot.name for robot in found]}")
        return chosen[0]

    def describe(self) -> dict[str, Any]:
        """What a result folder remembers of the policy, ready for JSON."""
        options = {name: value for name, value in self.options.items() if NEWER.get(name) != value}
        described: dict[str, Any] = {"policy": self.kind, "options": options}
        if (folder := self.folder()) is not None:
            described |= {"checkpoint": str(self.checkpoint), "fingerprint": fingerprint(folder)}
        return described


def fingerprint(folder: Path) -> str:
    """Twelve hex digits that change when any file of a checkpoint does (of files over 256 MiB: size and both ends).

    Raises FileNotFoundError when the folder does not exist or is empty.
    """
    root = Path(folder)
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    if not files:
        raise FileNotFoundError(f"{root}: no checkpoint there; give the folder that training wrote")
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.relative_to(root).as_posix()}:{size}:".encode())
        with open(path, "rb") as handle:
            if size <= _WHOLE_FILE:
                digest.update(handle.read())
            else:
                digest.update(handle.read(2**20))
                handle.seek(-(2**20), 2)
                digest.update(handle.read())
    return digest.hexdigest()[:12]
