"""What mattered: one change at a time from one model, each trained and evaluated alike, compared on the same episodes.

Every ablation is a line of ABLATIONS: options of `wam train`, options of `wam eval`, and a material (data, tokenizer
and robot, made here by `wam collect` and `wam train-tokenizer`). The budget counts steps, so other work on the machine
does not matter. What is finished is not done again; after --minutes the experiment stops with code 75 and goes on when
the same command is given again. Results: results.jsonl, table.md and minutes.png.

Usage: .venv/bin/python -m recipes.ablations --out runs/ablations --only "actions only" decoupled --seeds 0 1 2
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro
from recipes.runs import AGAIN, Commands, OutOfTime, finished, same_settings, side_by_side

from recipes import curve
from wam.checkpoints.model_folder import tokenizer_of
from wam.engine.load import resolve
from wam.evaluate.compare import compare
from wam.evaluate.results import EpisodeRecord
from wam.evaluate.statistics import Estimate, mean, wilson
from wam.robot.embodiment import load_embodiment
from wam.train.tokenizer import CHECKPOINT_FILE

BASE = "base"
SIZE = "--size.dim 128 --size.heads 2 --batch 16"  # half as wide as nano, so that a training takes minutes
TRAIN = f"--noise.mode coupled --noise.video-at-noise 0.4 --see-previous --compile {SIZE}"
EVAL = "--steps 1 --max-env-steps 200"  # experts need at most 128 here, and hardly any success comes after that
PRECISE = "push pick-place peg-insert-side reach"


@dataclass(frozen=True)
class Material:
    """Demonstrations and what looks at them.

    robot: changes to the embodiment `of`.  collect: further options.  tokenizer: the shipped model whose tokenizer saw
    such pictures; None: one is trained.  data: the material whose demonstrations these are; None: its own.
    """

    of: str = "metaworld-sawyer"
    robot: dict[str, Any] = dataclasses.field(default_factory=dict)
    collect: str = ""
    tokenizer: str | None = "nano-metaworld"
    data: str | None = None


@dataclass(frozen=True)
class Ablation:
    """One change. train, evaluate: options given beside those of the base; a later one of the same name counts."""

    train: str = ""
    evaluate: str = ""
    material: str = BASE
    why: str = ""

    @property
    def trains(self) -> bool:
        """Whether it needs weights of its own; the others run the base model in another way."""
        return bool(self.train) or self.material != BASE


ABSOLUTE = tuple(dataclasses.replace(part, relative=False) for part in load_embodiment("metaworld-positions").action)
MATERIALS = {
    BASE: Material(),
    "one camera": Material("metaworld-corner2", tokenizer="nano-mt50-corner2"),
    "one camera 64": Material("metaworld-corner2", {"view_height": 64, "view_width": 64}, tokenizer=None),
    "two cameras 96": Material(robot={"view_height": 96, "view_width": 96}, tokenizer=None),
    "long chunk": Material(robot={"frames_per_chunk": 2, "actions_per_chunk": 16}, data=BASE),
    "positions": Material("metaworld-positions", data=BASE),
    "absolute positions": Material("metaworld-positions", {"action": ABSOLUTE}, data=BASE),
    "slow video": Material(robot={"video_stride": 4, "actions_per_chunk": 16}, data=BASE),
    "undisturbed": Material(collect="--disturbance 0"),
    "few initial states": Material(collect="--repeats 10"),
    "detours": Material(collect=f"--detours {' '.join(f'{task} 20' for task in PRECISE.split())}"),
}

ABLATIONS = {
    BASE: Ablation(),
    "actions only": Ablation("--no-dream", why="no video to denoise"),
    "no video loss": Ablation("--video-weight 0", why="video tokens, but nothing asks that they be right"),
    "video weight 1": Ablation("--video-weight 1"),
    "decoupled": Ablation("--noise.mode decoupled --noise.video-at-noise 0", why="independent noise levels"),
    "coupled, plain": Ablation("--noise.video-at-noise 0", why="no extra video at pure noise"),
    "flash": Ablation("--noise.mode flash --noise.video-at-noise 0", why="video nearly always near noise"),
    "no previous frame": Ablation("--no-see-previous"),
    "narrow": Ablation("--size.dim 64 --size.heads 1", why="a quarter of the weights"),
    "nano": Ablation("--size.dim 256 --size.heads 4", why="four times the weights, as the shipped models"),
    "shallow": Ablation("--size.layers 3"),
    "fine patches": Ablation("--size.patch 2", why="four times the video tokens"),
    "short memory": Ablation("--size.memory 1 --windows.chunks 2"),
    "long memory": Ablation("--size.memory 4 --windows.chunks 5"),
    "bidirectional": Ablation(
        "--size.no-autoregressive --windows.chunks 1", "--memory none", why="sees no chunk before the present one"
    ),
    "no averaging": Ablation("--optimizer.ema 0"),
    "half the data": Ablation("--windows.labelled-share 0.5 --windows.labelled-part 1"),
    "a tenth of the data": Ablation("--windows.labelled-share 0.1 --windows.labelled-part 1"),
    "one camera": Ablation(material="one camera", why="96 x 96 from the corner"),
    "one camera 64": Ablation(material="one camera 64"),
    "two cameras 96": Ablation(material="two cameras 96"),
    "long chunk": Ablation(material="long chunk", why="16 actions, 2 latent frames"),
    "slow video": Ablation(material="slow video", why="16 actions, 1 latent frame"),
    "positions": Ablation(material="positions", why="where the hand should be, relative to where the chunk begins"),
    "absolute positions": Ablation(material="absolute positions", why="the same in metres of the room"),
    "few initial states": Ablation(material="few initial states", why="as many episodes, of a tenth of the states"),
    "undisturbed": Ablation(material="undisturbed", why="experts without action noise"),
    "detours": Ablation(material="detours", why="demonstrations of recovery"),
    "4 steps": Ablation(evaluate="--steps 4"),
    "16 steps": Ablation(evaluate="--steps 16"),
    "4 steps, video left noise": Ablation(evaluate="--steps 4 --video-final 1"),
    "no noise in the actions": Ablation(evaluate="--temperature 0", why="one step from the mean of the noise"),
    "no memory": Ablation(evaluate="--memory none"),
    "half chunks": Ablation(evaluate="--memory none --execute 4", why="plans anew twice as often"),
}


@dataclass(frozen=True)
class Config:
    """What mattered, as measured."""

    out: Path
    only: tuple[str, ...] = ()
    """Names of ablations; all when left out. The base is always among them."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds."""
    steps: int = 750
    """Of training, for each."""
    models_every: int = 250
    """Steps between models that show how success grows, for the base and what is trained beside it."""
    tasks: str = "mt10"
    demonstrations: int = 50
    """Per task."""
    tokenizer_steps: int = 1500
    """Of the tokenizers that are trained here."""
    episodes: int = 20
    """Test episodes per task."""
    curve_episodes: int = 5
    """Validation episodes per task of the models along the way; 0: no curve."""
    workers: int = 2
    """Trainings side by side, one core each."""
    device: str = "cpu"
    """Where pictures are encoded; a training takes a GPU that it finds."""
    minutes: float | None = None
    """Stop after so long; what is unfinished goes on next time."""
    join: tuple[Path, ...] = ()
    """Further folders of this experiment, from other sessions or machines, whose results count too."""
    train_options: str = ""
    """More options of `wam train`, for all."""

    @property
    def folders(self) -> tuple[Path, ...]:
        return (self.out, *self.join)

    @property
    def settings(self) -> dict[str, Any]:
        """What two sessions must have in common for their results to be compared."""
        names = ("steps", "tasks", "demonstrations", "tokenizer_steps", "episodes")
        train = f"{TRAIN} {self.train_options}".strip()
        return {**{name: getattr(self, name) for name in names}, "train": train, "eval": EVAL}


