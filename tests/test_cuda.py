"""What runs on a GPU gives what a CPU gives. Skipped where there is none: `pytest tests/test_cuda.py` on one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.engine.robots import looks, tiny_engine
from tests.models import TINY, tiny_model, tiny_windows
from tests.tiny_transformer import CONFIG, answer, tiny_transformer
from tests.train.processes import NoEncoder, tiny_run, write_material
from wam.engine.compiled import Compile
from wam.engine.config import EngineConfig
from wam.engine.engine import Engine
from wam.engine.placement import BlockOffload
from wam.engine.quantize import Weights, quantize
from wam.flow.sampler import Sampler
from wam.train.build import build
from wam.train.schedule import AveragedWeights
from wam.train.state import LearnedState
from wam.train.trainer import MODEL
from wam.world_action_model import WorldActionConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
WIDE_HEADS = replace(TINY, transformer=replace(TINY.transformer, dim=64))  # heads of 32, which FlexAttention takes


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Float32 products in float32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    torch._dynamo.reset()


def learned(device: str, config: WorldActionConfig) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one batch."""
    model = tiny_model(config).to(device)
    windows, text = tiny_windows(batch=2, chunks=4, config=config)
    moved = replace(windows, **{name: x.to(device) for name, x in vars(windows).items() if x is not None})
    losses = model.loss(moved, text.to(device), torch.Generator().manual_seed(0))
    losses.total.backward()
    return losses.total.item(), {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("long", [10**9, 1], ids=["masked", "FlexAttention"])
def test_a_training_step(long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wam.model.transformer.LONG", long)
    (loss, gradients), (expected, theirs) = learned("cuda", WIDE_HEADS), learned("cpu", WIDE_HEADS)
    assert loss == pytest.approx(expected, rel=1e-4)
    for name, gradient in theirs.items():
        assert (gradients[name] - gradient).norm() <= 5e-3 * gradient.norm() + 1e-6, name


def test_optimizer_goes_on_from_a_file() -> None:
    """Every moment is where its weight is, the count of steps too, which fused AdamW wants on the GPU."""

    def started() -> LearnedState:
        model = tiny_model(TINY).cuda()
        return LearnedState(model, AveragedWeights(model, 0.9), torch.optim.AdamW(model.parameters(), fused=True))

    def step(state: LearnedState, value: float) -> None:
        for weight in state.model.parameters():
            weight.grad = torch.full_like(weight, value)
        state.optimizer.step()

    straight, first, second = started(), started(), started()
    for state in (straight, first):
        step(state, 0.1)
    second.load(first.tensors(keep=True), Path("checkpoint"))
    for state in (straight, second):
        step(state, -0.2)
    for one, other in zip(straight.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def played(engine: Engine, steps: int = 5) -> list[np.ndarray]:
    """Actions of an episode that is long enough for the memory to slide."""
    session, found = engine.open(seed=0), []
    for step in range(steps):
        found.append(engine.step(session, looks(1 if step == 0 else 4, seed=step)).actions)
    return found


def on_cuda(config: EngineConfig) -> Engine:
    engine = tiny_engine(config)
    return Engine(engine.model.cuda(), engine.tokenizer.cuda(), engine.text_encoder, config)  # type: ignore[attr-defined]


@pytest.mark.parametrize("what", ["off", "blocks", "whole"])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_engine(what: Compile, guidance: float) -> None:
    """Compiled as a whole means replayed as a CUDA graph."""
    config = EngineConfig(Sampler(steps=2, guidance=guidance))
    expected: Sequence[np.ndarray] = played(tiny_engine(config))
    for ours, theirs in zip(played(on_cuda(replace(config, compile=what))), expected, strict=True):
        assert np.allclose(ours, theirs, atol=2e-3)


def test_sessions_side_by_side() -> None:
    engine = on_cuda(EngineConfig())
    alone = played(engine, 3)
    sessions = [engine.open(seed=0), engine.open(seed=5)]
    for step in range(3):
        seen = looks(1 if step == 0 else 4, seed=step)
        together = engine.steps(sessions, [seen, looks(len(seen), seed=step + 50)])
        assert np.allclose(together[0].actions, alone[step], atol=1e-3)


def test_offloaded_blocks() -> None:
    deep = replace(CONFIG, layers=5)
    expected, transformer = answer(tiny_transformer(deep)), tiny_transformer(deep)
    offload = BlockOffload(transformer, "cuda", resident=2)
    for _ in range(3):
        assert torch.allclose(answer(transformer), expected, atol=1e-4)
    offload.remove()
    assert torch.allclose(answer(transformer.cpu()), expected, atol=1e-6)


@pytest.mark.parametrize(("weights", "error"), [("int8", 0.02), ("fp8", 0.06), ("fp8-dynamic", 0.08)])
def test_narrow_weights(weights: Weights, error: float) -> None:
    pytest.importorskip("torchao")
    config = replace(CONFIG, dim=256, ffn_dim=512, layers=2)
    expected = answer(tiny_transformer(config))
    found = answer(quantize(tiny_transformer(config, dtype=torch.bfloat16).cuda(), weights))
    assert float((found - expected).norm() / expected.norm()) <= error


def test_a_training_with_dreams_to_look_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first window to the model that acts: what is drawn, moved, measured and shown on the way."""
    monkeypatch.setattr("wam.train.build.MiniLMTextEncoder", NoEncoder)
    config = tiny_run(write_material(tmp_path / "material"), tmp_path / "run")
    trainer = build(replace(config, validation=replace(config.validation, samples=2)))
    assert trainer.processes.device.type == "cuda" and trainer.run()
    assert list((tmp_path / "run" / "samples").glob("*.png")) and (tmp_path / "run" / MODEL / "config.json").exists()
