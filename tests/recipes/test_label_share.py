"""The plan of the label-share experiment, and what it makes of results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tyro
from recipes.label_share import CONTROL, JOINT, STAGED, LabelShare, Run, plan, points_of
from recipes.runs import Commands
from tests.evaluate.test_results import record
from tests.recipes.test_runs import write_result

from recipes import label_share
from wam.cli.eval import Eval
from wam.evaluate.results import EpisodeRecord
from wam.train.config import TrainConfig

CONFIG = LabelShare(Path("data"), Path("tokenizer"), Path("out"))


def test_three_seeds_at_the_two_smallest_shares_and_a_first_look_at_all() -> None:
    runs = plan(CONFIG)
    assert len(runs) == len(set(runs)) == 2 * (5 + 2 * 2)
    assert runs[:3] == [Run(JOINT, 0.05, 0), Run(CONTROL, 0.05, 0), Run(JOINT, 0.1, 0)]
    assert {run.share for run in runs[:10]} == {0.05, 0.1, 0.25, 0.5, 1.0}
    assert {(run.share, run.seed) for run in runs[10:]} == {(0.05, 1), (0.1, 1), (0.05, 2), (0.1, 2)}
    assert len({run.folder for run in runs}) == len(runs)


class Recorder(Commands):
    """Keeps the commands instead of running them."""

    def __init__(self) -> None:
        super().__init__(None)
        self.words: list[list[str]] = []

    def wam(self, *words: object) -> None:
        self.words.append([str(word) for word in words])


def test_the_commands_are_ones_that_wam_understands() -> None:
    config, run, commands = replace(CONFIG, eval_options="--max-env-steps 200"), Run(CONTROL, 0.1, 2), Recorder()
    label_share.train(config, run, commands)
    label_share.evaluate(config, run, commands)
    (train, *options), (evaluate, *asked) = commands.words
    assert (train, evaluate) == ("train", "eval")
    trained, evaluated = tyro.cli(TrainConfig, args=options), tyro.cli(Eval, args=asked)
    assert (trained.seed, trained.windows.labelled_share, trained.windows.labelled_part) == (2, 0.1, 1.0)
    assert (trained.dream, trained.see_previous, trained.noise.mode) == (False, True, "coupled")
    assert (evaluated.max_env_steps, evaluated.episodes, evaluated.label) == (200, 20, run.folder)


def test_who_dreams_first_goes_on_with_those_weights_for_the_other_half(tmp_path: Path) -> None:
    config, commands = replace(CONFIG, out=tmp_path, steps=600, learners=(CONTROL, STAGED)), Recorder()
    run = next(run for run in plan(config) if run.learner == STAGED)
    label_share.train(config, run, commands)
    dream, act = (tyro.cli(TrainConfig, args=words[1:]) for words in commands.words)
    assert (dream.steps, dream.dream, dream.init) == (300, True, None)
    assert (act.steps, act.dream, act.init) == (300, False, dream.out / "model")
    assert (dream.windows.labelled_share, dream.windows.labelled_part) == (act.windows.labelled_share, 0.5)
    assert (act.out, dream.out.parent) == (tmp_path / "runs" / run.folder, tmp_path / "runs")
    (dream.out / "model").mkdir(parents=True)
    (dream.out / "model" / "config.json").touch()
    again = Recorder()
    label_share.train(config, run, again)
    assert again.words == commands.words[1:]


def episodes(solved: int) -> list[EpisodeRecord]:
    return [record("reach", seed, seed < solved, "c0ffee") for seed in range(20)]


def test_a_point_pairs_the_learners_of_one_seed() -> None:
    results = {
        Run(JOINT, 0.05, 0): episodes(15),
        Run(CONTROL, 0.05, 0): episodes(10),
        Run(JOINT, 0.05, 1): episodes(12),
        Run(CONTROL, 0.05, 1): episodes(13),
        Run(STAGED, 0.05, 1): episodes(16),
        Run(JOINT, 0.1, 0): episodes(20),
    }
    joint, control, staged, alone = points_of(results, (0.1, 0.05))
    assert (joint.solved, joint.played, joint.by_seed) == (27, 40, (15, 12))
    assert joint.differences == pytest.approx((0.25, -0.05))
    assert joint.difference is not None
    assert joint.difference.value == pytest.approx(0.1)
    assert (control.learner, control.by_seed, control.difference) == (CONTROL, (10, 13), None)
    assert staged.differences == pytest.approx((0.15,))
    assert (alone.share, alone.learner, alone.by_seed, alone.difference) == (0.1, JOINT, (20,), None)


def test_joined_results_are_not_made_again(tmp_path: Path) -> None:
    """Everything lies in the folder of another session: no training, but the tables and the figure."""
    there = tmp_path / "there"
    config = LabelShare(tmp_path, tmp_path, tmp_path / "here", shares=(0.1, 1.0), seeds=(0,), join=(there,))
    for run in plan(config):
        write_result(there, run.folder, 3 if run.learner == JOINT else 7)
    (tmp_path / "here").mkdir()
    with pytest.raises(ValueError, match="settings.json: not found"):
        label_share.main(config)
    (there / "settings.json").write_text((tmp_path / "here" / "settings.json").read_text())
    assert label_share.main(config) == 0
    assert "| 10 % | joint | 3/10 | 3 | -40.0 [" in (tmp_path / "here" / "table.md").read_text()
    assert (tmp_path / "here" / "curve.png").stat().st_size > 1000
