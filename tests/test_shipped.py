"""The models that come with the code: small enough to ship, and what their files say they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from wam.checkpoints.model_folder import SHIPPED, base_of, is_adapter, load_model
from wam.engine import load_policy
from wam.robot.embodiment import Embodiment
from wam.robot.observation import Observation

MODELS = sorted(path.name for path in SHIPPED.glob("*/"))


def look(robot: Embodiment) -> Observation:
    pictures = {c: np.full((robot.view_height, robot.view_width, 3), 90, dtype=np.uint8) for c in robot.cameras}
    return Observation(pictures, np.zeros(robot.state_dim, np.float32), "push the button", 0.0)


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_model_is_small_says_how_it_was_made_and_acts(name: str) -> None:
    files = [path for path in (SHIPPED / name).rglob("*") if path.is_file()]
    assert all(path.stat().st_size <= 40e6 for path in files)
    assert not [path for path in files if path.suffix in (".pt", ".pth", ".bin", ".pkl", ".ckpt")]
    origin = json.loads((SHIPPED / name / "training.json").read_text())
    assert {"command", "code", "data", "steps", "seed"} <= set(origin) and origin["command"].startswith("wam train")
    policy = load_policy(name)
    policy.reset(seed=0)
    chunk = policy.act([look(policy.engine.embodiment)])
    assert chunk.actions.shape == (8, 4) and np.isfinite(chunk.actions).all()


def test_the_flash_model_is_an_adapter_of_the_base() -> None:
    flash = SHIPPED / "nano-metaworld-flash"
    assert is_adapter(flash) and base_of(flash) == SHIPPED / "nano-metaworld"
    assert Path(flash / "adapter_model.safetensors").stat().st_size < 5e6
    base, changed = (load_model(SHIPPED / name).state_dict() for name in ("nano-metaworld", "nano-metaworld-flash"))
    moved = {name for name in base if not base[name].equal(changed[name])}
    assert "transformer.blocks.0.self_attn.q.weight" in moved
    assert "transformer.patch_embedding.weight" not in moved
