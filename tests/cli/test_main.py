"""The command line: every verb has help with an example, and errors are sentences with an exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from wam.cli import compare
from wam.cli.main import VERBS, main
from wam.sim.recording import ExpertFailed
from wam_client import PolicyError

CLI = Path(compare.__file__).parent


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert f"wam {verb}" in capsys.readouterr().out.split("Example", 1)[1]


def test_overview_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)


def test_unknown_verb_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["dance"])
    assert stop.value.code == 2
    assert "unknown verb 'dance'" in capsys.readouterr().err


def test_an_error_is_one_sentence_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["demo", str(tmp_path / "nowhere")])
    assert stop.value.code == 1
    assert "no such folder, no shipped model of that name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo", "--seed", "-1"], "initial state -1 asked for, split 'test' has 0 to 99999"),
        (
            ["eval", "--policy", "expert", "--episodes", "200000", "--out", "OUT"],
            "initial state 100000 asked for, split",
        ),
        (["eval", "--policy", "expert", "--tasks", "--out", "OUT"], "--tasks names none"),
        (["demo", "--tasks"], "--tasks names none"),
        (["data", "encode", "nowhere", "--tokenizer", "nowhere", "--device", "foo"], "--device foo: unknown to torch"),
        (
            ["eval", "nano-metaworld", "--device", "cuda:1", "--out", "OUT"],
            "--device cuda:1: torch finds 1 CUDA devices",
        ),
    ],
)
def test_what_was_asked_wrongly_is_said_in_one_line(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "out") if argument == "OUT" else argument for argument in arguments])
    shown = capsys.readouterr().err.splitlines()
    assert stop.value.code == 1 and shown[-1].startswith(f"wam {arguments[0]}: ") and said in shown[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [PolicyError("Busy", "later"), ExpertFailed("task 'push'"), OSError("no disk")])
def test_errors_that_name_their_cause_need_no_traceback(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "main", failing(error))
    with pytest.raises(SystemExit) as stop:
        main(["compare"])
    assert (stop.value.code, capsys.readouterr().err) == (1, f"wam compare: {error}\n")


def test_an_unknown_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "main", failing(ZeroDivisionError("a fault of ours")))
    with pytest.raises(ZeroDivisionError):
        main(["compare"])


def failing(error: BaseException):
    def fail(options: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare"], "wam compare: stopped\n"),
        (["data", "lint", "x"], "wam data: stopped\n"),
        (["data", "encode", "x", "--tokenizer", "y"], "wam data: stopped; the same command goes on where it was\n"),
    ],
)
def test_what_can_be_gone_on_with_says_so(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from wam.cli import data

    for verb in (compare, data):
        monkeypatch.setattr(verb, "main", failing(KeyboardInterrupt()))
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert (stop.value.code, capsys.readouterr().err) == (130, said)


EVAL = ["eval", "--policy", "constant-hold", "--tasks", "reach", "--episodes", "500", "--out"]
COLLECT = ["collect", "--tasks", "reach", "--episodes-per-task", "500", "--out"]


@pytest.mark.parametrize(
    ("arguments", "until", "pause"),
    [
        (EVAL, "config.json", 0.5),  # while the workers import what they need
        (EVAL, "episodes.jsonl", 0.0),
        (COLLECT, ".partial/top.mp4", 0.0),
    ],
)
def test_ctrl_c_ends_every_process_with_one_line(
    arguments: list[str], until: str, pause: float, tmp_path: Path
) -> None:
    """As a terminal sends it: to the command and to its workers."""
    pytest.importorskip("metaworld")
    command = [sys.executable, "-m", "wam.cli.main", *arguments, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    running = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, process_group=0, preexec_fn=_hears_ctrl_c
    )
    try:
        deadline = time.monotonic() + 300
        while not (tmp_path / until).exists():
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(pause)
        os.killpg(running.pid, signal.SIGINT)
        _, shown = running.communicate(timeout=120)  # until nobody is left who could write
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    *_, last = shown.splitlines()
    assert running.returncode == 130 and last == f"wam {arguments[0]}: stopped; the same command goes on where it was"
    assert "Traceback" not in shown and "leaked" not in shown


def _hears_ctrl_c() -> None:
    """Also where these tests run in the background of a shell, whose jobs ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("file", sorted(CLI.glob("*.py")), ids=lambda file: file.stem)
def test_brackets_in_paths_are_no_markup(file: Path) -> None:
    """Where text is coloured by markup, what it names is escaped."""
    text = file.read_text(encoding="utf-8")
    assert "Console(" not in text or "markup=False" in text or "import escape" in text
