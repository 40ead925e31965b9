"""wam imagine: ask a model what will be seen, what it would do, or what was done, from a recorded or simulated present.

Example:
    wam imagine nano-metaworld --data data/kitchen --episode 3 --row 40 --mode policy
    wam imagine nano-metaworld --task push --seed 1 --mode forward --actions hold
    wam imagine runs/arm/model --data film.mp4 --sentence "open the drawer" --mode inverse --chunks 0
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image
from rich.console import Console

from wam.cli.data_pictures import film_tag, picture_tag
from wam.cli.data_plots import COLOURS, plot
from wam.data.files import write_atomic
from wam.data.lerobot_reader import LeRobotDataset
from wam.engine.load import load_policy
from wam.engine.modes import Mode, unfamiliar
from wam.evaluate.imagination import Imagination, action_unit, held, imagine
from wam.evaluate.page import page
from wam.evaluate.rollout import Frames
from wam.evaluate.scenes import Moment, Numbers, Scene, from_dataset, from_film, from_metaworld
from wam.evaluate.strips import side_by_side, strip
from wam.evaluate.video import encode_mp4
from wam.flow.sampler import Sampler
from wam.robot.embodiment import Embodiment
from wam.sim.tasks import SPLITS

FILMS = (".mp4", ".mkv", ".webm", ".mov", ".avi")


@dataclass(frozen=True)
class Imagine:
    """Imagine what follows a present; writes pictures, a film, actions and a page into OUT.

    policy: video and actions.  video: video alone.  forward: the video after given actions.  inverse: the actions
    behind the recorded video.  action-only: actions without video.
    """

    checkpoint: tyro.conf.Positional[str] = "nano-metaworld"
    """A shipped name or a folder written by `wam train`."""
    mode: Mode = "policy"
    """The question."""
    data: str | None = None
    """Where the present is: a LeRobot data set (folder or Hub id), or a film of the robot's canvas."""
    episode: int = 0
    """Which episode of the data set."""
    task: str | None = None
    """A Meta-World task, instead of data: the scripted expert acts up to the present, and after it."""
    seed: int = 0
    """Which unseen initial state of the task (0 is the first of the test split)."""
    row: int = 0
    """The present, in control steps since the start."""
    chunks: int = 4
    """How many chunks to imagine; 0: to the end of the recording, or of the simulated episode."""
    actions: str = "recorded"
    """Mode forward: recorded, hold (the last action over and over), or a file.npy of (chunks x N, A) in robot units."""
    sentence: str | None = None
    """What to ask for, instead of what was recorded."""
    steps: int = 4
    """Denoising steps per chunk."""
    video_final: float = 0.0
    """Noise level at which the video stops; above 0 for one chunk only, since noise is not remembered."""
    real_states: bool = False
    """Tell the model the real state before later chunks, which a world model would not know."""
    robot: str | None = None
    """Which of the robots that the model knows; the first when left out."""
    noise: int = 0
    """Seed of the noise."""
    device: str = "cpu"
    """Where the network runs, such as cuda."""
    out: Path = Path("runs/imagine")
    json: bool = False
    """Print one line of JSON at the end."""


def main(config: Imagine) -> None:
    """Imagine, write, print."""
    _check(config)
    console = Console(stderr=True, markup=False)
    engine = load_policy(config.checkpoint, steps=config.steps, robot=config.robot, device=config.device).engine
    robot, moment = engine.embodiment, Moment(config.row, config.chunks)
    scene = _scene(config, moment, robot)
    chosen = _chosen(config, scene, robot)
    if chosen is not None and config.task is not None:  # a simulator can tell what really follows
        scene, chosen = _metaworld(config, config.task, moment, robot, chosen), None
    found = imagine(
        engine,
        scene,
        config.mode,
        actions=chosen,
        sampler=Sampler(steps=config.steps, video_final=config.video_final),
        real_states=config.real_states,
        seed=config.noise,
    )
    written = _write(config.out, scene, found, robot, followed=chosen is None)
    unlearned = unfamiliar(engine.model.config.noise, config.mode, config.video_final)
    for line in _told(found, robot):
        console.print(line, highlight=False)
    console.print(f"page: {written['page'].resolve()}", highlight=False, soft_wrap=True)
    if config.json:
        facts: dict[str, Any] = {"mode": config.mode, "scene": scene.caption, "chunks": len(scene.future)}
        facts |= {"warning": unlearned, **found.scores, "action_unit": action_unit(robot)}
        print(json.dumps(facts | {name: str(path) for name, path in written.items()}))


