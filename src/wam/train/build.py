"""From a TrainConfig to a model, its windows and its prompts: everything that a run reads before its first step."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from wam.data.mixture import prompts_of
from wam.encoders.nano_tokenizer import NanoTokenizer
from wam.encoders.text import MiniLMTextEncoder
from wam.model.config import TransformerConfig
from wam.robot.embodiment import Embodiment
from wam.train.config import TrainConfig
from wam.train.sources import held_out, members_of, open_entries, robots_of
from wam.train.trainer import Trainer
from wam.world_action_model import WorldActionConfig, WorldActionModel

logger = logging.getLogger(__name__)
TOKENIZER = "tokenizer"


def build(config: TrainConfig, progress: Callable[[int, int], None] | None = None) -> Trainer:
    """Open the data, encode latents if that has not been done, and put the trainer together."""
    tokenizer = NanoTokenizer.from_pretrained(config.tokenizer)
    opened = open_entries(config, tokenizer, progress)
    robots = robots_of(config, opened)
    training = members_of(opened, robots, config.windows.labelled_part)
    validation = held_out(config, opened, training)
    text_encoder = MiniLMTextEncoder()
    torch.manual_seed(config.seed)
    model = _model(config, robots, opened[0].cache.latent_shape, text_encoder)
    prompts = text_encoder.encode(prompts_of(training))

    def save_model(finished: WorldActionModel, folder: Path) -> None:
        shutil.copytree(config.tokenizer, folder / TOKENIZER, dirs_exist_ok=True, ignore=_only_the_model)
        finished.save_pretrained(folder)

    return Trainer(config, model, training, validation, prompts, save_model)


def _model(
    config: TrainConfig, robots: tuple[Embodiment, ...], latent: tuple[int, int, int], text: MiniLMTextEncoder
) -> WorldActionModel:
    if config.init is not None:
        start = WorldActionModel.from_pretrained(config.init)
        changed = replace(start.config, noise=config.noise, dream=config.dream, video_weight=config.video_weight)
        model = WorldActionModel(changed)
        model.load_state_dict(start.state_dict())
        return model
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
    return WorldActionModel(
        WorldActionConfig(
            transformer=transformer,
            embodiments=robots,
            latent=latent,
            noise=config.noise,
            dream=config.dream,
            video_weight=config.video_weight,
            text_len=text.text_len,
            see_previous=config.see_previous,
        )
    )


def _only_the_model(_: str, names: list[str]) -> set[str]:
    return {name for name in names if name not in {"config.json", "model.safetensors"}}
