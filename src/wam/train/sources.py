"""What a run learns from: one data set, or a YAML file that mixes several.

- data: data/mt10                 # LeRobot data set
  embodiment: metaworld-sawyer    # shipped name, or YAML file
  weight: 2.0                     # part of every batch, relative to the others
- data: data/people
  embodiment: human-video
  video_only: true                # learn from its video alone
  filter: {language: true}        # see wam.data.filters.DatasetFilter
  on_broken: skip                 # episodes whose pictures cannot be read are left out, instead of ending the run
- data: lerobot/droid_1.0.1       # a data set on the Hub, at one commit
  revision: 3f1d9c2
  embodiment: droid-franka
  instructions: [language_instruction, language_instruction_2, language_instruction_3]  # see wam.data.instructions
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from wam.data.errors import DatasetError
from wam.data.files import read_yaml
from wam.data.filters import DatasetFilter
from wam.data.instructions import TASK
from wam.data.latent_cache import encode_dataset
from wam.data.lerobot_reader import LeRobotDataset, OnBroken
from wam.data.mixture import Member
from wam.data.stats import robot_statistics
from wam.data.windows import EpisodeSelection, Frames, WindowSource, WindowSpec
from wam.encoders.nano_tokenizer import NanoTokenizer
from wam.robot.embodiment import Embodiment, EmbodimentError, Statistics, load_embodiment
from wam.robot.released import TAGS
from wam.robot.units import Units
from wam.train.config import TrainConfig
from wam.train.start import require_same_robot

LATENTS = "latents"


@dataclass(frozen=True)
class DataEntry:
    """One data set of a run."""

    data: Path
    embodiment: str
    revision: str | None = None
    weight: float = 1.0
    video_only: bool = False
    filter: DatasetFilter = DatasetFilter()
    on_broken: OnBroken = "stop"
    instructions: tuple[str, ...] = (TASK,)


@dataclass(frozen=True)
class Opened:
    """A data set with its latents or pictures, how its robot is described, and the windows of its training episodes."""

    entry: DataEntry
    dataset: LeRobotDataset
    cache: Frames
    embodiment: Embodiment
    training: WindowSource

    @property
    def video_only(self) -> bool:
        return self.entry.video_only or not self.embodiment.action


def read_entries(config: TrainConfig) -> list[DataEntry]:
    """Raises ValueError naming the file and the field that is unknown or missing."""
    if config.data.suffix not in {".yaml", ".yml"}:
        return [DataEntry(config.data, config.embodiment, config.revision)]
    listed = read_yaml(config.data)
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"{config.data}: expected a list of data sets, found {type(listed).__name__}")
    return [_entry(fields, f"{config.data}: entry {place}") for place, fields in enumerate(listed)]


FramesOf = Callable[[DataEntry, LeRobotDataset, Embodiment], Frames]
"""What the windows of a data set show."""


def latents_by(tokenizer: NanoTokenizer, progress: Callable[[int, int], None] | None = None) -> FramesOf:
    """Latents, encoded beside the data set where that has not been done."""

    def encoded(entry: DataEntry, dataset: LeRobotDataset, robot: Embodiment) -> Frames:
        place = dataset.root / LATENTS
        return encode_dataset(dataset, tokenizer, robot, place, progress=progress, on_broken=entry.on_broken)

    return encoded


def open_entries(config: TrainConfig, frames_of: FramesOf) -> list[Opened]:
    """Open every data set and what its windows show."""
    opened = []
    for entry in read_entries(config):
        dataset = LeRobotDataset(str(entry.data), revision=entry.revision, on_broken=entry.on_broken)
        embodiment = load_embodiment(TAGS.get(entry.embodiment, entry.embodiment))
        cache = frames_of(entry, dataset, embodiment)
        training = window_source(config, entry, dataset, cache, embodiment, "train")
        opened.append(Opened(entry, dataset, cache, embodiment, training))
    return opened


def robots_of(
    config: TrainConfig, opened: list[Opened], known: Mapping[str, Statistics] = MappingProxyType({})
) -> tuple[Embodiment, ...]:
    """Every robot that acts, once, with the statistics of all its data sets and vectors as wide as the widest robot's.

    Statistics are those of the training episodes that keep their actions: of no other does the model see a state.
    known: robots that have theirs already.

    Raises EmbodimentError when nobody acts, or two data sets describe a robot of one name differently.
    """
    acting = [one for one in opened if not one.video_only]
    robots = list(dict.fromkeys(one.embodiment.name for one in acting))
    if not robots:
        raise EmbodimentError(f"{config.data}: every data set is video only; at least one must have actions")
    widths = {
        name: max(
            getattr(one.embodiment, name) or getattr(one.embodiment, name.replace("width", "dim")) for one in acting
        )
        for name in ("state_width", "action_width")
    }
    described = []
    for robot in robots:
        own = [one for one in acting if one.embodiment.name == robot]
        for other in own[1:]:
            require_same_robot(own[0].embodiment, other.embodiment, f"{own[0].entry.data} has")
        statistics = known.get(robot)
        if statistics is None:
            rows = [pair for one in own for pair in one.training.labelled_rows()]
            statistics = robot_statistics(own[0].embodiment, rows)
        described.append(replace(own[0].embodiment, statistics=statistics, **widths))
    return tuple(described)


def members_of(
    opened: list[Opened], robots: tuple[Embodiment, ...], labelled_part: float | None = None
) -> list[Member]:
    """The data sets' training windows as members of a mixture, each in its robot's units."""
    names = [robot.name for robot in robots]
    first = next(one.embodiment.name for one in opened if not one.video_only)
    members: list[Member] = []
    for one in opened:
        slot = names.index(first if one.video_only else one.embodiment.name)
        units = None if one.video_only else Units(robots[slot])
        name = one.entry.data.name
        if name in {member.name for member in members}:
            name = f"{name}-{len(members)}"
        part = None if one.video_only else labelled_part
        members.append(Member(name, one.training, units, slot, one.entry.weight, one.embodiment, part))
    return members


def held_out(config: TrainConfig, opened: list[Opened], training: list[Member]) -> list[Member]:
    """The same members on the validation episodes, all with the same weight; none where nothing is to be held out.

    Raises DatasetError naming a data set that has nothing to hold out.
    """
    if config.windows.validation_share == 0.0:
        return []
    try:
        return [
            replace(
                member,
                source=window_source(config, one.entry, one.dataset, one.cache, one.embodiment, "validation"),
                weight=1.0,
                labelled_part=None,
            )
            for one, member in zip(opened, training, strict=True)
        ]
    except DatasetError as error:
        raise DatasetError(f"{error}; a validation share of 0 trains without validation") from error


def window_source(
    config: TrainConfig, entry: DataEntry, dataset: LeRobotDataset, cache: Frames, robot: Embodiment, split: str
) -> WindowSource:
    """Windows of the training or the validation episodes."""
    w = config.windows
    spec = WindowSpec(
        chunks=w.chunks,
        actions_per_chunk=robot.actions_per_chunk,
        video_stride=robot.video_stride,
        frames_per_chunk=robot.frames_per_chunk,
        gap_probability=w.gap_probability if config.size.autoregressive else 0.0,
    )
    selection = EpisodeSelection("train", w.validation_share, w.labelled_share, drop_unlabelled=w.labelled_part == 1.0)
    if split == "validation":
        selection = replace(selection, split="validation", labelled_share=1.0)
    known = replace(robot, state=(), action=()) if entry.video_only else robot
    return WindowSource(dataset, cache, spec, selection, entry.filter, known, entry.instructions)


def _entry(fields: Mapping[str, Any], source: str) -> DataEntry:
    known = {field.name for field in dataclasses.fields(DataEntry)}
    unknown = sorted(set(fields) - known)
    missing = sorted({"data", "embodiment"} - set(fields))
    if unknown or missing:
        problem = f"unknown field {unknown[0]!r}" if unknown else f"field {missing[0]!r} is missing"
        raise ValueError(f"{source}: {problem}; known fields are {sorted(known)}")
    values = {**fields, "data": Path(fields["data"])}
    if "filter" in values:
        values["filter"] = _filter(values["filter"], f"{source}: filter")
    if values.get("on_broken", "stop") not in get_args(OnBroken):
        raise ValueError(f"{source}: on_broken is {values['on_broken']!r}; expected one of {get_args(OnBroken)}")
    if "instructions" in values:
        values["instructions"] = tuple(values["instructions"])
    return DataEntry(**values)


def _filter(fields: Mapping[str, Any], source: str) -> DatasetFilter:
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    if given.get("rows") is not None:
        given["rows"] = Path(given["rows"])
    try:
        return DatasetFilter(**given)
    except TypeError as error:
        raise ValueError(f"{source}: {error}") from error
