"""Held-out losses per noise level and action errors: the same numbers every time, for every kind of model and data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.initial import without_text
from tests.train.processes import tiny_run, write_material

from wam.data.mixture import Mixture
from wam.flow.noise import NoiseConfig, target_velocity
from wam.train import trainer as trainer_module
from wam.train.build import build
from wam.train.config import ValidationConfig
from wam.train.trainer import Trainer
from wam.train.validation import losses, validate
from wam.world_action_model import WorldActionConfig, WorldActionModel

CONFIG = ValidationConfig(windows=12, levels=(0.1, 0.5, 1.0), steps=(1, 2))


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    with pytest.MonkeyPatch.context() as patch:
        without_text(patch)
        root = write_material(tmp_path_factory.mktemp("validation"))
        return build(tiny_run(root, root / "run"))


def fresh(trainer: Trainer, std: float = 0.05, **changes: Any) -> WorldActionModel:
    """A model of this configuration; std 0 leaves the zeros that its heads begin with."""
    config: WorldActionConfig = replace(trainer.bare.config, **changes)
    torch.manual_seed(1)
    model = WorldActionModel(config).eval()
    for parameter in model.parameters() if std else ():
        torch.nn.init.normal_(parameter, std=std)
    return model


def scores(trainer: Trainer, model: WorldActionModel, batch: int = 32) -> dict[str, Any]:
    found = validate(model, trainer.validation, trainer.prompts, CONFIG, batch)
    assert found.pop("seconds") > 0
    json.dumps(found, allow_nan=False)
    return found


def test_two_validations_of_a_model_are_equal_and_the_weights_make_a_difference(trainer: Trainer) -> None:
    model = fresh(trainer)
    first = scores(trainer, model)
    torch.manual_seed(99)
    assert scores(trainer, model) == first
    assert scores(trainer, fresh(trainer, std=0.06)) != first


def test_losses_do_not_depend_on_how_many_windows_the_network_sees_at_once(trainer: Trainer) -> None:
    whole, parts = (scores(trainer, fresh(trainer), batch)["data"]["data"] for batch in (12, 5))
    for name in ("video", "action"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-5)
        assert parts[f"{name}_at"] == pytest.approx(whole[f"{name}_at"], rel=1e-5)


def test_the_loss_at_a_level_is_that_of_the_real_frames_and_actions(trainer: Trainer) -> None:
    """A network that answers zero errs by the target itself, at every level."""
    model = fresh(trainer, std=0)
    source = trainer.validation.members[0].source
    index = source.windows(np.arange(0, len(source), 4), np.random.default_rng(0))
    windows = trainer.validation.collate(0, index)
    found = losses(model, [(windows, trainer.prompts[windows.text_id])], 3, (0.3, 0.7))
    generator = torch.Generator().manual_seed(3)
    draws = model.draw(windows, [generator] * len(index.row))
    taught = windows.chunk_valid & windows.loss_valid
    acts = (taught[:, :, None] & windows.action_valid).flatten(1)
    frames = taught & windows.video_valid  # one latent frame per chunk
    assert 0 < acts.float().mean() < 1 and 0 < frames.float().mean() < 1
    action_error = target_velocity(windows.action, draws.action_noise).square().mean(-1)
    video_error = target_velocity(windows.video, draws.video_noise).square().mean((1, 3, 4))
    assert found["action"] == pytest.approx(action_error[acts].mean().item(), rel=1e-5)
    assert found["video"] == pytest.approx(video_error[frames].mean().item(), rel=1e-5)


def test_levels_are_reported_without_the_weight_of_training(trainer: Trainer) -> None:
    """Nor can a level be measured that training gives no weight."""
    plain, bump = (
        scores(trainer, fresh(trainer, noise=NoiseConfig(weighting=weighting)))["data"]["data"]
        for weighting in ("uniform", "bump")
    )
    assert list(bump["video_at"]) == ["0.1", "0.5"]
    for name in ("video_at", "action_at", "action_at_video_noise"):
        known = {level: plain[name][level] for level in bump[name]}
        assert bump[name] == pytest.approx(known, rel=1e-4)


def test_no_action_is_given_at_a_level_that_is_measured(trainer: Trainer) -> None:
    model = fresh(trainer, noise=NoiseConfig(mode="coupled", prefix_share=1.0))
    given: list[bool] = []
    model.register_forward_pre_hook(lambda _, inputs: given.append(bool(inputs[2].prefix.any())))
    found = scores(trainer, model)["data"]["data"]
    assert given == [True] + [False] * len(CONFIG.levels)  # first as in training, then at each level
    assert "action_at_video_noise" not in found


@pytest.mark.parametrize("kind", ["see_previous", "no dream", "bidirectional", "flash"])
def test_every_kind_of_model_is_scored(trainer: Trainer, kind: str) -> None:
    transformer = trainer.bare.config.transformer
    changes: dict[str, Any] = {
        "see_previous": {
            "see_previous": True,
            "transformer": replace(transformer, in_channels=2 * transformer.in_channels),
        },
        "no dream": {"dream": False},
        "bidirectional": {"transformer": replace(transformer, autoregressive=False)},
        "flash": {"noise": NoiseConfig(mode="flash")},
    }[kind]
    found = scores(trainer, fresh(trainer, **changes))["data"]["data"]
    assert ("video" in found) == ("video_at" in found) == (kind != "no dream")
    assert list(found["action_error"]) == ["1", "2"]
    assert list(found["hold_last"]["dims"]) == ["delta_x", "delta_y", "delta_z", "gripper_effort"]
    assert found["hold_mean"]["all"] == pytest.approx(1.0, rel=0.5)


def test_video_alone_is_scored_by_its_video_and_robots_by_their_data_sets(trainer: Trainer) -> None:
    own = trainer.validation.members[0]
    assert own.embodiment is not None
    people = replace(own, name="people", units=None, embodiment=replace(own.embodiment, name="human-video"))
    mixture = Mixture([own, replace(own, name="twin"), people], 3)
    prompts = trainer.prompts.repeat(3, 1, 1)
    found = validate(fresh(trainer), mixture, prompts, CONFIG)
    assert set(found["data"]["people"]) == {"embodiment", "windows", "video", "video_at"}
    robot = found["embodiments"]["metaworld-sawyer"]
    for name in ("hold_mean", "hold_last"):
        assert robot[name] == pytest.approx(found["data"]["data"][name]["all"])
    assert found["embodiments"]["human-video"] == {"video": found["data"]["people"]["video"]}


def test_the_averaged_weights_are_validated(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trainer.train_step()
    seen: list[dict[str, torch.Tensor]] = []

    def spy(model: WorldActionModel, *_: object) -> dict[str, Any]:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {}

    monkeypatch.setattr(trainer_module, "validate", spy)
    trainer._validate()
    averaged = trainer.learned.averaged.weights
    assert averaged and all(torch.equal(seen[0][name], averaged[name]) for name in averaged)
    trained = trainer.bare.state_dict()
    assert any(not torch.equal(seen[0][name], trained[name]) for name in averaged)
