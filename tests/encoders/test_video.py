"""The arithmetic of the 1 + 4 + 4 + ... contract, and clear errors for what does not fit it."""

import numpy as np
import pytest
import torch

from wam.encoders import video as contract


def test_frame_counts_are_inverse_to_each_other() -> None:
    assert [contract.latent_frames(t) for t in (1, 5, 9, 33)] == [1, 2, 3, 9]
    assert all(contract.latent_frames(contract.raw_frames(f)) == f for f in range(1, 20))


@pytest.mark.parametrize("count", [0, 2, 4, 8])
def test_wrong_frame_counts_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} raw frames, expected 1 \\+ 4 n"):
        contract.latent_frames(count)


def test_uint8_frames_come_back_exactly() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 5, 8, 16, 3), dtype=np.uint8)
    video = contract.frames_to_video(frames)
    assert video.shape == (2, 3, 5, 8, 16)
    assert video.min() >= -1 and video.max() <= 1
    np.testing.assert_array_equal(contract.video_to_frames(video), frames)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (torch.zeros(1, 5, 3, 16, 16), r"expected \(B, 3, T, H, W\)"),
        (torch.zeros(1, 3, 5, 16, 16, dtype=torch.uint8), "frames_to_video"),
        (torch.zeros(1, 3, 5, 12, 16), "multiples of 8"),
        (torch.zeros(1, 3, 5, 24, 16), "canvas of 16 x 16"),
    ],
)
def test_wrong_videos_are_refused(video: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contract.check_video(video, 8, None if "multiples" in message else (16, 16))


def test_streams_take_one_frame_then_whole_groups() -> None:
    with pytest.raises(ValueError, match="starts with 1 frame, found 2"):
        contract.check_first(torch.zeros(1, 3, 2, 16, 16))
    with pytest.raises(ValueError, match="groups of 4 frames, found 3"):
        contract.check_groups(torch.zeros(1, 3, 3, 16, 16))
    assert contract.check_groups(torch.zeros(1, 3, 8, 16, 16)) == 2
