"""Many robots on one server for long: how fast they are answered, whether anyone gets another's actions, and whether
memory stays flat.

Every robot plays the same short episode again and again, from the same seed, so that its actions are known from the
time when it was alone with the server.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from websockets.sync.client import ClientConnection, connect

from wam.robot.embodiment import Embodiment
from wam.serve.cadence import Cadence
from wam_client.wire import packb, unpackb

SAMPLE_SECONDS = 1.0  # between looks at memory


@dataclass(frozen=True)
class Robot:
    """One client's episode: a request per chunk, ready to be sent; `picture` is the size of a camera's pictures."""

    name: str
    requests: Sequence[bytes]

    @classmethod
    def make(cls, robot: Embodiment, number: int, chunks: int, picture: tuple[int, int]) -> Robot:
        """Pictures and states at random, the same for the same number; the first request has one frame."""
        rng, cadence = np.random.default_rng(number), Cadence.of(robot)
        requests, passed = [], 0.0
        for chunk in range(chunks):
            count = 1 if chunk == 0 else cadence.frames
            times = passed + cadence.stride_seconds * np.arange(1, count + 1)
            passed = float(times[-1])
            request = {
                **{
                    f"observation/images/{camera}": rng.integers(0, 256, (count, *picture, 3), np.uint8)
                    for camera in robot.cameras
                },
                "observation/state": rng.normal(size=robot.state_dim).astype(np.float32),
                "prompt": f"do task number {number}",
                "timestamp_s": times,
                "session_id": f"load-{number}",
                "seed": number,
                "reset": chunk == 0,
            }
            requests.append(packb(request))
        return cls(f"load-{number}", requests)


@dataclass
class Seen:
    """What one robot saw of the server. seconds: of every chunk, as the client waits; model_seconds: inside the model.

    farthest: largest distance of an action from the one that it got when it was alone.
    """

    seconds: list[float] = field(default_factory=list)
    model_seconds: list[float] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    farthest: float = 0.0
    errors: list[str] = field(default_factory=list)


def alone(url: str, robot: Robot) -> tuple[npt.NDArray[np.float32], Seen]:
    """The actions (chunks, N, A) of an episode that a robot plays alone. Raises RuntimeError for an error."""
    seen, found = Seen(), []
    with connect(url, compression=None, max_size=None) as socket:
        socket.recv()
        for request in robot.requests:
            found.append(_ask(socket, request, seen))
    if seen.errors:
        raise RuntimeError(seen.errors[0])
    return np.stack(found), seen


def together(
    url: str,
    robots: Sequence[Robot],
    expected: Sequence[npt.NDArray[np.float32]],
    chunks: int,
    on_chunk: Callable[[], None] = lambda: None,
) -> list[Seen]:
    """All robots at once, `chunks` in all."""
    seen = [Seen() for _ in robots]
    share = -(-chunks // len(robots))
    threads = [
        threading.Thread(target=_drive, args=(url, robot, wanted, share, found, on_chunk), name=robot.name)
        for robot, wanted, found in zip(robots, expected, seen, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


class MemoryWatch:
    """Resident memory of processes, looked at every second while the block runs."""

    def __init__(self, processes: Sequence[int]) -> None:
        self.times: list[float] = []
        self.bytes: list[list[int]] = []  # per look, per process
        self._processes, self._end = processes, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def grown(self) -> list[float]:
        """Bytes that each process grew from the first tenth of the time to the last, by medians."""
        table = np.array(self.bytes, dtype=np.float64)
        tenth = max(1, len(table) // 10)
        first = np.median(table[tenth : 2 * tenth], axis=0) if len(table) > 2 * tenth else table[0]
        return [float(value) for value in np.median(table[-tenth:], axis=0) - first]

    def _watch(self) -> None:
        while not self._end.wait(SAMPLE_SECONDS):
            self.times.append(time.monotonic())
            self.bytes.append([resident(process) for process in self._processes])


def resident(process: int) -> int:
    """Bytes of memory that a process holds (Linux)."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _drive(
    url: str,
    robot: Robot,
    expected: npt.NDArray[np.float32],
    chunks: int,
    seen: Seen,
    on_chunk: Callable[[], None],
) -> None:
    with connect(url, compression=None, max_size=None) as socket:
        socket.recv()
        for chunk in range(chunks):
            place = chunk % len(robot.requests)
            actions = _ask(socket, robot.requests[place], seen)
            if actions.shape == expected[place].shape:
                seen.farthest = max(seen.farthest, float(np.abs(actions - expected[place]).max()))
            on_chunk()


def _ask(socket: ClientConnection, request: bytes, seen: Seen) -> npt.NDArray[np.float32]:
    began = time.perf_counter()
    socket.send(request)
    reply = socket.recv()
    seen.seconds.append(time.perf_counter() - began)
    if isinstance(reply, str):
        seen.errors.append(reply)
        return np.zeros(0, np.float32)
    answer = unpackb(reply)
    seen.model_seconds.append(answer["server_timing"]["infer_ms"] / 1e3)
    seen.batches.append(answer["session"]["batch"])
    return np.asarray(answer["actions"])
