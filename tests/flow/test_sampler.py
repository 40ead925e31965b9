"""How a chunk is denoised: options that mean nothing are named."""

from __future__ import annotations

from typing import Any

import pytest

from wam.flow.sampler import Sampler
from wam.flow.solvers import Euler, UniPC


@pytest.mark.parametrize(
    ("option", "value"),
    [("steps", 0), ("video_final", 1.5), ("action_final", -0.1), ("temperature", -1.0), ("shift", 0.0)],
)
@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_bad_options_are_named(solver: Any, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{option}={value}: expected"):
        Sampler(**{"solver": solver, option: value})


def test_each_has_a_solver_of_its_own() -> None:
    video, action = Sampler(solver="unipc", video_final=1.0).solvers()
    assert isinstance(video, Euler) and isinstance(action, UniPC)
    assert video.sigmas.tolist() == [1.0] * 5
