"""What a robot saw in a few episodes, for measuring: recorded in a data set, or of a scripted expert in Meta-World."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wam.data.lerobot_reader import LeRobotDataset
from wam.data.schema import STATE
from wam.data.vectors import columns_of, gathered
from wam.evaluate.sources import MetaWorldSource
from wam.robot.embodiment import Embodiment
from wam.robot.observation import Observation

Looks = list[Observation]


def recorded(dataset: LeRobotDataset, robot: Embodiment, count: int, chunks: int) -> list[list[Looks]]:
    """The beginnings of `count` episodes, spread over the data set: one look, then the looks of each chunk.

    Raises ValueError when too few episodes are long enough.
    """
    last = chunks * robot.actions_per_chunk
    long = [index for index in range(dataset.num_episodes) if dataset.episode(index).length > last]
    if len(long) < count:
        raise ValueError(f"{len(long)} episodes have more than {last} rows, {count} are needed; ask for less history")
    chosen = [long[int(place)] for place in np.linspace(0, len(long) - 1, count)]
    return [_episode(dataset, robot, index, chunks) for index in chosen]


def _episode(dataset: LeRobotDataset, robot: Embodiment, index: int, chunks: int) -> list[Looks]:
    rows = np.arange(0, chunks * robot.actions_per_chunk + 1, robot.video_stride)
    states = gathered(dataset.columns(index, sorted(columns_of(robot.state, STATE))), robot.state, STATE)
    frames = {
        camera: dataset.frames(index, dataset.meta.require_camera(robot.camera_key(camera)), rows)
        for camera in robot.cameras
    }
    looks = [
        Observation(
            {camera: pictures[i] for camera, pictures in frames.items()},
            states[row].astype(np.float32),
            dataset.episode(index).tasks[0],
            float(row / robot.control_hz),
        )
        for i, row in enumerate(rows)
    ]
    return in_chunks(looks, chunks)


def played(robot: Embodiment, tasks: Sequence[str], chunks: int, seed: int = 0) -> list[list[Looks]]:
    """An episode of the scripted expert for each task: one look, then those of each chunk. Needs the `sim` extra."""
    episodes = []
    for task in tasks:
        env = MetaWorldSource(embodiment=robot)(task)
        looks = [env.reset(seed)]
        for step in range(1, chunks * robot.actions_per_chunk + 1):
            env.step(env.expert_action())
            if step % robot.video_stride == 0:
                looks.append(env.observe())
        env.close()
        episodes.append(in_chunks(looks, chunks))
    return episodes


def in_chunks(looks: Sequence[Observation], chunks: int) -> list[Looks]:
    """As `Engine.step` takes them."""
    size = (len(looks) - 1) // chunks
    return [[looks[0]], *(list(looks[1 + i * size : 1 + (i + 1) * size]) for i in range(chunks))]
