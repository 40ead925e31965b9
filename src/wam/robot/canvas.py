"""The canvas: all camera views of one moment pasted into one picture, because the video model sees one video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from wam.robot.embodiment import Embodiment
from wam.robot.observation import Image
from wam.robot.preprocess import prepare_view


def compose(images: Mapping[str, Image], embodiment: Embodiment) -> Image:
    """Views (uint8 (H, W, 3) each) -> one canvas, uint8 (canvas_height, canvas_width, 3).

    A view that fills several cells is stretched: every pixel column is repeated. Raises ValueError naming the camera
    that is missing or does not fit.
    """
    canvas = np.zeros((embodiment.canvas_height, embodiment.canvas_width, 3), dtype=np.uint8)
    for name, top, left, cells in _places(embodiment):
        view = np.repeat(_cell(images, name, embodiment), cells, axis=1)
        canvas[top : top + view.shape[0], left : left + view.shape[1]] = view
    return canvas


def split(canvas: Image, embodiment: Embodiment) -> dict[str, Image]:
    """The inverse of `compose`: camera name -> cell. Works on any leading dimensions, (..., H, W, 3)."""
    height, width = embodiment.view_height, embodiment.view_width
    return {
        name: canvas[..., top : top + height, left : left + cells * width : cells, :]
        for name, top, left, cells in _places(embodiment)
    }


def _places(embodiment: Embodiment) -> Iterator[tuple[str, int, int, int]]:
    """(camera, first pixel row, first pixel column, number of cells side by side)."""
    for row, names in enumerate(embodiment.canvas):
        for name in dict.fromkeys(name for name in names if name is not None):
            yield name, row * embodiment.view_height, names.index(name) * embodiment.view_width, names.count(name)


def _cell(images: Mapping[str, Image], name: str, embodiment: Embodiment) -> Image:
    """One view at the size of a cell."""
    if name not in images:
        raise ValueError(
            f"camera {name!r} is missing from the observation; found {sorted(images)}, embodiment "
            f"{embodiment.name!r} needs {list(embodiment.cameras)}"
        )
    view = np.asarray(images[name])
    cell = (embodiment.view_height, embodiment.view_width, 3)
    if view.dtype != np.uint8 or view.ndim != 3 or view.shape[2] != 3:
        raise ValueError(f"camera {name!r}: found {view.dtype} {view.shape}, expected uint8 (height, width, 3)")
    if embodiment.crop is not None:
        if min(int(embodiment.crop * size) for size in view.shape[:2]) < 1:
            raise ValueError(
                f"camera {name!r}: found {view.shape}, of which a crop of {embodiment.crop} leaves nothing"
            )
        return prepare_view(view, *cell[:2], embodiment.crop)
    if view.shape != cell:
        raise ValueError(
            f"camera {name!r}: found {view.dtype} {view.shape}, expected uint8 {cell}; resize the view before sending "
            "it, or give the embodiment a 'crop'"
        )
    return view
