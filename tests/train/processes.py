"""Real processes for tests of training: forked from a server that has imported everything, so that one costs little."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from tests.data.synthetic import write_dataset
from torch import Tensor

import wam.train.build
from wam.encoders.nano_tokenizer import NanoTokenizer, NanoTokenizerConfig
from wam.train import checkpoint
from wam.train.chance import generators
from wam.train.config import NetworkSize, OptimizerConfig, TrainConfig, ValidationConfig, WindowConfig
from wam.train.trainer import CHECKPOINTS, Report, Trainer

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])
PATIENCE = 300.0  # seconds; a machine may be busy


def write_material(root: Path) -> Path:
    """A data set and a tokenizer with random weights."""
    write_dataset(root / "data", 8)
    torch.manual_seed(0)
    NanoTokenizer(NanoTokenizerConfig(z_channels=4, width=(8, 8), depth=(1, 1))).save_pretrained(root / "tokenizer")
    return root


def tiny_run(material: Path, out: Path, **changes: Any) -> TrainConfig:
    """A run of six steps that takes a second."""
    plain = TrainConfig(
        data=material / "data",
        tokenizer=material / "tokenizer",
        out=out,
        size=NetworkSize(dim=32, heads=2, layers=2),
        windows=WindowConfig(validation_share=0.3),
        optimizer=OptimizerConfig(warmup_steps=2),
        validation=ValidationConfig(windows=4, levels=(1.0,), steps=(1,), samples=0),
        batch=4,
        steps=6,
        log_every=2,
        precision="float32",
    )
    return replace(plain, **changes)


class NoEncoder:
    """Text features without a network: any, but always the same."""

    text_dim = 384

    def __init__(self, text_len: int = 16) -> None:
        self.text_len = text_len

    @classmethod
    def for_prompts(cls, prompts: list[str]) -> Self:
        return cls()

    def encode(self, sentences: list[str]) -> Tensor:
        return torch.randn(len(sentences), self.text_len, self.text_dim, generator=torch.Generator().manual_seed(0))


def quick_build(config: TrainConfig) -> Trainer:
    """`build` without loading a text encoder. Only in processes of their own: it stays without."""
    wam.train.build.MiniLMTextEncoder = NoEncoder  # type: ignore[assignment, misc]
    return wam.train.build.build(config)


def together(world: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run `work(*arguments)` in processes that are connected as a launcher does it. `work` lies in a module."""
    port = _free_port()
    started = [CONTEXT.Process(target=_as_launched, args=(rank, world, port, work, arguments)) for rank in range(world)]
    for process in started:
        process.start()
    for process in started:
        process.join(PATIENCE)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
    assert codes == [0] * world, f"exit codes {codes}; what the processes said is above"


def _as_launched(rank: int, world: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    if world > 1:
        connected = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        os.environ.update({name: str(value) for name, value in (connected | address).items()})
    work(*arguments)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# ---------------------------------------------------------------- work


def in_turn(*calls: tuple[Any, ...]) -> None:
    """Several pieces of work in the same processes: (function, arguments ...) each."""
    for function, *arguments in calls:
        function(*arguments)


def train(config: TrainConfig) -> None:
    """A whole run."""
    assert quick_build(config).run()


def train_until(config: TrainConfig, step: int) -> None:
    """A run of which one process, and only one, is asked to stop after this step."""
    trainer = quick_build(config)

    def ask(report: Report) -> None:
        if report.step == step and trainer.processes.rank == trainer.processes.world - 1:
            trainer.stopping = True

    assert not trainer.run(ask)


def note_batches(config: TrainConfig, folder: Path) -> None:
    """Write down which windows this process gets in its first steps, and with which noise."""
    trainer = quick_build(config)
    noted = []
    for step in range(4):
        batch = next(trainer.batches)
        rank, world = trainer.processes.rank, trainer.processes.world
        draws = trainer.bare.draw(batch, generators(config.seed, step, len(batch.row), rank, world))
        windows = zip(batch.episode.tolist(), batch.row.tolist(), batch.chunk_index[:, 0].tolist(), strict=True)
        noted.append(
            [[*window, *noise] for window, noise in zip(windows, draws.action_noise[:, 0].tolist(), strict=True)]
        )
    (folder / f"rank-{trainer.processes.rank}-of-{trainer.processes.world}.json").write_text(json.dumps(noted))


def train_under_fire(config: TrainConfig, kills: int) -> None:
    """A run that is killed again and again, at any moment, and then finishes.

    Every life is forked from here, where data and model are ready, and continues from what lies on the disk. Half of
    the kills come while a checkpoint is being written.
    """
    trainer, chance = quick_build(config), random.Random(0)
    folder = config.out / CHECKPOINTS
    for kill in range(kills):
        life = os.fork()
        if life == 0:
            trainer.run()
            os._exit(0)
        wanted = _step(folder) + chance.randint(0, 1)
        while _step(folder) < wanted or (kill % 2 and not any(folder.glob(".step-*.partial"))):
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.003 if kill % 2 else 0.02))
        os.kill(life, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(life, 0)[1]) == -signal.SIGKILL, "finished before it was killed"
    assert trainer.run()


def _step(folder: Path) -> int:
    newest = checkpoint.newest(folder)
    return 0 if newest is None else int(newest.name.removeprefix("step-"))