@dataclass(frozen=True)
class Run:
    """An ablation with one training seed."""

    name: str
    seed: int

    @property
    def folder(self) -> str:
        return f"{slug(self.name)}-seed{self.seed}"

    @property
    def weights(self) -> Run:
        """The run whose training it uses."""
        return self if ABLATIONS[self.name].trains else Run(BASE, self.seed)


def plan(config: Config) -> list[Run]:
    """Seed by seed, the base first. Raises ValueError for an unknown name."""
    unknown = [name for name in config.only if name not in ABLATIONS]
    if unknown:
        raise ValueError(f"--only {unknown[0]!r}: there is no such ablation; known are {list(ABLATIONS)}")
    names = [name for name in ABLATIONS if not config.only or name in {BASE, *config.only}]
    return [Run(name, seed) for seed in config.seeds for name in names]


def main(config: Config) -> int:
    """Do what is missing, then write what there is; 75 when time ran out."""
    runs = plan(config)
    same_settings(config.out, config.settings, config.join)
    experiment = Experiment(config, Commands(config.minutes))
    try:
        complete = experiment.run(runs)
    finally:
        report(config, runs)
    return 0 if complete else AGAIN


class Experiment:
    """Does what is missing: every training on its material, then the evaluations of its weights.

    What fails stops only what needs it.
    """

    def __init__(self, config: Config, commands: Commands) -> None:
        self.config, self.commands, self.wam = config, commands, commands.wam
        self.preparing = threading.Lock()  # materials are made one after the other, with all workers

    def run(self, runs: list[Run]) -> bool:
        """Whether all is done."""
        todo = [run for run in runs if finished(self.config.folders, run.folder) is None]
        trainings = dict.fromkeys(run.weights for run in todo)

        def train_and_evaluate(weights: Run) -> None:
            name = ABLATIONS[weights.name].material
            for material in dict.fromkeys((MATERIALS[name].data or name, name)):
                with self.preparing:
                    self.prepare(material)
            self.train(weights)
            evaluations = [partial(self.evaluate, run) for run in todo if run.weights == weights]
            if not side_by_side(lambda work: work(), [partial(self.evaluate_on_the_way, weights), *evaluations], 1):
                raise OutOfTime

        return side_by_side(train_and_evaluate, trainings, self.config.workers)

    def material(self, name: str) -> Path:
        return self.config.out / "material" / slug(name)

    def training(self, run: Run) -> Path:
        return self.config.out / "runs" / run.weights.folder

    def data(self, name: str) -> Path:
        return self.material(MATERIALS[name].data or name) / "data"

    def tokenizer(self, name: str) -> Path:
        shipped = MATERIALS[name].tokenizer
        return self.material(name) / "tokenizer" if shipped is None else tokenizer_of(resolve(shipped))

    def prepare(self, name: str) -> None:
        """Robot, demonstrations, tokenizer and latents of a material."""
        folder, material, config = self.material(name), MATERIALS[name], self.config
        if (folder / "ready").exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        robot = load_embodiment(material.of)
        if material.robot:
            robot = dataclasses.replace(robot, name=f"{material.of}-{slug(name)}", **material.robot)
        robot.to_yaml(folder / "robot.yaml")
        common = ("--embodiment", folder / "robot.yaml")
        if material.data is None:
            self.wam("collect", "--out", self.data(name), "--tasks", config.tasks, *common, "--workers", config.workers,
                     "--episodes-per-task", config.demonstrations, *material.collect.split())  # fmt: skip
        if material.tokenizer is None and not (self.tokenizer(name) / "report.json").exists():
            resume = ["--resume"] if (self.tokenizer(name) / CHECKPOINT_FILE).exists() else []
            self.wam("train-tokenizer", "--data", self.data(name), "--out", self.tokenizer(name), *common,
                     "--minutes", None, "--steps", config.tokenizer_steps, "--threads", 1,
                     *resume)  # fmt: skip
        self.wam("data", "encode", self.data(name), "--tokenizer", self.tokenizer(name), *common,
                 "--device", config.device)  # fmt: skip
        (folder / "ready").touch()

    def train(self, run: Run) -> None:
        if (self.training(run) / "model" / "config.json").exists():
            return
        ablation, config = ABLATIONS[run.name], self.config
        name = ablation.material
        words = f"{TRAIN} {config.train_options} {ablation.train}".split()
        self.wam("train", "--data", self.data(name), "--tokenizer", self.tokenizer(name), "--embodiment",
                 self.material(name) / "robot.yaml", "--out", self.training(run), "--steps", config.steps, "--seed",
                 run.seed, "--models-every", config.models_every, "--threads", 1, *words)  # fmt: skip

    def evaluate_on_the_way(self, run: Run) -> None:
        """Validation episodes of the models that were saved while it trained, and of the last."""
        config, options = self.config, f"{EVAL} {ABLATIONS[run.name].evaluate}"
        if config.curve_episodes:
            place = config.out / "curves" / run.folder
            asked = curve.Curve(self.training(run), place, config.tasks, config.curve_episodes, options, workers=1)
            curve.evaluate(self.commands, asked)

    def evaluate(self, run: Run) -> None:
        """The test episodes."""
        config, words = self.config, f"{EVAL} {ABLATIONS[run.name].evaluate}".split()
        self.wam("eval", self.training(run) / "model", "--tasks", config.tasks, "--split", "test", "--episodes",
                 config.episodes, "--workers", 1, "--label", run.folder, "--out",
                 config.out / "results" / run.folder, *words)  # fmt: skip


