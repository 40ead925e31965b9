"""wam play: a local page on which a model acts in Meta-World, while you watch, talk to it and interrupt it.

Example:
    wam play
    wam play runs/mt10/model --task window-open --port 8300
    wam play --task "slide the window open" --rerun runs/window.rrd
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import tyro
from rich.console import Console

from wam.engine.load import load_policy
from wam.engine.warm_up import warm_up
from wam.evaluate.rerun_log import rerun_module, write_recording
from wam.evaluate.sources import MetaWorldSource, trained_tasks
from wam.play.episode import SteeredEpisode
from wam.play.player import Player, Stage
from wam.robot.embodiment import Embodiment
from wam.sim.tasks import SPLITS, TASKS, asked_for


@dataclass(frozen=True)
class Play:
    """Serve a page on 127.0.0.1: the robot's cameras, what the model dreams, its actions, and where its time goes.

    Needs the package nicegui (pip install -e ".[play]"). The model and the simulator have a thread of their own.

    Example: wam play --task drawer-open
    """

    checkpoint: tyro.conf.Positional[str] = "nano-metaworld"
    """A shipped name or a folder written by `wam train`."""
    task: str = "drawer-open"
    """The first scene: one of the 50 Meta-World tasks, or a sentence that asks for one."""
    seed: int = 1
    """Which unseen initial state (0 is the first of the test split)."""
    steps: int = 4
    """Denoising steps per chunk; fewer are faster, and blur the dream."""
    temperature: float = 1.0
    """Scale of the noise that actions begin as; 0, as nano-mt50 was tested, leaves none in those of a single step."""
    device: str = "cpu"
    """Where the network runs, such as cuda."""
    rerun: Path | None = None
    """Keep recordings of all episodes for the Rerun viewer (pip install -e ".[viz]"): FILE, then FILE-2, FILE-3, ..."""
    port: int = 8300
    """Port of the page; 0 for any that is free."""
    browser: bool = True
    """Open the page in a browser."""


def main(config: Play) -> None:
    """Load the model, open the first scene, serve until interrupted."""
    if find_spec("nicegui") is None:
        raise ImportError('wam play needs the package nicegui, which is not installed: pip install -e ".[play]"')
    from wam.play.page import HOST, Show, serve

    if config.rerun is not None:
        rerun_module()  # before any work: is it there?
    console = Console(stderr=True, markup=False)
    task = asked_for(config.task)
    # Remembering in a pass of its own costs a little time, and shows how much of it remembering takes.
    policy = load_policy(
        config.checkpoint,
        steps=config.steps,
        temperature=config.temperature,
        decode_video=True,
        joint_pass=False,
        device=config.device,
    )
    with console.status("warming up"):
        warm_up(policy.engine)
    keep = _Recorder(config.rerun, policy.embodiment)
    stage = Stage(MetaWorldSource(embodiment=policy.embodiment), policy.embodiment, SPLITS["test"].seed, finished=keep)
    player = Player(policy, stage)
    player.choose(task.name, config.seed, None if config.task in TASKS else config.task)
    show = Show(
        config.checkpoint,
        policy.embodiment,
        _labels(trained_tasks(config.checkpoint)),
        sorted(task.sentence for task in TASKS.values()),
        _scene_of,
    )
    port = config.port or _free_port(HOST)
    console.print(f"http://{HOST}:{port}   Ctrl-C ends it", highlight=False)
    serve(player, show, port, open_browser=config.browser)


@dataclass
class _Recorder:
    """Writes every finished episode as a recording, if there is a target."""

    target: Path | None
    robot: Embodiment
    written: int = 0

    def __call__(self, episode: SteeredEpisode) -> None:
        if self.target is not None:
            self.written += 1
            number = "" if self.written == 1 else f"-{self.written}"
            path = self.target.with_name(f"{self.target.stem}{number}{self.target.suffix or '.rrd'}")
            write_recording(episode.result(), self.robot, path, episode.said)


def _labels(trained: tuple[str, ...] | None) -> dict[str, str]:
    """All tasks by name, those that the model has learned first."""
    if trained is None:
        return {name: name for name in sorted(TASKS)}
    others = sorted(set(TASKS) - set(trained))
    return {name: name for name in trained} | {name: f"{name} (not in its training)" for name in others}


def _scene_of(sentence: str) -> str | None:
    try:
        return asked_for(sentence).name
    except ValueError:
        return None


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
