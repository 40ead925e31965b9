"""Published weights laid out in every way that `wam plan` may advise: the same numbers, wherever the parts are."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.checkpoints import tiny

from wam.bench.planner import placements, serve_options
from wam.checkpoints.errors import MissingPartError
from wam.checkpoints.load import load_published
from wam.checkpoints.save import save_published
from wam.engine import load_released as module
from wam.engine.load_released import CANVAS_5B, Fit, load_released
from wam.engine.quantize import quantize
from wam.engine.released_loop import ReleasedSampler
from wam.engine.released_policy import PolicyConfig, ReleasedPolicy
from wam.model.transformer import Transformer
from wam.robot.embodiment import Embodiment
from wam.robot.observation import Observation

SIZES = replace(
    tiny.CONFIG, frames_per_chunk=2, actions_per_chunk=24, state_dim=64, action_dim=32, layers=3, memory=4, ffn_dim=48
)
QUICK = PolicyConfig(ReleasedSampler(steps=1, guidance=1.0, skip=16), canvas_size=(32, 64))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published model for DROID's numbers, as small as it can be."""
    transformer = tiny.randomised(Transformer(SIZES))
    assert isinstance(transformer, Transformer)
    folder = tmp_path_factory.mktemp("published") / "model"
    save_published(replace(tiny.whole(), transformer=transformer), folder)
    return folder


def look(robot: Embodiment, seed: int, sentence: str = "push") -> Observation:
    g = np.random.default_rng(seed)
    images = {name: g.integers(0, 256, (90, 160, 3), dtype=np.uint8) for name in robot.cameras}
    return Observation(images, g.uniform(-0.5, 0.5, robot.state_dim).astype(np.float32), sentence, 0.0)


def two_chunks(policy: ReleasedPolicy) -> npt.NDArray[np.float32]:
    """The first look, and the four after it."""
    robot = policy.embodiment
    first = policy.act([look(robot, 0)]).actions
    return np.concatenate([first, policy.act([look(robot, seed) for seed in range(1, 5)]).actions])


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> npt.NDArray[np.float32]:
    """With everything where it is by default."""
    actions = two_chunks(load_released(checkpoint, config=QUICK).policy())
    assert np.isfinite(actions).all() and actions.std() > 0
    return actions


@pytest.mark.parametrize(
    "fit",
    [
        Fit(text="cpu", image="cpu"),
        Fit(text="drop"),
        Fit(image="visit", vae="visit"),
        Fit(blocks=2),
        Fit(text="drop", image="visit", vae="visit", blocks=2, weights="float32"),
    ],
)
def test_no_number_changes(checkpoint: Path, expected: npt.NDArray[np.float32], fit: Fit) -> None:
    np.testing.assert_array_equal(two_chunks(load_released(checkpoint, fit=fit, config=QUICK).policy()), expected)


def test_compiled_blocks_give_the_same_to_rounding(checkpoint: Path, expected: npt.NDArray[np.float32]) -> None:
    compiled = two_chunks(load_released(checkpoint, fit=Fit(compile="blocks"), config=QUICK).policy())
    np.testing.assert_allclose(compiled, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("blocks", [None, 2])
def test_small_weights_are_those_of_quantize(checkpoint: Path, blocks: int | None) -> None:
    by_hand = load_published(checkpoint, dtype=None)
    quantize(by_hand.transformer, "int8")
    assert by_hand.vae is not None and by_hand.text_encoder is not None and by_hand.image_encoder is not None
    parts = by_hand.vae, by_hand.text_encoder, by_hand.image_encoder.encode, by_hand.robot("oxe_droid")
    found = load_released(checkpoint, fit=Fit(weights="int8", blocks=blocks), config=QUICK).policy()
    np.testing.assert_array_equal(
        two_chunks(found), two_chunks(ReleasedPolicy(by_hand.transformer, *parts, config=QUICK))
    )


def test_parts_are_loaded_to_where_they_rest(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for a GPU that must not be asked to hold what the options keep away from it."""
    monkeypatch.setattr(module, "_network", lambda model, device, fit: model.transformer)
    fit = Fit(text="cpu", image="visit", vae="visit", blocks=2)
    model = load_released(checkpoint, device="meta", fit=fit, config=QUICK).model
    parts = {"transformer": model.transformer, "vae": model.vae, "image": model.image_encoder}
    parts["text"] = model.text_encoder
    assert {name: next(part.parameters()).device.type for name, part in parts.items() if part is not None} == {
        "transformer": "cpu",
        "vae": "cpu",
        "image": "cpu",
        "text": "cpu",
    }
    monkeypatch.setattr("wam.checkpoints.load.identity", lambda *_, **__: "nobody")  # it asks for values
    everything = load_released(checkpoint, device="meta", config=QUICK).model
    assert everything.vae is not None
    for part in (everything.transformer, everything.vae, everything.text_encoder, everything.image_encoder):
        assert part is not None and {x.device.type for x in part.parameters()} == {"meta"}
        assert {x.dtype for x in part.parameters()} == {torch.bfloat16}


def test_sessions_share_networks(checkpoint: Path) -> None:
    model = load_released(checkpoint, config=QUICK)
    one, other = model.policy(), model.policy()
    assert one.transformer is other.transformer and one.tokenizer is other.tokenizer and one is not other


def test_the_5b_sees_a_small_canvas(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_released(checkpoint).config.canvas_size is None
    monkeypatch.setattr(module, "WAN_22_FACTOR", 8)  # as if the tiny VAE were that of Wan 2.2
    assert load_released(checkpoint).config.canvas_size == CANVAS_5B
    assert load_released(checkpoint, config=QUICK).config.canvas_size == QUICK.canvas_size


def test_what_is_missing_or_contradicts_itself_is_named(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "blind", ignore=shutil.ignore_patterns("vae"))
    with pytest.raises(MissingPartError, match="blind: has no vae, so it cannot act"):
        load_released(tmp_path / "blind")
    with pytest.raises(ValueError, match="compile='blocks' with blocks=2"):
        Fit(compile="blocks", blocks=2)
    with pytest.raises(ValueError, match="weights='fp8-dynamic' needs a CUDA device"):
        load_released(checkpoint, fit=Fit(weights="fp8-dynamic"))


def test_every_advice_of_the_plan_is_an_option_of_the_server(checkpoint: Path) -> None:
    """`wam plan` writes options; `wam serve` reads them into the same Fit."""
    import tyro

    from wam.cli.serve import Serve

    for _, place in placements("bf16", ("fp8", "int4")):
        words = " ".join(serve_options(place, "bf16")).split()
        asked = tyro.cli(Serve, args=[str(checkpoint), *words])
        fit = asked.published.fit
        assert (fit.text == "cpu", fit.image == "cpu") == (not place.encoders,) * 2
        assert (fit.vae == "visit", fit.blocks) == (not place.vae, 2 if place.offload else None)
        assert fit.weights == (None if place.weights == "bf16" else place.weights)
