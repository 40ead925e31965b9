"""The released objective: what it counts, and how it draws."""

from __future__ import annotations

import pytest
import torch

from wam.flow.noise import bump_weight
from wam.flow.released import draw_timestep_ids, released_losses, tie_to_chunks


def test_frame_zero_counts_and_padding_dilutes() -> None:
    t = torch.tensor([[500.0, 900.0, 900.0]])
    video = torch.zeros(1, 4, 3, 2, 2)
    video[:, :, 0] = 2.0
    action, mask = torch.full((1, 4, 32), 3.0), torch.zeros(1, 4, 32, dtype=torch.bool)
    mask[..., :8] = True
    losses = released_losses(video, t, action, torch.full((1, 4), 500.0), mask, torch.ones(1, dtype=torch.bool))
    peak = bump_weight(torch.tensor(500.0)).item()
    assert losses.video.item() == pytest.approx(4 * peak / 3, rel=1e-5)
    assert losses.action.item() == pytest.approx(9 * peak * 8 / 32, rel=1e-5)
    assert losses.total.item() == pytest.approx(losses.video.item() + losses.action.item())


def test_a_sample_without_actions_still_counts_in_the_mean() -> None:
    action, t = torch.ones(2, 4, 32), torch.full((2, 4), 500.0)
    mask, video = torch.ones(2, 4, 32, dtype=torch.bool), torch.zeros(2, 4, 1, 2, 2)
    both, one = (
        released_losses(video, torch.full((2, 1), 500.0), action, t, mask, has).action.item()
        for has in (torch.tensor([True, True]), torch.tensor([True, False]))
    )
    assert one == pytest.approx(both / 2)


def test_frames_of_a_chunk_share_the_draw_of_the_first() -> None:
    assert tie_to_chunks(torch.tensor([[7, 1, 2, 3, 4]]), 2).tolist() == [[7, 1, 1, 3, 3]]


def test_actions_share_their_chunk_unless_decoupled() -> None:
    for mode in ("coupled", "high_noise"):
        video, action = draw_timestep_ids(mode, 50, 3, 2, 4, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
        assert video.shape == (50, 7) and torch.equal(action, video[:, 1::2].repeat_interleave(4, dim=1))
    _, action = draw_timestep_ids("decoupled", 50, 3, 2, 4, torch.Generator().manual_seed(0))
    assert (action[:, :4] != action[:, :1]).any(dim=1).float().mean() > 0.9


def test_high_noise_is_beta_3_1() -> None:
    video, _ = draw_timestep_ids("high_noise", 4000, 4, 2, 4, torch.Generator().manual_seed(0))
    assert video[:, 1::2].float().mean().item() == pytest.approx(250, abs=8)  # id 0 is noise; E[1 - Beta(3, 1)] = 1/4
    assert video.min() >= 0 and video.max() < 1000
