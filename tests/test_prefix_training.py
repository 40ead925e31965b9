"""Real-time prefix training: given actions are clean and teach nothing, and the rest of the chunk stays unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.models import TINY, TinyWindows, tiny_model, tiny_windows, with_changes
from wam.flow.noise import NoiseConfig, interpolate, sample_levels, sample_prefix, target_velocity
from wam.model.attention import ANCHOR, Kind
from wam.model.passes import chunk_pass, window_layout
from wam.model.transformer import Pass, Velocity
from wam.world_action_model import Draws, WorldActionConfig, WorldActionModel

B, M, N = 2, 3, TINY.transformer.actions_per_chunk
PREFIX = replace(TINY, noise=NoiseConfig(prefix_share=0.5))


def draws(config: WorldActionConfig, prefix: Tensor) -> tuple[WorldActionModel, TinyWindows, Tensor, Draws]:
    """A model, windows, prompts, and what chance decides but for the prefixes."""
    model = tiny_model(config)
    windows, text = tiny_windows(B, M, config=config)
    generators = [torch.Generator().manual_seed(i) for i in range(B)]
    return model, windows, text, replace(model.draw(windows, generators), prefix=prefix)


def spied(model: WorldActionModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Pass, Velocity]]:
    """What goes into the network and what comes out of it."""
    seen: list[tuple[Pass, Velocity]] = []
    forward = model.transformer.forward

    def watched(inputs: Pass, *rest: object, **options: object) -> Velocity:
        out = forward(inputs, *rest, **options)  # type: ignore[arg-type]
        assert out.action is not None
        out.action.retain_grad()
        seen.append((inputs, out))
        return out

    monkeypatch.setattr(model.transformer, "forward", watched)
    return seen


def test_prefixes_have_every_length_but_none_and_all_of_the_chunk() -> None:
    lengths = sample_prefix(NoiseConfig(prefix_share=0.4), 4000, 2, 8, torch.Generator().manual_seed(0))
    shares = torch.bincount(lengths.flatten(), minlength=9) / lengths.numel()
    assert shares[0].item() == pytest.approx(0.6, abs=0.02) and shares[8] == 0
    assert shares[1:8].tolist() == pytest.approx([0.4 / 7] * 7, abs=0.01)
    with pytest.raises(ValueError, match="prefix_share is 0.5, but a chunk of 1 has no prefix"):
        sample_prefix(NoiseConfig(prefix_share=0.5), 1, 1, 1, torch.Generator())
    with pytest.raises(ValueError, match="prefix_share is 1.5, expected a share"):
        NoiseConfig(prefix_share=1.5)


def test_without_a_share_nothing_is_drawn_and_nothing_changes() -> None:
    model, windows, text, drawn = draws(TINY, torch.zeros(B, M, dtype=torch.long))
    generator = torch.Generator().manual_seed(0)
    levels = sample_levels(TINY.noise, 1, M, generator)
    noise = [torch.randn(1, *x.shape[1:], generator=generator) for x in (windows.video, windows.action)]
    for found, expected in zip(
        (drawn.video_level, drawn.action_level, drawn.video_noise, drawn.action_noise), (*levels, *noise), strict=True
    ):
        assert torch.equal(found[:1], expected)
    layout = window_layout(TINY.transformer, TINY.grid, M)
    action = layout.sigma_slot[layout.kind == Kind.ACTION]
    assert action.tolist() == [1 + M + i for i in range(M) for _ in range(N)]
    assert layout.sigma_slot[layout.kind == Kind.STATE].tolist() == [1 + M + i for i in range(M)]
    slot_each = tiny_model(PREFIX)(windows, text, drawn)
    assert torch.allclose(model(windows, text, drawn).total, slot_each.total, rtol=1e-6)


def test_the_given_are_clean_and_teach_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = torch.tensor([[0, 1, 3], [2, 0, 1]])
    model, windows, text, drawn = draws(PREFIX, prefix)
    seen = spied(model, monkeypatch)
    losses = model(windows, text, drawn)
    (inputs, predicted) = seen[0]
    given = (torch.arange(N) < prefix[:, :, None]).flatten(1)
    level = drawn.action_level.repeat_interleave(N, 1)
    slots = inputs.layout.sigma_slot[inputs.layout.kind == Kind.ACTION]
    assert len(set(slots.tolist())) == M * N
    assert torch.equal(inputs.sigma[:, slots], torch.where(given, 0.0, level))
    states = inputs.layout.sigma_slot[inputs.layout.kind == Kind.STATE]
    assert torch.equal(inputs.sigma[:, states], drawn.action_level)
    noisy = interpolate(windows.action, drawn.action_noise, level[:, :, None])
    assert torch.equal(inputs.action, torch.where(given[:, :, None], windows.action, noisy))

    assert predicted.action is not None
    error = (predicted.action - target_velocity(windows.action, drawn.action_noise)).square().mean(-1)
    assert torch.allclose(losses.action, error[~given].mean())
    assert model.counts(windows, drawn).action == (~given).sum()
    losses.total.backward()
    assert predicted.action.grad is not None
    assert predicted.action.grad[~given].all() and not predicted.action.grad[given].any()


def test_the_rest_of_the_chunk_does_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """At pure noise the answer depends on the given actions of its own chunk, and on no other action."""
    prefix = torch.full((B, M), 2)
    model, windows, text, drawn = draws(PREFIX, prefix)
    drawn = replace(drawn, action_level=torch.ones(B, M))
    seen = spied(model, monkeypatch)

    def answer(chunk: int, step: int) -> Tensor:
        """Change of each action's velocity, (M N,), when this action of the data is another one."""
        changed = with_changes(windows, action=windows.action.clone())
        changed.action[:, chunk * N + step] += 1.0
        for batch in (windows, changed):
            model(batch, text, drawn)
        before, after = (out.action for _, out in seen[-2:])
        assert before is not None and after is not None
        return (after - before).abs().amax((0, 2)).detach()

    for chunk in range(M):
        own = torch.arange(M * N) // N == chunk
        moved = answer(chunk, 1)
        assert (moved[own] > 1e-4).all() and not moved[~own].any(), "a given action is seen by its own chunk alone"
        assert not answer(chunk, 2).any(), "what is not given is seen by nobody"


