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

import torch
from torch import Tensor

from wam.checkpoints.checked import checked_transformer
from wam.checkpoints.errors import ForeignCheckpointError, MissingPartError
from wam.checkpoints.load import PublishedModel, load_published, load_text_encoder
from wam.checkpoints.lora import Adapter
from wam.checkpoints.model_folder import save_robot_adapter
from wam.checkpoints.recognise import PARTS
from wam.checkpoints.source import Source, resolve
from wam.checkpoints.statistics import read_metadata, robot_of
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.mixture import Member
from wam.data.picture_rows import PictureRows
from wam.data.windows import Frames
from wam.encoders import FRAMES_PER_LATENT
from wam.encoders.text import TextEncoder, text_features
from wam.encoders.umt5 import TEXT_LEN
from wam.engine.load_released import canvas_of
from wam.model.config import TransformerConfig
from wam.robot.embodiment import Embodiment, EmbodimentError
from wam.robot.released import TAGS, released_prompt
from wam.train.adapt import choose_what_learns
from wam.train.config import TrainConfig
from wam.train.parallel import Processes
from wam.train.sources import DataEntry, held_out, members_of, open_entries, robots_of
from wam.train.start import require_same_robot
from wam.train.trackers import check_trackers
from wam.train.trainer import Trainer
from wam.train.window_encoder import WindowEncoder
from wam.world_action_model import WorldActionConfig, WorldActionModel

logger = logging.getLogger(__name__)
SLOT = 0  # published weights have one codec for all robots


def build_finetune(
    config: TrainConfig,
    progress: Callable[[int, int], None] | None = None,
    processes: Processes | None = None,
) -> Trainer:
    """Open the data, load the weights in `config.init`, and put the trainer together.

    progress: called with (bytes read, bytes in all) while the transformer is loaded.

    Raises a `CheckpointError` for weights that cannot act, EmbodimentError for a robot that does not fit them.
    """
    check_trackers(config.track)
    assert config.init is not None, "the command asks for it"
    processes = processes or Processes(config.precision)
    with processes.main_first():  # what has to be downloaded, one of them downloads
        opened, place = open_entries(config, pictures), resolve(config.init)
    robot = _known_robot(place, _network_of(place), robots_of(config, opened), config)
    members = members_of(opened, (robot,), config.windows.labelled_part)
    prompts = _prompts(members, place, processes)
    model = _load(place, config, processes, progress)
    encoder = _encoder(model, processes.device)
    training = [replace(member, encode=encoder) for member in members]
    validation = held_out(config, opened, training)
    learner = _learner(config, model, robot, encoder)
    torch.manual_seed(config.seed)
    adapter = choose_what_learns(learner, config.adapt, [SLOT])
    assert adapter is not None, "the command trains adapters"
    for weight in learner.parameters():
        if weight.requires_grad:  # in full precision, over a base that may be stored in less
            weight.data = weight.data.float()
    save = partial(_save, adapter, robot, str(config.init))
    return Trainer(config, learner, training, validation, prompts, save, processes)


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
    missing = [part for part in needed if part not in place.found.pieces]
    if missing:
        raise MissingPartError(f"{place.asked}: has no {missing[0]}, so it cannot be adapted; see wam inspect")
    return c


def _load(
    place: Source, config: TrainConfig, processes: Processes, progress: Callable[[int, int], None] | None
) -> PublishedModel:
    """Everything but the text encoder, where it trains.

    A shard of FSDP2 wants numbers of one type, so its base is in float32; else it is in the type that it computes in.
    """
    whole = config.parallel == "fsdp2" and processes.world > 1

    def watch(part: str, done: int, total: int) -> None:
        if progress is not None and part == "transformer":
            progress(done, total)

    return load_published(
        place,
        components=[part for part in PARTS if part != "text_encoder"],
        dtype=torch.float32 if whole else processes.dtype,
        device="cpu" if whole else processes.device,
        places={"vae": processes.device, "image_encoder": processes.device},
        progress=watch,
    )


