"""Noise levels and targets."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wam.flow.noise import (
    NoiseConfig,
    bump_weight,
    denoised,
    interpolate,
    loss_weight,
    sample_levels,
    shifted,
    target_velocity,
    training_timesteps,
)

DRAWS = 20_000


def draw(config: NoiseConfig) -> tuple[torch.Tensor, torch.Tensor]:
    return sample_levels(config, DRAWS, 2, torch.Generator().manual_seed(0))


@given(st.floats(0, 1), st.floats(-3, 3), st.floats(-3, 3))
def test_velocity_leads_back_to_the_data(sigma: float, x: float, eps: float) -> None:
    level, clean, noise = torch.tensor([sigma, x, eps], dtype=torch.float64)
    mixed = interpolate(clean, noise, level)
    assert denoised(mixed, target_velocity(clean, noise), level).item() == pytest.approx(x, abs=1e-9)


@given(st.floats(0, 1), st.floats(0.2, 10))
def test_shift_keeps_the_ends_and_moves_towards_noise(u: float, shift: float) -> None:
    out = shifted(torch.tensor(u, dtype=torch.float64), shift).item()
    assert 0 <= out <= 1 + 1e-12
    assert out >= u - 1e-12 if shift >= 1 else out <= u + 1e-12
    assert shifted(torch.tensor(0.0), shift) == 0 and shifted(torch.tensor(1.0), shift).item() == pytest.approx(1)


def test_coupled_levels_are_one_and_the_same() -> None:
    video, action = draw(NoiseConfig(mode="coupled", video_shift=5.0, action_at_noise=0.0))
    assert torch.equal(video, action)
    assert video.mean().item() == pytest.approx(0.7475, abs=0.01)  # the released schedule's mean timestep is 747.6


def test_coupled_chunks_are_pure_noise_together() -> None:
    video, action = draw(NoiseConfig(mode="coupled", action_at_noise=0.25))
    assert torch.equal(video, action)
    assert (action == 1).float().mean().item() == pytest.approx(0.25, abs=0.01)


def test_video_at_noise_says_nothing_about_the_actions() -> None:
    video, action = draw(NoiseConfig(mode="coupled", action_at_noise=0.0, video_at_noise=0.4))
    pinned = video == 1
    assert pinned.float().mean().item() == pytest.approx(0.4, abs=0.01)
    assert action[pinned].mean().item() == pytest.approx(0.5, abs=0.01)
    assert torch.equal(video[~pinned], action[~pinned])


def test_decoupled_levels_are_independent_and_some_actions_are_pure_noise() -> None:
    video, action = draw(NoiseConfig(action_at_noise=0.25))
    inside = action < 1
    assert (~inside).float().mean().item() == pytest.approx(0.25, abs=0.01)
    correlation = torch.corrcoef(torch.stack([video[inside], action[inside]]))[0, 1].item()
    assert abs(correlation) < 4 / math.sqrt(DRAWS)


def test_flash_video_is_beta_7_1_and_actions_are_uniform() -> None:
    video, action = draw(NoiseConfig(mode="flash", action_at_noise=0.0))
    assert video.mean().item() == pytest.approx(7 / 8, abs=0.005)  # paper equation 5: E[1 - t] = 0.875
    assert video.var().item() == pytest.approx(7 / (64 * 9), abs=0.002)
    assert action.mean().item() == pytest.approx(0.5, abs=0.01)


def test_general_beta_has_its_mean() -> None:
    video, _ = draw(NoiseConfig(mode="flash", flash_alpha=3.0, flash_beta=2.0))
    assert video.mean().item() == pytest.approx(0.6, abs=0.01)


def test_bump_weight_vanishes_at_noise_peaks_in_the_middle_and_averages_to_one() -> None:
    weight = bump_weight(training_timesteps())
    assert weight[0] == 0 and weight.mean().item() == pytest.approx(1, abs=1e-5)
    assert bump_weight(torch.tensor([500.0])).item() == pytest.approx(2.08, abs=0.01)
    assert bump_weight(torch.tensor([900.0])).item() == pytest.approx(0.63, abs=0.01)
    assert torch.equal(loss_weight(NoiseConfig(), torch.rand(3)), torch.ones(3))
