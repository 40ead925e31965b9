"""The worker crashes, hangs, is killed or cannot start: the server goes on, everybody is told, and can resume."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serve.servers import Client, Running, TinySource, request_of, serving
from tests.serve.test_websocket import episode, in_process
from tests.serve.troubles import TroubleSource

from wam.serve.server import WamServer, Where
from wam.serve.service import Limits
from wam.serve.supervisor import Patience, WorkerBroken


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving(TroubleSource(), limits=Limits(patience=Patience(step=2.0), batch=4)) as server:
        yield server


def told(client: Client, what: str, **extra: Any) -> Any:
    return client.ask({**client.metadata["example_observation"], "prompt": what, **extra})


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        (
            "crash",
            "SessionLost: the model's process died (exit code 3); what this session remembered is gone: reset it",
        ),
        ("hang", "SessionLost: the model did not answer within 2 s and has been stopped"),
        ("nan", "SessionLost: the model's actions were not finite and have been withheld"),
        ("refuse", "BadRequest: the policy does not like this"),
    ],
)
def test_trouble_is_told_and_the_connection_goes_on(running: Running, trouble: str, says: str) -> None:
    with Client(running.url) as client, Client(running.url) as other:
        assert told(client, "work")["cadence"]["how"] == "first"
        told(other, "work")
        assert told(client, trouble).startswith(says)
        goes_on = trouble == "refuse"
        assert told(client, "work")["cadence"]["how"] == ("anew" if goes_on else "first")
        reply = told(other, "work")
        if trouble in ("crash", "hang"):
            assert reply.startswith("SessionLost: the model's process died (exit code")
            reply = told(other, "work")
        assert reply["actions"].shape == (8, 4)


def test_a_reset_is_enough_after_a_crash(running: Running) -> None:
    with Client(running.url) as client, Client(running.url) as other:
        told(other, "work")
        told(client, "crash")
        assert other.ask({"endpoint": "reset"}) == "reset successful"
        assert told(other, "work")["cadence"]["how"] == "first"


def test_one_that_is_refused_does_not_spoil_the_others_of_its_batch(running: Running) -> None:
    replies: dict[str, Any] = {}

    def ask(name: str, what: str) -> None:
        with Client(running.url) as client:
            replies[name] = told(client, what)

    threads = [threading.Thread(target=ask, args=("0", "slow"))]  # the others arrive meanwhile
    threads += [threading.Thread(target=ask, args=(str(i), "refuse" if i == 2 else "work")) for i in range(1, 4)]
    threads[0].start()
    time.sleep(0.4)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert replies["2"].startswith("BadRequest")
    assert all(replies[name]["actions"].shape == (8, 4) for name in ("0", "1", "3"))


def test_pages_are_answered_while_the_model_computes(running: Running) -> None:
    with Client(running.url) as client:
        thread = threading.Thread(target=told, args=(client, "slow"))
        thread.start()
        time.sleep(0.3)
        began = time.monotonic()
        assert running.get("/healthz")[0] == 200
        assert time.monotonic() - began < 0.5 and thread.is_alive()
        thread.join(30)


def test_kill_9_under_load() -> None:
    """Four robots drive on while the worker is killed twice: each is told once per death, goes on from its present
    frame with the noise of its seed, and answers are again what the engine says."""
    with serving(TinySource()) as running:
        calls = {i: episode(400, seed=i) for i in range(4)}
        expected = {i: in_process(calls[i][:3], seed=i) for i in range(4)}
        errors: dict[int, list[str]] = {i: [] for i in range(4)}
        starts: dict[int, list[np.ndarray]] = {i: [] for i in range(4)}
        back: list[float] = []
        finished = threading.Event()

        def all_began(lives: int) -> bool:
            """Whether every robot has had three answers in each of so many lives of the worker, within a minute."""
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                if min(map(len, starts.values())) >= 3 * lives:
                    return True
                time.sleep(0.05)
            return False

        def drive(i: int) -> None:
            step = 0
            with Client(running.url) as client:
                while not finished.is_set():
                    reply = client.ask(request_of(calls[i][step % 400], seed=i))
                    if isinstance(reply, str):
                        errors[i].append(reply)
                        step = 0
                        continue
                    if step < 3:
                        starts[i].append(reply["actions"])
                    step += 1

        threads = [threading.Thread(target=drive, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        try:
            for deaths in (1, 2):
                assert all_began(deaths)
                time.sleep(0.5)
                pid = running.server.service.supervisor.pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                killed = time.monotonic()
                assert all_began(deaths + 1)
                back.append(time.monotonic() - killed)
        finally:
            finished.set()
            for thread in threads:
                thread.join(60)
        assert running.server.service.supervisor.restarts == 2
        assert max(back) < 30, f"seconds until everybody was answered again: {back}"
        for i in range(4):
            assert len(errors[i]) == 2 and all("exit code -9" in error for error in errors[i])
            for life in range(3):
                found = np.stack(starts[i][3 * life : 3 * life + 3])
                np.testing.assert_allclose(found, np.stack(expected[i]), rtol=0, atol=1e-5)


def test_a_model_that_cannot_be_loaded_is_an_error_that_says_why_once(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    source = TroubleSource(refuses="nano-kitchen: no such folder")
    with pytest.raises(WorkerBroken, match="^nano-kitchen: no such folder$"), serving(source):
        pass
    assert "nano-kitchen" not in caplog.text + capfd.readouterr().err, "said by the worker or the log, too"


def test_a_fault_of_ours_while_loading_shows_where(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(WorkerBroken, match="^RuntimeError: shapes differ$"),
        serving(TroubleSource(fails="shapes differ")),
    ):
        pass
    assert "in open" in capfd.readouterr().err


def test_a_model_that_cannot_be_started_again_ends_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wam.serve.supervisor.ATTEMPTS", 1)
    gone = tmp_path / "gone"
    with serving(TroubleSource(dies_if=gone)) as running, Client(running.url) as client:
        gone.touch()
        assert told(client, "crash").startswith("SessionLost")
        reply = told(client, "work")
        assert reply.startswith("Unavailable: the model's process died 1 times before it was ready")
        assert running.get("/healthz")[0] == 503 and running.server.ending


def test_waiting_behind_others_is_no_hang() -> None:
    """Four robots of a second each, one after the other, with two seconds for a step."""
    with serving(TroubleSource(), limits=Limits(patience=Patience(step=2.0), batch=1)) as running, ExitStack() as stack:
        clients = [stack.enter_context(Client(running.url)) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            replies = list(pool.map(lambda client: told(client, "slow"), clients))
        assert [reply["actions"].shape for reply in replies] == [(8, 4)] * 4
        assert running.server.service.supervisor.restarts == 0


def test_a_server_that_is_still_loading_can_be_ended() -> None:
    async def serve() -> None:
        server = WamServer(TroubleSource(loads=120.0), Where(port=0))
        asyncio.get_running_loop().call_later(1.0, server.end)
        await server.run()

    began = time.monotonic()
    asyncio.run(serve())
    assert time.monotonic() - began < 20


def test_stopping_lets_what_is_in_flight_finish() -> None:
    with serving(TroubleSource()) as running:
        replies: list[Any] = []
        client = Client(running.url)
        thread = threading.Thread(target=lambda: replies.append(told(client, "slow")))
        thread.start()
        time.sleep(0.4)
    thread.join(30)
    assert replies[0]["actions"].shape == (8, 4)
    client.close()
