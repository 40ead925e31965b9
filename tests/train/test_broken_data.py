"""Training on a data set with one broken video stops by name, or skips it loudly and says so in the run's record."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.train.processes import NoEncoder, tiny_run, write_material

import wam.train.build
from wam.data.errors import TruncatedVideoError
from wam.train import checkpoint
from wam.train.build import build
from wam.train.config import TrainConfig, WindowConfig
from wam.train.trainer import CHECKPOINTS, MODEL, ORIGIN

VIDEO = "videos/observation.images.side/chunk-000/file-001.mp4"


@pytest.fixture(autouse=True)
def without_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wam.train.build, "MiniLMTextEncoder", NoEncoder)


@pytest.fixture
def material(tmp_path: Path) -> Path:
    """The tiny data set, its second video of one camera cut off."""
    root = write_material(tmp_path / "material")
    shutil.rmtree(root / "data/latents", ignore_errors=True)
    path = root / "data" / VIDEO
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return root


def run(material: Path, out: Path, **fields: object) -> TrainConfig:
    mixture = material / "mixture.yaml"
    entry = {"data": str(material / "data"), "embodiment": "metaworld-sawyer", **fields}
    mixture.write_text(yaml.safe_dump([entry]))
    return replace(tiny_run(material, out), data=mixture, windows=WindowConfig(validation_share=0.3))


def test_by_default_it_stops(material: Path, tmp_path: Path) -> None:
    with pytest.raises(TruncatedVideoError, match="file-001.mp4"):
        build(run(material, tmp_path / "out"))


def test_skipped_episodes_are_in_the_log_and_in_the_record(
    material: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = run(material, tmp_path / "out", on_broken="skip")
    with caplog.at_level(logging.WARNING):
        trainer = build(config)
    source = trainer.batches.members[0].source
    lost = sorted(source.skipped)
    assert lost and all(f"episode {episode} is skipped" in caplog.text for episode in lost)
    assert not set(lost) & {*source.episodes.tolist(), *trainer.validation.members[0].source.episodes.tolist()}
    trainer.run()
    origin = json.loads((tmp_path / "out" / MODEL / ORIGIN).read_text())
    saved = checkpoint.newest(tmp_path / "out" / CHECKPOINTS)
    assert saved is not None
    progress = json.loads((saved / checkpoint.PROGRESS).read_text())
    assert origin["data"]["data"]["skipped"] == progress["data"]["data"]["skipped"] == lost


def test_an_unknown_choice_is_named(material: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="entry 0: on_broken is 'ignore'; expected one of"):
        build(run(material, tmp_path / "out", on_broken="ignore"))
