"""The released loop on a tiny network: what it feeds, remembers and repeats."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.models import TINY

from wam.engine.released_loop import ReleasedLoop, ReleasedSampler
from wam.model.attention import ANCHOR
from wam.model.transformer import Context, Transformer

CONFIG = replace(TINY.transformer, frames_per_chunk=2, in_channels=4 + 3)
GRID, FRAMES = (2, 2), 9


def network() -> Transformer:
    torch.manual_seed(0)
    made = Transformer(CONFIG)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made.eval()


def contexts(transformer: Transformer, count: int) -> list[Context]:
    g = torch.Generator().manual_seed(1)
    return [transformer.context(torch.randn(1, 5, CONFIG.text_dim, generator=g)) for _ in range(count)]


def latents(seed: int, frames: int) -> torch.Tensor:
    return torch.randn(1, 4, frames, 4, 4, generator=torch.Generator().manual_seed(seed))


def actions(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(1, 4, CONFIG.action_dim, generator=g), torch.randn(1, 1, CONFIG.state_dim, generator=g)


def loop(sampler: ReleasedSampler, prompts: int = 2, first_frame: torch.Tensor | None = None) -> ReleasedLoop:
    transformer = network()
    beside = torch.zeros(1, 3, FRAMES, 4, 4) if first_frame is None else first_frame
    return ReleasedLoop(transformer, contexts(transformer, prompts), GRID, sampler, beside)


def chunk_video(sampler: ReleasedSampler, first_frame: torch.Tensor | None = None) -> torch.Tensor:
    session = loop(sampler, first_frame=first_frame)
    session.remember(latents(0, 1), ANCHOR)
    return session.denoise(latents(1, 2), *actions(2), chunk=0).video


def test_skipping_fewer_steps_changes_the_answer_and_is_reported() -> None:
    session = loop(ReleasedSampler(skip=5))
    session.remember(latents(0, 1), ANCHOR)
    done = session.denoise(latents(1, 2), *actions(2), chunk=0)
    assert done.steps_run == (0, 1, 2, 7, 12) and done.video.shape == (1, 4, 2, 4, 4)
    assert not torch.allclose(done.video, chunk_video(ReleasedSampler(skip=16)))


def test_denoising_leaves_the_memory_alone_and_repeats_exactly() -> None:
    session = loop(ReleasedSampler(skip=5))
    session.remember(latents(0, 1), ANCHOR)
    first, second = (session.denoise(latents(1, 2), *actions(2), chunk=0) for _ in range(2))
    assert torch.equal(first.video, second.video) and torch.equal(first.action, second.action)
    session.remember(latents(3, 2), 0)
    assert not torch.allclose(session.denoise(latents(1, 2), *actions(2), chunk=1).video, first.video)


def test_first_frame_goes_beside_the_frames_of_its_chunk() -> None:
    """Chunk 0 is latent frames 1 and 2: only they (and the anchor, frame 0) matter."""
    sampler, base = ReleasedSampler(skip=5), torch.zeros(1, 3, FRAMES, 4, 4)
    later, sooner = base.clone(), base.clone()
    later[:, :, 3:], sooner[:, :, 2] = 1.0, 1.0
    assert torch.equal(chunk_video(sampler, base), chunk_video(sampler, later))
    assert not torch.allclose(chunk_video(sampler, base), chunk_video(sampler, sooner))


def test_guidance_is_on_the_video_alone() -> None:
    """After one step from the same noise, guidance has moved the video and not the actions."""
    results = {}
    for guidance, prompts in ((1.0, 1), (5.0, 2)):
        session = loop(ReleasedSampler(steps=1, guidance=guidance), prompts)
        session.remember(latents(0, 1), ANCHOR)
        results[guidance] = session.denoise(latents(1, 2), *actions(2), chunk=0)
    assert torch.allclose(results[1.0].action, results[5.0].action, atol=1e-5)
    assert not torch.allclose(results[1.0].video, results[5.0].video, atol=1e-2)


def test_contradictions_are_named() -> None:
    with pytest.raises(ValueError, match="found 1 prompts; guidance=5.0 needs 2"):
        loop(ReleasedSampler(), prompts=1)
    with pytest.raises(ValueError, match="skip=9"):
        ReleasedSampler(skip=9).step_cache()
