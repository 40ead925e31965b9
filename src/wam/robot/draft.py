"""A first embodiment file for a new robot, drafted from what its data set says and what its numbers look like.

What a data set declares is taken as it is (columns, dimension names, cameras, rate). What it does not declare is
guessed, and every guess comes with a remark that says why, for a person to check. What contradicts itself, or cannot
be guessed, is a `DraftError` that names the field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wam.encoders import FRAMES_PER_LATENT
from wam.robot.draft_parts import Dimension, Gripper, dimensions, parts_of
from wam.robot.draft_views import choose_cell, choose_layout
from wam.robot.embodiment import IMAGE_PREFIX, Embodiment, EmbodimentError, Part

Rows = npt.NDArray[np.floating]  # (T, D)
STATE_COLUMNS, ACTION_COLUMNS = ("observation.state", "state"), ("action", "actions")
VIDEO_HZ = 10.0  # of the drafted video: the released models see 5 to 10 frames per second
FRAMES_PER_CHUNK = 2  # as in the released models
RATE_TOLERANCE = 0.02
FOLLOWS, DIFFERS = 0.8, 0.2  # share of an action's variance that the present state explains: a target, or a command


class DraftError(EmbodimentError):
    """A field that the data set leaves open, or contradicts."""


@dataclass(frozen=True)
class Facts:
    """What a data set says about its robot.

    source: where it is.  fps: rows per second.  row_seconds: time between rows by their time stamps.
    cameras: feature -> (height, width).  names: column -> names of its dimensions as declared (empty = none).
    rows: column of numbers -> (T, D) per episode.  instructed: whether its episodes have a sentence.
    """

    source: str
    robot_type: str
    fps: float
    row_seconds: float
    cameras: Mapping[str, tuple[int, int]]
    names: Mapping[str, tuple[str, ...]]
    rows: Mapping[str, list[Rows]]
    instructed: bool


@dataclass(frozen=True)
class Choices:
    """What a person has decided; the rest is drafted."""

    name: str | None = None
    """Of the robot."""
    cameras: tuple[str, ...] = ()
    """Which cameras; all but depth pictures by default."""
    state: tuple[str, ...] = ()
    """Columns that make up the state, in this order."""
    action: tuple[str, ...] = ()
    """Columns that make up the action, in this order."""
    view: tuple[int, int] | None = None
    """Height and width of a cell of the canvas, in pixels."""
    video_stride: int | None = None
    """Rows from one picture to the next."""
    frames_per_chunk: int | None = None
    """Latent frames (of 4 pictures) between two looks at the world."""
    video_only: bool = False
    """There are no actions to learn."""


@dataclass(frozen=True)
class Draft:
    """remarks: field, or vector and part ("action.gripper"), -> why it is as it is."""

    embodiment: Embodiment
    remarks: Mapping[str, str]


def draft(facts: Facts, choices: Choices = Choices()) -> Draft:
    """The embodiment without statistics. Raises DraftError naming the field that is unknown or contradictory."""
    _check_rate(facts)
    remarks: dict[str, str] = {}
    name = choices.name or _slug(facts.robot_type, facts.source)
    if choices.name is None:
        remarks["name"] = f"from robot_type {facts.robot_type!r}" if _known(facts.robot_type) else "guess: the folder"
    layout = choose_layout(_chosen_cameras(facts, choices))
    cell = choose_cell(facts.cameras, layout.keys, choices.view)
    remarks |= {"canvas": layout.remark, "view_height": cell.remark}
    state, action = _vectors(facts, choices, remarks)
    stride, frames = _chunk(facts, choices, remarks)
    remarks["lower_case"] = "guess: sentences stay as they are written"
    if facts.instructed:
        remarks["prompt_template"] = "the data set's sentence as it is; add words here that should stand around it"
    else:
        remarks["prompt_template"] = (
            "the data set has no instructions: write them, or nothing can be asked of the model"
        )
    remarks["normalization"] = "guess: quantiles, which outliers do not move; 'mean_std' is the other way"
    return Draft(
        Embodiment(
            name=name,
            cameras=layout.names,
            canvas=layout.canvas,
            view_height=cell.height,
            view_width=cell.width,
            state=state,
            action=action,
            control_hz=facts.fps,
            video_stride=stride,
            frames_per_chunk=frames,
            actions_per_chunk=FRAMES_PER_LATENT * stride * frames,
            camera_keys=layout.keys if layout.keys != tuple(IMAGE_PREFIX + n for n in layout.names) else (),
            crop=1.0 if cell.resized else None,
            normalization="quantiles",
        ),
        remarks,
    )


def _check_rate(facts: Facts) -> None:
    if facts.fps <= 0:
        raise DraftError(f"{facts.source}: field 'fps' is {facts.fps:g}, expected rows per second above 0")
    measured = 1 / facts.row_seconds if facts.row_seconds > 0 else float("inf")
    if abs(measured / facts.fps - 1) > RATE_TOLERANCE:
        raise DraftError(
            f"{facts.source}: field 'fps' is {facts.fps:g}, but the time stamps of the rows are {measured:.4g} per "
            "second; correct meta/info.json or the column 'timestamp' first: a robot would move at the wrong speed"
        )


def _chosen_cameras(facts: Facts, choices: Choices) -> tuple[str, ...]:
    """Features of the cameras, those asked for or all but depth pictures."""
    by_name = {key.removeprefix(IMAGE_PREFIX): key for key in facts.cameras}
    wanted = [by_name.get(name.removeprefix(IMAGE_PREFIX), name) for name in choices.cameras]
    unknown = [name for name in wanted if name not in facts.cameras]
    if unknown:
        raise DraftError(f"{facts.source}: no camera {unknown[0]!r}; there are {sorted(facts.cameras)}")
    found = tuple(wanted) or tuple(key for key in facts.cameras if "depth" not in key)
    if not found:
        raise DraftError(f"{facts.source}: no camera, but a World Action Model learns from video; record one")
    return found


def _chunk(facts: Facts, choices: Choices, remarks: dict[str, str]) -> tuple[int, int]:
    """(video_stride, frames_per_chunk)."""
    stride = max(1, round(facts.fps / VIDEO_HZ)) if choices.video_stride is None else choices.video_stride
    frames = FRAMES_PER_CHUNK if choices.frames_per_chunk is None else choices.frames_per_chunk
    rows = FRAMES_PER_LATENT * stride * frames
    longest = max((len(rows) for rows in next(iter(facts.rows.values()), [])), default=rows)
    if longest < rows:
        raise DraftError(
            f"{facts.source}: field 'actions_per_chunk' would be {rows}, but the longest episode has {longest} rows; "
            "give a smaller --video-stride or --frames-per-chunk"
        )
    if choices.video_stride is None:
        remarks["video_stride"] = f"guess: a picture every {stride} rows, {facts.fps / stride:.3g} per second"
    seconds = f"{rows / facts.fps:.2g} s between two looks"
    guessed = "guess: " if choices.frames_per_chunk is None else ""
    remarks["frames_per_chunk"] = f"{guessed}{frames} latent frames of {FRAMES_PER_LATENT} pictures: {seconds}"
    remarks["actions_per_chunk"] = f"{FRAMES_PER_LATENT} x video_stride x frames_per_chunk, always"
    return stride, frames


# ---------------------------------------------------------------- state and action


def _vectors(facts: Facts, choices: Choices, remarks: dict[str, str]) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Parts of the state and of the action."""
    if choices.video_only:
        remarks["action"] = "video only: this data set teaches what things look like, not how to act"
        return (), ()
    state = _dimensions(facts, "state", STATE_COLUMNS, choices.state, remarks)
    action = _dimensions(facts, "action", ACTION_COLUMNS, choices.action, remarks)
    states, actions = parts_of(state, STATE_COLUMNS[0]), parts_of(action, ACTION_COLUMNS[0])
    values = {"state": _numbers(facts, state), "action": _numbers(facts, action)}
    known = {part.name: (part, place) for part, place in _placed(states)}
    finished: dict[str, list[Part]] = {"state": [], "action": []}
    grippers: dict[str, Gripper] = {}
    for vector, parts in (("state", states), ("action", actions)):
        for part, place in _placed(parts):
            own, theirs = _cut(values[vector], place), _cut(values["state"], known.get(part.name, (part, slice(0)))[1])
            if _is_gripper(part):
                there = grippers.get(part.name)
                grippers[part.name] = Gripper.guess(_first(own), there, _first(theirs) if there else ())
                part = replace(part, gripper=grippers[part.name].ends)
                remarks[f"{vector}.{part.name}"] = grippers[part.name].remark
            elif vector == "action":
                target, remarks[f"{vector}.{part.name}"] = _is_target(own, theirs)
                part = replace(part, relative=target)
            finished[vector].append(part)
    return tuple(finished["state"]), tuple(finished["action"])


