"""wam train at the command line: going on with a run from its folder alone, and stopping when asked to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.train.processes import NoEncoder, tiny_run, write_material

import wam.train.build
from wam.cli.main import main
from wam.cli.train import on_termination, parse
from wam.train import checkpoint
from wam.train.build import build
from wam.train.config import TrainConfig
from wam.train.trackers import LOG
from wam.train.trainer import CHECKPOINTS, MODEL, ORIGIN


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_material(tmp_path_factory.mktemp("material"))


@pytest.fixture
def stopped(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """A run of six steps that was stopped after one."""
    monkeypatch.setattr(wam.train.build, "MiniLMTextEncoder", NoEncoder)
    run = tiny_run(material, tmp_path / "run")
    trainer = build(run)
    trainer.train_step()
    trainer._save()
    return run


def test_resume_needs_the_folder_alone(stopped: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "--resume", str(stopped.out), "--json"])
    assert json.loads(capsys.readouterr().out)["steps"] == stopped.steps
    origin = json.loads((stopped.out / MODEL / ORIGIN).read_text())
    assert origin["training"]["size"]["dim"] == stopped.size.dim
    main(["train", "--resume", str(stopped.out), "--json"])
    said = capsys.readouterr()
    assert "already finished; give another --out" in said.err
    assert json.loads(said.out)["steps"] == stopped.steps


def test_what_is_given_beside_resume_changes_the_run(stopped: TrainConfig, tmp_path: Path) -> None:
    parsed = parse([f"--resume={stopped.out}", "--steps", "9", "--log-every", "1"])
    assert parsed == replace(stopped, steps=9, log_every=1, resume=stopped.out)
    moved = stopped.out.rename(tmp_path / "elsewhere")
    assert parse(["--resume", str(moved)]).out == moved


def test_resume_refuses_another_seed_and_names_it(stopped: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--resume", str(stopped.out), "--seed", "1"])
    assert stop.value.code == 1
    assert "config.seed is 1, was 0" in " ".join(capsys.readouterr().err.split())


def test_resume_of_something_else_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--resume", str(tmp_path)])
    assert stop.value.code == 1
    assert "no checkpoint to go on from" in capsys.readouterr().err


def test_the_first_ctrl_c_asks_and_the_second_interrupts() -> None:
    asked: list[int] = []
    with on_termination(asked.append):
        signal.raise_signal(signal.SIGINT)
        assert asked == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_sigterm_leaves_a_checkpoint_to_go_on_from(material: Path, tmp_path: Path) -> None:
    options = {
        "--data": material / "data",
        "--tokenizer": material / "tokenizer",
        "--out": tmp_path / "run",
        "--size.dim": 32,
        "--size.heads": 2,
        "--size.layers": 1,
        "--windows.validation-share": 0.3,
        "--validation.samples": 0,
        "--batch": 4,
        "--log-every": 1,
        "--minutes": 5,
        "--threads": 1,
    }
    words = [str(word) for pair in options.items() for word in pair]
    command = [sys.executable, "-m", "wam.cli.main", "train", *words]
    log = tmp_path / "run" / LOG
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (log.exists() and log.read_text().count("\n") >= 2) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.terminate()
        assert process.wait(timeout=60) == 143
    assert checkpoint.newest(tmp_path / "run" / CHECKPOINTS) is not None
    assert not (tmp_path / "run" / MODEL).exists()
