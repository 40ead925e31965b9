"""wam serve from end to end: starts, says where, answers, and ends on SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tyro
from tests.client.live import Live, wait_until
from tests.serve.servers import Client

from wam.cli.serve import Serve
from wam.engine.load_released import Fit
from wam.engine.released_loop import ReleasedSampler
from wam.robot.embodiment import load_embodiment
from wam.serve.backends import CheckpointSource, EchoSource, Located, ReplaySource
from wam.serve.released import ReleasedSource


def options(*arguments: str) -> Serve:
    return tyro.cli(Serve, args=list(arguments))


def launch(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "wam.cli.main", "serve", *arguments, "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )


def start(*arguments: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """The process, and what it says when it listens."""
    process = launch(*arguments)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        assert process.stderr is not None
        pytest.fail(process.stderr.read())
    return process, json.loads(line)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    """As a terminal and as service managers do it: the signal goes to all of its processes."""
    process, where = start("--echo", "metaworld-sawyer", "--zmq-port", "0")
    try:
        with Client(f"ws://127.0.0.1:{where['port']}") as client:
            assert client.ask(client.metadata["example_observation"])["actions"].shape == (8, 4)
            os.killpg(process.pid, number)
            assert process.wait(30) == 0
        assert process.stderr is not None and "leaked" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_loads_does_not_hear_what_ends_the_server(number: signal.Signals) -> None:
    """It is importing and has not said yet that it ignores the signal; a second one then ends everything quietly."""
    process = launch("--echo", "metaworld-sawyer")
    try:
        live = Live(process, 0)
        wait_until(lambda: _catches_interrupts(live.worker()))
        worker = live.worker()
        assert worker is not None
        os.kill(worker, number)
        assert process.stdout is not None and process.stdout.readline()
        assert live.worker() == worker
        os.killpg(process.pid, number)
        assert process.wait(30) == 0
        assert process.stderr is not None and "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def _catches_interrupts(process: int | None) -> bool:
    """Whether Python has started in it, whose own handler raises KeyboardInterrupt."""
    if process is None:
        return False
    caught = Path(f"/proc/{process}/status").read_text().split("SigCgt:")[1].split()[0]
    return bool(int(caught, 16) >> (signal.SIGINT - 1) & 1)


def test_no_process_is_left_when_the_server_is_killed() -> None:
    process, _ = start("--echo", "metaworld-sawyer")
    try:
        threads = Path(f"/proc/{process.pid}/task").iterdir()
        children = [child for thread in threads for child in (thread / "children").read_text().split()]
    finally:
        process.kill()
        process.communicate()
    assert children
    deadline = time.monotonic() + 20
    while any(_lives(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_lives(child) for child in children)


def _lives(process: str) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_what_is_served_is_chosen_by_name() -> None:
    source = options("nano-metaworld", "--steps", "2", "--memory", "none").source()
    assert isinstance(source, CheckpointSource) and source.options["steps"] == 2
    yam = load_embodiment("yam")
    assert options("--echo", "yam").source() == EchoSource(yam)
    assert options("--replay", "data", "--robot", "yam", "--episode", "2").source() == ReplaySource("data", yam, 2)


@pytest.mark.parametrize("arguments", [[], ["nano-metaworld", "--echo", "yam"]])
def test_one_policy_must_be_named(arguments: list[str]) -> None:
    with pytest.raises(ValueError, match="give a checkpoint, --echo ROBOT or --replay FILE"):
        options(*arguments).source()


def test_options_that_a_model_would_not_listen_to_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="--published.steps: nano-metaworld is a model of `wam train`.* --steps"):
        options("nano-metaworld", "--published.steps", "4").source()
    with pytest.raises(ValueError, match="--published.vae: nano-metaworld is a model of `wam train`.* --vae"):
        options("nano-metaworld", "--published.vae", "visit").source()
    theirs = Located(Path("droid"), "droid", "unknown", ours=False)
    monkeypatch.setattr("wam.cli.serve.locate", lambda checkpoint: theirs)
    with pytest.raises(ValueError, match="--step-cache: droid is weights that somebody else published"):
        options("droid", "--step-cache", "cosine").source()
    with pytest.raises(ValueError, match="skip=3: expected 'dynamic' or one of"):
        options("droid", "--published.calls", "3").source()
    words = ["--robot", "oxe_droid", "--device", "cuda", "--published.weights", "int4", "--published.text", "drop"]
    source = options("droid", *words, "--published.steps", "1", "--published.guidance", "1").source()
    assert isinstance(source, ReleasedSource) and source.robot == "oxe_droid"
    assert (source.device, source.fit) == ("cuda", Fit("int4", text="drop"))
    assert source.config is not None and source.config.sampler == ReleasedSampler(1, guidance=1.0, skip=16)


def test_a_model_that_is_not_there_is_an_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wam.cli.main", "serve", "no-such-model", "--port", "0"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 1
    assert "no file or folder 'no-such-model'" in done.stderr


def test_what_a_replay_lacks_is_said_once() -> None:
    process = launch("--replay", "nosuch.wamrec")
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert said.splitlines()[1:] == ["wam serve: [Errno 2] No such file or directory: 'nosuch.wamrec'"]


@pytest.mark.parametrize("arguments", [["--echo", "nosuch"], ["--replay", "data", "--robot", "nosuch"]])
def test_an_unknown_robot_is_told_before_a_process_is_started(arguments: list[str]) -> None:
    with pytest.raises(ValueError, match="embodiment 'nosuch': no such file, and no shipped robot of that name"):
        options(*arguments).source()


@pytest.mark.parametrize(
    ("option", "found", "expected"),
    [
        ("--batch", "0", "at least 1"),
        ("--sessions", "0", "at least 1"),
        ("--waiting", "-3", "at least 1"),
        ("--idle-seconds", "0", "more than 0"),
        ("--step-seconds", "0", "more than 0"),
        ("--frame-mb", "0", "more than 0"),
        ("--record-gb", "0", "more than 0"),
        ("--port", "70000", "a port"),
        ("--zmq-port", "70000", "a port"),
    ],
)
def test_limits_are_checked_before_a_model_is_looked_for(option: str, found: str, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{option}: found {found}, expected {expected}"):
        options("no-such-model", "--record", "served", option, found).server()


def test_an_empty_token_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    with pytest.raises(ValueError, match="the file is empty"):
        options("--echo", "yam", "--token-file", str(tmp_path / "token")).server()
