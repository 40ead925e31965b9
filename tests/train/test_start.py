"""An initial model fixes what cannot change; it learns of new robots, and computes for the old ones what it did."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.models import EMBODIMENT, TINY, tiny_model, tiny_windows
from tests.train.initial import OTHER, SAWYER, WIDE, further, without_text, write_base
from tests.train.processes import tiny_run

from wam.checkpoints.model_folder import load_model
from wam.encoders.nano_tokenizer import NanoTokenizer, NanoTokenizerConfig
from wam.model.attention import ANCHOR
from wam.robot.embodiment import EmbodimentError, Moments, Part, Statistics
from wam.train.build import build
from wam.train.config import AdaptConfig, NetworkSize, TrainConfig, WindowConfig
from wam.train.sources import LATENTS
from wam.train.start import Start, grown, known_robots, settled
from wam.train.trainer import MODEL
from wam.world_action_model import WorldActionConfig


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        without_text(patch)
        yield write_base(tmp_path_factory.mktemp("start"))


def test_what_is_left_out_is_the_initial_models(root: Path, tmp_path: Path) -> None:
    trainer = build(further(root, tmp_path))
    assert trainer.config.size == NetworkSize(dim=32, heads=2, layers=2)
    assert trainer.config.tokenizer == root / "base" / MODEL / "tokenizer"
    assert trainer.bare.config.transformer.dim == 32


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"size": NetworkSize(dim=64)}, "--size.dim is 64, but the model in --init .* has 32"),
        ({"size": NetworkSize(autoregressive=False)}, "--size.autoregressive is False, but .* has True"),
        ({"see_previous": True}, "--see-previous is True, but the model in --init .* has False"),
    ],
)
def test_options_that_contradict_it_are_named(root: Path, tmp_path: Path, changes: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        settled(further(root, tmp_path, **changes), Start.load(root / "base" / MODEL))


def test_the_tokenizer_is_the_initial_models(root: Path, tmp_path: Path) -> None:
    start = Start.load(root / "base" / MODEL)
    same = settled(further(root, tmp_path, tokenizer=root / "tokenizer"), start)
    assert same.tokenizer == root / "tokenizer"
    torch.manual_seed(1)
    other = NanoTokenizer(NanoTokenizerConfig(z_channels=4, width=(8, 8), depth=(1, 1)))
    other.save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(ValueError, match="--tokenizer .* has fingerprint .* was trained with .*leave the option out"):
        settled(further(root, tmp_path, tokenizer=tmp_path / "tokenizer"), start)


def test_patches_that_do_not_fit_are_refused_before_anything_is_encoded(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "data", tmp_path / "data", ignore=shutil.ignore_patterns(LATENTS))
    with pytest.raises(ValueError, match="8 x 16 cannot be cut into patches of 3; choose another --size.patch"):
        build(tiny_run(root, tmp_path, data=tmp_path / "data", size=NetworkSize(dim=32, heads=2, layers=2, patch=3)))
    assert not (tmp_path / "data" / LATENTS).exists()


def test_from_nothing_there_is_nothing_to_adapt(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--tokenizer is missing"):
        settled(tiny_run(root, tmp_path, tokenizer=None), None)
    with pytest.raises(ValueError, match="--adapt.what lora: there is nothing to adapt; .* --init"):
        settled(tiny_run(root, tmp_path, adapt=AdaptConfig(what="lora")), None)


def test_a_bidirectional_model_learns_from_single_chunks(root: Path, tmp_path: Path) -> None:
    both_ways = NetworkSize(dim=32, heads=2, layers=2, autoregressive=False)
    with pytest.raises(ValueError, match="--windows.chunks is 3, expected 1: a bidirectional model"):
        settled(tiny_run(root, tmp_path, size=both_ways), None)
    settled(tiny_run(root, tmp_path, size=both_ways, windows=WindowConfig(chunks=1)), None)


def test_a_shipped_model_can_be_the_start() -> None:
    start = Start.load(Path("nano-metaworld"))
    config = settled(TrainConfig(data=Path("data"), out=Path("out")), start)
    assert config.see_previous and config.size.dim == start.config.transformer.dim


# ---------------------------------------------------------------- robots


def with_statistics(robot, value: float):  # type: ignore[no-untyped-def]
    state, action = ((value,) * n for n in (robot.state_dim, robot.action_dim))
    return replace(robot, statistics=Statistics(Moments(state, state), Moments(action, action)))


BASE = replace(
    TINY,
    embodiments=(with_statistics(SAWYER, 1.0),),
    transformer=replace(TINY.transformer, action_dim=4, state_dim=4, actions_per_chunk=8),
)


def test_a_known_robot_keeps_its_statistics_unless_asked(root: Path) -> None:
    again = with_statistics(replace(SAWYER, camera_keys=("a", "b")), 2.0)
    kept = known_robots(BASE, [again], AdaptConfig())
    assert kept == BASE.embodiments
    taken = known_robots(BASE, [again], AdaptConfig(statistics="recompute"))
    assert taken == (with_statistics(SAWYER, 2.0),)


def test_statistics_of_a_run_follow_the_option(root: Path, tmp_path: Path) -> None:
    base = load_model(root / "base" / MODEL)
    for option in ("keep", "recompute"):
        run = further(root, tmp_path / option, embodiment="metaworld-sawyer", adapt=AdaptConfig(statistics=option))
        half = replace(run, windows=replace(run.windows, labelled_share=0.5))  # other episodes, other statistics
        trainer = build(half)
        assert (trainer.bare.config.embodiments == base.config.embodiments) == (option == "keep")
        units = trainer.batches.members[0].units
        assert units is not None and units.embodiment == trainer.bare.config.embodiments[0]


def test_a_robot_described_otherwise_is_named() -> None:
    for change, field in (
        ({"control_hz": 20.0}, "control_hz"),
        ({"action": (Part("action", ("a", "b", "c", "d")),)}, "action"),
        ({"prompt_template": "please {instruction}"}, "prompt_template"),
    ):
        with pytest.raises(EmbodimentError, match=f"'metaworld-sawyer': field '{field}' is .* another name"):
            known_robots(BASE, [with_statistics(replace(SAWYER, **change), 1.0)], AdaptConfig())
    moved = replace(SAWYER, state=tuple(replace(part, key="other.column", start=3) for part in SAWYER.state))
    assert len(known_robots(BASE, [with_statistics(moved, 1.0)], AdaptConfig())) == 1


def test_new_robots_are_appended_and_padded() -> None:
    robots = known_robots(BASE, [with_statistics(OTHER, 1.0), with_statistics(SAWYER, 3.0)], AdaptConfig())
    assert [robot.name for robot in robots] == ["metaworld-sawyer", "other"]
    assert [robot.action_width for robot in robots] == [None, 4]


def test_widths_that_do_not_fit_are_named_or_widened_when_asked() -> None:
    wide = with_statistics(WIDE, 1.0)
    with pytest.raises(EmbodimentError, match="'wide': its action has 6 dimensions, the initial model has room for 4"):
        known_robots(BASE, [wide], AdaptConfig())
    assert [robot.action_width for robot in known_robots(BASE, [wide], AdaptConfig(widen=True))] == [6, None]


def test_a_chunk_that_does_not_fit_is_named(root: Path, tmp_path: Path) -> None:
    slow = replace(OTHER, name="slow", video_stride=1, actions_per_chunk=4)
    slow.to_yaml(tmp_path / "slow.yaml")
    with pytest.raises(ValueError, match="robot 'slow' needs actions_per_chunk=4, the transformer has 8"):
        build(further(root, tmp_path, embodiment=str(tmp_path / "slow.yaml")))


def test_a_widened_model_computes_for_its_old_robot_what_it_did() -> None:
    model = tiny_model()
    wide = replace(EMBODIMENT, action_width=5, state_width=4)
    new = replace(wide, name="new")
    config: WorldActionConfig = replace(
        TINY,
        transformer=replace(TINY.transformer, embodiments=2, action_dim=5, state_dim=4),
        embodiments=(wide, new),
    )
    wider = grown(model, config)
    windows, text = tiny_windows(batch=2, chunks=1)
    extra = torch.nn.functional.pad
    g = torch.Generator().manual_seed(0)
    noise = model.noise(g, batch=2)

    def first_velocity(which, padding: tuple[int, int]):  # type: ignore[no-untyped-def]
        context, cache = which.context(text), which.new_cache(batch=2)
        which.remember(cache, context, windows.anchor, ANCHOR)
        from wam.model.passes import chunk_pass

        inputs = chunk_pass(
            noise.video,
            extra(noise.action, (0, padding[1]), value=3.0),  # what is drawn for padding does not matter
            extra(windows.state, (0, padding[0]), value=-2.0),
            (torch.tensor(0.7), torch.tensor(0.4)),
            0,
            which.config.transformer,
            which.config.grid,
        )
        return which.transformer(inputs, context, cache)

    before, after = first_velocity(model, (0, 0)), first_velocity(wider, (1, 3))
    assert torch.allclose(before.video, after.video, atol=1e-6)
    assert torch.allclose(before.action, after.action[..., :2], atol=1e-6) and not after.action[..., 2:].any()
    for name, weight in model.state_dict().items():
        corner = tuple(map(slice, weight.shape))
        assert torch.equal(wider.state_dict()[name][corner], weight), name
