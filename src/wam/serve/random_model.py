"""A model of the shipped one's size, with random weights, for other cameras: what a server costs does not depend on
what was learned."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

import torch

from wam.checkpoints.model_folder import SHIPPED, TOKENIZER, read_config
from wam.encoders.nano_tokenizer import SPATIAL_FACTOR, NanoTokenizer, NanoTokenizerConfig
from wam.world_action_model import WorldActionModel

LIKE = "nano-metaworld"


def write_random_model(folder: Path, cameras: int, height: int, width: int, seed: int = 0) -> Path:
    """Write a model for `cameras` pictures side by side, each cropped to a multiple of the tokenizer's patches."""
    known = read_config(SHIPPED / LIKE)
    patch = SPATIAL_FACTOR * known.transformer.patch
    cell = (height // patch * patch, width // patch * patch)
    names = tuple(f"camera_{number}" for number in range(cameras))
    robot = replace(
        known.embodiments[0],
        name="random",
        cameras=names,
        canvas=(names,),
        camera_keys=(),
        view_height=cell[0],
        view_width=cell[1],
        crop=1.0,
    )
    canvas = (robot.canvas_height, robot.canvas_width)
    latent = (known.latent[0], canvas[0] // SPATIAL_FACTOR, canvas[1] // SPATIAL_FACTOR)
    torch.manual_seed(seed)
    model = WorldActionModel(replace(known, embodiments=(robot,), latent=latent))
    model.save_pretrained(folder)
    sizes = dataclasses.asdict(NanoTokenizer.from_pretrained(SHIPPED / LIKE / TOKENIZER).config)
    tokenizer = NanoTokenizer(NanoTokenizerConfig(**{**sizes, "canvas_height": canvas[0], "canvas_width": canvas[1]}))
    tokenizer.save_pretrained(folder / TOKENIZER)
    return folder
