"""A compiled network is the network: the same numbers, every shape compiled once, nothing left to Python."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.engine.robots import looks, tiny_engine
from tests.models import TINY, tiny_model, tiny_windows
from torch import Tensor

from wam.engine.compiled import Compile, compile_blocks, compiled
from wam.engine.config import EngineConfig
from wam.engine.quantize import quantize
from wam.engine.warm_up import warm_up
from wam.flow.sampler import Given, Sampler
from wam.model.attention import ANCHOR
from wam.world_action_model import Network, WorldActionModel


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@torch.inference_mode()
def chunks(model: WorldActionModel, network: Network, graphs: list[int] | None = None) -> list[Tensor]:
    """Four chunks in closed loop, the last with a prefix."""
    windows, text = tiny_windows(batch=2, chunks=4)
    cache, context, answers = model.new_cache(batch=2), model.context(text), []
    for number in range(4):
        seen = windows.anchor if number == 0 else windows.video[:, :, number - 1 : number]
        model.remember(cache, context, seen, number - 1 if number else ANCHOR, network)
        given = Given(action=windows.action[:, :1]) if number == 3 else None
        noise = model.noise(torch.Generator().manual_seed(number), batch=2)
        velocity, state = model.velocity(cache, context, network), windows.state[:, number]
        answers.append(model.denoise(velocity, noise, state, number, Sampler(steps=2), given=given).action)
        if graphs is not None:
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    return answers


@pytest.mark.parametrize("what", ["blocks", "whole"])
def test_the_graph_is_the_network_and_is_made_once_per_shape(what: Compile) -> None:
    """With torch's own kernels: what is tested is that everything, writing into the cache included, is in the graph."""
    small = replace(TINY, transformer=replace(TINY.transformer, layers=2))
    model, graphs = tiny_model(small).eval(), list[int]()
    expected = chunks(model, model.transformer)
    found = chunks(model, compiled(model.transformer, what, backend="aot_eager"), graphs)
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert torch.allclose(one, other, atol=1e-5), f"chunk {number}"
    parts = 1 if what == "whole" else 2  # the last block answers for fewer tokens than the others
    assert graphs[0] <= 2 * parts and graphs[2] == graphs[0], graphs  # a pass to remember, a pass to denoise
    assert model.transformer.state_dict().keys() == tiny_model(small).transformer.state_dict().keys()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_blocks_learn_what_plain_ones_do(checkpointing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With blocks computed again in the backward too, which asks for the graph that the forward had."""
    monkeypatch.setattr("wam.model.transformer.LONG", 1)  # attended in blocks, as long windows are
    gradients = []
    for compile in (False, True):
        model, (windows, text) = tiny_model(), tiny_windows(batch=2, chunks=4)
        model.transformer.checkpointing = checkpointing
        if compile:
            compile_blocks(model.transformer, backend="aot_eager")
        for _ in range(2):
            model.zero_grad()
            loss = model.loss(windows, text, torch.Generator().manual_seed(0))
            loss.total.backward()  # type: ignore[no-untyped-call]
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize(("what", "weights"), [("blocks", "float32"), ("whole", "bf16")])
def test_compiled_kernels_act_as_the_plain_ones(what: Compile, weights: str) -> None:
    answers = []
    for choice in ("off", what):
        engine = tiny_engine(EngineConfig(compile=choice))
        quantize(engine.model.transformer, weights)
        warm_up(engine)
        session = engine.open(0)
        answers.append([engine.step(session, looks(1 if i == 0 else 4, seed=i)).actions for i in range(4)])
    for one, other in zip(*answers, strict=True):
        assert np.allclose(one, other, atol=1e-4 if weights == "float32" else 0.1)


def test_bf16_weights_act_nearly_as_float32() -> None:
    """A tenth of the spread of the actions is far above the error, and far below what wrong weights would give."""
    answers = []
    for weights in ("float32", "bf16"):
        engine = tiny_engine()
        quantize(engine.model.transformer, weights)
        session = engine.open(0)
        answers.append(np.stack([engine.step(session, looks(1 if i == 0 else 4, seed=i)).actions for i in range(4)]))
        assert session.remembered.cache.keys.dtype == (torch.bfloat16 if weights == "bf16" else torch.float32)
    assert not np.array_equal(*answers)
    assert np.abs(answers[0] - answers[1]).max() < 0.1 * answers[0].std()


def test_warming_up_leaves_a_session_as_it_would_be() -> None:
    cold, warm = tiny_engine(), tiny_engine()
    warm_up(warm, sessions=2, prefixes=True)
    assert np.array_equal(*(engine.step(engine.open(3), looks(1)).actions for engine in (cold, warm)))


@pytest.mark.parametrize("long", [1, 512])
def test_after_warming_up_nothing_is_compiled(long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a long memory every state of it is another graph: as it fills, as it turns, and of sessions side by side."""
    monkeypatch.setattr("wam.model.transformer.LONG", long)
    torch._dynamo.reset()
    made: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        made.append(1)
        return graph.forward

    model = replace(TINY, transformer=replace(TINY.transformer, layers=2, memory=2))
    engine = tiny_engine(EngineConfig(Sampler(steps=2), compile="blocks"), model)
    engine._network = compiled(engine.model.transformer, "blocks", backend=backend)
    warm_up(engine, sessions=2)
    before, first, second = len(made), engine.open(0), engine.open(1)
    assert before > 0
    for number in range(8):
        engine.step(first, looks(4 if number else 1, seed=number))
    engine.step(second, looks(1))
    for number in range(4):
        engine.steps([first, second], [looks(4, seed=number), looks(4, seed=9)])
    assert len(made) == before
