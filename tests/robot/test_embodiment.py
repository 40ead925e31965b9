"""The embodiment file, the canvas and the normaliser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wam.robot.canvas import compose, split
from wam.robot.embodiment import METAWORLD_SAWYER, Embodiment, EmbodimentError
from wam.robot.normalization import Normalizer


def views() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for name in METAWORLD_SAWYER.cameras}


def test_yaml_round_trip(tmp_path: Path) -> None:
    METAWORLD_SAWYER.to_yaml(tmp_path / "robot.yaml")
    assert Embodiment.from_yaml(tmp_path / "robot.yaml") == METAWORLD_SAWYER


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"canvas": (("top", "front"),)}, "field 'canvas'"),
        ({"canvas": (("top",), ("side", None))}, "different lengths"),
        ({"actions_per_chunk": 9}, "field 'actions_per_chunk' is 9"),
        ({"prompt_template": "do it"}, "field 'prompt_template'"),
    ],
)
def test_contradictions_are_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(EmbodimentError, match=named):
        replace(METAWORLD_SAWYER, **change)  # type: ignore[arg-type]


def test_unknown_and_missing_fields_are_named() -> None:
    fields = METAWORLD_SAWYER.to_dict()
    with pytest.raises(EmbodimentError, match="unknown field 'colour'"):
        Embodiment.from_dict({**fields, "colour": "red"})
    del fields["control_hz"]
    with pytest.raises(EmbodimentError, match="field 'control_hz' is missing"):
        Embodiment.from_dict(fields)


def test_canvas_puts_every_view_in_its_place_and_takes_it_out_again() -> None:
    images = views()
    canvas = compose(images, METAWORLD_SAWYER)
    assert canvas.shape == (64, 128, 3)
    assert np.array_equal(canvas[:, :64], images["top"]) and np.array_equal(canvas[:, 64:], images["side"])
    again = split(canvas, METAWORLD_SAWYER)
    assert all(np.array_equal(again[name], images[name]) for name in images)


def test_canvas_cell_without_a_camera_is_black() -> None:
    wide = replace(METAWORLD_SAWYER, canvas=(("top", None), (None, "side")))
    canvas = compose(views(), wide)
    assert canvas.shape == (128, 128, 3) and not canvas[:64, 64:].any() and not canvas[64:, :64].any()


def test_missing_or_misshapen_camera_is_named() -> None:
    images = views()
    with pytest.raises(ValueError, match="camera 'side' is missing"):
        compose({"top": images["top"]}, METAWORLD_SAWYER)
    with pytest.raises(ValueError, match=r"camera 'side': found uint8 \(32, 64, 3\)"):
        compose({**images, "side": images["side"][:32]}, METAWORLD_SAWYER)
    with pytest.raises(ValueError, match="camera 'top': found float64"):
        compose({**images, "top": images["top"] / 255.0}, METAWORLD_SAWYER)


def test_normalizer_round_trip_and_still_dimension() -> None:
    normalizer = Normalizer.from_mean_std([1.0, 5.0], [2.0, 0.0])
    x = torch.tensor([[3.0, 5.0], [-1.0, 5.5]])
    assert torch.allclose(normalizer.normalize(x), torch.tensor([[1.0, 0.0], [-1.0, 0.5]]))
    assert torch.allclose(normalizer.restore(normalizer.normalize(x)), x)
    ends = Normalizer.from_quantiles([-2.0], [6.0]).normalize(torch.tensor([[-2.0], [6.0]]))
    assert ends.flatten().tolist() == [-1.0, 1.0]


def test_normalizer_of_another_robot_is_refused() -> None:
    with pytest.raises(ValueError, match="found 3 dimensions, the statistics have 2"):
        Normalizer((0.0, 0.0), (1.0, 1.0)).normalize(torch.zeros(3))
