"""Looks: the training look, and three held-out ones that repaint the render copy of the scene and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import mujoco
import numpy as np

Look = Literal["train", "lights", "textures", "colours"]
LOOKS: tuple[str, ...] = get_args(Look)


def repainter(look: str) -> Callable[[mujoco.MjModel], None] | None:
    """The function that repaints a model for this look; None for the training look. ValueError for an unknown look."""
    painters: dict[str, Callable[[mujoco.MjModel], None] | None] = {
        "train": None,
        "lights": _lights,
        "textures": _textures,
        "colours": _colours,
    }
    if look not in painters:
        raise ValueError(f"unknown look {look!r}; known looks are {list(LOOKS)}")
    return painters[look]


def _lights(model: mujoco.MjModel) -> None:
    """Evening: dim, warm, from one side."""
    model.vis.headlight.ambient[:] = (0.20, 0.17, 0.12)
    model.vis.headlight.diffuse[:] = (0.25, 0.22, 0.18)
    model.light_diffuse[:] = 0.0
    model.light_diffuse[0] = (0.75, 0.60, 0.40)
    model.light_dir[0] = (-0.6, 0.5, -0.6)


def _textures(model: mujoco.MjModel) -> None:
    """Another table and floor: every texture becomes a coarse grey-blue marble."""
    rng = np.random.default_rng(0)
    for texture in range(model.ntex):
        start = int(model.tex_adr[texture])
        height, width = int(model.tex_height[texture]), int(model.tex_width[texture])
        channels = int(model.tex_nchannel[texture])
        coarse = rng.uniform(0.0, 1.0, (height // 8 + 1, width // 8 + 1))
        tone = np.kron(coarse, np.ones((8, 8)))[:height, :width, None]
        colour = np.array((90.0, 105.0, 125.0, 255.0))[:channels] + 70.0 * tone
        model.tex_data[start : start + height * width * channels] = np.clip(colour, 0, 255).astype(np.uint8).ravel()


def _colours(model: mujoco.MjModel) -> None:
    """The same things in other colours: red turns blue, blue turns green, green turns red; puck and floor stay."""
    for geom in range(model.ngeom):
        if model.geom(geom).name not in ("objGeom", "floor"):
            model.geom_rgba[geom, :3] = model.geom_rgba[geom, [1, 2, 0]]
    model.mat_rgba[:, :3] = model.mat_rgba[:, [1, 2, 0]]