def _dimensions(
    facts: Facts, vector: str, usual: tuple[str, ...], chosen: tuple[str, ...], remarks: dict[str, str]
) -> list[Dimension]:
    """The dimensions of the columns that hold a vector. Raises DraftError where it is unclear which ones do."""
    found = list(chosen) or [name for name in usual if name in facts.rows]
    if not found:
        found = [name for name in facts.rows if re.match(rf"(observation\.)?{vector}s?\.", name)]
    unknown = [name for name in found if name not in facts.rows]
    if not found or unknown:
        wanted = f"column {unknown[0]!r}" if unknown else f"column that is named like the {vector}"
        raise DraftError(
            f"{facts.source}: no {wanted}; columns of numbers are {sorted(facts.rows)}; name it with --{vector}, or "
            "give --video-only"
        )
    if not chosen and len(found) > 1 and set(found) <= set(usual):
        raise DraftError(f"{facts.source}: {found} could both be the {vector}; choose one with --{vector}")
    every: list[Dimension] = []
    for column in found:
        rows, names = facts.rows[column], facts.names.get(column, ())
        width = rows[0].shape[1] if rows else 0
        if len(names) not in (0, 1, width):
            raise DraftError(
                f"{facts.source}: column {column!r} has {width} dimensions, but its 'names' are {len(names)}: "
                f"{list(names)}; correct meta/info.json"
            )
        declared = names if len(names) == width else ()
        if not declared:
            remarks[vector] = f"guess: column {column!r} does not name its dimensions"
        every += dimensions(column, width, declared, [one[:, -1] for one in rows])
    return every


