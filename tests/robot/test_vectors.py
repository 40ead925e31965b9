"""A robot's named numbers and the padded vectors of the released networks."""

from __future__ import annotations

import pytest
import torch

from wam.robot.vectors import Quantity, pack, pack_actions, real_dimensions, unpack_actions

ARM = Quantity("arm", (-1.0, 0.5), (3.0, 0.5), relative=True)  # the second joint never moves
HAND = Quantity("hand", (0.0,), (10.0,))


def test_quantiles_go_to_the_ends_and_beyond_is_clamped() -> None:
    x = torch.tensor([[-1.0, 0.5], [3.0, 0.25], [99.0, 7.0]])
    assert ARM.normalize(x).tolist() == [[-1.0, 0.5], [1.0, 0.25], [1.0, 1.0]]
    assert ARM.restore(torch.tensor([[2.0, 0.9]])).tolist() == [[5.0, 0.5]]  # no clamp; the still joint is constant


def test_packing_keeps_the_order_and_pads() -> None:
    packed = pack({"hand": torch.tensor([5.0]), "arm": torch.tensor([1.0, 0.2])}, [ARM, HAND], width=5)
    assert packed.tolist() == pytest.approx([0.0, 0.2, 0.0, 0.0, 0.0])
    assert real_dimensions([ARM, HAND], 5).tolist() == [True, True, True, False, False]


def test_relative_actions_come_back() -> None:
    state = {"arm": torch.tensor([[1.0, 0.1], [-2.0, 0.2]]), "hand": torch.tensor([[9.0], [9.0]])}
    arm = torch.tensor([[1.5, 0.6], [0.5, 0.6], [-1.5, 0.7], [0.5, 0.7]])  # two chunks of two steps
    actions = {"arm": arm, "hand": torch.tensor([[1.0], [2.0], [3.0], [4.0]])}
    packed = pack_actions(actions, state, [ARM, HAND], per_chunk=2, width=8)
    assert packed.shape == (4, 8)
    present = {name: values[1:] for name, values in state.items()}
    restored = unpack_actions(packed[2:], present, [ARM, HAND])
    assert torch.allclose(restored["arm"], arm[2:]) and torch.allclose(restored["hand"], actions["hand"][2:])


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="'hand' is missing; found \\['arm'\\]"):
        pack({"arm": torch.zeros(2)}, [ARM, HAND], 8)
    with pytest.raises(ValueError, match="do not fit into 2"):
        pack({"arm": torch.zeros(2), "hand": torch.zeros(1)}, [ARM, HAND], 2)
    with pytest.raises(ValueError, match="'arm': found 3 dimensions, the statistics have 2"):
        ARM.normalize(torch.zeros(3))
    with pytest.raises(ValueError, match="1 quantiles q01, but 2 q99"):
        Quantity("x", (0.0,), (1.0, 2.0))