# ---------------------------------------------------------------- what came of it


@dataclass(frozen=True)
class Row:
    """An ablation over its finished seeds.

    rate: mean over tasks and seeds. difference: to the base with the same seeds, on the same episodes, or None. Both
    intervals speak of other episodes of these tasks, given these trainings; `by_seed` shows how trainings differ.
    """

    name: str
    seeds: tuple[int, ...]
    successes: int
    n: int
    rate: Estimate
    difference: Estimate | None
    by_seed: tuple[float, ...]


def rows_of(results: dict[Run, list[EpisodeRecord]]) -> list[Row]:
    """One row for every ablation with a finished run, in the order of the table."""
    rows = []
    for name in ABLATIONS:
        own = {run.seed: episodes for run, episodes in results.items() if run.name == name}
        if not own:
            continue
        rate = mean([mean_over_tasks(episodes) for episodes in own.values()])
        pairs = {seed: results[Run(BASE, seed)] for seed in own if name != BASE and Run(BASE, seed) in results}
        found = [compare(own[seed], base, name, BASE).over_tasks for seed, base in pairs.items()]
        episodes = [episode for run in own.values() for episode in run]
        solved = sum(episode.success for episode in episodes)
        rows.append(Row(name, tuple(own), solved, len(episodes), rate, mean(found) if found else None,
                        tuple(difference.value for difference in found)))  # fmt: skip
    return rows


