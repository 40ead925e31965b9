"""The canvas: all camera views of one moment pasted into one picture, because the video model sees one video."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from wam.robot.embodiment import Embodiment
from wam.robot.observation import Image


def compose(images: Mapping[str, Image], embodiment: Embodiment) -> Image:
    """Paste views (each uint8 (view_height, view_width, 3)) into one canvas, uint8 (canvas_height, canvas_width, 3).

    Raises ValueError naming the camera that is missing or has another shape.
    """
    height, width = embodiment.view_height, embodiment.view_width
    canvas = np.zeros((embodiment.canvas_height, embodiment.canvas_width, 3), dtype=np.uint8)
    for row, names in enumerate(embodiment.canvas):
        for column, name in enumerate(names):
            if name is not None:
                view = _checked(images, name, embodiment)
                canvas[row * height : (row + 1) * height, column * width : (column + 1) * width] = view
    return canvas


def split(canvas: Image, embodiment: Embodiment) -> dict[str, Image]:
    """The inverse of `compose`: camera name -> view. Works on any leading dimensions, (..., H, W, 3)."""
    height, width = embodiment.view_height, embodiment.view_width
    views = {}
    for row, names in enumerate(embodiment.canvas):
        for column, name in enumerate(names):
            if name is not None:
                views[name] = canvas[..., row * height : (row + 1) * height, column * width : (column + 1) * width, :]
    return views


def _checked(images: Mapping[str, Image], name: str, embodiment: Embodiment) -> Image:
    if name not in images:
        raise ValueError(
            f"camera {name!r} is missing from the observation; found {sorted(images)}, embodiment "
            f"{embodiment.name!r} needs {list(embodiment.cameras)}"
        )
    view = np.asarray(images[name])
    expected = (embodiment.view_height, embodiment.view_width, 3)
    if view.shape != expected or view.dtype != np.uint8:
        raise ValueError(
            f"camera {name!r}: found {view.dtype} {view.shape}, expected uint8 {expected}; "
            "resize the view before sending it"
        )
    return view
