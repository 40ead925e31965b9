"""wam serve: one server for every robot client: openpi and RoboArena over a websocket, GR00T over ZMQ.

Example:
    wam serve nano-metaworld
    wam serve runs/kitchen/model --port 8000 --zmq-port 5555 --record runs/served --decode-video
    wam serve --echo droid-franka
    wam serve --replay data/kitchen --robot kitchen.yaml --episode 3
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.table import Table

from wam.cli.loop import Loop
from wam.cli.published import Published, refuse_foreign
from wam.serve.backends import CheckpointSource, EchoSource, ReplaySource, Source, locate, robot_of
from wam.serve.released import ReleasedSource
from wam.serve.server import Record, Started, WamServer, Where
from wam.serve.service import Limits
from wam.serve.supervisor import Patience, WorkerBroken
from wam.serve.websocket import Door

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Serve:
    """Serve a policy to robots.

    Example: wam serve nano-metaworld
    """

    checkpoint: tyro.conf.Positional[str | None] = None
    """A folder written by `wam train`, a Hub id ("owner/name@revision"), or the name of a shipped model; or weights
    that DreamZero published, which run as their own server does, or as --published... and --robot, --decode-video and
    --device say."""
    echo: str | None = None
    """Without a model: tell this robot to hold still. A robot's name, its YAML file, or a checkpoint that knows it."""
    replay: str | None = None
    """Without a model: play the actions of a file of --record, or of an episode of a LeRobot data set."""
    episode: int = 0
    """Which episode of the data set."""
    loop: tyro.conf.OmitArgPrefixes[Loop] = Loop()
    published: Published = Published()
    threads: int | None = None
    """Of the model's process; torch's own choice when left out."""
    seed: int = 0
    """Decides the noise of every session, together with its name; a client may bring its own."""

    host: str = "127.0.0.1"
    """Address to listen on; anything but loopback should have a token."""
    port: int = 8000
    """Of the websocket, /healthz and /metrics; 0: the system chooses."""
    zmq_port: int | None = None
    """Speak GR00T's dialect on this port, too."""
    allow_kill: bool = False
    """Let GR00T clients end the server."""
    token_file: Path | None = None
    """File with the token that clients must bring."""
    origins: tuple[str, ...] = ()
    """Web pages that may connect, such as http://localhost:8080; without any, no browser can."""

    batch: int = 8
    """Sessions that are computed together at most; with 1 every answer is bit for bit that of a session alone."""
    sessions: int = 64
    """Episodes at once."""
    waiting: int = 64
    """Requests at once, over all sessions; beyond, a client is told that the server is busy."""
    idle_seconds: float = 600.0
    """End a session that nobody has used for so long."""
    step_seconds: float = 120.0
    """Restart a model that has not answered for so long."""
    frame_mb: int = 64
    """Largest request, in megabytes."""
    missing_camera: Literal["error", "black", "duplicate"] = "error"
    """What to do about a request without one of the robot's cameras."""
    record: Path | None = None
    """Keep requests, replies and dreamed video in this folder."""
    record_gb: float = 10.0
    """Size of that folder; the oldest recordings go first."""
    json: bool = False
    """Print one line of JSON when the server listens."""

    def source(self) -> Source:
        """Raises ValueError unless exactly one policy is named."""
        given = [name for name in ("checkpoint", "echo", "replay") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"found {given or 'nothing to serve'}; give a checkpoint, --echo ROBOT or --replay FILE")
        if self.echo is not None:
            return EchoSource(robot_of(self.echo))
        if self.replay is not None:
            robot = None if self.loop.robot is None else robot_of(self.loop.robot)
            return ReplaySource(self.replay, robot, self.episode)
        checkpoint = str(self.checkpoint)
        ours = locate(checkpoint).ours
        refuse_foreign(checkpoint, self.loop, self.published, ours)
        if ours:
            return CheckpointSource(checkpoint, dataclasses.asdict(self.loop), self.threads)
        published, loop = self.published, self.loop
        config = published.policy(loop)
        return ReleasedSource(checkpoint, loop.robot, loop.device, published.fit, config, self.threads)

    def server(self) -> WamServer:
        """Raises ValueError or OSError naming the option that does not fit, before any model is looked for."""
        token = None if self.token_file is None else self.token_file.read_text().strip()
        if token == "":
            raise ValueError(f"{self.token_file}: the file is empty")
        where = Where(self.host, self.port, self.zmq_port, self.allow_kill)
        door = Door(token, self.origins, self.frame_mb * 2**20)
        patience = Patience(step=self.step_seconds)
        limits = Limits(self.sessions, self.waiting, self.idle_seconds, self.batch, patience)
        record = None if self.record is None else Record(self.record, int(self.record_gb * 2**30))
        return WamServer(
            self.source(), where, door, limits, seed=self.seed, missing_camera=self.missing_camera, record=record
        )


def main(options: Serve) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    logging.getLogger("wam").setLevel(logging.INFO)
    logging.getLogger("websockets.server").setLevel(logging.CRITICAL)  # it shows a traceback for every port scan
    console = Console(stderr=True, markup=False)
    if options.host not in LOOPBACK and options.token_file is None:
        warning = f"{options.host}: anybody who reaches this address can move the robot; use --token-file"
        console.print(warning, style="yellow")
    server = options.server()
    console.print("loading the model ...")

    def started(where: Started) -> None:
        if options.json:
            print(json.dumps({"host": where.host, "port": where.port, "zmq_port": where.zmq_port}), flush=True)
        console.print(_overview(where))

    try:
        asyncio.run(server.run(started))
    except WorkerBroken as problem:
        raise ValueError(str(problem)) from problem


def _overview(where: Started) -> Table:
    served, cadence, robot = where.served, where.served.cadence, where.served.robot
    table = Table(show_header=False, box=None)
    table.add_row("serving", f"{served.model} ({served.revision}) for {robot.name}")
    table.add_row("websocket", f"ws://{where.host}:{where.port} (openpi, RoboArena); /healthz, /metrics")
    if where.zmq_port is not None:
        table.add_row("ZMQ", f"tcp://{where.host}:{where.zmq_port} (GR00T)")
    table.add_row("actions", f"{robot.actions_per_chunk} x {list(robot.action_names)} at {robot.control_hz:g} Hz")
    frames = f"{cadence.frames}, one every {cadence.stride} control steps" if served.remembers else "the present one"
    table.add_row("frames", f"{frames}, of {list(robot.cameras)}")
    return table