def test_video_without_actions_has_no_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    model, windows, text, drawn = draws(PREFIX, torch.full((B, M), 2))
    windows = with_changes(windows, has_action=torch.tensor([True, False]))
    seen = spied(model, monkeypatch)
    losses = model(windows, text, drawn)
    inputs = seen[0][0]
    slots = inputs.layout.sigma_slot[inputs.layout.kind == Kind.ACTION]
    assert (inputs.sigma[1, slots] == 1).all() and (inputs.sigma[0, slots] == 0).sum() == 2 * M
    assert losses.action > 0


def test_the_window_with_prefixes_equals_acting_with_them() -> None:
    """What training masks is what real-time chunking asks for: any n, every chunk, over the cache."""
    model = tiny_model(PREFIX).double()
    windows, text = tiny_windows(B, M, config=PREFIX)
    prefix = torch.tensor([1, 0, 3])
    levels = torch.rand(B, M, dtype=torch.float64)
    own = torch.where(torch.arange(N) < prefix[:, None], 0.0, levels[:, :, None]).flatten(1)
    video_sigma = torch.rand(B, M, dtype=torch.float64)
    context = model.context(text.double())
    masked = model.transformer(
        Pass(
            window_layout(PREFIX.transformer, PREFIX.grid, M, levels_per_chunk=N),
            torch.cat([torch.zeros(B, 1), video_sigma, own], dim=1),
            torch.zeros(B, dtype=torch.long),
            torch.cat([windows.anchor, windows.video[:, :, :-1], windows.video], dim=2).double(),
            windows.action.double(),
            windows.state.double(),
        ),
        context,
    )
    cache = model.new_cache(batch=B)
    model.remember(cache, context, windows.anchor.double(), ANCHOR)
    for i in range(M):
        step = chunk_pass(
            windows.video[:, :, i : i + 1].double(),
            windows.action[:, i * N : (i + 1) * N].double(),
            windows.state[:, i : i + 1].double(),
            (video_sigma[:, i], levels[:, i]),
            i,
            PREFIX.transformer,
            PREFIX.grid,
            given=int(prefix[i]),
        )
        cached = model.transformer(step, context, cache)
        assert torch.allclose(cached.video, masked.video[:, :, i : i + 1], atol=1e-10), f"video of chunk {i}"
        assert torch.allclose(cached.action, masked.action[:, i * N : (i + 1) * N], atol=1e-10), f"chunk {i}"
        model.remember(cache, context, windows.video[:, :, i : i + 1].double(), i)