def _learner(config: TrainConfig, model: PublishedModel, robot: Embodiment, encoder: WindowEncoder) -> WorldActionModel:
    """The published transformer under our objective."""
    c, tokenizer = model.config, encoder.tokenizer
    height, width = encoder.canvas_size or (robot.canvas_height, robot.canvas_width)
    factor = tokenizer.spatial_factor
    if height % factor or width % factor:
        raise EmbodimentError(
            f"embodiment {robot.name!r}: its canvas of {height} x {width} cannot be cut into latents of {factor} x "
            f"{factor} pixels; choose another view_height or view_width"
        )
    described = WorldActionConfig(
        transformer=c,
        embodiments=(robot,),
        latent=(tokenizer.z_channels, height // factor, width // factor),
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
    assert tokenizer is not None  # looked for above
    look = None if image is None or c.image_dim is None else image.encode
    return WindowEncoder(tokenizer, look, c.in_channels > tokenizer.z_channels, device, canvas_of(tokenizer))


# ---------------------------------------------------------------- the robot and what is said


def _known_robot(place: Source, c: TransformerConfig, found: Sequence[Embodiment], config: TrainConfig) -> Embodiment:
    """The robot of the data, as wide as the weights' vectors, scaled as the weights know it or as its data says.

    Raises EmbodimentError naming what does not fit.
    """
    if len(found) != 1:
        names = [robot.name for robot in found]
        raise EmbodimentError(
            f"{config.data}: has the robots {names}; published weights have one codec, give one robot"
        )
    (robot,) = found
    for vector, needed, width in (("state", robot.state_dim, c.state_dim), ("action", robot.action_dim, c.action_dim)):
        if needed > width:
            raise EmbodimentError(
                f"embodiment {robot.name!r}: its {vector} has {needed} dimensions, the weights have room for {width}"
            )
    _require_chunk(robot, c)
    robot = replace(robot, state_width=c.state_dim, action_width=c.action_dim)
    metadata = {} if place.found.metadata is None else read_metadata(place.found.metadata)
    tag = next((tag for tag in metadata if TAGS.get(tag) == robot.name), None)
    if tag is None:
        return robot
    known = robot_of(metadata, tag, place.name)
    require_same_robot(known, robot, "the weights know")
    if config.adapt.statistics == "recompute":
        return robot
    logger.info("%s: scaled by the statistics of %s in %s", robot.name, tag, place.name)
    return replace(robot, statistics=known.statistics)


def _require_chunk(robot: Embodiment, c: TransformerConfig) -> None:
    stride = c.actions_per_chunk // (FRAMES_PER_LATENT * c.frames_per_chunk)
    for name in ("frames_per_chunk", "actions_per_chunk"):
        if getattr(robot, name) != getattr(c, name):
            raise EmbodimentError(
                f"embodiment {robot.name!r}: {name} is {getattr(robot, name)}, the weights were trained with "
                f"{getattr(c, name)}; draft its file with --frames-per-chunk {c.frames_per_chunk} "
                f"--video-stride {stride}"
            )


def _prompts(members: Sequence[Member], place: Source, processes: Processes) -> Tensor:
    """Features of all sentences of all members, (n, Lt, text_dim); the text encoder does not stay."""
    said = []
    for member in members:
        assert member.embodiment is not None, "members_of says whose pictures they are"
        said += [released_prompt(member.embodiment, sentence) for sentence in member.source.sentences]
    encoder: TextEncoder = load_text_encoder(place, dtype=processes.dtype, device=processes.device)
    return text_features(encoder, said)


# ---------------------------------------------------------------- what comes of it


def _save(adapter: Adapter, robot: Embodiment, base: str, finished: WorldActionModel, folder: Path) -> None:
    save_robot_adapter(finished.transformer, adapter, base, robot, folder)
