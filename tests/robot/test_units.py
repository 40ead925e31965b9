"""Robot units and model units: there and back for every kind of part."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wam.robot.embodiment import METAWORLD_SAWYER, Embodiment, EmbodimentError, Moments, Part, Statistics
from wam.robot.units import Units, as_learned

ARM = Part("arm", ("shoulder", "elbow"), relative=True)
HAND = Part("hand", ("grip",), gripper=(10.0, 2.0))  # 10 open, 2 closed
STATE = Moments((0.0, 0.5, 0.5), (1.0, 2.0, 0.5), (-1.0, -2.0, 0.0), (1.0, 2.0, 1.0))
ACTION = Moments((0.5, 0.0, 0.1), (1.0, 0.1, 0.5), (0.0, -1.0, -0.2), (1.0, 0.5, 0.2))
ROBOT: Embodiment = replace(
    METAWORLD_SAWYER,
    state=(replace(ARM, relative=False), HAND),
    action=(HAND, ARM),
    state_width=5,
    action_width=4,
    statistics=Statistics(STATE, ACTION),
)


@given(st.integers(0, 10_000), st.sampled_from(["mean_std", "quantiles"]))
def test_actions_come_back(seed: int, normalization: str) -> None:
    units = Units(replace(ROBOT, normalization=normalization))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    state = torch.rand(2, 3, generator=generator) * torch.tensor([2.0, 2.0, 8.0]) + torch.tensor([0.0, 0.0, 2.0])
    learned = torch.rand(2, 8, 3, generator=generator) * torch.tensor([1.0, 0.5, 0.2])  # within the quantiles
    action = torch.cat([10 - 8 * learned[..., :1], learned[..., 1:] + state[:, None, :2]], dim=-1)
    known = units.action_to_model(action, state)
    assert known.shape == (2, 8, 4) and not known[..., 3].any()
    assert torch.allclose(units.action_to_robot(known, state), action, atol=1e-5)


def test_what_the_model_knows() -> None:
    state = torch.tensor([1.0, 2.0, 6.0])
    action = torch.tensor([[2.0, 1.5, 1.0]])
    assert torch.allclose(as_learned(ROBOT, action, state), torch.tensor([[1.0, 0.5, -1.0]]))  # closed; moves
    known = Units(ROBOT).state_to_model(state)
    assert torch.allclose(known, torch.tensor([1.0, 0.75, 0.0, 0.0, 0.0]))  # half open is 0.5, the mean
    assert Units(ROBOT).action_dims.tolist() == [True, True, True, False]
    assert action.tolist() == [[2.0, 1.5, 1.0]] and state.tolist() == [1.0, 2.0, 6.0]  # arguments stay as they are


def test_without_statistics_nothing_is_scaled() -> None:
    with pytest.raises(EmbodimentError, match="field 'statistics' is missing"):
        Units(METAWORLD_SAWYER)


def test_what_is_sent_to_a_position_is_expected_there() -> None:
    """The arm is commanded to positions, the hand to an opening that says nothing about the state before it."""
    state = torch.tensor([[0.1, 0.2, 4.0]])
    action = torch.tensor([[[9.0, 0.5, 0.6], [3.0, 0.7, 0.8]]])
    assert torch.allclose(Units(ROBOT).state_after(state, action), torch.tensor([[0.7, 0.8, 4.0]]))
    plain = replace(ROBOT, action=(HAND, replace(ARM, relative=False)))
    assert torch.allclose(Units(plain).state_after(state, action), state)


@pytest.mark.parametrize("normalization", ["mean_std", "quantiles"])
def test_the_middle_state_is_zeros_to_the_model(normalization: str) -> None:
    units = Units(replace(ROBOT, normalization=normalization))  # type: ignore[arg-type]
    assert torch.allclose(units.state_to_model(units.middle_state), torch.zeros(5), atol=1e-6)
