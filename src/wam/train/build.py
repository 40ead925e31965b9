"""From a TrainConfig to a model, its windows and its prompts: everything that a run reads before its first step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from wam.checkpoints.model_folder import TOKENIZER, save_adapted
from wam.data.mixture import prompts_of
from wam.encoders.nano_tokenizer import NanoTokenizer
from wam.encoders.text import MiniLMTextEncoder, text_features
from wam.model.config import TransformerConfig, patch_grid
from wam.robot.embodiment import Embodiment
from wam.train.adapt import choose_what_learns, whole_codecs
from wam.train.config import TrainConfig
from wam.train.parallel import Processes
from wam.train.samples import Dreamer
from wam.train.sources import held_out, latents_by, members_of, open_entries, robots_of
from wam.train.start import Start, grown, known_robots, settled
from wam.train.trackers import check_trackers
from wam.train.trainer import Trainer
from wam.world_action_model import WorldActionConfig, WorldActionModel

logger = logging.getLogger(__name__)
Latent = tuple[int, int, int]


def build(
    config: TrainConfig,
    progress: Callable[[int, int], None] | None = None,
    processes: Processes | None = None,
) -> Trainer:
    """Open the data, encode latents if that has not been done, and put the trainer together."""
    check_trackers(config.track)
    processes = processes or Processes(config.precision)
    start = None if config.init is None else Start.load(config.init)
    config = settled(config, start)
    assert config.tokenizer is not None  # settled
    tokenizer = NanoTokenizer.from_pretrained(config.tokenizer)
    patch_grid(tokenizer.config.latent_grid, config.size.patch)  # before hours of encoding
    with processes.main_first():  # what is not encoded yet, one of them encodes
        opened = open_entries(config, latents_by(tokenizer, progress))
    found = robots_of(config, opened)
    robots = found if start is None else known_robots(start.config, found, config.adapt)
    training = members_of(opened, robots, config.windows.labelled_part)
    validation = held_out(config, opened, training)
    said = prompts_of(training)
    text_encoder = MiniLMTextEncoder.for_prompts(said) if start is None else MiniLMTextEncoder(start.config.text_len)
    prompts = text_features(text_encoder, said)
    torch.manual_seed(config.seed)
    _, z, height, width = opened[0].cache.anchor[np.zeros(1, dtype=np.int64)].shape
    latent = z, height, width
    if start is None:
        model = WorldActionModel(_from_nothing(config, robots, latent, text_encoder))
    else:
        model = grown(start.model, _from_start(config, start, robots, latent, text_encoder))
    adapter = choose_what_learns(model, config.adapt, _learning_slots(config, robots, found))

    def save_model(finished: WorldActionModel, folder: Path) -> None:
        whole_codecs(finished)
        if adapter is not None and start is not None:
            save_adapted(finished, adapter, start.folder, folder)
            return
        tokenizer.save_pretrained(folder / TOKENIZER)
        finished.save_pretrained(folder)

    dreamer = Dreamer(validation, prompts, tokenizer, config.validation) if validation else None
    return Trainer(config, model, training, validation, prompts, save_model, processes, dreamer)


def _learning_slots(config: TrainConfig, robots: Sequence[Embodiment], found: Sequence[Embodiment]) -> list[int]:
    """The codecs that learn. Raises ValueError naming a robot that is asked for and not in the data."""
    names, there = [robot.name for robot in robots], [robot.name for robot in found]
    unknown = [name for name in config.adapt.robots if name not in there]
    if unknown:
        raise ValueError(f"--adapt.robots: {unknown[0]!r} has no actions in {config.data}; there are {there}")
    return [names.index(name) for name in config.adapt.robots or there]


def _from_start(
    config: TrainConfig, start: Start, robots: tuple[Embodiment, ...], latent: Latent, text: MiniLMTextEncoder
) -> WorldActionConfig:
    """The initial model's configuration with this run's robots, noise and losses."""
    own, first = start.config, robots[0]
    if (latent, text.text_dim) != (own.latent, own.transformer.text_dim):
        raise ValueError(
            f"--init {start.folder}: was trained on latents {own.latent} and text features of width "
            f"{own.transformer.text_dim}, this run has {latent} and {text.text_dim}; take a canvas of the same size "
            "and a model of this text encoder"
        )
    transformer = replace(
        own.transformer,
        embodiments=len(robots),
        action_dim=first.action_width or first.action_dim,
        state_dim=first.state_width or first.state_dim,
    )
    return replace(
        own,
        transformer=transformer,
        embodiments=robots,
        noise=config.noise,
        dream=config.dream,
        video_weight=config.video_weight,
    )


def _from_nothing(
    config: TrainConfig, robots: tuple[Embodiment, ...], latent: Latent, text: MiniLMTextEncoder
) -> WorldActionConfig:
    size, channels, first = asdict(config.size), latent[0], robots[0]
    transformer = TransformerConfig(
        **size,
        ffn_dim=4 * config.size.dim,
        in_channels=channels * (2 if config.see_previous else 1),
        out_channels=channels,
        text_dim=text.text_dim,
        action_dim=first.action_width or first.action_dim,
        state_dim=first.state_width or first.state_dim,
        embodiments=len(robots),
        frames_per_chunk=first.frames_per_chunk,
        actions_per_chunk=first.actions_per_chunk,
    )
    return WorldActionConfig(
        transformer=transformer,
        embodiments=robots,
        latent=latent,
        noise=config.noise,
        dream=config.dream,
        video_weight=config.video_weight,
        text_len=text.text_len,
        see_previous=config.see_previous,
    )
