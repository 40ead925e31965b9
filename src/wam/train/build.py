"""From a TrainConfig to a model, its windows and its sentences: everything that a run reads before its first step."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from wam.data.latent_cache import LatentCache, encode_dataset
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.windows import EpisodeSelection, WindowSource, WindowSpec
from wam.encoders.nano_tokenizer import NanoTokenizer
from wam.encoders.text import MiniLMTextEncoder
from wam.model.config import TransformerConfig
from wam.robot.embodiment import METAWORLD_SAWYER, Embodiment
from wam.robot.normalization import Normalizer
from wam.train.config import TrainConfig
from wam.train.trainer import Trainer
from wam.world_action_model import WorldActionConfig, WorldActionModel

logger = logging.getLogger(__name__)
LATENTS = "latents"
TOKENIZER = "tokenizer"


def build(
    config: TrainConfig, embodiment: Embodiment = METAWORLD_SAWYER, progress: Callable[[int, int], None] | None = None
) -> Trainer:
    """Open the data, encode its latents if that has not been done, and put the trainer together."""
    dataset = LeRobotDataset(config.data)
    tokenizer = NanoTokenizer.from_pretrained(config.tokenizer)
    with torch.autocast("cpu", torch.bfloat16):  # a third faster; the latents are stored in half precision anyway
        cache = encode_dataset(dataset, tokenizer, embodiment, config.data / LATENTS, progress=progress)
    training, validation = (_source(config, embodiment, dataset, cache, split) for split in ("train", "validation"))
    text_encoder = MiniLMTextEncoder()
    torch.manual_seed(config.seed)
    model = _model(config, embodiment, training, cache, text_encoder)
    sentences = _sentences(training.sentences, embodiment, text_encoder)

    def save_model(finished: WorldActionModel, folder: Path) -> None:
        shutil.copytree(config.tokenizer, folder / TOKENIZER, dirs_exist_ok=True, ignore=_only_the_model)
        finished.save_pretrained(folder)

    return Trainer(config, model, training, validation, sentences, save_model)


def _source(
    config: TrainConfig, embodiment: Embodiment, dataset: LeRobotDataset, cache: LatentCache, split: str
) -> WindowSource:
    w = config.windows
    spec = WindowSpec(
        chunks=w.chunks,
        actions_per_chunk=embodiment.actions_per_chunk,
        video_stride=embodiment.video_stride,
        frames_per_chunk=embodiment.frames_per_chunk,
        gap_probability=w.gap_probability if config.size.autoregressive else 0.0,
    )
    selection = EpisodeSelection("train", w.validation_share, w.labelled_share, w.drop_unlabelled)
    if split == "validation":
        selection = replace(selection, split="validation", labelled_share=1.0)
    return WindowSource(dataset, cache, spec, selection)


def _model(
    config: TrainConfig, embodiment: Embodiment, source: WindowSource, cache: LatentCache, text: MiniLMTextEncoder
) -> WorldActionModel:
    if config.init is not None:
        start = WorldActionModel.from_pretrained(config.init)
        changed = replace(start.config, noise=config.noise, dream=config.dream, video_weight=config.video_weight)
        model = WorldActionModel(changed)
        model.load_state_dict(start.state_dict())
        return model
    statistics = source.normalization()
    size, channels = asdict(config.size), cache.latent_shape[0]
    transformer = TransformerConfig(
        **size,
        ffn_dim=4 * config.size.dim,
        in_channels=channels * (2 if config.see_previous else 1),
        out_channels=channels,
        text_dim=text.text_dim,
        action_dim=embodiment.action_dim,
        state_dim=embodiment.state_dim,
        frames_per_chunk=embodiment.frames_per_chunk,
        actions_per_chunk=embodiment.actions_per_chunk,
    )
    return WorldActionModel(
        WorldActionConfig(
            transformer=transformer,
            embodiment=embodiment,
            latent=cache.latent_shape,
            state_normalizer=Normalizer.from_mean_std(statistics.state.mean, statistics.state.std),
            action_normalizer=Normalizer.from_mean_std(statistics.action.mean, statistics.action.std),
            noise=config.noise,
            dream=config.dream,
            video_weight=config.video_weight,
            text_len=text.text_len,
            see_previous=config.see_previous,
        )
    )


def _sentences(sentences: Sequence[str], embodiment: Embodiment, text: MiniLMTextEncoder) -> Tensor:
    """(n, Lt, text_dim): every distinct sentence once."""
    return text.encode([embodiment.prompt(sentence) for sentence in sentences])


def _only_the_model(_: str, names: list[str]) -> set[str]:
    return {name for name in names if name not in {"config.json", "model.safetensors"}}
