"""The training loop: windows -> noise -> loss -> step. One process and many, one micro-batch and many, are one code."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wam.data.ahead import Ahead
from wam.data.files import write_json
from wam.data.mixture import Member, Mixture
from wam.encoders.text import Prompts
from wam.engine.compiled import compile_blocks
from wam.model.codec import EmbodimentLinear
from wam.train import chance, checkpoint
from wam.train.config import TrainConfig
from wam.train.parallel import Processes, gathered
from wam.train.provenance import command, described, provenance, refuse_changes
from wam.train.samples import Sample
from wam.train.schedule import AveragedWeights, learning_rate, require_limits
from wam.train.state import AVERAGED, MOMENTS, WEIGHTS, LearnedState, averaged_model, hollow
from wam.train.trackers import VALIDATION, Trackers
from wam.train.validation import validate
from wam.world_action_model import Counts, WorldActionModel

logger = logging.getLogger(__name__)
MODEL, MODELS, CHECKPOINTS, ORIGIN = "model", "models", "checkpoints", "training.json"
WITHOUT_ACTIONS = "without actions"  # in place of a robot: windows of which nobody knows the actions
FILES = (WEIGHTS, AVERAGED, MOMENTS)


@dataclass(frozen=True)
class Report:
    """What a step says to whoever watches; spent is the share of the budget, 0 to 1."""

    step: int
    spent: float
    video: float
    action: float


@dataclass(frozen=True)
class Step:
    """One optimiser step, in this process's part: losses that add up to the whole, and the norm of all gradients.

    robots: (robots + 1, 4), the sums of `Losses.windows` over the windows of each; last, of those without actions.
    """

    video: Tensor
    action: Tensor
    gradient_norm: Tensor
    robots: Tensor


class Trainer:
    """One run: `run` continues from the newest checkpoint in `config.out`, trains, validates, saves, and stops.

    Set `stopping` to have it stop, with a checkpoint, after the step that is under way.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: WorldActionModel,
        training: Sequence[Member],
        validation: Sequence[Member],
        prompts: Tensor | Prompts,
        save_model: Callable[[WorldActionModel, Path], None],
        processes: Processes | None = None,
        dreamer: Callable[[WorldActionModel], Sample | None] | None = None,
    ) -> None:
        """training, validation: data sets, the same ones in the same order; no validation where there is none.

        prompts: (n, Lt, text_dim) features by `text_id`.  save_model: writes the finished model folder.
        processes: those that train together; those that a launcher started, by default.
        dreamer: shows people what the model expects, at every validation.
        """
        require_limits(config.minutes, config.steps)
        self.config, self.prompts, self.save_model, self.dreamer = config, prompts, save_model, dreamer
        self.trackers: Trackers | None = None  # of the main process, while it runs
        self.processes = both = processes or Processes(config.precision)
        self.batches = Mixture(training, config.batch * config.optimizer.accumulate, config.seed, both.rank, both.world)
        self.ahead = Ahead(self.batches)
        self.validation = Mixture(validation, len(validation)) if validation else None
        self.provenance = provenance(config, model, training)
        self.form = hollow(model)
        model.transformer.checkpointing = config.activation_checkpointing
        self.bare, self.model = model, both.wrap(model, config.parallel)
        if config.compile:
            compile_blocks(model.transformer)
        optimizer = torch.optim.AdamW(
            _parameter_groups(model, config.optimizer.weight_decay), lr=1.0, betas=config.optimizer.betas, fused=True
        )
        self.learned = LearnedState(model, AveragedWeights(model, config.optimizer.ema), optimizer)
        self.step, self.seconds = 0, 0.0
        self.stopping = False

    @property
    def spent(self) -> float:
        """Share of the budget that is used up."""
        by_time = self.seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        by_steps = self.step / self.config.steps if self.config.steps else 0.0
        return max(by_time, by_steps)

    def run(
        self, watch: Callable[[Report], None] | None = None, on_validation: Callable[[], None] | None = None
    ) -> bool:
        """Train until the budget is spent; only time inside steps counts.

        on_validation: called when the log has a new validation, while the run goes on.
        Returns whether the model is finished; False after `stopping` was set: a checkpoint was written to go on from.
        """
        self._resume()
        self.trackers = Trackers(self.config, self.step) if self.processes.main else None
        try:
            return self._train(watch, on_validation)
        finally:
            if self.trackers is not None:
                self.trackers.close()

    def _train(self, watch: Callable[[Report], None] | None, on_validation: Callable[[], None] | None) -> bool:
        config, saved, validated = self.config, self.seconds, self.seconds
        recent: list[Step] = []
        stop = False
        self.model.train()
        while self.spent < 1 and not stop:
            began = time.perf_counter()
            recent.append(self.train_step())
            stop = self._agree(time.perf_counter() - began)
            if self.step % config.log_every == 0 or self.spent >= 1:
                self._report(recent, watch)
                recent.clear()
            if self.validation is not None and self.seconds - validated > 60 * config.validation_minutes:
                validated = self.seconds
                self._validate()
                if on_validation is not None and self.processes.main:
                    on_validation()
            if self.seconds - saved > 60 * config.checkpoint_minutes:
                saved = self.seconds
                self._save()
            if config.models_every and self.step % config.models_every == 0 and self.spent < 1:
                self._save_model(config.out / MODELS / f"step-{self.step:08d}")
        if self.spent < 1:
            self._save()
            return False
        self._finish()
        return True

    # ---------------------------------------------------------------- a step

    def train_step(self) -> Step:
        """One optimiser step: the gradient of the mean over all windows of all processes and micro-batches."""
        config, model, optimizer = self.config, self.bare, self.learned.optimizer
        batch = next(self.ahead)
        count, rank, world = len(batch.text_id), self.processes.rank, self.processes.world
        generators = chance.generators(config.seed, self.step, count, rank, world)
        chance.reseed(config.seed, self.step, rank)
        draws = model.draw(batch, generators)
        text = self._text(batch.text_id, generators)
        own = model.counts(batch, draws)
        counts = Counts(*map(torch.tensor, self.processes.summed(float(own.video), float(own.action))))

        optimizer.zero_grad()
        video, action = torch.zeros((), device=text.device), torch.zeros((), device=text.device)
        robots = torch.zeros(len(self.bare.config.embodiments) + 1, 4, device=text.device)
        whose = torch.where(batch.has_action, batch.embodiment, len(robots) - 1).to(text.device)
        parts = config.optimizer.accumulate
        for part in range(parts):
            some = slice(part, None, parts)
            with self.processes.accumulating(self.model, last=part == parts - 1):
                with self.processes.autocast():
                    losses = self.model(_rows(batch, some).to(text.device), text[some], _rows(draws, some), counts)
                (losses.total * world).backward()  # the processes' gradients are averaged, the parts of a mean add up
            video += losses.video.detach()
            action += losses.action.detach()
            robots.index_add_(0, whose[some], losses.windows.to(robots))
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = self._rate()
        optimizer.step()
        self.learned.averaged.update(self.step)
        self.step += 1
        return Step(video, action, gathered(norm), robots)

    def _text(self, text_id: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Prompt features (B, Lt, text_dim); some samples are left without their sentence."""
        keep = torch.stack([torch.rand((), generator=own) for own in generators]) >= self.config.text_dropout
        return (self.prompts[text_id] * keep[:, None, None]).to(self.processes.device)

    def _rate(self) -> float:
        return learning_rate(self.config.optimizer, self.step, self.spent)

    def _agree(self, seconds: float) -> bool:
        """All processes go by the first one's clock, and stop when one of them is asked to."""
        took, asked = self.processes.summed(seconds if self.processes.main else 0.0, float(self.stopping))
        self.seconds += took
        return asked > 0

    # ---------------------------------------------------------------- validation, log, checkpoints

    def _report(self, recent: Sequence[Step], watch: Callable[[Report], None] | None) -> None:
        """Means over recent steps, of the whole."""
        means = torch.stack([torch.stack([step.video, step.action, step.gradient_norm]) for step in recent]).mean(0)
        video, action, norm = means.tolist()
        video, action = self.processes.summed(video, action)
        line = {"video": video, "action": action, "gradient_norm": norm, "lr": self._rate(), **self._by_robot(recent)}
        self._log({"step": self.step, "seconds": self.seconds, "waited": round(self.ahead.waited, 3), **line})
        if watch is not None:
            watch(Report(self.step, min(1.0, self.spent), video, action))

    def _by_robot(self, recent: Sequence[Step]) -> dict[str, Any]:
        """The same means for each robot, where there are several; left out is what none of its windows taught."""
        names = [*(robot.name for robot in self.bare.config.embodiments), WITHOUT_ACTIONS]
        if len(names) == 2:
            return {}
        sums = self.processes.summed(*torch.stack([step.robots for step in recent]).sum(0).flatten().tolist())
        found: dict[str, dict[str, float]] = {}
        for place, name in enumerate(names):
            video, action, frames, actions = sums[4 * place : 4 * place + 4]
            parts = (("video", video, frames), ("action", action, actions))
            found[name] = {part: errors / count for part, errors, count in parts if count}
        return {"embodiments": found}

    def _validate(self) -> None:
        if self.validation is None:
            return
        model = averaged_model(self.learned, self.form, keep=self.processes.main)
        if model is None:
            return
        config = self.config
        with self.processes.autocast():
            scores = validate(model, self.validation, self.prompts, config.validation, config.batch, config.seed)
            sample = None if self.dreamer is None else self.dreamer(model)
        if sample is not None:
            scores["dream"] = sample.scores()
            if self.trackers is not None:
                self.trackers.show(sample, self.step)
        self._log({"step": self.step, "seconds": self.seconds, VALIDATION: scores})
        logger.info("step %d: %s", self.step, {name: value for name, value in scores.items() if name != "data"})

    def _log(self, line: dict[str, Any]) -> None:
        if self.trackers is not None:
            self.trackers.log(line)

    def _save(self) -> None:
        files = self.learned.tensors(keep=self.processes.main)
        progress = {"step": self.step, "seconds": self.seconds, "windows": self.ahead.state_dict(), **command()}
        if self.processes.main:
            folder = self.config.out / CHECKPOINTS
            checkpoint.save(folder, files, {**progress, **self.provenance}, self.config.keep_checkpoints)
        self.processes.wait()

    def _resume(self) -> None:
        folder = self.config.out / CHECKPOINTS
        with self.processes.main_first():
            checkpoint.set_aside_damaged(folder, FILES)
        path = checkpoint.newest(folder)
        if path is None:
            return
        found = checkpoint.read(path, FILES)
        refuse_changes(found.progress, self.provenance, path / checkpoint.PROGRESS)
        self.learned.load(found.files, path)
        self.ahead.load_state_dict(found.progress["windows"])
        self.step, self.seconds = found.progress["step"], found.progress["seconds"]
        logger.info("continuing from %s at step %d", path, self.step)

    def _finish(self) -> None:
        self._save()  # first: what was learned outlives whatever goes wrong in a look at it
        self._validate()
        self._save_model(self.config.out / MODEL)

    def _save_model(self, folder: Path) -> None:
        """The averaged weights, ready to be used."""
        model = averaged_model(self.learned, self.form, keep=self.processes.main)
        if model is not None:
            self._save_origin(folder / ORIGIN)
            self.save_model(model, folder)  # last: its config.json says that the folder is complete
        self.processes.wait()

    def _save_origin(self, path: Path) -> None:
        """How these weights came to be, beside them."""
        per_step = self.config.batch * self.config.optimizer.accumulate * self.processes.world
        origin = {
            **command(),
            "steps": self.step,
            "minutes": round(self.seconds / 60, 1),
            "processes": self.processes.world,
            "windows": self.step * per_step,
            "base": self.provenance["base"],
            "data": self.provenance["data"],
            "tasks": sorted({task for member in self.batches.members for task in member.source.env_tasks}),
            "training": described(self.config),
        }
        write_json(path, origin)


def _rows(batch: Any, rows: slice) -> Any:
    """The same of some windows; batch: a dataclass of tensors over windows, or None."""
    found = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return type(batch)(**{name: value if value is None else value[rows] for name, value in found.items()})


def _parameter_groups(model: WorldActionModel, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices; leave norms, biases and modulations alone."""
    matrices = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear | EmbodimentLinear)}
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if id(p) in matrices], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in matrices], "weight_decay": 0.0},
    ]
