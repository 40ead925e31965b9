"""Pictures of a data set for people: every camera in canvas order, as PNG or as a film, ready for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from wam.data.errors import MissingCameraError
from wam.data.lerobot_reader import LeRobotDataset
from wam.evaluate.video import encode_mp4
from wam.robot.canvas import compose
from wam.robot.embodiment import Embodiment

WIDEST = 640
"""Pixels of a canvas on a page; larger ones are made smaller, small ones are enlarged in whole steps."""
GAP = 4


def canvases(dataset: LeRobotDataset, episode: int, rows: Sequence[int], robot: Embodiment | None) -> np.ndarray:
    """uint8 (n, H, W, 3): as the model sees them, or all cameras side by side where no robot is given.

    Raises DatasetError, ValueError: there is no camera, or one is missing, its video is broken, or it does not fit the
    canvas.
    """
    if robot is not None:
        views = {camera: dataset.frames(episode, robot.camera_key(camera), rows) for camera in robot.cameras}
        return np.stack([compose({name: view[i] for name, view in views.items()}, robot) for i in range(len(rows))])
    if not dataset.meta.cameras:
        raise MissingCameraError(f"{dataset.root}: no cameras, so there are no pictures to show")
    films = [dataset.frames(episode, camera, rows) for camera in dataset.meta.cameras]
    height = max(film.shape[1] for film in films)
    padded = [np.pad(f, ((0, 0), (0, height - f.shape[1]), (0, GAP), (0, 0)), constant_values=128) for f in films]
    return np.concatenate(padded, axis=2)[:, :, :-GAP]


def layout(dataset_cameras: Sequence[str], robot: Embodiment | None) -> str:
    """Where each camera is on the canvas, in words: rows of names."""
    if robot is None:
        return " | ".join(dataset_cameras)
    return " / ".join(" | ".join(cell or "(black)" for cell in row) for row in robot.canvas)


def sized(pictures: np.ndarray) -> np.ndarray:
    """(n, H, W, 3) at a size for a page, even in height and width."""
    count, height, width, _ = pictures.shape
    factor = max(1, WIDEST // 2 // width)
    if width > WIDEST:
        size = (WIDEST, 2 * round(height * WIDEST / width / 2))
        pictures = np.stack([np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BOX)) for p in pictures])
    elif factor > 1:
        pictures = pictures.repeat(factor, axis=1).repeat(factor, axis=2)
    return pictures[:, : pictures.shape[1] // 2 * 2, : pictures.shape[2] // 2 * 2]


def picture_tag(picture: np.ndarray, alt: str) -> str:
    """uint8 (H, W, 3) -> an `<img>` that holds its own content."""
    target = io.BytesIO()
    Image.fromarray(picture).save(target, "JPEG", quality=88)
    return f'<img alt="{alt}" src="data:image/jpeg;base64,{base64.b64encode(target.getvalue()).decode()}">'


def film_tag(pictures: np.ndarray, fps: float) -> str:
    """uint8 (n, H, W, 3) -> a `<video>` that holds its own content."""
    content = base64.b64encode(encode_mp4(pictures, fps)).decode()
    return f'<video muted playsinline controls src="data:video/mp4;base64,{content}"></video>'
