"""What was asked and answered, kept on disk within a budget, and read back to play it again.

A recording is one file per episode, `<time>-<session>-<episode>-<part>.wamrec`: maps in the wire format, each behind
its length in 8 bytes; first the policy and its robot, then every exchange as it was on the wire. The dreamed video, if
the server decodes it, lies beside it as mp4. When the folder outgrows its budget, the oldest files go.
"""

from __future__ import annotations

import logging
import queue
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from wam.robot.embodiment import Embodiment
from wam.serve.metadata import Served
from wam.serve.request import Answer, Video
from wam_client.wire import Limits, WireError, packb, unpackb

logger = logging.getLogger(__name__)

FORMAT = "wam recording 1"
SUFFIX, FILM = ".wamrec", ".mp4"
_LENGTH = struct.Struct(">Q")
_LIMITS = Limits(frame_bytes=2**34)
_QUEUE = 64  # exchanges that may wait for the disk; beyond, they are dropped and counted
_FILM_FRAMES = 1500  # of one film; more go into the next part
_IDLE = 60.0  # seconds after which a session's file is closed


@dataclass(frozen=True)
class Exchange:
    """A request and its reply, as they were on the wire, and what the reply means."""

    dialect: str
    request: bytes
    reply: bytes
    answer: Answer


class Recorder:
    """Writes in a thread of its own, so that the disk never keeps a robot waiting."""

    def __init__(self, folder: Path, served: Served, budget_bytes: int = 10 * 2**30) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.dropped = 0
        self._folder, self._served, self._budget = folder, served, budget_bytes
        self._queue: queue.Queue[Exchange | None] = queue.Queue(_QUEUE)
        self._open: dict[str, _Episode] = {}
        self._thread = threading.Thread(target=self._run, name="wam-serve-recorder", daemon=True)
        self._thread.start()

    def keep(self, exchange: Exchange) -> None:
        """Hand over an exchange; when the disk is too slow it is dropped and counted."""
        try:
            self._queue.put_nowait(exchange)
        except queue.Full:
            self.dropped += 1
            if self.dropped == 1:
                logger.warning("the disk is too slow for --record: exchanges are being dropped")

    @property
    def backlog(self) -> int:
        """Exchanges that wait for the disk."""
        return self._queue.qsize()

    def close(self) -> None:
        """Write what is waiting, and finish all films."""
        self._queue.put(None)
        self._thread.join(60.0)

    def _run(self) -> None:
        while True:
            try:
                exchange = self._queue.get(timeout=_IDLE / 4)
            except queue.Empty:
                pass
            else:
                if exchange is None:
                    break
                self._attempt("this exchange is lost", self._write, exchange)
            for name in [name for name, e in self._open.items() if time.monotonic() - e.touched > _IDLE]:
                self._attempt("its film is lost", self._finish, name)
        for name in list(self._open):
            self._attempt("its film is lost", self._finish, name)

    def _attempt(self, otherwise: str, work: Callable[[Any], None], what: Any) -> None:
        """Whatever goes wrong, the thread goes on: a robot that is served matters more than its recording."""
        try:
            work(what)
        except Exception as problem:
            logger.error("--record %s: %s; %s", self._folder, problem, otherwise)
            self.dropped += 1

    def _write(self, exchange: Exchange) -> None:
        answer = exchange.answer
        name, part = answer.session, 0
        episode = self._open.get(name)
        if episode is not None:
            full = episode.bytes > min(self._budget // 4, 2**28) or episode.film_frames > _FILM_FRAMES
            if episode.episode != answer.episode or full:
                part = episode.part + 1 if episode.episode == answer.episode else 0
                self._finish(name)
                episode = None
        if episode is None:
            stamp = time.strftime("%Y%m%d-%H%M%S")
            while (path := self._folder / f"{stamp}-{name}-{answer.episode}-{part}{SUFFIX}").exists():
                part += 1  # of the same second: an episode that was left and taken up again
            episode = self._open[name] = _Episode(path, path.open("xb"), answer.episode, part)
            episode.append({"format": FORMAT, "served": self._served.to_dict()})
        episode.append(
            {
                "time": time.time(),
                "dialect": exchange.dialect,
                "request": exchange.request,
                "reply": exchange.reply,
                "actions": answer.actions[: answer.execute],
            }
        )
        if answer.dream is not None:
            episode.dreams.append(answer.dream)
        self._make_room()

    def _finish(self, name: str) -> None:
        episode = self._open.pop(name)
        episode.file.close()
        if episode.dreams:
            from wam.evaluate.video import encode_mp4

            frames = np.concatenate(episode.dreams)
            height, width = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2
            robot = self._served.robot
            film = encode_mp4(frames[:, :height, :width], robot.control_hz / robot.video_stride)
            episode.path.with_suffix(FILM).write_bytes(film)
        self._make_room()

    def _make_room(self) -> None:
        """Drop the oldest files until the folder fits its budget."""
        files = [(file.stat(), file) for file in self._folder.iterdir() if file.suffix in (SUFFIX, FILM)]
        total = sum(stat.st_size for stat, _ in files)
        busy = {episode.path for episode in self._open.values()}
        for stat, file in sorted(files, key=lambda entry: (entry[0].st_mtime, entry[1].name)):
            if total <= self._budget:
                return
            if file not in busy:
                file.unlink()
                total -= stat.st_size
                logger.info("--record: %s dropped to stay within %d bytes", file.name, self._budget)


@dataclass
class _Episode:
    """A file that is being written."""

    path: Path
    file: BinaryIO
    episode: int
    part: int
    bytes: int = 0
    dreams: list[Video] = field(default_factory=list)
    touched: float = field(default_factory=time.monotonic)

    @property
    def film_frames(self) -> int:
        return sum(len(dream) for dream in self.dreams)

    def append(self, message: dict[str, Any]) -> None:
        content = packb(message)
        self.file.write(_LENGTH.pack(len(content)) + content)
        self.file.flush()
        self.bytes += len(content)
        self.touched = time.monotonic()


# ---------------------------------------------------------------- reading


def read_recording(file: Path) -> Iterator[dict[str, Any]]:
    """The maps of a recording, the policy first. A last map that is cut off is left out. Raises ValueError."""
    with file.open("rb") as stream:
        first = True
        while head := stream.read(_LENGTH.size):
            if len(head) < _LENGTH.size:
                return
            (length,) = _LENGTH.unpack(head)
            if length > _LIMITS.frame_bytes:
                raise ValueError(f"{file}: no recording of `wam serve --record`")
            content = stream.read(length)
            if len(content) < length:
                return
            try:
                message = unpackb(content, _LIMITS)
            except WireError as problem:
                raise ValueError(f"{file}: no recording of `wam serve --record` ({problem})") from problem
            if first and (not isinstance(message, dict) or message.get("format") != FORMAT):
                raise ValueError(f"{file}: no recording of `wam serve --record`: it does not begin with {FORMAT!r}")
            first = False
            yield message


def recorded_actions(
    source: Path, robot: Embodiment | None, episode: int = 0
) -> tuple[npt.NDArray[np.float32], Embodiment]:
    """The actions (L, A) in robot units of a recording, or of an episode of a LeRobot data set, and the robot.

    Raises ValueError or OSError naming what is missing.
    """
    if source.is_dir():
        if robot is None:
            raise ValueError(f"{source}: a data set does not say whose it is; name the robot with --robot")
        return _dataset_actions(source, robot, episode), robot
    messages = read_recording(source)
    head = next(messages, None)
    if head is None:
        raise ValueError(f"{source}: the recording is empty")
    played = [message["actions"] for message in messages]
    if not played:
        raise ValueError(f"{source}: the recording has no answers")
    return np.concatenate(played), robot or Served.from_dict(head["served"]).robot


def _dataset_actions(source: Path, robot: Embodiment, episode: int) -> npt.NDArray[np.float32]:
    from wam.data.lerobot_reader import LeRobotDataset
    from wam.data.vectors import columns_of, gathered

    dataset = LeRobotDataset(source)
    if not 0 <= episode < dataset.num_episodes:
        raise ValueError(f"{source}: --episode: found {episode}, expected 0 to {dataset.num_episodes - 1}")
    columns = dataset.columns(episode, sorted(columns_of(robot.action, "action")))
    return np.asarray(gathered(columns, robot.action, "action"), np.float32)