def _numbers(facts: Facts, every: list[Dimension]) -> list[Rows]:
    """(T, D) per episode, all dimensions side by side."""
    episodes = range(len(next(iter(facts.rows.values()))))
    return [np.stack([facts.rows[d.column][e][:, d.place] for d in every], axis=1) for e in episodes]


def _placed(parts: tuple[Part, ...]) -> list[tuple[Part, slice]]:
    """Parts with their dimensions in the vector."""
    ends = np.cumsum([len(part.dims) for part in parts]).tolist()
    return [(part, slice(end - len(part.dims), end)) for part, end in zip(parts, ends, strict=True)]


def _is_gripper(part: Part) -> bool:
    return len(part.dims) == 1 and "gripper" in part.name


def _cut(episodes: list[Rows], place: slice) -> list[Rows]:
    return [rows[:, place] for rows in episodes]


def _first(episodes: list[Rows]) -> list[Rows]:
    return [rows[:, 0] for rows in episodes]


def _is_target(actions: list[Rows], states: list[Rows]) -> tuple[bool, str]:
    """Whether an action is a place to go to (learned as a difference to the state), and why it is thought so.

    states: of the part of the same name, (T, 0) where there is none.
    """
    wanted, present = (np.concatenate(rows).astype(np.float64) for rows in (actions, states))
    if wanted.shape != present.shape:
        return False, "guess: not relative, since the state has no part of this name and size"
    moving = wanted.std(0) > 1e-6
    if not moving.any():
        return False, "guess: not relative; these actions never change, so the data cannot tell"
    left = (wanted - present)[:, moving].var(0) / wanted[:, moving].var(0)
    explained = float(np.median(1 - left))
    says = f"the state explains {max(explained, 0.0):.0%} of this action's variance"
    if explained > FOLLOWS:
        return True, f"guess: relative. {says}, so it is a place to go to"
    if explained < DIFFERS:
        return False, f"guess: not relative. {says}, so it is a command such as a difference or a velocity"
    return False, f"guess, and unclear: {says}. Is it a place to go to (relative: true) or a command?"


def _known(robot_type: str) -> bool:
    return robot_type.strip().lower() not in ("", "unknown", "none", "null")


def _slug(robot_type: str, source: str) -> str:
    """A name in lower case and dashes."""
    chosen = robot_type if _known(robot_type) else Path(source).name
    return re.sub(r"[^a-z0-9]+", "-", chosen.lower()).strip("-") or "robot"