# -- the present, and what is done in it -------------------------------------------------------------------------------


def _check(config: Imagine) -> None:
    if (config.data is None) == (config.task is None):
        raise ValueError("give either --data (a data set or a film) or --task (a Meta-World task)")
    if config.actions != "recorded" and config.mode != "forward":
        raise ValueError(f"--actions {config.actions} is for --mode forward; in mode {config.mode} none are given")
    if not 0.0 <= config.video_final <= 1.0 or (0.0 < config.video_final < 1.0 and config.chunks != 1):
        raise ValueError(
            f"--video-final is {config.video_final}: expected a level from 0 to 1, with --chunks 1 between them: a "
            "noisy video is no memory to go on from"
        )


def _scene(config: Imagine, moment: Moment, robot: Embodiment) -> Scene:
    if config.task is not None:
        return _metaworld(config, config.task, moment, robot)
    assert config.data is not None, "checked"
    if Path(config.data).suffix.lower() in FILMS:
        return from_film(Path(config.data), moment, robot, config.sentence or "")
    dataset = LeRobotDataset(config.data, check=False)
    if not 0 <= config.episode < dataset.num_episodes:
        raise ValueError(
            f"{dataset.root}: --episode is {config.episode}, there are episodes 0 to {dataset.num_episodes - 1}"
        )
    executed = config.mode in ("forward", "inverse")  # what led to the video, where that is not what was wanted
    return from_dataset(dataset, config.episode, moment, robot, config.sentence, executed)


def _metaworld(config: Imagine, task: str, moment: Moment, robot: Embodiment, actions: Numbers | None = None) -> Scene:
    return from_metaworld(task, SPLITS["test"].seed(config.seed), moment, robot, actions, config.sentence)


