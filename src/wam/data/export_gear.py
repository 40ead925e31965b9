"""The side files that the released DreamZero code wants beside a LeRobot v2 data set ("GEAR LeRobot v2").

    meta/modality.json                          which dimensions of which column are which part of the robot
    meta/embodiment.json                        the name under which that code knows the robot
    meta/relative_stats_dreamzero.json          statistics of every relative action, all steps of a chunk together
    meta/relative_horizon_stats_dreamzero.json  the same for every step of a chunk: lists of N rows

A relative action is action(t + k) - state(t), k = 0 .. N - 1, for every row t that N actions follow. The released code
reads v2.0 and v2.1 only; for a v3.0 data set the files describe what a converted copy needs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wam.data.errors import MissingColumnError, RowCountError, SpecMismatchError
from wam.data.files import write_json
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.schema import ACTION, IMAGE_PREFIX, STATE
from wam.data.stats import column_stats
from wam.data.vectors import PartPlace, places
from wam.robot.embodiment import Embodiment, Part

MODALITY = "meta/modality.json"
EMBODIMENT = "meta/embodiment.json"
RELATIVE = "meta/relative_stats_dreamzero.json"
RELATIVE_BY_STEP = "meta/relative_horizon_stats_dreamzero.json"
STATISTICS = ("max", "min", "mean", "std", "q01", "q99")
MAX_EPISODES = 2000
"""Evenly spread episodes that enter the statistics: 300 rows, 24 steps and 7 joints each are 400 MB."""


def export_gear(
    dataset: LeRobotDataset, embodiment: Embodiment, folder: Path, *, tag: str | None = None, annotation: str = "task"
) -> list[Path]:
    """Write the side files, each atomically.

    Args:
        dataset: source of the numbers.
        embodiment: names the parts, their columns and which actions are relative.
        folder: the files go to its `meta`; mostly `dataset.root`.
        tag: the released code's name of the robot; that of the embodiment by default.
        annotation: name of the instruction, which is looked up by `task_index`.

    Returns:
        The files.

    Raises:
        MissingColumnError, MissingCameraError, SpecMismatchError: the data set does not have what the embodiment names.
        RowCountError: no episode is as long as a chunk.
    """
    contents: dict[str, dict[str, Any]] = {
        MODALITY: modality(dataset, embodiment, annotation),
        EMBODIMENT: {"embodiment_tag": tag or embodiment.name},
    }
    relative = [part for part in embodiment.action if part.relative]
    if relative:
        differences = {part.name: _differences(dataset, embodiment, part) for part in relative}
        contents[RELATIVE] = {name: _pooled(values) for name, values in differences.items()}
        contents[RELATIVE_BY_STEP] = {name: _by_step(values) for name, values in differences.items()}
    for name, content in contents.items():
        write_json(folder / name, content)
    return [folder / name for name in contents]


def modality(dataset: LeRobotDataset, embodiment: Embodiment, annotation: str = "task") -> dict[str, Any]:
    """Content of `modality.json`. Raises as `export_gear`."""
    cameras = {camera: embodiment.camera_key(camera) for camera in embodiment.cameras}
    names = {camera: dataset.meta.require_camera(key) for camera, key in cameras.items()}
    stored = {**dataset.meta.video_keys, **dataset.meta.image_keys}
    return {
        "state": _vector(dataset, embodiment.state, STATE),
        "action": _vector(dataset, embodiment.action, ACTION),
        "video": {camera.removeprefix(IMAGE_PREFIX): {"original_key": stored[name]} for camera, name in names.items()},
        "annotation": {annotation: {"original_key": "task_index"}},
    }


def _vector(dataset: LeRobotDataset, parts: Sequence[Part], column: str) -> dict[str, Any]:
    """The parts of one vector: the columns hold absolute values, whatever the model learns."""
    return {
        place.part.name: {"original_key": place.key, "start": place.start, "end": place.end, "absolute": True}
        for place in _places(dataset, parts, column)
    }


def _places(dataset: LeRobotDataset, parts: Sequence[Part], column: str) -> list[PartPlace]:
    """Of every part, all of them inside the columns that there are; raises as `export_gear`."""
    found = places(parts, column)
    for place in found:
        name, key = place.part.name, place.key
        if key not in dataset.meta.features:
            names = sorted(dataset.meta.features)
            raise MissingColumnError(f"{dataset.root}: part {name!r} needs column {key!r}; there are {names}")
        width = int(np.prod(dataset.meta.features[key].shape))
        if place.end > width:
            raise SpecMismatchError(
                f"{dataset.root}: part {name!r} is dimensions {place.start} to {place.end} (exclusive) of column "
                f"{key!r}, which has {width}; correct `start` and `dims` of the embodiment"
            )
    return found


def _differences(dataset: LeRobotDataset, embodiment: Embodiment, part: Part) -> np.ndarray:
    """float32 (windows, N, D): action(t + k) - state(t) of one part."""
    mine = next(place for place in _places(dataset, embodiment.action, ACTION) if place.part == part)
    theirs = next(place for place in _places(dataset, embodiment.state, STATE) if place.part.name == part.name)
    steps = embodiment.actions_per_chunk
    chosen = np.unique(np.linspace(0, dataset.num_episodes - 1, min(dataset.num_episodes, MAX_EPISODES)).astype(int))
    found = []
    for index in chosen.tolist():
        columns = dataset.columns(index, (mine.key, theirs.key))
        action, state = (
            columns[place.key].reshape(len(columns[place.key]), -1)[:, place.start : place.end]
            for place in (mine, theirs)
        )
        if len(action) >= steps:
            windows = np.lib.stride_tricks.sliding_window_view(action, steps, axis=0)
            found.append(np.moveaxis(windows, -1, 1) - state[: len(windows), None])
    if not found:
        raise RowCountError(f"{dataset.root}: no episode has the {steps} rows of a chunk; relative statistics need one")
    return np.concatenate(found)


def _pooled(differences: np.ndarray) -> dict[str, Any]:
    """(windows, N, D) -> lists of D numbers."""
    stats = column_stats(differences.reshape(-1, differences.shape[-1]))
    return {name: stats[name].tolist() for name in STATISTICS}


def _by_step(differences: np.ndarray) -> dict[str, Any]:
    """(windows, N, D) -> N lists of D numbers."""
    steps = [_pooled(differences[:, step : step + 1]) for step in range(differences.shape[1])]
    return {name: [step[name] for step in steps] for name in STATISTICS}
