"""wam eval and wam compare from end to end, with the two baselines on the real simulator."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import tyro

pytest.importorskip("metaworld")

from wam.cli import compare as compare_verb
from wam.cli import eval as eval_verb
from wam.cli.eval import Eval
from wam.evaluate.realtime_rollout import RealTime
from wam.evaluate.results import ResultFolder
from wam.evaluate.rollout import rollout
from wam.evaluate.workers import WorkerError

ARGUMENTS = ["--tasks", "drawer-close", "--episodes", "3", "--workers", "1", "--json"]


def run(out: Path, policy: str, *more: str) -> None:
    eval_verb.main(tyro.cli(Eval, args=["--out", str(out), "--policy", policy, *ARGUMENTS, *more]))


def test_expert_beats_doing_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "expert", "expert", "--film-successes", "1")
    summary = json.loads(capsys.readouterr().out)
    assert (summary["successes"], summary["n"]) == (3, 3)
    assert summary["tasks"][0]["group"] == "easy"
    assert [line.seed for line in ResultFolder(tmp_path / "expert").episodes()] == [2_000_000, 2_000_001, 2_000_002]
    assert len(list((tmp_path / "expert" / "videos").iterdir())) == 1
    assert "Films" in (tmp_path / "expert" / "report.html").read_text()
    assert "| drawer-close | easy | 3/3 |" in (tmp_path / "expert" / "summary.md").read_text()

    run(tmp_path / "hold", "constant-hold")
    assert json.loads(capsys.readouterr().out)["successes"] == 0
    folders = [str(tmp_path / "expert"), str(tmp_path / "hold")]
    written = ["--report", str(tmp_path / "c.html"), "--markdown", str(tmp_path / "c.md"), "--json"]
    compare_verb.main(tyro.cli(compare_verb.Compare, args=[*folders, *written]))
    (found,) = json.loads(capsys.readouterr().out)
    assert found["over_tasks"]["value"] == 1.0
    assert found["distinguishable"]
    assert (tmp_path / "c.html").exists()
    assert (tmp_path / "c.md").exists()


def test_brackets_in_names_are_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths, labels and the names of compared folders are shown as they are."""
    out = tmp_path / "x[/b]" / "[red]"
    run(out, "constant-hold", "--episodes", "1", "--label", "still[/i]")
    shown = capsys.readouterr().err
    assert f"{out}: summary.json" in shown and "still[/i] on drawer-close" in shown
    compare_verb.main(compare_verb.Compare((out, out)))
    assert f"A={out}" in "".join(capsys.readouterr().err.split())  # lines are broken where the window ends


def test_films_of_groups_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two easy tasks: one film of the group, and both groups' mean in the summary."""
    tasks = ["--tasks", "drawer-close", "button-press", "push", "--episodes", "1"]
    run(tmp_path, "expert", *tasks, "--film-successes", "1", "--films-per", "group")
    summary = json.loads(capsys.readouterr().out)
    films = sorted(path.name.rsplit("-", 2)[0] for path in (tmp_path / "videos").iterdir())
    assert films == ["drawer-close", "push"]
    assert [(group["group"], group["tasks"]) for group in summary["groups"]] == [("easy", 2), ("hard", 1)]
    assert summary["over_groups"]["value"] == 1.0


def test_options_reach_load_policy(tmp_path: Path) -> None:
    arguments = ["runs/x", "--out", str(tmp_path), "--steps", "1", "--memory", "none", "--execute", "4"]
    source = tyro.cli(Eval, args=arguments).source()
    assert source.checkpoint == Path("runs/x")
    assert source.options["steps"] == 1
    assert source.options["memory"] == "none"
    assert source.options["execute"] == 4


def test_the_clock_needs_somebody_to_keep_it(tmp_path: Path) -> None:
    async_third = ["runs/x", "--out", str(tmp_path), "--realtime", "--delay", "0.33", "--blend", "2"]
    config = tyro.cli(Eval, args=async_third)
    assert config.play() == RealTime(delay=0.33, blend=2)
    assert tyro.cli(Eval, args=async_third[:3]).play() is rollout
    with pytest.raises(ValueError, match="delay=0.33.*needs --realtime"):
        run(tmp_path, "constant-hold", "--delay", "0.33")
    assert not list(tmp_path.iterdir())


def test_the_clock_has_exactly_the_options_of_a_real_time_episode() -> None:
    options = {field.name: field.default for field in dataclasses.fields(RealTime) if field.name != "rest"}
    assert vars(eval_verb.Clock()) == options


def test_loop_has_exactly_the_options_of_load_policy() -> None:
    import inspect

    from wam.engine import load_policy

    parameters = inspect.signature(load_policy).parameters
    fields = {field: parameter.default for field, parameter in parameters.items() if field != "checkpoint"}
    assert vars(eval_verb.Loop()) == fields


def test_mistakes_are_named_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'wam' needs a checkpoint folder"):
        run(tmp_path, "wam")
    with pytest.raises(ValueError, match="takes no checkpoint"):
        eval_verb.main(Eval(out=tmp_path, checkpoint=Path("runs/x"), policy="expert"))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        eval_verb.main(Eval(out=tmp_path, checkpoint=tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="unknown Meta-World task 'drawer-closed'"):
        eval_verb.main(Eval(out=tmp_path, policy="expert", tasks=("drawer-closed",)))
    with pytest.raises(ValueError, match="--tasks names none"):
        eval_verb.main(Eval(out=tmp_path, policy="expert", tasks=()))
    with pytest.raises(ValueError, match="--episodes is 0"):
        eval_verb.main(Eval(out=tmp_path, policy="expert", episodes=0))
    assert not list(tmp_path.iterdir())


def test_a_policy_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    """config.json without an embodiment: caught before a process starts."""
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text("{}")
    with pytest.raises((ValueError, WorkerError), match=r"config.json: field 'embodiments' is missing"):
        eval_verb.main(Eval(out=tmp_path / "out", checkpoint=tmp_path / "checkpoint", tasks=("reach",), episodes=1))
