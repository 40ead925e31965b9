"""Pictures as the released networks were trained on them: crop, resize, canvas, and the image encoder's input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wam.robot.observation import Image

CLIP_SIZE = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

Layout = tuple[tuple[int | None, ...], ...]
"""Rows of view numbers. The same number in neighbouring cells of a row: one view stretched over them. None: black."""


def prepare_view(view: Image, height: int, width: int, crop: float = 0.95) -> Image:
    """Centre crop to int(crop * size), bilinear antialiased resize in float32, times 255 **truncated**, as in training.

    view: uint8 (H, W, 3) -> uint8 (height, width, 3).
    """
    rows, columns = (int(crop * size) for size in view.shape[:2])
    top, left = round((view.shape[0] - rows) / 2), round((view.shape[1] - columns) / 2)
    cut = torch.from_numpy(np.ascontiguousarray(view[top : top + rows, left : left + columns]))
    pixels = cut.permute(2, 0, 1)[None].float() / 255
    resized = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return (resized[0].permute(1, 2, 0) * 255).to(torch.uint8).numpy()


def compose_layout(views: Sequence[Image], layout: Layout) -> Image:
    """Views of one size, uint8 (h, w, 3) each -> canvas (h * rows, w * columns, 3).

    Raises ValueError for a layout that names a view that is not there, or tears one apart.
    """
    height, width = views[0].shape[:2]
    canvas = np.zeros((height * len(layout), width * len(layout[0]), 3), dtype=np.uint8)
    for row, cells in enumerate(layout):
        for number in {cell for cell in cells if cell is not None}:
            if not 0 <= number < len(views):
                raise ValueError(f"layout names view {number}, but there are {len(views)} views")
            places = [column for column, cell in enumerate(cells) if cell == number]
            if places != list(range(places[0], places[-1] + 1)):
                raise ValueError(f"layout row {cells}: the cells of view {number} must be neighbours")
            stretched = np.repeat(views[number], len(places), axis=1)  # every pixel column, nearest neighbour
            start = places[0] * width
            canvas[row * height : (row + 1) * height, start : start + stretched.shape[1]] = stretched
    return canvas


def to_unit_range(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 -> [-1, 1]. The released inference rounds to bfloat16 *before* the shift, its training does not."""
    return ((pixels.float() / 255).to(dtype) - 0.5) / 0.5


def canvas_to_video(canvases: Image, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 (T, H, W, 3) -> (1, 3, T, H, W) in [-1, 1]."""
    return to_unit_range(torch.from_numpy(canvases).permute(3, 0, 1, 2)[None], dtype)


def resize_video(video: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resize of a whole canvas in [-1, 1], (B, 3, T, H, W), as the released 5B model does before encoding."""
    b, c, t, h, w = video.shape
    frames = video.transpose(1, 2).reshape(b * t, c, h, w)
    resized = F.interpolate(frames, (height, width), mode="bilinear", align_corners=False)
    return resized.reshape(b, t, c, height, width).transpose(1, 2)


def clip_input(frame: Tensor) -> Tensor:
    """Canvas (B, 3, H, W) in [-1, 1] -> input of the image encoder (B, 3, 224, 224); the aspect ratio is ignored."""
    square = F.interpolate(frame, (CLIP_SIZE, CLIP_SIZE), mode="bicubic", align_corners=False)
    mean, std = (torch.tensor(values, dtype=frame.dtype)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return (square * 0.5 + 0.5 - mean) / std
