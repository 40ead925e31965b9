"""A present to imagine from: what a robot saw before it, and what really came after it.

From an episode of a LeRobot data set, from a film of the canvas, or from Meta-World, where chosen actions can really be
executed. Data without states (video only) gets the state that is zeros to the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from wam.data.instructions import TASK
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.schema import ACTION, EXECUTED, STATE
from wam.data.vectors import columns_of, gathered
from wam.data.video import count_frames, read_frames
from wam.evaluate.sources import MetaWorldSource
from wam.robot.canvas import split
from wam.robot.embodiment import Embodiment
from wam.robot.observation import Image, Observation
from wam.robot.units import Units
from wam.sim.worlds import repeat_of

Looks = tuple[Observation, ...]
Numbers = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """A present, reached and left in whole chunks.

    past: looks at the anchor (one), then of every chunk up to the present.  future: of every chunk C after it.
    actions: (C, N, A) in robot units, what was done in the future; None where nobody knows.
    before: (A,), the action right before the present; None where there is none.
    """

    caption: str
    past: tuple[Looks, ...]
    future: tuple[Looks, ...]
    actions: Numbers | None
    before: Numbers | None


@dataclass(frozen=True)
class Moment:
    """Which present, in control steps since the start of the recording, and how many chunks after it; 0: all."""

    row: int = 0
    chunks: int = 4

    def within(self, rows: int, robot: Embodiment, where: str) -> Moment:
        """With the number of chunks that are there. Raises ValueError if there are fewer than asked for."""
        there = (rows - 1 - self.row) // robot.actions_per_chunk
        if min(self.row, self.chunks) < 0 or there < max(1, self.chunks):
            wanted = f"{self.chunks or 1} chunks of {robot.actions_per_chunk} rows"
            raise ValueError(f"{where}: row {self.row} and {wanted} after it asked for, there are rows 0 to {rows - 1}")
        return Moment(self.row, self.chunks or there)

    def looks(self, robot: Embodiment) -> tuple[list[list[int]], list[list[int]]]:
        """Rows of the looks of the past and of the future, as `Scene` has them."""
        count, stride = robot.actions_per_chunk, robot.video_stride
        first = self.row % count
        after = [list(range(start + stride, start + count + 1, stride)) for start in self._starts(first, count)]
        seen = self.row // count
        return [[first], *after[:seen]], after[seen:]

    def _starts(self, first: int, count: int) -> range:
        return range(first, self.row + self.chunks * count, count)


def from_dataset(
    dataset: LeRobotDataset,
    episode: int,
    moment: Moment,
    robot: Embodiment,
    sentence: str | None = None,
    executed: bool = False,
) -> Scene:
    """A moment of a recorded episode.

    sentence: instead of the one that was recorded.  executed: the actions that were executed, where the data set tells
    them apart from those that should have been (its labels).
    Raises ValueError for a moment or a rate that does not fit, DatasetError for what cannot be read.
    """
    if abs(dataset.meta.fps / robot.control_hz - 1) > 0.01:
        raise ValueError(
            f"{dataset.root}: has {dataset.meta.fps:g} rows per second, robot {robot.name!r} is controlled at "
            f"{robot.control_hz:g} Hz; record it at that rate, or choose another robot"
        )
    where, length = f"{dataset.root}: episode {episode}", dataset.episode(episode).length
    moment = moment.within(length, robot, where)
    past, future = moment.looks(robot)
    rows = [row for looks in (*past, *future) for row in looks]
    views = {camera: dataset.frames(episode, robot.camera_key(camera), rows) for camera in robot.cameras}
    images = ({camera: view[i] for camera, view in views.items()} for i in range(len(rows)))
    action = EXECUTED if executed and EXECUTED in dataset.meta.features else ACTION
    states, actions = _vectors(dataset, episode, robot, action)
    words = sentence if sentence is not None else _sentence(dataset, episode, moment.row)
    seen = _looks(rows, images, states, words, robot)
    caption = f"{words}  ({dataset.root.resolve().name}, episode {episode}, row {moment.row})"
    return _scene(caption, seen, past, future, actions, moment, robot)


def from_film(path: Path, moment: Moment, robot: Embodiment, sentence: str = "") -> Scene:
    """A moment of a film of the robot's canvas (or of its only camera), that has a frame wherever the robot looks.

    Raises ValueError for pictures of another size, TruncatedVideoError where there is no frame.
    """
    last_frame = count_frames(path) - 1
    moment = moment.within(int(last_frame * robot.control_hz / _rate(path)) + 1, robot, str(path))
    past, future = moment.looks(robot)
    rows = [row for looks in (*past, *future) for row in looks]
    frames = read_frames(path, robot.control_hz, rows)
    canvas = (robot.canvas_height, robot.canvas_width)
    single = len(robot.cameras) == 1
    if not single and (frames.shape[1:3] != canvas or robot.crop is not None):
        raise ValueError(
            f"{path}: pictures are {frames.shape[1]} x {frames.shape[2]}, the canvas of robot {robot.name!r} is "
            f"{canvas[0]} x {canvas[1]} uncropped; several cameras that are not on one canvas need a data set"
        )
    images = ({robot.cameras[0]: frame} if single else split(frame, robot) for frame in frames)
    states = np.tile(Units(robot).middle_state.numpy(), (max(rows) + 1, 1))
    seen = _looks(rows, images, states, sentence, robot)
    return _scene(f"{sentence}  ({path.name}, row {moment.row})", seen, past, future, None, moment, robot)


def from_metaworld(
    task: str, seed: int, moment: Moment, robot: Embodiment, actions: Numbers | None = None, sentence: str | None = None
) -> Scene:
    """A moment in an episode of the scripted expert, who goes on after it unless `actions` (C, N, A) are executed.

    Raises ValueError for a moment that reaches beyond the episode: nothing moves any more after it.
    """
    from wam.sim.metaworld import ENV_HZ, MAX_ENV_STEPS  # the `sim` extra

    rows = MAX_ENV_STEPS // repeat_of(robot, ENV_HZ) + 1
    moment = moment.within(rows, robot, f"Meta-World {task}, seed {seed}")
    env = MetaWorldSource(embodiment=robot)(task)
    past, future = moment.looks(robot)
    wanted = {row for looks in (*past, *future) for row in looks}
    last = moment.row + moment.chunks * robot.actions_per_chunk
    look, done, seen = env.reset(seed), [], {}
    words = sentence if sentence is not None else look.instruction
    for row in range(last + 1):
        if row in wanted:
            look = env.observe() if row else look
            seen[row] = Observation(look.images, look.state, words, row / robot.control_hz)
        if row < last:
            own = None if actions is None or row < moment.row else actions.reshape(-1, robot.action_dim)
            done.append(env.expert_action() if own is None else own[row - moment.row])
            env.step(done[-1])
    env.close()
    caption = f"{words}  (Meta-World {task}, seed {seed}, row {moment.row})"
    return _scene(caption, seen, past, future, np.stack(done), moment, robot)


def _scene(
    caption: str,
    seen: Mapping[int, Observation],
    past: list[list[int]],
    future: list[list[int]],
    actions: Numbers | None,
    moment: Moment,
    robot: Embodiment,
) -> Scene:
    """actions: (T, A) of all rows."""
    before_it, after_it = (tuple(tuple(seen[row] for row in looks) for looks in part) for part in (past, future))
    if actions is None:
        return Scene(caption, before_it, after_it, None, None)
    end = moment.row + moment.chunks * robot.actions_per_chunk
    chunks = actions[moment.row : end].reshape(moment.chunks, robot.actions_per_chunk, -1)
    return Scene(caption, before_it, after_it, chunks, actions[moment.row - 1] if moment.row else None)


def _looks(
    rows: list[int], images: Iterator[Mapping[str, Image]], states: Numbers, words: str, robot: Embodiment
) -> dict[int, Observation]:
    return {
        row: Observation(views, states[row], words, row / robot.control_hz)
        for row, views in zip(rows, images, strict=True)
    }


def _vectors(dataset: LeRobotDataset, episode: int, robot: Embodiment, action: str) -> tuple[Numbers, Numbers | None]:
    """States (T, S) and actions (T, A); without a column of states the middle one, without actions None."""
    found: list[Numbers | None] = []
    for parts, column in ((robot.state, STATE), (robot.action, action)):
        names = columns_of(parts, column)
        if not names <= set(dataset.meta.features):
            found.append(None)
            continue
        columns = dataset.columns(episode, sorted({*names, TASK}))  # a robot without parts has rows too
        found.append(gathered(columns, parts, column).astype(np.float32))
    states, actions = found
    if states is None:
        states = np.tile(Units(robot).middle_state.numpy(), (dataset.episode(episode).length, 1))
    return states, actions


def _sentence(dataset: LeRobotDataset, episode: int, row: int) -> str:
    """What was asked for at a row; nothing where nobody said it."""
    if TASK in dataset.meta.features and dataset.meta.tasks:
        return dataset.meta.tasks[int(dataset.columns(episode, [TASK])[TASK][row])]
    return ""


def _rate(path: Path) -> float:
    """Frames per second of a film."""
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
    if not rate:
        raise ValueError(f"{path}: does not say its frames per second")
    return float(rate)
