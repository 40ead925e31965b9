"""Solvers: exact on straight paths, of their order on curved ones."""

from __future__ import annotations

import math

import pytest
import torch

from wam.flow.solvers import Euler, Solver, UniPC, sigma_schedule, unipc_schedule

X, EPS = torch.tensor([0.7, -1.3]), torch.tensor([0.2, 2.1])


def make(name: str, steps: int) -> Solver:
    return Euler(sigma_schedule(steps)) if name == "euler" else UniPC(unipc_schedule(steps, shift=1.0))


@pytest.mark.parametrize("name", ["euler", "unipc"])
@pytest.mark.parametrize("steps", [1, 2, 4, 16])
def test_the_velocity_of_one_point_leads_to_it(name: str, steps: int) -> None:
    solver = make(name, steps)
    x = (1 - solver.sigmas[0]) * X + solver.sigmas[0] * EPS
    for i in range(steps):
        x = solver.step(x, (x - X) / solver.sigmas[i], i)
    assert torch.allclose(x, X, atol=1e-5)


def gaussian_error(name: str, steps: int) -> float:
    """Data ~ N(0, s^2): the exact flow only scales, x(0) = s x(1), and its velocity is known."""
    s = 0.5
    solver = make(name, steps)
    x = torch.ones(1, dtype=torch.float32)
    start = solver.sigmas[0].item()
    for i in range(steps):
        sigma = solver.sigmas[i].item()
        spread = (1 - sigma) ** 2 * s**2 + sigma**2
        x = solver.step(x, x * (sigma - (1 - sigma) * s**2) / spread, i)
    exact = s / math.sqrt((1 - start) ** 2 * s**2 + start**2)
    return abs(x.item() - exact)


def test_euler_halves_its_error_with_twice_the_steps() -> None:
    assert gaussian_error("euler", 64) == pytest.approx(gaussian_error("euler", 32) / 2, rel=0.15)


def test_unipc_is_better_than_euler_at_equal_cost() -> None:
    assert gaussian_error("unipc", 16) < 0.2 * gaussian_error("euler", 16)


def test_released_schedule() -> None:
    """The values of the released sampler with 16 steps and shift 5."""
    expected = [0.9998, 0.9866, 0.9720, 0.9557, 0.9373, 0.9164, 0.8926, 0.8651, 0.8331, 0.7952, 0.7497, 0.6941, 0.6247]
    assert unipc_schedule(16)[:13].tolist() == pytest.approx(expected, abs=5e-5)
    assert unipc_schedule(16)[-1] == 0


def test_schedule_stops_where_it_is_told() -> None:
    assert sigma_schedule(4, final=0.8).tolist() == pytest.approx([1.0, 0.95, 0.9, 0.85, 0.8])
    with pytest.raises(ValueError, match="steps=0"):
        sigma_schedule(0)


def test_unipc_can_stop_above_zero() -> None:
    """The squeezed schedule ends at the level asked for, and the last step goes there instead of to the clean data."""
    sigmas = unipc_schedule(16, final=0.8)
    assert sigmas[0] == unipc_schedule(16)[0] and sigmas[-1].item() == pytest.approx(0.8)
    solver = UniPC(sigmas)
    x = (1 - sigmas[0]) * X + sigmas[0] * EPS
    for i in range(16):
        x = solver.step(x, EPS - X, i)
    assert torch.allclose(x, 0.2 * X + 0.8 * EPS, atol=1e-4)
    with pytest.raises(ValueError, match="final=1.0"):
        unipc_schedule(4, final=1.0)
