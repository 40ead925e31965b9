"""Pictures as the released networks were trained on them."""

from __future__ import annotations

import numpy as np
import torch

from wam.robot.preprocess import canvas_to_video, prepare_view, resize_video, to_unit_range


def flat(value: int, height: int = 4, width: int = 6) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_crop_takes_the_centre_and_truncates() -> None:
    view = np.zeros((40, 80, 3), dtype=np.uint8)
    view[1:39, 2:78] = 200  # exactly int(0.95 * size)
    assert np.array_equal(prepare_view(view, 38, 76), flat(200, 38, 76))
    ramp = np.tile(np.array([0, 255], dtype=np.uint8)[None, :, None], (2, 1, 3))
    middle = prepare_view(ramp, 2, 3, crop=1.0)[0, 1, 0]
    assert middle == 127  # 127.5 is truncated, not rounded


def test_bfloat16_is_rounded_before_the_shift() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    wide, narrow = to_unit_range(pixels), to_unit_range(pixels, torch.bfloat16).float()
    assert wide[0] == -1 and wide[255] == 1
    rounded_after = wide.to(torch.bfloat16).float()
    assert 0 < (narrow - wide).abs().max() < 0.01 and not torch.equal(narrow, rounded_after)


def test_the_whole_canvas_is_resized() -> None:
    video = canvas_to_video(flat(255, 32, 64)[None])
    assert resize_video(video, 16, 32).shape == (1, 3, 1, 16, 32)
