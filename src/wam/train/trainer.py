"""The training loop: windows -> noise -> loss -> step, on accelerate: one process and many are the same code."""

from __future__ import annotations

import dataclasses
import json
import logging
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from wam.data.files import write_json
from wam.data.mixture import Member, Mixture
from wam.data.windows import WindowBatch
from wam.train import checkpoint
from wam.train.config import TrainConfig
from wam.train.schedule import AveragedWeights, learning_rate
from wam.train.validation import validate
from wam.world_action_model import Losses, WorldActionModel

logger = logging.getLogger(__name__)
MODEL, CHECKPOINTS, LOG, ORIGIN = "model", "checkpoints", "log.jsonl", "training.json"


@dataclass(frozen=True)
class Report:
    """What a step says to whoever watches; spent is the share of the budget, 0 to 1."""

    step: int
    spent: float
    video: float
    action: float


class Trainer:
    """One run: `run` continues from the newest checkpoint in `config.out`, trains, validates, saves, and stops."""

    def __init__(
        self,
        config: TrainConfig,
        model: WorldActionModel,
        training: Sequence[Member],
        validation: Sequence[Member],
        prompts: Tensor,
        save_model: Callable[[WorldActionModel, Path], None],
    ) -> None:
        """training, validation: data sets, the same ones in the same order.

        prompts: (n, Lt, text_dim) features by `text_id`.  save_model: writes the finished model folder.
        """
        if config.minutes is None and config.steps is None:
            raise ValueError("minutes and steps are both unset: give at least one, or training never ends")
        self.config, self.prompts, self.save_model = config, prompts, save_model
        self.accelerator = Accelerator(mixed_precision=config.precision, cpu=not torch.cuda.is_available())
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        self.batches = Mixture(training, config.batch, config.seed, rank, world)
        self.validation = Mixture(validation, len(validation))
        self.generator = torch.Generator().manual_seed(config.seed * 1000 + rank)
        optimizer = torch.optim.AdamW(
            _parameter_groups(model, config.optimizer.weight_decay), lr=1.0, betas=config.optimizer.betas
        )
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.bare: WorldActionModel = self.accelerator.unwrap_model(self.model)
        self.averaged = AveragedWeights(self.bare, config.optimizer.ema)
        self.step, self.seconds = 0, 0.0
        self.stopping = False

    @property
    def spent(self) -> float:
        """Share of the budget that is used up."""
        by_time = self.seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        by_steps = self.step / self.config.steps if self.config.steps else 0.0
        return max(by_time, by_steps)

    def run(self, watch: Callable[[Report], None] | None = None) -> bool:
        """Train until the budget is spent; only time inside steps counts.

        Returns whether the model is finished; False after `stopping` was set: a checkpoint was written to go on from.
        """
        self._resume()
        saved = validated = self.seconds
        recent: list[Tensor] = []
        self.model.train()
        while self.spent < 1 and not self.stopping:
            began = time.perf_counter()
            losses = self.train_step()
            recent.append(torch.stack([losses.video.detach(), losses.action.detach()]))
            self.seconds += time.perf_counter() - began
            if self.step % self.config.log_every == 0 or self.spent >= 1:
                video, action = torch.stack(recent).mean(0).tolist()
                recent.clear()
                self._log(
                    {"step": self.step, "seconds": self.seconds, "video": video, "action": action, "lr": self._rate()}
                )
                if watch is not None:
                    watch(Report(self.step, min(1.0, self.spent), video, action))
            if self.seconds - validated > 60 * self.config.validation_minutes:
                validated = self.seconds
                self._validate()
            if self.seconds - saved > 60 * self.config.checkpoint_minutes:
                saved = self.seconds
                self._save()
        if self.spent < 1:
            self._save()
            return False
        self._finish()
        return True

    def train_step(self) -> Losses:
        """One optimiser step on one batch of windows."""
        batch = next(self.batches).to(self.accelerator.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        with self.accelerator.autocast():
            losses: Losses = self.model(batch, self._text(batch), self.generator)
        self.optimizer.zero_grad()
        self.accelerator.backward(losses.total)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
        self.optimizer.step()
        self.averaged.update(self.bare, self.step)
        self.step += 1
        return losses

    def _text(self, batch: WindowBatch) -> Tensor:
        """Prompt features (B, Lt, text_dim); some samples are left without their sentence."""
        text = self.prompts[batch.text_id]
        keep = torch.rand(len(text), generator=self.generator) >= self.config.text_dropout
        return (text * keep[:, None, None]).to(self.accelerator.device)

    def _rate(self) -> float:
        return learning_rate(self.config.optimizer, self.step, self.spent)

    # ---------------------------------------------------------------- validation, log, checkpoints

    def _validate(self) -> None:
        if not self.accelerator.is_main_process:
            return
        shadow = WorldActionModel(self.bare.config).to(self.accelerator.device)
        shadow.load_state_dict(self.averaged.state_dict())
        with self.accelerator.autocast():
            scores = validate(shadow.eval(), self.validation, self.prompts, seed=self.config.seed)
        self._log({"step": self.step, "seconds": self.seconds, "validation": scores})
        logger.info("step %d: %s", self.step, scores)

    def _log(self, line: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            self.config.out.mkdir(parents=True, exist_ok=True)
            with (self.config.out / LOG).open("a") as file:
                file.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            progress = {
                "step": self.step,
                "seconds": self.seconds,
                "windows": self.batches.state_dict(),
                "generator": self.generator.get_state().tolist(),
                "config": self._described(),
            }
            checkpoint.save(self.config.out / CHECKPOINTS, self.bare, self.averaged, self.optimizer, progress)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        path = checkpoint.newest(self.config.out / CHECKPOINTS)
        if path is None:
            return
        progress = checkpoint.load(path, self.bare, self.averaged, self.optimizer)
        self.step, self.seconds = progress["step"], progress["seconds"]
        self.batches.load_state_dict(progress["windows"])
        self.generator.set_state(torch.tensor(progress["generator"], dtype=torch.uint8))

    def _finish(self) -> None:
        self._validate()
        self._save()
        if self.accelerator.is_main_process:
            self.bare.load_state_dict(self.averaged.state_dict())
            self._save_origin(self.config.out / MODEL / ORIGIN)
            self.save_model(self.bare, self.config.out / MODEL)  # last: its config.json says that the run is finished

    def _save_origin(self, path: Path) -> None:
        """How these weights came to be, beside them."""
        origin = {
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "steps": self.step,
            "minutes": round(self.seconds / 60, 1),
            "processes": self.accelerator.num_processes,
            "windows": self.step * self.config.batch * self.accelerator.num_processes,
            "training": self._described(),
        }
        write_json(path, origin)

    def _described(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self.config), default=str))
        return plain


def _parameter_groups(model: WorldActionModel, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices; leave norms, biases and modulations alone."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2 and p.shape[0] > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2 or p.shape[0] == 1], "weight_decay": 0.0},
    ]
