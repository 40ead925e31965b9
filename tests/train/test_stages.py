"""Several stages in one file: each starts from the one before, a finished one is skipped, a wrong field is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.train.initial import without_text
from tests.train.processes import tiny_run, write_material

from wam.checkpoints.model_folder import load_model
from wam.cli.train import main
from wam.train.config import TrainConfig
from wam.train.sources import read_entries
from wam.train.stages import read_stages
from wam.train.trainer import MODEL

RECIPE = Path(__file__).parents[2] / "recipes" / "stages-nano.yaml"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        without_text(patch)
        yield write_material(tmp_path_factory.mktemp("stages"))


def staged(root: Path, out: Path, *stages: object, **changes: object) -> TrainConfig:
    out.mkdir(parents=True, exist_ok=True)
    file = out / "stages.yaml"
    file.write_text(yaml.safe_dump(list(stages)))
    return tiny_run(root, out, stages=file, **changes)


def test_each_stage_starts_from_the_one_before(root: Path, tmp_path: Path) -> None:
    run = staged(
        root,
        tmp_path,
        {"name": "pretrain", "windows": {"labelled_share": 0.5}, "minutes": 3},
        {"name": "post-train", "optimizer": {"learning_rate": 2e-4, "betas": [0.9, 0.99]}, "adapt": {"what": "lora"}},
        {"name": "flash", "noise": {"mode": "flash"}, "steps": 7, "minutes": None, "data": "elsewhere"},
    )
    first, second, third = read_stages(run)
    assert [stage.config.out.name for stage in (first, second, third)] == ["1-pretrain", "2-post-train", "3-flash"]
    assert first.config == replace(
        run,
        stages=None,
        out=tmp_path / "1-pretrain",
        windows=replace(run.windows, labelled_share=0.5),
        minutes=3.0,
    )
    assert second.config.init == first.config.out / MODEL and third.config.init == second.config.out / MODEL
    assert second.config.optimizer == replace(run.optimizer, learning_rate=2e-4, betas=(0.9, 0.99))
    assert (third.config.noise.mode, third.config.noise.flash_alpha, third.config.noise.flash_beta) == ("flash", 7, 1)
    assert (third.config.steps, third.config.adapt.what, third.config.data) == (7, "full", Path("elsewhere"))


@pytest.mark.parametrize(
    ("stage", "named"),
    [
        ({"name": "a", "noize": {"mode": "flash"}}, "stage 'a': unknown field 'noize'; known fields are .*'noise'"),
        ({"name": "a", "noise": {"mod": "flash"}}, "stage 'a': unknown field 'noise.mod'"),
        ({"name": "a", "noise": {"mode": "flsh"}}, "field 'noise.mode' is 'flsh', expected 'coupled' or 'decoupled'"),
        ({"name": "a", "steps": "ten"}, "field 'steps' is 'ten', expected int"),
        ({"name": "a", "dream": 1}, "field 'dream' is 1, expected bool"),
        ({"name": "a", "optimizer": {"betas": [0.9]}}, r"field 'optimizer.betas' is \[0.9\], expected tuple"),
        ({"name": "a", "optimizer": 3}, "field 'optimizer' is 3, expected OptimizerConfig"),
        ({"name": "a", "out": "elsewhere"}, "field 'out' belongs to all stages"),
        ({"name": "a", "size": {"dim": 8}}, "field 'size' belongs to all stages"),
        ({"steps": 3}, "stage 1: field 'name' is None"),
        ({"name": "a/b"}, "stage 1: field 'name' is 'a/b'"),
        ("pretrain", "expected a list of stages"),
    ],
)
def test_a_wrong_field_is_named(root: Path, tmp_path: Path, stage: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_stages(staged(root, tmp_path, stage))


def test_a_file_that_is_no_yaml_is_named(root: Path, tmp_path: Path) -> None:
    config = staged(root, tmp_path, {"name": "a"})
    assert config.stages is not None
    config.stages.write_text("- name: [a")
    with pytest.raises(ValueError, match=f"{config.stages}: not YAML .*line 1"):
        read_stages(config)
    with pytest.raises(ValueError, match=f"{config.stages}: not YAML"):
        read_entries(replace(config, data=config.stages))


def test_two_stages_need_two_names(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stage 2: field 'name' is 'a'"):
        read_stages(staged(root, tmp_path, {"name": "a"}, {"name": "a"}))


def test_the_recipes_stages_run_and_are_skipped_when_finished(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As recipes/stages-nano.yaml says, with two steps for each stage."""
    stages = yaml.safe_load(RECIPE.read_text())
    assert [stage["name"] for stage in stages] == ["pretrain", "post-train", "flash"]
    run = staged(root, tmp_path, *({**stage, "steps": 2, "minutes": None} for stage in stages))
    main(run)
    folders = [stage.config.out for stage in read_stages(run)]
    flash = load_model(folders[2] / MODEL)
    assert flash.config.noise.mode == "flash"
    for before, folder in zip((None, *folders), folders, strict=False):
        origin = json.loads((folder / MODEL / "training.json").read_text())
        assert origin["steps"] == 2
        assert origin["training"]["init"] == (None if before is None else str(before / MODEL))
    times = [(folder / MODEL / "config.json").stat().st_mtime_ns for folder in folders]
    capsys.readouterr()
    main(run)
    said = capsys.readouterr().err.replace("\n", "")
    assert said.count("already finished") == 3
    assert times == [(folder / MODEL / "config.json").stat().st_mtime_ns for folder in folders]
