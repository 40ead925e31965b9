"""Pictures as the released networks were trained on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wam.robot.preprocess import (
    canvas_to_video,
    clip_input,
    compose_layout,
    prepare_view,
    resize_video,
    to_unit_range,
)


def flat(value: int, height: int = 4, width: int = 6) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_crop_takes_the_centre_and_truncates() -> None:
    view = np.zeros((40, 80, 3), dtype=np.uint8)
    view[1:39, 2:78] = 200  # exactly int(0.95 * size)
    assert np.array_equal(prepare_view(view, 38, 76), flat(200, 38, 76))
    ramp = np.tile(np.array([0, 255], dtype=np.uint8)[None, :, None], (2, 1, 3))
    middle = prepare_view(ramp, 2, 3, crop=1.0)[0, 1, 0]
    assert middle == 127  # 127.5 is truncated, not rounded


def test_layouts() -> None:
    views = [flat(1), flat(2), np.dstack([np.tile(np.arange(6, dtype=np.uint8), (4, 1))] * 3)]
    canvas = compose_layout(views, ((2, 2), (0, 1)))
    assert canvas.shape == (8, 12, 3)
    assert canvas[0, :, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]  # every column twice
    assert (canvas[4:, :6] == 1).all() and (canvas[4:, 6:] == 2).all()
    four = compose_layout(views, ((0, 2), (1, None)))
    assert (four[:4, :6] == 1).all() and (four[4:, :6] == 2).all() and not four[4:, 6:].any()


@pytest.mark.parametrize(("layout", "named"), [(((0, 3),), "view 3"), (((0, 1, 0),), "must be neighbours")])
def test_bad_layouts_are_named(layout: tuple[tuple[int, ...], ...], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        compose_layout([flat(1), flat(2)], layout)


def test_bfloat16_is_rounded_before_the_shift() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    wide, narrow = to_unit_range(pixels), to_unit_range(pixels, torch.bfloat16).float()
    assert wide[0] == -1 and wide[255] == 1
    rounded_after = wide.to(torch.bfloat16).float()
    assert 0 < (narrow - wide).abs().max() < 0.01 and not torch.equal(narrow, rounded_after)


def test_image_encoder_input_and_whole_canvas_resize() -> None:
    video = canvas_to_video(flat(255, 32, 64)[None])
    white = clip_input(video[:, :, 0])
    assert white.shape == (1, 3, 224, 224)
    assert torch.allclose(white[0, 0], torch.tensor((1 - 0.48145466) / 0.26862954), atol=1e-5)
    assert resize_video(video, 16, 32).shape == (1, 3, 1, 16, 32)
