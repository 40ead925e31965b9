"""Guidance over two processes gives the numbers of one, bit for bit, and does not outlive its partner in silence."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from tests.engine.robots import looks, tiny_engine
from tests.models import TINY, tiny_model
from torch.distributed import HashStore  # type: ignore[attr-defined]

from wam.engine.config import EngineConfig
from wam.engine.engine import Engine
from wam.engine.split import FOLLOWER, LEADER, Follower, Kinds, Partner, PartnerLost, Wire
from wam.engine.split_process import meet, start_partner
from wam.flow.sampler import Sampler

GUIDED = EngineConfig(Sampler(steps=3, guidance=3.0), guidance_mode="sequential")
CPU = torch.device("cpu")


@contextmanager
def partner_in_a_thread(model: torch.nn.Module, joint: bool = True, timeout: float = 10.0) -> Iterator[Partner]:
    """The same code over the same transport, quicker to start."""
    store, ended = HashStore(), []

    def follow() -> None:
        Follower(model, meet(store, FOLLOWER, CPU, timeout), joint=joint).follow()  # type: ignore[arg-type]
        ended.append(True)

    thread = threading.Thread(target=follow)
    thread.start()
    partner = Partner(meet(store, LEADER, CPU, timeout))
    try:
        yield partner
    finally:
        partner.close()
        thread.join(timeout=20)
    assert ended


def split_engine(config: EngineConfig, partner: Partner) -> Engine:
    plain = tiny_engine(config)
    config = replace(config, guidance_mode="split")
    return Engine(plain.model, plain.tokenizer, plain.text_encoder, config, partner)


def play(engine: Engine, sessions: int = 1, steps: int = 5) -> list[np.ndarray]:
    """Robots that start one after the other, take a new sentence, have a prefix, and one fork that looks ahead."""
    opened, out = [engine.open(seed) for seed in range(sessions)], []
    for step in range(steps):
        ready = opened[: step + 1]
        words = ["go" + " on" * i + (" now" if step > 2 else "") for i in range(len(ready))]
        seen = [looks(4 if s.begun else 1, 10 * step + i, words[i]) for i, s in enumerate(ready)]
        prefixes = [np.full((2, 2), 0.1) if i and step > 1 else None for i in range(len(ready))]
        out += [chunk.actions for chunk in engine.steps(ready, seen, prefixes)]
    fork = opened[0].fork()
    imagined = engine.imagine([fork])
    assert imagined.video is not None
    out += [imagined.video.numpy(), imagined.action.numpy()]
    return out


@pytest.mark.parametrize(
    ("joint", "sessions"), [(True, 1), (False, 1), (True, 3)], ids=["joint", "apart", "three sessions"]
)
def test_split_is_sequential_bit_for_bit(joint: bool, sessions: int) -> None:
    config = replace(GUIDED, joint_pass=joint)
    expected = play(tiny_engine(config), sessions)
    with partner_in_a_thread(tiny_engine(config).model, joint) as partner:
        found = play(split_engine(config, partner), sessions)
    assert [np.abs(one - other).max() for one, other in zip(found, expected, strict=True)] == [0] * len(expected)


def test_without_guidance_the_partner_is_left_in_peace() -> None:
    config = EngineConfig(Sampler(steps=2))
    with partner_in_a_thread(tiny_engine(config).model) as partner:
        assert np.array_equal(play(split_engine(config, partner))[0], play(tiny_engine(config))[0])
        assert not partner._count


def test_sessions_that_are_gone_are_forgotten_there_too() -> None:
    config = EngineConfig(Sampler(steps=1, guidance=2.0))
    model, store = tiny_engine(config).model, HashStore()
    followers: list[Follower] = []

    def follow() -> None:
        followers.append(Follower(model, meet(store, FOLLOWER, CPU)))
        followers[0].follow()

    thread = threading.Thread(target=follow)
    thread.start()
    partner = Partner(meet(store, LEADER, CPU))
    engine = split_engine(config, partner)
    for seed in range(6):
        engine.step(engine.open(seed), looks(1))
    partner.close()
    thread.join(timeout=20)
    assert len(followers[0]._memories) <= 2


def test_a_silent_partner_is_an_error_and_stays_one() -> None:
    """It took the call and never answers, as a stopped process or a cut cable would."""
    store = HashStore()
    done = threading.Event()

    def stay() -> None:
        wire = meet(store, FOLLOWER, CPU)
        done.wait(20)
        del wire

    other = threading.Thread(target=stay)
    other.start()
    partner = Partner(meet(store, LEADER, CPU, timeout=0.5))
    began = time.perf_counter()
    with pytest.raises(PartnerLost, match=r"rank 1.*guidance_mode='batched'"):
        partner.wire.receive()
    with pytest.raises(PartnerLost):
        partner.wire.send(Kinds.STOP, [])
    assert time.perf_counter() - began < 2.5
    done.set()
    other.join()


def test_two_processes_and_the_death_of_one(tmp_path: Path) -> None:
    """A real process: the same numbers; then it is killed in the middle of an episode."""
    tiny_model(TINY).save_pretrained(tmp_path)
    partner = start_partner(tmp_path, timeout=30.0)
    assert partner.process is not None and partner.process.pid is not None
    engine, alone = split_engine(GUIDED, partner), tiny_engine(GUIDED)
    assert partner.process.pid != os.getpid()
    os.kill(partner.process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does, which is for the leader to hear
    engine.model.load_state_dict(tiny_model(TINY).state_dict())
    alone.model.load_state_dict(tiny_model(TINY).state_dict())
    found, expected = play(engine), play(alone)
    assert [np.abs(one - other).max() for one, other in zip(found, expected, strict=True)] == [0] * len(expected)

    session = engine.open(1)
    engine.step(session, looks(1))
    os.kill(partner.process.pid, signal.SIGKILL)
    began = time.perf_counter()
    with pytest.raises(PartnerLost, match="is gone or has been silent"):
        engine.step(session, looks(4))
        engine.step(session, looks(4, seed=1))
    assert time.perf_counter() - began < 10
    partner.close()


def test_what_lies_elsewhere_travels_too() -> None:
    """Layouts are on the CPU, tokens on the GPU, for which the meta device stands here."""
    sent: list[torch.Tensor] = []

    class Nccl:
        def rank(self) -> int:
            return LEADER

        def name(self) -> str:
            return "nccl"

        def send(self, tensors: list[torch.Tensor], to: int, tag: int) -> Any:
            sent.extend(tensors)
            return MagicMock(is_completed=lambda: True, wait=lambda *_: True)

    wire = Wire(Nccl(), torch.device("meta"), timeout=1.0)  # type: ignore[arg-type]
    wire.send(Kinds.PASS, [torch.zeros(3, dtype=torch.int64), torch.zeros(2, 4, device="meta")])
    assert [part.device.type for part in sent] == ["meta", "meta"] and sent[1].numel() == 24 + 32
