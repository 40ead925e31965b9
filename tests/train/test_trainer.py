"""A run repeats bit for bit, and one that was stopped continues as if nothing had happened."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.data.synthetic import write_dataset

from wam.encoders.nano_tokenizer import NanoTokenizer, NanoTokenizerConfig
from wam.train import checkpoint
from wam.train.build import build
from wam.train.config import NetworkSize, OptimizerConfig, TrainConfig, WindowConfig
from wam.train.plot import plot_losses
from wam.train.schedule import learning_rate
from wam.train.trainer import CHECKPOINTS, LOG, MODEL, ORIGIN
from wam.world_action_model import WorldActionModel

STEPS = 6


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set and a tokenizer with random weights."""
    root = tmp_path_factory.mktemp("material")
    write_dataset(root / "data", 8)
    torch.manual_seed(0)
    NanoTokenizer(NanoTokenizerConfig(z_channels=4, width=(8, 8), depth=(1, 1))).save_pretrained(root / "tokenizer")
    return root


def config(material: Path, out: Path, **changes: object) -> TrainConfig:
    plain = TrainConfig(
        data=material / "data",
        tokenizer=material / "tokenizer",
        out=out,
        size=NetworkSize(dim=32, heads=2, layers=2),
        windows=WindowConfig(validation_share=0.3),
        optimizer=OptimizerConfig(warmup_steps=2),
        batch=4,
        steps=STEPS,
        log_every=2,
        precision="no",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / MODEL / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_seeded_run_repeats_bit_for_bit(material: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        build(config(material, tmp_path / name)).run()
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    other = config(material, tmp_path / "c", seed=1)
    build(other).run()
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_a_stopped_run_continues_bit_for_bit(material: Path, tmp_path: Path) -> None:
    build(config(material, tmp_path / "whole")).run()
    run = config(material, tmp_path / "parts")
    first = build(run)
    for _ in range(3):
        first.train_step()
    first._save()
    resumed = build(run)
    torch.nn.init.normal_(resumed.bare.transformer.patch_embedding.weight)  # all that counts comes from the checkpoint
    resumed.run()
    assert resumed.step == STEPS
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_half_written_checkpoint_is_never_seen(material: Path, tmp_path: Path) -> None:
    run = config(material, tmp_path / "run")
    trainer = build(run)
    trainer.train_step()
    trainer._save()
    folder = tmp_path / "run" / CHECKPOINTS
    (folder / ".step-00000009.partial").mkdir()
    assert checkpoint.newest(folder) == folder / "step-00000001"


def test_a_damaged_checkpoint_is_named(material: Path, tmp_path: Path) -> None:
    run = config(material, tmp_path / "run")
    trainer = build(run)
    trainer.train_step()
    trainer._save()
    file = tmp_path / "run" / CHECKPOINTS / "step-00000001" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"weights.safetensors: does not fit this run"):
        build(run).run()


def test_the_run_leaves_a_log_a_plot_and_a_model(material: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    build(config(material, out)).run()
    lines = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines if "action" in line] == [2, 4, 6]
    scores = lines[-1]["validation"]
    assert {"video", "action", "action_error_1", "action_error_4", "action_error_hold"} <= set(scores)
    plot_losses(out / LOG, out / "loss.png")
    assert (out / "loss.png").stat().st_size > 1000
    assert WorldActionModel.from_pretrained(out / MODEL).config.latent == (4, 8, 16)
    NanoTokenizer.from_pretrained(out / MODEL / "tokenizer")
    origin = json.loads((out / MODEL / ORIGIN).read_text())
    assert (origin["steps"], origin["windows"], origin["training"]["seed"]) == (STEPS, 4 * STEPS, 0)


def test_video_only_episodes_train_the_video_and_the_control_leaves_them_out(material: Path, tmp_path: Path) -> None:
    half = WindowConfig(validation_share=0.3, labelled_share=0.5)
    joint = build(config(material, tmp_path / "joint", windows=half))
    control = build(config(material, tmp_path / "bc", windows=replace(half, drop_unlabelled=True), dream=False))
    assert 0 < len(control.training.episodes) < len(joint.training.episodes)
    assert list(control.training.episodes) == list(joint.training.labelled_episodes)
    assert joint.train_step().video > 0
    assert control.train_step().video == 0


def test_learning_rate_warms_up_stays_and_falls_to_zero() -> None:
    c = OptimizerConfig(learning_rate=1.0, warmup_steps=10, flat_share=0.5)
    assert learning_rate(c, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(c, 50, 0.4) == 1.0
    assert learning_rate(c, 90, 0.75) == pytest.approx(0.5)
    assert learning_rate(c, 99, 1.0) == pytest.approx(0.0)
