"""Servers to talk to: `wam serve` as users start it, and small ones that misbehave as `wam serve` never does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from websockets.sync.server import ServerConnection, serve

REPOSITORY = Path(__file__).parents[2]
SOURCES = os.pathsep.join(str(REPOSITORY / folder) for folder in ("src", "packages/wam-client/src"))


@dataclass
class Live:
    """A running `wam serve`."""

    process: subprocess.Popen[str]
    port: int
    zmq_port: int | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/wam"

    def worker(self) -> int | None:
        """The process that the model lives in; None while there is none."""
        pid = self.process.pid
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
                    return int(child)
        return None

    def kill_worker(self) -> None:
        """kill -9."""
        pid = self.worker()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextmanager
def wam_serve(*options: str, port: int = 0) -> Iterator[Live]:
    """Ends with the block; it may be stopped before."""
    live = start(*options, port=port)
    try:
        yield live
    finally:
        if live.process.poll() is None:
            live.stop()


def start(*options: str, port: int = 0) -> Live:
    command = [sys.executable, "-m", "wam.cli.main", "serve", *options, "--port", str(port), "--json"]
    environment = {**os.environ, "PYTHONPATH": SOURCES}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"wam serve {options} did not start: exit code {process.wait(10)}"
    where = json.loads(line)
    return Live(process, where["port"], where["zmq_port"])


@contextmanager
def rude_server(converse: Callable[[ServerConnection], Any]) -> Iterator[str]:
    """A websocket server that does with every connection what it is told; its address."""
    with serve(converse, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join(10)


def wait_until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"still not so after {seconds:g} s"
        time.sleep(0.05)