def mean_over_tasks(episodes: list[EpisodeRecord]) -> Estimate:
    by_task: dict[str, list[bool]] = {}
    for episode in episodes:
        by_task.setdefault(episode.task, []).append(episode.success)
    return mean([wilson(sum(solved), len(solved)) for solved in by_task.values()])


def markdown(rows: list[Row], config: Config) -> str:
    lines = [
        f"{config.tasks}, {config.demonstrations} demonstrations per task, {config.steps} training steps, "
        f"{config.episodes} test episodes per task and seed, paired with `{BASE}` of the same seed.",
        "",
        "| ablation | change | seeds | k/n | success % | points against the base | verdict | seed by seed |",
        "|---|---|---|--:|--:|--:|---|---|",
    ]
    for row in rows:
        ablation = ABLATIONS[row.name]
        options = f"`{ablation.train} {ablation.evaluate}`".replace("` ", "`").replace(" `", "`").replace("``", "")
        change = "; ".join(filter(None, (options, ablation.why)))
        seeds, each = ", ".join(map(str, row.seeds)), ", ".join(f"{100 * value:+.1f}" for value in row.by_seed)
        points, verdict = "", ""
        if row.difference is not None:
            low, high = 100 * row.difference.low, 100 * row.difference.high
            points = f"{100 * row.difference.value:+.1f} [{low:+.1f}, {high:+.1f}]"
            verdict = "not distinguishable" if low <= 0 <= high else "better" if low > 0 else "worse"
        lines.append(f"| {row.name} | {change} | {seeds} | {row.successes}/{row.n} | {row.rate.percent()} | {points} | "
                     f"{verdict} | {each} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def report(config: Config, runs: list[Run]) -> None:
    """results.jsonl, table.md and, where there are models along the way, minutes.png."""
    found = {run: finished(config.folders, run.folder) for run in runs}
    results = {run: episodes for run, episodes in found.items() if episodes is not None}
    rows = rows_of(results)
    lines = "".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows)
    (config.out / "results.jsonl").write_text(lines, encoding="utf-8")
    (config.out / "table.md").write_text(markdown(rows, config), encoding="utf-8")
    print(markdown(rows, config))
    print(f"{len(results)} of {len(runs)} runs are finished; {config.out / 'table.md'}")
    draw(config, runs)


def draw(config: Config, runs: list[Run]) -> None:
    """Success on validation episodes against minutes of training."""
    lines: dict[str, list[list[tuple[float, float]]]] = {}
    for run in runs:
        lines.setdefault(run.name, []).append(curve.points(config.out / "curves" / run.folder))
    curve.draw(config.out / curve.FIGURE, lines)


def slug(name: str) -> str:
    """As a folder is called."""
    return name.replace(",", "").replace(" ", "-")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