def _chosen(config: Imagine, scene: Scene, robot: Embodiment) -> Numbers | None:
    """Actions (C, N, A) other than the recorded ones. Raises ValueError naming what is wrong with the file."""
    if config.actions == "recorded":
        return None
    if config.actions == "hold":
        return held(scene, robot)
    shape = (len(scene.future), robot.actions_per_chunk, robot.action_dim)
    try:
        with open(config.actions, "rb") as file:
            found = np.lib.format.read_array(file, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{config.actions}: not a .npy file of numbers ({error})") from error
    if found.size != np.prod(shape) or found.shape[-1:] != shape[-1:] or found.dtype.kind not in "fiu":
        raise ValueError(
            f"{config.actions}: holds {found.dtype} {found.shape}, expected {(shape[0] * shape[1], shape[2])}: "
            f"{shape[0]} chunks of {shape[1]} actions, each {list(robot.action_names)}"
        )
    actions: Numbers = found.astype(np.float32).reshape(shape)
    return actions


# -- what comes out ----------------------------------------------------------------------------------------------------


def _told(found: Imagination, robot: Embodiment) -> list[str]:
    """The scores in words."""
    scores, lines = found.scores, []
    if "psnr" in scores:
        lines.append(f"dream {scores['psnr']:.1f} dB, no motion {scores['psnr_still']:.1f} dB")
    if "action_rmse" in scores:
        lines.append(
            f"actions: {scores['action_rmse']:.3f} {action_unit(robot)} from those done; holding the last "
            f"{scores['hold_last']:.3f}, the mean {scores['hold_mean']:.3f}"
        )
    return lines or ["nothing to compare with: what really followed, followed something else, or is not known"]


def _write(out: Path, scene: Scene, found: Imagination, robot: Embodiment, followed: bool) -> dict[str, Path]:
    """followed: whether the real video is what came of these actions."""
    per_chunk = (len(found.real) - 1) // len(scene.future)
    real = "real" if followed else "recorded"
    rows: dict[str, Frames] = {real: found.real} | ({} if found.dreamed is None else {"dream": found.dreamed})
    seconds = robot.video_stride / robot.control_hz
    picture = strip(scene.caption, _told(found, robot)[0], rows, per_chunk, seconds)
    film = side_by_side([[frames] for frames in rows.values()], 1 / seconds)
    written = {"strip": out / "strip.png", "film": out / "film.mp4", "page": out / "imagine.html"}
    write_atomic(written["strip"], lambda path: Image.fromarray(picture).save(path, format="PNG"))
    write_atomic(written["film"], lambda path: path.write_bytes(encode_mp4(film, 1 / seconds)))
    tables = {"imagined" if found.mode != "forward" else "given": found.actions}
    if found.mode != "forward":
        tables["recorded"] = scene.actions
    known = {name: table.reshape(-1, robot.action_dim) for name, table in tables.items() if table is not None}
    if found.actions is not None:
        written |= {"actions": out / "actions.npy", "table": out / "actions.csv"}
        actions = found.actions.reshape(-1, robot.action_dim)
        write_atomic(written["actions"], lambda path: _save_array(path, actions))
        write_atomic(written["table"], lambda path: path.write_text(_table(known, robot), encoding="utf-8"))
    html = _page(scene, found, robot, picture, film_tag(film, 1 / seconds), known)
    write_atomic(written["page"], lambda path: path.write_text(html, encoding="utf-8"))
    return written


def _save_array(path: Path, actions: Numbers) -> None:
    with open(path, "wb") as handle:  # a name would be given another ending
        np.save(handle, actions, allow_pickle=False)


def _table(tables: Mapping[str, Numbers], robot: Embodiment) -> str:
    """One line per control step: seconds after the present, then every dimension of every table."""
    target = io.StringIO()
    lines = csv.writer(target, lineterminator="\n")
    lines.writerow(["seconds", *(f"{name} {dim}" for name in tables for dim in robot.action_names)])
    for step, row in enumerate(np.concatenate(list(tables.values()), axis=1).tolist()):
        lines.writerow([f"{step / robot.control_hz:.6g}", *(f"{value:.6g}" for value in row)])
    return target.getvalue()


def _page(
    scene: Scene, found: Imagination, robot: Embodiment, picture: Frames, film: str, tables: Mapping[str, Numbers]
) -> str:
    told = "".join(f"<p>{escape(line)}</p>" for line in _told(found, robot))
    style = "<style>h4 { font-size: .85rem; font-weight: 600; margin: 10px 0 2px; } img { max-width: 100%; }</style>"
    body = f"""{style}<h1>{escape(found.mode)}</h1>
<section><p class="sentence">{escape(scene.caption)}</p>{told}<figure>{film}</figure></section>
<section><h2>Last frame of every chunk</h2>{picture_tag(picture, "film strip")}</section>"""
    if tables:
        body += _plots(robot, tables)
    return page(f"imagine: {found.mode}", body)


def _plots(robot: Embodiment, tables: Mapping[str, Numbers]) -> str:
    plots = "".join(
        plot(name, {table: values[:, dim] for table, values in tables.items()}, robot.control_hz)
        for dim, name in enumerate(robot.action_names)
    )
    legend = "".join(
        f'<span class="chip"><b style="color:{COLOURS[i]}">&#9644;</b> {escape(name)}</span>'
        for i, name in enumerate(tables)
    )
    return f'<section><h2>Actions</h2><div class="chips">{legend}</div>{plots}</section>'
