"""A run survives kills and damaged files to the bit, keeps what it needs, and refuses to go on as another run."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.data.synthetic import write_dataset
from tests.train.processes import NoEncoder, tiny_run, together, train, train_under_fire, write_material

import wam.train.build
from wam.checkpoints.errors import CheckpointError
from wam.checkpoints.identity import identity
from wam.train import checkpoint
from wam.train.build import build
from wam.train.config import NetworkSize, OptimizerConfig, TrainConfig, WindowConfig
from wam.train.provenance import described, read_config, refuse_changes
from wam.train.schedule import AveragedWeights
from wam.train.state import LearnedState, averaged_model, hollow
from wam.train.trackers import LOG
from wam.train.trainer import CHECKPOINTS, MODEL, Trainer

KILLS = 20


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(autouse=True)
def without_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wam.train.build, "MiniLMTextEncoder", NoEncoder)


def saved(run: TrainConfig, steps: int = 1) -> Trainer:
    """A run with a checkpoint after each of its first steps."""
    trainer = build(run)
    for _ in range(steps):
        trainer.train_step()
        trainer._save()
    return trainer


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


# ---------------------------------------------------------------- kills


def test_twenty_kills_change_no_bit(material: Path, tmp_path: Path) -> None:
    """kill -9 at random moments, half of them while a checkpoint is being written."""
    run = tiny_run(
        material,
        tmp_path / "whole",
        steps=4 * KILLS,
        batch=2,
        size=NetworkSize(dim=16, heads=1, layers=1),
        windows=WindowConfig(chunks=2, validation_share=0.3),
    )
    together(1, train, run)
    together(1, train_under_fire, replace(run, out=tmp_path / "killed", checkpoint_minutes=0.0), KILLS)
    expected, found = (load_file(tmp_path / name / MODEL / "model.safetensors") for name in ("whole", "killed"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    rows = [(tmp_path / name / LOG).read_text().splitlines() for name in ("whole", "killed")]
    steps, losses = ([[json.loads(row).get(key) for row in part] for part in rows] for key in ("step", "video"))
    assert steps[0] == steps[1], "rows are missing or there twice"
    assert losses[0][-2] == losses[1][-2]


# ---------------------------------------------------------------- damage


def test_a_half_written_checkpoint_is_never_seen(material: Path, tmp_path: Path) -> None:
    saved(tiny_run(material, tmp_path))
    folder = tmp_path / CHECKPOINTS
    (folder / ".step-00000009.partial").mkdir()
    assert checkpoint.newest(folder) == folder / "step-00000001"


@pytest.mark.parametrize("file", ["weights.safetensors", "averaged.safetensors", "optimizer.safetensors"])
def test_a_truncated_newest_checkpoint_is_named_and_the_one_before_is_used(
    material: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    run = tiny_run(material, tmp_path)
    saved(run, steps=3)
    damaged = tmp_path / CHECKPOINTS / "step-00000003"
    cut(damaged / file)
    trainer = build(run)
    with caplog.at_level(logging.WARNING):
        trainer._resume()
    assert trainer.step == 2
    assert f"{damaged} is damaged" in caplog.text and file in caplog.text
    assert (tmp_path / CHECKPOINTS / "damaged-step-00000003").is_dir()
    trainer.train_step()
    trainer._save()
    assert checkpoint.newest(tmp_path / CHECKPOINTS) == damaged  # written again, whole


@pytest.mark.parametrize("damage", ["missing", "no json", "no step"])
def test_a_damaged_progress_is_damage_too(material: Path, tmp_path: Path, damage: str) -> None:
    run = tiny_run(material, tmp_path)
    saved(run, steps=2)
    file = tmp_path / CHECKPOINTS / "step-00000002" / checkpoint.PROGRESS
    file.unlink() if damage == "missing" else file.write_text({"no json": "{", "no step": "{}"}[damage])
    assert checkpoint.last_progress(tmp_path / CHECKPOINTS)[1]["step"] == 1
    trainer = build(run)
    trainer._resume()
    assert trainer.step == 1


def test_a_run_without_any_readable_checkpoint_does_not_start_over(material: Path, tmp_path: Path) -> None:
    run = tiny_run(material, tmp_path)
    saved(run)
    cut(tmp_path / CHECKPOINTS / "step-00000001" / "weights.safetensors")
    with pytest.raises(CheckpointError, match="no checkpoint can be read; delete the folder to start the run over"):
        build(run).run()


# ---------------------------------------------------------------- what is in it


def test_the_newest_are_kept(material: Path, tmp_path: Path) -> None:
    saved(tiny_run(material, tmp_path, keep_checkpoints=3), steps=5)
    names = sorted(path.name for path in (tmp_path / CHECKPOINTS).iterdir())
    assert names == ["step-00000003", "step-00000004", "step-00000005"]


def test_only_what_learns_is_saved_and_the_frozen_base_is_known(material: Path, tmp_path: Path) -> None:
    run = tiny_run(material, tmp_path)
    trainer = frozen_but_for_the_head(run)
    trainer.train_step()
    trainer._save()
    folder = tmp_path / CHECKPOINTS / "step-00000001"
    weights = load_file(folder / "weights.safetensors")
    assert weights.keys() == load_file(folder / "averaged.safetensors").keys()
    assert all(name.startswith("transformer.head.") for name in weights)
    bare = trainer.bare
    frozen = {name: weight for name, weight in bare.named_parameters() if not weight.requires_grad}
    progress = json.loads((folder / checkpoint.PROGRESS).read_text())
    assert progress["base"] == identity(frozen)
    assert progress["data"]["data"]["fingerprint"] == trainer.batches.members[0].source.cache.dataset
    assert progress["config"]["seed"] == 0 and progress["command"] and progress["version"]

    again = frozen_but_for_the_head(run)
    again._resume()
    assert all(torch.equal(a, b) for a, b in zip(again.bare.parameters(), bare.parameters(), strict=True))
    other = frozen_but_for_the_head(run, change_base=True)
    with pytest.raises(ValueError, match="base is "):
        other._resume()


def frozen_but_for_the_head(run: TrainConfig, change_base: bool = False) -> Trainer:
    plain = build(run)
    plain.bare.requires_grad_(False)
    plain.bare.transformer.head.requires_grad_(True)
    if change_base:
        plain.bare.transformer.patch_embedding.weight.data += 1
    members, held_out = plain.batches.members, plain.validation.members
    return Trainer(run, plain.bare, members, held_out, plain.prompts, plain.save_model)


def test_the_averaged_model_shares_what_is_frozen_and_leaves_training_alone(material: Path, tmp_path: Path) -> None:
    trainer = frozen_but_for_the_head(tiny_run(material, tmp_path))
    trainer.train_step()
    model = averaged_model(trainer.learned, trainer.form, keep=True)
    assert model is not None
    live, averaged = dict(trainer.bare.named_parameters()), dict(model.named_parameters())
    name = "transformer.head.head.weight"
    torch.testing.assert_close(averaged[name].data, trainer.learned.averaged.weights[name])
    assert averaged[name].data_ptr() != live[name].data_ptr()
    frozen = "transformer.patch_embedding.weight"
    assert averaged[frozen].data_ptr() == live[frozen].data_ptr()
    assert averaged_model(trainer.learned, trainer.form, keep=False) is None


def test_weights_that_do_not_fit_are_named(material: Path, tmp_path: Path) -> None:
    trainer = saved(tiny_run(material, tmp_path))
    found = checkpoint.read(tmp_path / CHECKPOINTS / "step-00000001", ("weights", "averaged", "optimizer"))
    model = trainer.bare
    head = hollow(model).to_empty(device="cpu")
    head.transformer.head.requires_grad_(False)
    learned = LearnedState(head, AveragedWeights(head, 0.9), torch.optim.AdamW(head.parameters()))
    with pytest.raises(ValueError, match=r"weights.safetensors: does not fit this run: 0 .* 3 unexpected .*head"):
        learned.load(found.files, found.path)


# ---------------------------------------------------------------- may it go on?


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "config.seed is 1, was 0"),
        ({"text_dropout": 0.5}, "config.text_dropout is 0.5, was 0.1"),
        ({"optimizer": OptimizerConfig(warmup_steps=2, learning_rate=1.0)}, "config.optimizer.learning_rate is 1.0"),
        ({"windows": WindowConfig(validation_share=0.5)}, "config.windows.validation_share is 0.5, was 0.3"),
        ({"precision": "bf16"}, "config.precision is 'bf16', was 'float32'"),
        ({"batch": 8}, "windows_at_once is 4, now it is 8"),
    ],
)
def test_what_changes_the_numbers_is_refused(
    material: Path, tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    run = tiny_run(material, tmp_path)
    saved(run)
    with pytest.raises(ValueError, match=named):
        build(replace(run, **changes)).run()  # type: ignore[arg-type]


def test_other_data_under_the_same_name_is_refused(material: Path, tmp_path: Path) -> None:
    run = tiny_run(material, tmp_path / "run")
    saved(run)
    write_dataset(tmp_path / "data", 9)
    with pytest.raises(ValueError, match=r"data.data.fingerprint is"):
        build(replace(run, data=tmp_path / "data")).run()


def test_what_changes_no_number_may_change(material: Path, tmp_path: Path) -> None:
    run = tiny_run(material, tmp_path / "run")
    saved(run)
    split = replace(run.optimizer, accumulate=2)
    moved = material.rename(material.with_name("moved"))
    try:
        renamed = (moved / "data").rename(moved / "other")
        changed = replace(run, data=renamed, tokenizer=moved / "tokenizer", steps=2, log_every=1, batch=2)
        trainer = build(replace(changed, optimizer=split, activation_checkpointing=True, keep_checkpoints=5))
        assert trainer.run() and trainer.step == 2
    finally:
        (moved / "other").rename(moved / "data")
        moved.rename(material)


def test_a_configuration_survives_json(material: Path, tmp_path: Path) -> None:
    run = tiny_run(material, tmp_path, minutes=1.5, threads=2, optimizer=OptimizerConfig(betas=(0.8, 0.9)))
    assert read_config(json.loads(json.dumps(described(run))), tmp_path) == run
    older = {name: value for name, value in described(run).items() if name != "text_dropout"}
    assert read_config(older, tmp_path) == run
    with pytest.raises(ValueError, match=r"TrainConfig has no field 'colour'; another version wrote this run"):
        read_config({**older, "colour": 1}, tmp_path)


def test_a_new_option_at_its_default_changes_nothing(material: Path, tmp_path: Path) -> None:
    now = {"config": described(tiny_run(material, tmp_path)), "model": {"a": [1, 2]}, "base": None, "data": {}}
    older = {**now, "config": {name: value for name, value in now["config"].items() if name != "text_dropout"}}
    refuse_changes(older, now, tmp_path)
    with pytest.raises(ValueError, match=r"model.a is \[1, 2\], was \[1\]"):
        refuse_changes({**now, "model": {"a": [1]}}, now, tmp_path)
