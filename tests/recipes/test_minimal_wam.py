"""The single-file model: its cache equals its mask, nothing leaks through the mask, and it runs from end to end."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recipes import minimal_wam as wam

RECIPE = Path(wam.__file__)


@pytest.fixture
def model() -> wam.WorldActionModel:
    torch.manual_seed(0)
    return wam.WorldActionModel(width=32, depth=2, heads=2)


def test_cached_inference_equals_the_masked_forward(model: wam.WorldActionModel) -> None:
    assert wam.cache_error(model, torch.Generator().manual_seed(1)) < 1e-5


def test_cache_check_notices_a_wrong_mask(model: wam.WorldActionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wam, "may_attend", lambda query, key: torch.ones(len(query), len(key), dtype=torch.bool))
    assert wam.cache_error(model, torch.Generator().manual_seed(1)) > 1e-3


@pytest.mark.parametrize("chunk", range(wam.C))
@pytest.mark.parametrize("output", [0, 1], ids=["video", "actions"])
def test_gradients_reach_exactly_what_the_table_allows(model: wam.WorldActionModel, chunk: int, output: int) -> None:
    rng = torch.Generator().manual_seed(chunk)
    data = wam.demonstrate(2, rng)
    clean = data.video[:, : -wam.K].clone().requires_grad_()
    video = torch.randn(2, wam.C, wam.K, 3, wam.PIXELS, wam.PIXELS, generator=rng, requires_grad=True)
    actions = torch.randn(2, wam.C, wam.N, wam.A, generator=rng, requires_grad=True)
    states = data.states.clone().requires_grad_()
    sigmas = torch.full((2, 2, wam.C), 0.5)
    velocities = model(data.word, video, actions, states, sigmas, clean)
    grads = torch.autograd.grad(velocities[output][:, chunk].square().sum(), (clean, video, actions, states))
    reached = [grad.flatten(2).abs().amax((0, 2)) > 0 for grad in grads]
    assert reached[0].tolist() == [frame < 1 + chunk * wam.K for frame in range(clean.shape[1])]
    for own in reached[1:]:
        assert own.tolist() == [i == chunk for i in range(wam.C)]


def test_table_row_by_row() -> None:
    kinds = {"anchor": (wam.CLEAN, wam.ANCHOR)}
    for i in range(2):
        for name, kind in (("clean", wam.CLEAN), ("noisy", wam.NOISY), ("action", wam.ACTION), ("state", wam.STATE)):
            kinds[f"{name}{i}"] = (kind, i)
    tags = torch.tensor(list(kinds.values()))
    names = list(kinds)
    allowed = {
        name: {names[k] for k in row.nonzero()} for name, row in zip(names, wam.may_attend(tags, tags), strict=True)
    }
    assert allowed == {
        "anchor": {"anchor"},
        "clean0": {"anchor", "clean0"},
        "noisy0": {"anchor", "noisy0", "action0", "state0"},
        "action0": {"anchor", "noisy0", "action0", "state0"},
        "state0": {"state0"},
        "clean1": {"anchor", "clean0", "clean1"},
        "noisy1": {"anchor", "clean0", "noisy1", "action1", "state1"},
        "action1": {"anchor", "clean0", "noisy1", "action1", "state1"},
        "state1": {"state1"},
    }


def test_expert_delivers_and_its_data_is_in_range() -> None:
    world = wam.World.random(200, torch.Generator().manual_seed(0))
    for _ in range(wam.C * wam.N):
        world.step(world.expert())
    assert world.success().all()
    data = wam.demonstrate(8, torch.Generator().manual_seed(0))
    assert data.video.shape == (8, 1 + wam.C * wam.K, 3, wam.PIXELS, wam.PIXELS)
    assert data.actions.shape == (8, wam.C, wam.N, wam.A)
    assert data.states.shape == (8, wam.C, wam.S)
    assert data.video.abs().max() <= 2  # differences from the floor
    assert data.actions.abs().max() <= 1
    assert data.states.abs().max() <= 1


def test_loss_is_zero_for_the_true_velocity() -> None:
    """A model that knows the clean data turns x_sigma into eps - x = (x_sigma - x) / sigma."""
    data = wam.demonstrate(4, torch.Generator().manual_seed(0))

    class Oracle(torch.nn.Module):
        def forward(self, word, video, actions, states, sigmas, past):  # type: ignore[no-untyped-def]
            x = data.video[:, 1:].unflatten(1, (wam.C, wam.K)), data.actions
            return tuple((n - t) / wam.like(s, n) for n, t, s in zip((video, actions), x, sigmas, strict=True))

    for loss in wam.flow_loss(Oracle(), data, torch.Generator().manual_seed(1)):
        assert loss < 1e-6


def test_wilson_interval_against_published_values() -> None:
    low, high = wam.wilson(8, 10)
    assert (low, high) == (pytest.approx(0.4901, abs=1e-3), pytest.approx(0.9433, abs=1e-3))
    assert wam.wilson(0, 10)[0] == 0
    assert wam.wilson(10, 10)[1] == pytest.approx(1)


def test_quick_run_writes_its_files_and_learns(tmp_path: Path) -> None:
    command = [sys.executable, str(RECIPE), "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = {"curves.png", "dreamed_against_real.png", "episodes.jsonl", "four_words.png", "result.json"}
    assert {path.name for path in tmp_path.iterdir()} == expected
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in expected if name.endswith("png"))
    result = json.loads((tmp_path / "result.json").read_text())
    for first, last in zip(result["first_loss"], result["last_loss"], strict=True):
        assert math.isfinite(last)
        assert last < 0.7 * first
    episodes = [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    assert len(episodes) == 4 * 8
    assert sum(e["success"] for e in episodes if e["policy"] == "random") == result["success"]["random"]["k"]
