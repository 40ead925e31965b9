"""Windows of different lengths in one batch: its loss is that of its windows, weighted by what they hold."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from tests.models import TINY, TinyWindows, tiny_model, tiny_windows, with_changes
from wam.flow.noise import NoiseConfig
from wam.world_action_model import Draws, Losses

LENGTHS = (3, 1, 2)
K, N = TINY.transformer.frames_per_chunk, TINY.transformer.actions_per_chunk


def alone(batch: TinyWindows | Draws, row: int, chunks: int) -> dict[str, torch.Tensor]:
    """One window of a batch without its padding."""
    cut: dict[str, torch.Tensor] = {}
    for field in fields(batch):
        if getattr(batch, field.name) is None:
            continue
        value = getattr(batch, field.name)[row : row + 1]
        if field.name in ("video", "video_noise"):
            value = value[:, :, : chunks * K]
        elif field.name in ("action", "action_noise"):
            value = value[:, : chunks * N]
        elif field.name not in ("anchor", "has_action", "embodiment", "action_dims"):
            value = value[:, : chunks * (K if field.name == "video_valid" else 1)]
        cut[field.name] = value
    return cut


@pytest.mark.parametrize("prefix_share", [0.0, 0.7])
def test_a_mixed_batch_is_its_windows_weighted(prefix_share: float) -> None:
    config = replace(TINY, noise=NoiseConfig(prefix_share=prefix_share))
    model = tiny_model(config)
    windows, text = tiny_windows(len(LENGTHS), max(LENGTHS), config=config)
    reach = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    loss_valid = reach & torch.tensor([[True, True, True], [True, False, False], [False, True, False]])  # a gap in one
    has_action = torch.tensor([True, True, False])
    windows = with_changes(windows, chunk_valid=reach, loss_valid=loss_valid, has_action=has_action)
    draws = model.draw(windows, [torch.Generator().manual_seed(i) for i in range(len(LENGTHS))])
    whole: Losses = model(windows, text, draws)

    video = action = torch.zeros(())
    frames = actions = torch.zeros((), dtype=torch.long)
    for row, chunks in enumerate(LENGTHS):
        window, draw = TinyWindows(**alone(windows, row, chunks)), Draws(**alone(draws, row, chunks))
        losses, counts = model(window, text[row : row + 1], draw), model.counts(window, draw)
        video, action = video + losses.video * counts.video, action + losses.action * counts.action
        frames, actions = frames + counts.video, actions + counts.action
    assert frames == loss_valid.sum() * K
    assert torch.allclose(whole.video, video / frames, rtol=1e-5)
    assert torch.allclose(whole.action, action / actions, rtol=1e-5)
