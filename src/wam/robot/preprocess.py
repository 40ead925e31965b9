"""Pictures as the released networks were trained on them: crop, resize, range."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wam.robot.observation import Image


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
