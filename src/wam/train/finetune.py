"""From published weights to a run that adapts them to a robot: adapters in every block, and the codec in full.

The run is that of `wam train`, with its objective, checkpoints and processes; what differs is read here. Windows are
encoded as they are drawn (`WindowEncoder`), prompts once, by a text encoder that is dropped before training begins. The
model folder holds the adapter and `robot.yaml`, the robot with the statistics of its numbers:

    wam merge-lora BASE OUT/model MERGED        # weights that act, in the layout of the base
    wam serve MERGED                            # for the robot that they were adapted to
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from wam.checkpoints.checked import checked_transformer
from wam.checkpoints.errors import ForeignCheckpointError
from wam.checkpoints.load import PublishedModel, load_published, load_text_encoder
from wam.checkpoints.lora import Adapter
from wam.checkpoints.model_folder import read_robot, save_robot_adapter
from wam.checkpoints.recognise import PARTS
from wam.checkpoints.source import Source, require_parts, resolve
from wam.checkpoints.statistics import read_metadata, robot_of
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.mixture import Member, Mixture
from wam.data.picture_rows import PictureRows
from wam.data.windows import Frames
from wam.encoders import FRAMES_PER_LATENT
from wam.encoders.text import Prompts
from wam.encoders.umt5 import TEXT_LEN
from wam.engine.load_released import canvas_of
from wam.model.config import TransformerConfig
from wam.robot.embodiment import Embodiment, EmbodimentError
from wam.robot.released import TAGS, released_prompt
from wam.train.adapt import choose_what_learns
from wam.train.config import TrainConfig
from wam.train.parallel import Processes
from wam.train.sources import DataEntry, Opened, held_out, members_of, open_entries, robots_of
from wam.train.start import require_same_robot
from wam.train.trackers import check_trackers
from wam.train.trainer import Trainer
from wam.train.window_encoder import WindowEncoder
from wam.world_action_model import WorldActionConfig, WorldActionModel

logger = logging.getLogger(__name__)
SLOT = 0  # published weights have one codec for all robots
Z_21, FACTOR_21 = 16, 8  # channels of a latent of Wan 2.1's VAE, and pixels of its cells


def build_finetune(
    config: TrainConfig,
    progress: Callable[[int, int], None] | None = None,
    processes: Processes | None = None,
) -> Trainer:
    """Open the data, load the weights in `config.init`, and put the trainer together.

    progress: called with (bytes read, bytes in all) while the transformer is loaded.

    Raises a `CheckpointError` for weights that cannot act, EmbodimentError or DatasetError for data that do not fit
    them, all before anything large is loaded.
    """
    check_trackers(config.track)
    assert config.init is not None, "the command asks for it"
    processes = processes or Processes(config.precision)
    with processes.main_first():  # what has to be downloaded, one of them downloads
        opened, place = open_entries(config, pictures), resolve(config.init)
    robot = _robot_of(config, opened, place)
    members = members_of(opened, (robot,), config.windows.labelled_part)
    validation = held_out(config, opened, members)
    Mixture(members, config.batch * config.optimizer.accumulate, config.seed)  # does every data set get a window?
    prompts = _prompts(members, place, processes)
    torch.manual_seed(config.seed)  # action modules that the weights lack begin at random
    model = _load(place, processes, progress)
    encoder = _encoder(model, processes.device)
    learner = _learner(config, model, robot, encoder)
    adapter = choose_what_learns(learner, config.adapt, [SLOT])
    assert adapter is not None, "the command trains adapters"
    for weight in learner.parameters():
        if weight.requires_grad:  # in full precision, over a base that may be stored in less
            weight.data = weight.data.float()
    training, held = ([replace(member, encode=encoder) for member in some] for some in (members, validation))
    save = partial(_save, adapter, robot, _name_of(place))
    return Trainer(config, learner, training, held, prompts, save, processes)


def pictures(entry: DataEntry, dataset: LeRobotDataset, robot: Embodiment) -> Frames:
    """What windows show before the frozen networks have seen them."""
    return PictureRows(dataset, robot)


# ---------------------------------------------------------------- the weights


def _network_of(place: Source) -> TransformerConfig:
    """What the weights are, from headers alone. Raises a `CheckpointError` unless they could act."""
    if place.found.kind == "nano":
        raise ForeignCheckpointError(f"{place.asked}: is a model of `wam train`; adapt it with `wam train --init`")
    c = checked_transformer(place).config
    needed = ("vae", "text_encoder") if c.image_dim is None else ("vae", "text_encoder", "image_encoder")
    require_parts(place, needed, "be adapted")
    return c


def _load(place: Source, processes: Processes, progress: Callable[[int, int], None] | None) -> PublishedModel:
    """Everything but the text encoder, in the type that it computes in."""

    def watch(part: str, done: int, total: int) -> None:
        if progress is not None and part == "transformer":
            progress(done, total)

    return load_published(
        place,
        components=[part for part in PARTS if part != "text_encoder"],
        dtype=processes.dtype,
        device=processes.device,
        places={"transformer": "cpu"} if processes.world > 1 else {},  # there it may be cut into shards first
        progress=watch,
    )


def _learner(config: TrainConfig, model: PublishedModel, robot: Embodiment, encoder: WindowEncoder) -> WorldActionModel:
    """The published transformer under our objective."""
    c, tokenizer = model.config, encoder.tokenizer
    height, width = encoder.canvas_size or (robot.canvas_height, robot.canvas_width)
    described = WorldActionConfig(
        transformer=c,
        embodiments=(robot,),
        latent=(tokenizer.z_channels, height // tokenizer.spatial_factor, width // tokenizer.spatial_factor),
        noise=config.noise,
        video_weight=config.video_weight,
        text_len=TEXT_LEN,
        beside=c.in_channels - tokenizer.z_channels,
    )
    with torch.device("meta"):
        learner = WorldActionModel(described)
    learner.transformer = model.transformer
    return learner


def _encoder(model: PublishedModel, device: torch.device) -> WindowEncoder:
    c, tokenizer, image = model.config, model.vae, model.image_encoder
    assert tokenizer is not None  # looked for in `_network_of`
    look = None if image is None or c.image_dim is None else image.encode
    return WindowEncoder(tokenizer, look, c.in_channels > tokenizer.z_channels, device, canvas_of(tokenizer))


# ---------------------------------------------------------------- the robot and what is said


def _robot_of(config: TrainConfig, opened: list[Opened], place: Source) -> Embodiment:
    """The robot of the data, as wide as the weights' vectors, scaled as the weights know it or as its data says.

    Raises EmbodimentError naming what does not fit, of any data set.
    """
    c, known = _network_of(place), _known_to(place, opened)
    for one in opened:
        _require_fit(one, opened[0].embodiment, c)
        if one.embodiment.name in known:
            require_same_robot(known[one.embodiment.name], one.embodiment, "the weights know")
    scaled = {name: robot.statistics for name, robot in known.items() if robot.statistics is not None}
    found = robots_of(config, opened, scaled if config.adapt.statistics == "keep" else {})
    if len(found) != 1:
        names = [robot.name for robot in found]
        raise EmbodimentError(f"{config.data}: robots {names}; published weights have one codec, so give one robot")
    (robot,) = found
    for vector, needed, width in (("state", robot.state_dim, c.state_dim), ("action", robot.action_dim, c.action_dim)):
        if needed > width:
            raise EmbodimentError(
                f"embodiment {robot.name!r}: its {vector} has {needed} dimensions, the weights have room for {width}"
            )
    return replace(robot, state_width=c.state_dim, action_width=c.action_dim)


def _known_to(place: Source, opened: list[Opened]) -> dict[str, Embodiment]:
    """Those robots of the data that the weights were trained for, by name, with the statistics of the weights."""
    names, fitted = {one.embodiment.name for one in opened}, read_robot(place.folder)
    metadata = {} if place.found.metadata is None else read_metadata(place.found.metadata)
    known = {TAGS[tag]: robot_of(metadata, tag, place.name) for tag in metadata if TAGS.get(tag) in names}
    return known if fitted is None else {**known, fitted.name: fitted}


def _require_fit(one: Opened, first: Embodiment, c: TransformerConfig) -> None:
    """Chunk and canvas of a data set, and a look at its first picture."""
    robot, pixels = one.embodiment, FACTOR_21 * c.patch
    _require_chunk(robot, c)
    size, expected = ((of.canvas_height, of.canvas_width) for of in (robot, first))
    if size != expected:
        raise EmbodimentError(
            f"embodiment {robot.name!r}: its canvas is {size}, that of {first.name!r} {expected}; all data sets of a "
            "run need the same"
        )
    if c.out_channels == Z_21 and any(side % pixels for side in size):
        raise EmbodimentError(
            f"embodiment {robot.name!r}: its canvas of {size[0]} x {size[1]} cannot be cut into patches of {pixels} x "
            f"{pixels} pixels; choose another view_height or view_width"
        )
    begin = one.dataset.episode(int(one.training.episodes[0])).dataset_from_index
    one.cache.anchor[np.array([begin])]  # raises what is wrong with its size


def _require_chunk(robot: Embodiment, c: TransformerConfig) -> None:
    stride = c.actions_per_chunk // (FRAMES_PER_LATENT * c.frames_per_chunk)
    for name in ("frames_per_chunk", "actions_per_chunk"):
        if getattr(robot, name) != getattr(c, name):
            raise EmbodimentError(
                f"embodiment {robot.name!r}: {name} is {getattr(robot, name)}, the weights were trained with "
                f"{getattr(c, name)}; draft its file with --frames-per-chunk {c.frames_per_chunk} "
                f"--video-stride {stride}"
            )


def _prompts(members: Sequence[Member], place: Source, processes: Processes) -> Prompts:
    """Features of all sentences of all members; the text encoder does not stay."""
    said = []
    for member in members:
        assert member.embodiment is not None, "members_of says whose pictures they are"
        said += [released_prompt(member.embodiment, sentence) for sentence in member.source.sentences]
    return Prompts(load_text_encoder(place, dtype=processes.dtype, device=processes.device), said, processes.dtype)


# ---------------------------------------------------------------- what comes of it


def _name_of(place: Source) -> str:
    """What the adapter calls its base: a repository with its commit, or what was asked for."""
    return place.asked if place.revision is None else f"{place.name}@{place.revision}"


def _save(adapter: Adapter, robot: Embodiment, base: str, finished: WorldActionModel, folder: Path) -> None:
    save_robot_adapter(finished.transformer, adapter, base, robot, folder)
