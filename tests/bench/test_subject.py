"""Constants of the other components, repeated on networks built without memory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.bench.live import LiveBytes
from wam.bench.subject import CLIP, MINILM_PARAMETERS, UMT5, WAN_21, WAN_22, Vae, subject
from wam.checkpoints.component_names import CLIP_VIT_H14, UMT5_XXL, WAN_21_VAE, WAN_22_VAE, Component
from wam.checkpoints.component_sizes import component_skeleton
from wam.checkpoints.presets import PRESETS
from wam.encoders.text import minilm_folder
from wam.encoders.wan_vae import WanVideoTokenizer


def flops(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("planned", "component"), [(WAN_21, WAN_21_VAE), (WAN_22, WAN_22_VAE)], ids=["2.1", "2.2"])
def test_video_vaes(planned: Vae, component: Component) -> None:
    """Parameters; arithmetic of a first frame and of a group, at two sizes; bytes alive while a group is encoded."""
    network = component_skeleton(component).to(torch.bfloat16)
    assert parameters(network) == planned.parameters
    tokenizer = WanVideoTokenizer(network).to("meta")
    assert tokenizer.spatial_factor == planned.spatial_factor
    for height, width in ((160, 320), (352, 640)):
        pixels = height * width
        first, group = (torch.empty(1, 3, n, height, width, device="meta", dtype=torch.bfloat16) for n in (1, 4))
        _, state = tokenizer.encode_first(first)
        assert flops(lambda first=first: tokenizer.encode_first(first)) == planned.encode_flops(pixels, 0, first=True)
        found = flops(lambda group=group, state=state: tokenizer.encode_next(state, group))
        assert found == planned.encode_flops(pixels, 1, first=False)
        with LiveBytes() as live:
            _, following = tokenizer.encode_next(state, group)
        assert live.peak == pytest.approx(planned.working * pixels, rel=0.001)
        remembered = [x for x in following.features if isinstance(x, torch.Tensor)]
        assert sum(x.nbytes for x in remembered) == planned.state * pixels


def test_text_encoder() -> None:
    network = component_skeleton(UMT5_XXL)
    assert parameters(network) == UMT5.parameters
    words = torch.zeros(1, UMT5.tokens, dtype=torch.long, device="meta")
    assert flops(lambda: network(input_ids=words)) == UMT5.flops


def test_image_encoder() -> None:
    """The published files hold a projection that nobody runs, and a last layer that the released code leaves out."""
    network = component_skeleton(CLIP_VIT_H14)
    assert parameters(network) + 1280 * 1024 == CLIP.parameters
    picture = torch.zeros(1, 3, 224, 224, device="meta")
    layer = 2 * 257 * 12 * 1280**2 + 4 * 257**2 * 1280
    assert flops(lambda: network(pixel_values=picture)) in (CLIP.flops, CLIP.flops + layer)


def test_small_text_encoder() -> None:
    from safetensors import safe_open

    try:
        folder = minilm_folder()
    except ImportError:
        pytest.skip("the wheel with MiniLM is not installed")
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        sizes = [file.get_slice(name).get_shape() for name in file.keys() if "position_ids" not in name]  # noqa: SIM118
    assert sum(torch.Size(size).numel() for size in sizes) == MINILM_PARAMETERS


# ---------------------------------------------------------------- what presets stand for


def test_published_canvases() -> None:
    """DROID: three views of 176 x 320 on 352 x 640, latents of 44 x 80, 880 tokens per latent frame; 5 B: 50 tokens."""
    droid, small = subject("dreamzero-droid"), subject("wan2.2-ti2v-5b")
    assert (droid.canvas, droid.grid, droid.frame_tokens) == ((352, 640), (22, 40), 880)
    assert (small.canvas, small.grid, small.frame_tokens) == ((160, 320), (5, 10), 50)
    assert droid.denoising().length == 1785 and droid.clean(2).length == 1760
    assert droid.first_frame and not small.first_frame and small.image is None
    assert subject("wan2.1-t2v-1.3b", canvas=(176, 320)).frame_tokens == 220


def test_a_folder_of_published_weights(tmp_path: Path) -> None:
    """As `save_published` writes it: the network from its config.json, the rest as for the preset."""
    config = PRESETS["wan2.2-ti2v-5b"].transformer
    (tmp_path / "config.json").write_text(json.dumps({"format": "wam", "transformer": dataclasses.asdict(config)}))
    assert subject(str(tmp_path)) == dataclasses.replace(subject("wan2.2-ti2v-5b"), name=tmp_path.name)


def test_bad_names_and_canvases() -> None:
    with pytest.raises(ValueError, match="canvas is 350x640; dreamzero-droid needs multiples of 16"):
        subject("dreamzero-droid", canvas=(350, 640))
    with pytest.raises(ValueError, match="canvas: nano-metaworld was trained on a canvas of its own"):
        subject("nano-metaworld", canvas=(64, 128))
    with pytest.raises(FileNotFoundError, match="no shipped model of that name.*presets are .*'dreamzero-droid'"):
        subject("wan9")
