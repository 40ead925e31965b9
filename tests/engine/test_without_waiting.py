"""From a look to a chunk nothing is read back from the device: a GPU would have to finish before anything goes on.

Checked on torch's meta device, whose tensors have shapes and no numbers: whoever asks for one fails.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.models import tiny_model, tiny_windows
from torch import Tensor

from wam.engine.joint_pass import remembering
from wam.flow.sampler import Given, Imagined, Sampler
from wam.model.attention import ANCHOR


@pytest.mark.parametrize("solver", ["euler", "unipc"])
@pytest.mark.parametrize("prefix", [0, 2])
@torch.inference_mode()
def test_remembering_and_denoising_read_nothing_back(solver: str, prefix: int) -> None:
    model = tiny_model().eval().to("meta")
    windows, text = tiny_windows(batch=2, chunks=3)
    anchor, video, action, state = (
        x.to("meta") for x in (windows.anchor, windows.video, windows.action, windows.state)
    )
    cache, context = model.new_cache(batch=2, joint=True), model.context(text)
    model.remember(cache, context, anchor, ANCHOR)
    model.remember(cache, context, video[:, :, :1], 0)
    model.remember(cache, context, video[:, :, 1:2], [1, 2])
    velocity = remembering(model.velocity(cache, context), model.clean(video[:, :, 2:], [2, 3]), cache, [2, 3])
    out = model.denoise(
        velocity,
        Imagined(video[:, :, :1], action[:, :4]),
        state[:, 0],
        torch.tensor([3, 4]),
        Sampler(steps=3, solver=solver),  # type: ignore[arg-type]
        given=Given(action=action[:, :prefix]) if prefix else None,
    )
    assert out.action.shape == (2, 4, 2) and out.action.device.type == "meta"


@pytest.mark.parametrize(
    "read", [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: bool(x.any()), lambda x: x.nonzero()]
)
def test_reading_is_noticed(read: Callable[[Tensor], object]) -> None:
    """Otherwise the test above could not fail."""
    with pytest.raises(RuntimeError):
        read(torch.zeros(3, device="meta"))
