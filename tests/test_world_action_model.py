"""Loss and sampler belong together: what training masks is what the cache exposes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.models import TINY, tiny_model, tiny_windows, with_changes
from wam.checkpoints.model_folder import read_config
from wam.flow.sampler import Given, Imagined, Sampler
from wam.model.attention import ANCHOR
from wam.model.passes import chunk_pass, window_layout
from wam.model.transformer import Pass, Velocity
from wam.world_action_model import WorldActionModel


def noise(model: WorldActionModel) -> Imagined:
    return model.noise(torch.Generator().manual_seed(0))


@pytest.mark.parametrize("memory", [1, 2, 4])
def test_cached_inference_equals_the_masked_forward_for_every_chunk(memory: int) -> None:
    """Text on, also after the memory has slid: 6 chunks over a ring of 1, 2 or 4."""
    chunks = 6
    config = replace(TINY, transformer=replace(TINY.transformer, memory=memory))
    model = tiny_model(config).double()
    windows, text = tiny_windows(batch=2, chunks=chunks)
    layout = window_layout(config.transformer, config.grid, chunks)
    sigma = torch.rand(2, int(layout.sigma_slot.max()) + 1, dtype=torch.float64)
    sigma[:, 0] = 0
    context = model.context(text.double())
    zero = torch.zeros(2, dtype=torch.long)
    masked = model.transformer(
        Pass(
            layout,
            sigma,
            zero,
            torch.cat([windows.anchor, windows.video[:, :, :-1], windows.video], dim=2).double(),
            windows.action.double(),
            windows.state.double(),
        ),
        context,
    )
    cache = model.new_cache(batch=2)
    n = config.transformer.actions_per_chunk
    model.remember(cache, context, windows.anchor.double(), ANCHOR)
    for i in range(chunks):
        step = chunk_pass(
            windows.video[:, :, i : i + 1].double(),
            windows.action[:, i * n : (i + 1) * n].double(),
            windows.state[:, i : i + 1].double(),
            (sigma[:, 1 + i], sigma[:, 1 + chunks + i]),
            i,
            config.transformer,
            config.grid,
        )
        cached = model.transformer(step, context, cache)
        assert torch.allclose(cached.video, masked.video[:, :, i : i + 1], atol=1e-10), f"video of chunk {i}"
        assert torch.allclose(cached.action, masked.action[:, i * n : (i + 1) * n], atol=1e-10), f"actions of chunk {i}"
        model.remember(cache, context, windows.video[:, :, i : i + 1].double(), i)


def test_the_previous_frame_is_the_one_before_the_chunk_and_changes_the_dream() -> None:
    config = replace(TINY, transformer=replace(TINY.transformer, in_channels=8), see_previous=True)
    model = tiny_model(config)
    windows, text = tiny_windows(batch=1, chunks=3, config=config)
    before = model._before_each_chunk(windows)
    assert torch.equal(before, torch.cat([windows.anchor, windows.video[:, :, :-1]], dim=2))
    model.loss(windows, text, torch.Generator().manual_seed(0)).total.backward()
    context, cache = model.context(text), model.new_cache()
    model.remember(cache, context, windows.anchor, ANCHOR)

    def dream(previous: torch.Tensor | None) -> torch.Tensor:
        velocity, start = model.velocity(cache, context), noise(model)
        video = model.denoise(velocity, start, windows.state[:, 0], 0, Sampler(), previous).video
        assert video is not None
        return video

    assert not torch.allclose(dream(windows.anchor), dream(windows.anchor + 1))
    with pytest.raises(ValueError, match="this model sees the previous frame"):
        dream(None)
    with pytest.raises(
        ValueError, match="in_channels is 4, but latents of 4 channels with see_previous=True and beside=0 need 8"
    ):
        replace(TINY, see_previous=True)


def test_denoising_leaves_the_memory_as_it_was() -> None:
    model = tiny_model()
    windows, text = tiny_windows(batch=1, chunks=1)
    context, cache = model.context(text), model.new_cache()
    model.remember(cache, context, windows.anchor, ANCHOR)
    before = cache.keys[:, :, :, : cache.kept].clone(), cache.chunk.clone()
    model.denoise(model.velocity(cache, context), noise(model), windows.state[:, 0], 0, Sampler(steps=3))
    assert torch.equal(cache.keys[:, :, :, : cache.kept], before[0]) and torch.equal(cache.chunk, before[1])


@pytest.mark.parametrize("hidden", ["chunk_valid", "loss_valid"])
def test_hidden_chunks_do_not_change_the_loss(hidden: str) -> None:
    model = tiny_model()
    windows, text = tiny_windows(batch=2, chunks=3)
    mask = torch.tensor([[True, True, False], [True, True, False]])
    windows = with_changes(windows, **{hidden: mask})
    changed = with_changes(windows, video=windows.video.clone(), action=windows.action.clone())
    changed.video[:, :, 2] += 3
    changed.action[:, 8:] -= 2
    losses = [model.loss(w, text, torch.Generator().manual_seed(1)).total for w in (windows, changed)]
    assert torch.equal(*losses)


def test_video_only_samples_learn_from_video_alone() -> None:
    model = tiny_model()
    windows, text = tiny_windows(batch=2, chunks=2)
    windows = with_changes(windows, has_action=torch.tensor([False, False]))
    losses = model.loss(windows, text, torch.Generator().manual_seed(1))
    assert losses.action == 0 and losses.video > 0
    other = with_changes(windows, action=windows.action + 5, state=windows.state - 1)
    assert torch.equal(model.loss(other, text, torch.Generator().manual_seed(1)).video, losses.video)


def test_padded_action_dimensions_do_not_count() -> None:
    model = tiny_model()
    windows, text = tiny_windows(batch=2, chunks=2)
    windows = with_changes(windows, action_dims=torch.tensor([[True, False], [True, False]]))
    before = torch.autograd.grad(
        model.loss(windows, text, torch.Generator().manual_seed(1)).total,
        model.transformer.action_decoder.layer2.bias,
    )[0]
    assert before[0, 0] != 0 and before[0, 1] == 0


def test_every_robot_trains_its_own_codec() -> None:
    other = replace(TINY.embodiments[0], name="other")
    two = replace(TINY, embodiments=(*TINY.embodiments, other), transformer=replace(TINY.transformer, embodiments=2))
    model = tiny_model(two)
    windows, text = tiny_windows(batch=2, chunks=2)
    windows = with_changes(windows, embodiment=torch.tensor([1, 1]))
    model.loss(windows, text, torch.Generator().manual_seed(1)).total.backward()
    for codec in (model.transformer.state_encoder, model.transformer.action_encoder, model.transformer.action_decoder):
        for parameter in codec.parameters():
            assert parameter.grad is not None and not parameter.grad[0].any() and parameter.grad[1].any()
    assert two.slot("other") == 1
    with pytest.raises(ValueError, match="robot 'toaster' is not among"):
        two.slot("toaster")


def test_one_window_overfits() -> None:
    """A window under four draws of noise is learned by heart, video and actions."""
    torch.manual_seed(0)
    model = WorldActionModel(TINY)
    windows, text = tiny_windows(batch=1, chunks=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for step in range(400):
        losses.append(model.loss(windows, text, torch.Generator().manual_seed(step % 4)))
        optimizer.zero_grad()
        losses[-1].total.backward()
        optimizer.step()
    for name in ("video", "action"):
        first, last = (sum(getattr(loss, name).item() for loss in part) / 4 for part in (losses[:4], losses[-4:]))
        assert last < 0.02 * first, f"{name}: {first:.3f} -> {last:.4f}"


@pytest.mark.parametrize("sampler", [Sampler(steps=1), Sampler(steps=4), Sampler(steps=8, solver="unipc", shift=5.0)])
def test_sampler_recovers_data_from_the_exact_velocity(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    """With v = (x_sigma - x) / sigma, every solver must land on x."""
    model = tiny_model()
    windows, text = tiny_windows(batch=1, chunks=1)
    context, cache = model.context(text), model.new_cache()
    model.remember(cache, context, windows.anchor, ANCHOR)

    def exact(inputs, *_, **__):  # type: ignore[no-untyped-def]
        from wam.model.transformer import Velocity

        video_sigma, action_sigma = inputs.sigma[0, 0], inputs.sigma[0, 1]
        return Velocity((inputs.video - windows.video) / video_sigma, (inputs.action - windows.action) / action_sigma)

    monkeypatch.setattr(model.transformer, "forward", exact)
    out = model.denoise(model.velocity(cache, context), noise(model), windows.state[:, 0], 0, sampler)
    assert out.video is not None
    assert torch.allclose(out.video, windows.video, atol=1e-4) and torch.allclose(out.action, windows.action, atol=1e-4)


def test_temperature_scales_the_noise_of_the_actions_alone() -> None:
    model = tiny_model()
    windows, text = tiny_windows(batch=1, chunks=1)
    context, cache = model.context(text), model.new_cache()
    model.remember(cache, context, windows.anchor, ANCHOR)
    start, state = noise(model), windows.state[:, 0]

    def actions(start: Imagined, temperature: float) -> torch.Tensor:
        sampler = Sampler(steps=1, temperature=temperature)
        return model.denoise(model.velocity(cache, context), start, state, 0, sampler).action

    for temperature in (0.0, 0.5):
        scaled = replace(start, action=temperature * start.action)
        assert torch.equal(actions(start, temperature), actions(scaled, 1.0))
    assert not torch.allclose(actions(start, 0.0), actions(start, 1.0))


@pytest.mark.parametrize("known", ["video", "actions", "prefix"])
def test_what_is_given_is_told_as_clean_and_stays(known: str) -> None:
    """Inverse dynamics, forward dynamics, real-time chunking: the levels that each token is told, step by step."""
    model = tiny_model()
    windows, text = tiny_windows(batch=2, chunks=1)
    action = {"video": None, "actions": windows.action, "prefix": windows.action[:, :3]}[known]
    given = Given(video=windows.video if known == "video" else None, action=action)
    context, cache = model.context(text), model.new_cache(batch=2)
    model.remember(cache, context, windows.anchor, ANCHOR)
    plain, told = model.velocity(cache, context), []

    def velocity(step: int, inputs: Pass) -> Velocity:
        told.append(inputs.sigma[0, inputs.layout.sigma_slot].tolist())
        return plain(step, inputs)

    start = model.noise(torch.Generator().manual_seed(0), batch=2)
    out = model.denoise(velocity, start, windows.state[:, 0], 0, Sampler(steps=2), given=given)
    assert out.video is not None and start.video is not None
    for sigma, levels in zip((1.0, 0.5), told, strict=True):
        video = 0.0 if known == "video" else sigma
        count = 0 if action is None else action.shape[1]
        rest = 0.0 if known == "actions" else sigma
        assert levels == [video] * 4 + [0.0] * count + [sigma] * (4 - count) + [rest]
    if known == "video":
        assert torch.equal(out.video, windows.video)
    else:
        assert not torch.allclose(out.video, start.video, atol=1e-3)
    if action is not None:
        assert torch.equal(out.action[:, : action.shape[1]], action)
    if known != "actions":
        assert not torch.allclose(out.action[:, -1], start.action[:, -1], atol=1e-3)


def test_given_that_leaves_nothing_to_denoise_is_named() -> None:
    model = tiny_model()
    windows, text = tiny_windows(batch=1, chunks=1)
    context, cache = model.context(text), model.new_cache()

    def denoise(given: Given) -> None:
        model.denoise(model.velocity(cache, context), noise(model), windows.state[:, 0], 0, Sampler(), given=given)

    with pytest.raises(ValueError, match="the whole chunk is known"):
        denoise(Given(windows.video, windows.action))
    with pytest.raises(ValueError, match="found 5 actions, a chunk has 4"):
        denoise(Given(action=torch.zeros(1, 5, 2)))


def test_saved_model_is_the_same_model(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path)
    again = WorldActionModel.from_pretrained(tmp_path)
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_truncated_weights_are_named(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="model.safetensors: cannot be read"):
        WorldActionModel.from_pretrained(tmp_path)


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"transformer": ')
    for load in (WorldActionModel.from_pretrained, read_config):
        with pytest.raises(ValueError, match=rf"{tmp_path / 'config.json'}: (not JSON|no JSON object)"):
            load(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    deeper = replace(TINY, transformer=replace(TINY.transformer, layers=4))
    import json

    (tmp_path / "config.json").write_text(json.dumps(deeper.to_dict()))
    with pytest.raises(ValueError, match="weights are missing"):
        WorldActionModel.from_pretrained(tmp_path)


def test_latents_that_are_no_whole_patches_are_refused() -> None:
    """As of a canvas of 144 x 256 pixels with patches of 4."""
    with pytest.raises(ValueError, match="18 x 32 cannot be cut into patches of 4; choose another --size.patch"):
        replace(TINY, latent=(4, 18, 32), transformer=replace(TINY.transformer, patch=4))


def test_bidirectional_and_actions_only_models_train_and_sample() -> None:
    for config in (
        replace(TINY, dream=False),
        replace(TINY, transformer=replace(TINY.transformer, autoregressive=False)),
    ):
        model = tiny_model(config)
        windows, text = tiny_windows(batch=2, chunks=2)
        model.loss(windows, text, torch.Generator().manual_seed(0)).total.backward()
        context, cache = model.context(text[:1]), model.new_cache()
        model.remember(cache, context, windows.anchor[:1], ANCHOR)
        out = model.denoise(model.velocity(cache, context), noise(model), windows.state[:1, 0], 0, Sampler())
        assert out.action.shape == (1, 4, 2) and torch.isfinite(out.action).all()


def test_acting_first_does_not_spoil_training() -> None:
    """Layouts are kept between calls; ones made while acting must not be inference tensors."""
    config = replace(TINY, text_len=6)  # a config that no other test has used
    model = tiny_model(config)
    windows, text = tiny_windows(batch=1, chunks=2, config=config)
    with torch.inference_mode():
        window_layout(config.transformer, config.grid, 2)
    model.loss(windows, text, torch.Generator().manual_seed(0)).total.backward()
