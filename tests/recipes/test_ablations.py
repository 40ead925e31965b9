"""The table of ablations is one that `wam` understands; its plan, its rows, and a whole run at the smallest size."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tyro
from recipes.ablations import (
    ABLATIONS,
    BASE,
    EVAL,
    MATERIALS,
    TRAIN,
    Config,
    Experiment,
    Run,
    markdown,
    plan,
    rows_of,
    slug,
)
from recipes.runs import Commands
from tests.evaluate.test_results import record

from recipes import ablations
from wam.checkpoints.model_folder import tokenizer_of
from wam.cli.collect import Collect
from wam.cli.eval import Eval
from wam.encoders.nano_tokenizer import NanoTokenizer
from wam.engine.load import resolve
from wam.evaluate.results import EpisodeRecord
from wam.robot.embodiment import load_embodiment
from wam.train.config import TrainConfig


@pytest.mark.parametrize("name", ABLATIONS)
def test_wam_understands_every_line_and_it_changes_something(name: str) -> None:
    base, ablation = ABLATIONS[BASE], ABLATIONS[name]

    def read(config: type, *options: str) -> Any:
        return tyro.cli(config, args=["--out", "x", *" ".join(options).split()])

    data = ("--data", "d")
    trained = [read(TrainConfig, *data, TRAIN, one.train) for one in (base, ablation)]
    evaluated = [read(Eval, "model", EVAL, one.evaluate) for one in (base, ablation)]
    assert (trained[0] != trained[1]) == bool(ablation.train)
    assert (evaluated[0] != evaluated[1]) == bool(ablation.evaluate)
    if not trained[1].size.autoregressive:  # it acts on one chunk after the present frame, and is trained on that
        assert (trained[1].windows.chunks, evaluated[1].loop.memory) == (1, "none")
    assert ablation.material in MATERIALS
    changed = ablation.train or ablation.evaluate or ablation.material != BASE
    assert bool(changed) == (name != BASE)


@pytest.mark.parametrize("name", MATERIALS)
def test_every_material_can_be_made(name: str) -> None:
    material = MATERIALS[name]
    robot = dataclasses.replace(load_embodiment(material.of), **material.robot)
    if material.tokenizer is not None:  # which saw pictures of that size
        seen = NanoTokenizer.from_pretrained(tokenizer_of(resolve(material.tokenizer))).config
        assert (seen.canvas_height, seen.canvas_width) == (robot.canvas_height, robot.canvas_width)
    if material.data is not None:
        theirs = MATERIALS[material.data]
        recorded = load_embodiment(theirs.of)
        assert (theirs.data, theirs.robot, theirs.collect) == (None, {}, material.collect)
        assert (recorded.cameras, recorded.control_hz) == (robot.cameras, robot.control_hz)
    tyro.cli(Collect, args=["--out", "x", *material.collect.split()])
    assert name == BASE or material != MATERIALS[BASE]
    assert any(ablation.material == name for ablation in ABLATIONS.values())


def test_plan_takes_the_base_along_and_shares_its_weights() -> None:
    runs = plan(Config(Path("x"), only=("4 steps", "decoupled"), seeds=(0, 1)))
    assert [(run.name, run.seed) for run in runs] == [
        (name, seed) for seed in (0, 1) for name in (BASE, "decoupled", "4 steps")
    ]
    assert runs[2].weights == runs[0]
    assert runs[1].weights == runs[1]
    assert len(plan(Config(Path("x")))) == len(ABLATIONS) == len({slug(name) for name in ABLATIONS})
    with pytest.raises(ValueError, match="no such ablation; known are"):
        plan(Config(Path("x"), only=("magic",)))


def episodes(solved: int) -> list[EpisodeRecord]:
    return [record("reach", seed, seed < solved, "c0ffee") for seed in range(20)]


def test_rows_are_paired_seed_by_seed() -> None:
    results = {
        Run(BASE, 0): episodes(10),
        Run(BASE, 1): episodes(8),
        Run("decoupled", 0): episodes(4),
        Run("decoupled", 1): episodes(6),
        Run("4 steps", 2): episodes(9),
    }
    base, decoupled, steps = rows_of(results)
    assert (base.successes, base.n, base.difference) == (18, 40, None)
    assert decoupled.by_seed == pytest.approx((-0.3, -0.1))
    assert decoupled.difference is not None
    assert decoupled.difference.value == pytest.approx(-0.2)
    assert steps.difference is None, "no base of that seed"
    text = markdown([base, decoupled, steps], Config(Path("x")))
    assert "--noise.video-at-noise 0`; independent noise levels | 0, 1 | 10/40 | 25.0 % [" in text
    assert "| worse | -30.0, -10.0 |" in text


def test_what_fails_stops_only_what_needs_it(tmp_path: Path) -> None:
    """A tokenizer that cannot be trained, and an evaluation that fails: all others have their turn, then it is said."""
    asked: list[list[str]] = []

    class Failing(Commands):
        def wam(self, *words: object) -> None:
            asked.append([str(word) for word in words])
            if words[0] == "train-tokenizer" or f"{BASE}-seed0" in words:
                raise subprocess.CalledProcessError(1, asked[-1])

    config = Config(tmp_path, only=("two cameras 96", "4 steps", "no memory", "decoupled"), workers=1, curve_episodes=0)
    with pytest.raises(subprocess.CalledProcessError):
        Experiment(config, Failing(None)).run(plan(config))
    labels = [words[words.index("--label") + 1] for words in asked if words[0] == "eval"]
    assert sorted(labels) == ["4-steps-seed0", "base-seed0", "decoupled-seed0", "no-memory-seed0"]
    assert len([words for words in asked if words[0] == "train"]) == 2


@pytest.mark.slow
def test_a_whole_run_at_the_smallest_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two trainings, one change of the sampler; a second call finds all done, a stopped one says so."""
    config = Config(
        tmp_path, only=("4 steps", "actions only"), steps=4, models_every=2, tasks="drawer-close", demonstrations=2,
        tokenizer_steps=3, episodes=1, curve_episodes=1, workers=1,
        train_options="--size.dim 32 --size.heads 2 --size.layers 1 --batch 4 --validation.samples 0 "
        "--windows.validation-share 0.5",
    )  # fmt: skip
    assert ablations.main(dataclasses.replace(config, minutes=0.0)) == ablations.AGAIN
    assert "0 of 3 runs are finished" in capsys.readouterr().out
    assert ablations.main(config) == 0
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [(row["name"], row["n"]) for row in rows] == [(BASE, 1), ("actions only", 1), ("4 steps", 1)]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["actions-only-seed0", "base-seed0"]
    assert sorted(path.parent.name for path in (tmp_path / "curves" / "base-seed0").glob("*/minutes.json")) == [
        "step-00000002", "step-00000004",
    ]  # fmt: skip
    assert (tmp_path / "minutes.png").stat().st_size > 1000
    began = (tmp_path / "results" / "base-seed0" / "episodes.jsonl").stat().st_mtime_ns
    assert ablations.main(config) == 0
    assert (tmp_path / "results" / "base-seed0" / "episodes.jsonl").stat().st_mtime_ns == began
