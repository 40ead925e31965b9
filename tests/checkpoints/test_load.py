"""Whole models through every dialect: the same bits come back, and whatever does not fit is named."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from tests.checkpoints.skeletons import sparse
from tests.checkpoints.tiny import CONFIG, METADATA, networks, publish_small_sizes, randomised, robot, same, whole
from torch import Tensor
from transformers import CLIPVisionModel, UMT5EncoderModel

from wam.checkpoints.convert import convert
from wam.checkpoints.errors import (
    CheckpointError,
    ForeignCheckpointError,
    MismatchError,
    MissingPartError,
    OutputError,
    UnknownEmbodimentError,
    WrongDtypeError,
)
from wam.checkpoints.identity import identity
from wam.checkpoints.load import PublishedModel, load_published, load_transformer
from wam.checkpoints.names import ACTION_MODULES, DREAMZERO_PREFIX, IMAGE_BRANCH, to_wan
from wam.checkpoints.presets import PRESETS, skeleton
from wam.checkpoints.save import save_published
from wam.checkpoints.targets import Target, dreamzero_fields
from wam.checkpoints.weights import preset_of
from wam.model.transformer import Transformer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in our own format."""
    out = tmp_path_factory.mktemp("weights") / "ours"
    save_published(whole(), out)
    return out


def digest(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


# ---------------------------------------------------------------- our own format


def test_own_format_round_trip(folder: Path) -> None:
    loaded = load_published(folder, dtype=None)
    assert all(same(found, networks(whole())[part]) for part, found in networks(loaded).items())
    assert loaded.config == CONFIG and loaded.source == "tests/tiny" and loaded.licence.name == "mit"
    assert (
        loaded.identity == identity(whole().transformer) == json.loads((folder / "config.json").read_text())["identity"]
    )
    assert loaded.metadata == METADATA and loaded.robots == ("oxe_droid", "newcomer")
    assert loaded.text_encoder is not None
    assert torch.equal(loaded.text_encoder.encode(["push"]), whole().text_encoder.encode(["push"]))  # type: ignore[union-attr]


def test_methods_as_on_the_hub(folder: Path, tmp_path: Path) -> None:
    model = PublishedModel.from_pretrained(folder, components=(), dtype=None)
    model.save_pretrained(tmp_path / "copy")
    again = PublishedModel.from_pretrained(tmp_path / "copy", components=(), dtype=None)
    assert same(dict(again.transformer.state_dict()), networks(whole())["transformer"])
    assert (again.identity, again.metadata) == (model.identity, METADATA)


def test_no_path_of_this_machine_is_inside(folder: Path) -> None:
    root = str(folder.parent).encode()
    assert [name for name, content in digest(folder).items() if root in content] == []
    moved = folder.parent / "moved"
    folder.rename(moved)
    try:
        assert same(dict(load_transformer(moved).state_dict()), networks(whole())["transformer"])
    finally:
        moved.rename(folder)


def test_card_states_the_licence(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\nlibrary_name: wam") and "oxe_droid" in card


def test_only_what_is_asked_for_is_loaded(folder: Path) -> None:
    loaded = load_published(folder, components=("vae",), dtype=torch.bfloat16)
    assert loaded.vae is not None and loaded.text_encoder is None and loaded.image_encoder is None
    assert {x.dtype for x in loaded.transformer.state_dict().values()} == {torch.bfloat16}
    with pytest.raises(MissingPartError, match="component 'wings' is unknown"):
        load_published(folder, components=("wings",))


def test_progress_reaches_the_end_of_every_component(folder: Path) -> None:
    seen: dict[str, tuple[int, int]] = {}
    load_published(folder, progress=lambda part, done, total: seen.update({part: (done, total)}))
    assert set(seen) == set(networks(whole())) and all(done == total > 0 for done, total in seen.values())


def test_the_licence_is_announced(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        load_published(folder, components=())
    assert "licence of tests/tiny: mit (README.md)" in caplog.text


# ---------------------------------------------------------------- every dialect


@pytest.mark.parametrize("to", ["original", "dreamzero", "diffusers", "wam"])
def test_there_and_back_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: Target) -> None:
    publish_small_sizes(monkeypatch)
    there = convert(folder, tmp_path / "there", to=to, shard_bytes=20_000)
    convert(tmp_path / "there", tmp_path / "back")
    loaded, expected = load_published(tmp_path / "back", dtype=None), networks(whole())
    for part, found in networks(loaded).items():
        if to == "diffusers" and part == "transformer":
            found = {name: x for name, x in found.items() if not ACTION_MODULES.has(name)}
            expected[part] = {name: x for name, x in expected[part].items() if name in found}
        assert same(found, expected[part]), part
    assert loaded.metadata == METADATA and loaded.config == CONFIG and loaded.licence.name == "mit"
    assert bool(there.dropped) == (to == "diffusers")
    # without a detour, too
    assert same(networks(load_published(tmp_path / "there", dtype=None))["vae"], expected["vae"])


def test_libraries_load_the_diffusers_layout(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "out", to="diffusers")
    theirs = WanTransformer3DModel.from_pretrained(tmp_path / "out", subfolder="transformer")
    ours = networks(whole())
    assert torch.equal(theirs.blocks[1].attn1.to_q.weight, ours["transformer"]["blocks.1.self_attn.q.weight"])
    vae = AutoencoderKLWan.from_pretrained(tmp_path / "out", subfolder="vae")
    text = UMT5EncoderModel.from_pretrained(tmp_path / "out" / "text_encoder", dtype=torch.float32)
    image = CLIPVisionModel.from_pretrained(tmp_path / "out" / "image_encoder", dtype=torch.float32)
    for part, network in (("vae", vae), ("text_encoder", text), ("image_encoder", image)):
        assert same(dict(network.state_dict()), ours[part])


def test_original_file_names(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "out", to="original")
    names = {file.name for file in (tmp_path / "out").glob("*.safetensors")}
    assert {"diffusion_pytorch_model.safetensors", "Wan2.1_VAE.safetensors"} < names
    assert load_file(tmp_path / "out" / "diffusion_pytorch_model.safetensors")["patch_embedding.weight"].ndim == 5
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (fields["model_type"], fields["num_heads"], fields["num_layers"]) == ("i2v", 2, 3)


def test_pickles_of_wan_are_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The original repositories keep the frozen networks as `.pth`."""
    publish_small_sizes(monkeypatch)
    out = tmp_path / "out"
    convert(folder, out, to="original")
    for file in (*out.glob("models_*"), *out.glob("Wan*")):
        content: dict[str, Tensor] = load_file(file)
        if "clip" in file.name:
            content |= {"textual.head": torch.ones(2), "log_scale": torch.tensor(1.0), "visual.head": torch.ones(2, 2)}
        torch.save(content, file.with_suffix(".pth"))
        file.unlink()
    loaded = networks(load_published(out, dtype=None))
    assert all(same(loaded[part], expected) for part, expected in networks(whole()).items())


def test_types(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "half", dtype=torch.bfloat16)
    stored = networks(load_published(tmp_path / "half", dtype=None))
    assert {part: {str(x.dtype) for x in found.values()} for part, found in stored.items()} == {
        "transformer": {"torch.bfloat16"},
        "vae": {"torch.float32"},
        "text_encoder": {"torch.bfloat16"},
        "image_encoder": {"torch.bfloat16"},
    }
    for name, x in networks(whole())["transformer"].items():
        assert torch.equal(stored["transformer"][name], x.bfloat16())


def test_an_interrupted_conversion_goes_on(folder: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(folder, tmp_path / "out", shard_bytes=20_000, progress=stop)
    assert not (tmp_path / "out").exists()
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / ".out.partial").rglob("*.safetensors")}
    assert kept
    convert(folder, tmp_path / "out", shard_bytes=20_000)
    for file, time in kept.items():
        assert (tmp_path / "out" / file.relative_to(tmp_path / ".out.partial")).stat().st_mtime_ns == time
    assert same(dict(load_transformer(tmp_path / "out").state_dict()), networks(whole())["transformer"])
    assert not (tmp_path / ".out.partial").exists() and not (tmp_path / "out" / "writing.json").exists()


def test_what_is_there_is_never_overwritten(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    for call in (lambda: convert(folder, tmp_path), lambda: save_published(whole(), tmp_path)):
        with pytest.raises(OutputError, match="exists already"):
            call()


@pytest.mark.parametrize(
    ("preset", "actions", "tags", "expected"),
    [
        ("wan2.1-i2v-14b", False, (), "wan2.1-i2v-14b"),
        ("wan2.2-ti2v-5b", False, (), "wan2.2-ti2v-5b"),
        ("wan2.1-i2v-14b", True, ("agibot",), "dreamzero-agibot"),
        ("wan2.1-i2v-14b", True, ("lab",), None),
        ("wan2.2-ti2v-5b", True, ("oxe_droid",), None),
    ],
)
def test_published_models_are_told_apart(
    preset: str, actions: bool, tags: tuple[str, ...], expected: str | None
) -> None:
    config = PRESETS[preset].transformer
    meta = {n: x for n, x in skeleton(config).state_dict().items() if actions or not ACTION_MODULES.has(n)}
    assert preset_of(meta, config, tags) == expected


# ---------------------------------------------------------------- transformers that lack something


def wan_folder(path: Path, tensors: dict[str, Tensor]) -> Path:
    path.mkdir()
    save_file({name: x.contiguous() for name, x in tensors.items()}, path / "diffusion_pytorch_model.safetensors")
    (path / "config.json").write_text(json.dumps({"num_heads": 2, "_class_name": "WanModel"}))
    return path


def wan_tensors() -> dict[str, Tensor]:
    return to_wan(networks(whole())["transformer"], CONFIG)


def test_absent_modules_start_as_in_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    video = {n: x for n, x in wan_tensors().items() if not ACTION_MODULES.has(n) and not IMAGE_BRANCH.has(n)}
    source = wan_folder(tmp_path / "wan", video)
    loaded = load_transformer(source, CONFIG, dtype=torch.bfloat16)
    assert loaded.state_dict().keys() == Transformer(CONFIG).state_dict().keys()
    assert not any(parameter.is_meta for parameter in loaded.parameters())
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    assert not loaded.action_decoder.layer2.weight.any() and loaded.action_encoder.layer1.weight.any()
    assert not torch.equal(loaded.blocks[0].cross_attn.k_img.weight, loaded.blocks[1].cross_attn.k_img.weight)
    assert "weights start untrained: a video model has no action" in caplog.text
    assert load_transformer(source).config.image_dim is None


def test_sizes_come_from_shapes(tmp_path: Path) -> None:
    found = load_transformer(wan_folder(tmp_path / "wan", wan_tensors())).config
    assert found == replace(CONFIG, frames_per_chunk=2, actions_per_chunk=24, memory=4)  # DreamZero's


def test_adapters_beside_whole_weights_are_merged(tmp_path: Path) -> None:
    """What peft leaves when a wrapped model is saved as a whole."""
    ours = networks(whole())["transformer"]
    wrapped = to_wan(ours, CONFIG, DREAMZERO_PREFIX + "base_model.model.")
    key = DREAMZERO_PREFIX + "base_model.model.blocks.0.self_attn.q."
    wrapped[key + "base_layer.weight"] = wrapped.pop(key + "weight")
    lower, upper = torch.randn(2, 24), torch.randn(24, 2)
    wrapped |= {key + "lora_A.default.weight": lower, key + "lora_B.default.weight": upper}
    save_file({name: x.contiguous() for name, x in wrapped.items()}, tmp_path / "model.safetensors")
    fields = dreamzero_fields(CONFIG)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(MissingPartError, match="lora_rank and lora_alpha"):
        load_transformer(tmp_path)
    fields["action_head_cfg"]["config"] |= {"lora_rank": 2, "lora_alpha": 4}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    found = dict(load_transformer(tmp_path).state_dict())
    name = "blocks.0.self_attn.q.weight"
    assert torch.allclose(found.pop(name), ours[name] + 2 * upper @ lower, atol=1e-6)
    assert same(found, {n: x for n, x in ours.items() if n != name})


# ---------------------------------------------------------------- bad input


def _missing(t: dict[str, Tensor]) -> None:
    del t["blocks.1.ffn.0.bias"]


def _unexpected(t: dict[str, Tensor]) -> None:
    t["blocks.1.ffn.0.extra"] = torch.ones(1)


def _wrong_shape(t: dict[str, Tensor]) -> None:
    t["blocks.1.norm3.weight"] = torch.ones(7)


def _integer(t: dict[str, Tensor]) -> None:
    t["blocks.1.norm3.weight"] = torch.ones(24, dtype=torch.int8)


def _half_a_codec(t: dict[str, Tensor]) -> None:
    del t["action_encoder.W1.W"]


def _foreign(t: dict[str, Tensor]) -> None:
    t.clear()
    t["model.layers.0.q_proj.weight"] = torch.ones(1)


BAD: dict[str, tuple[Callable[[dict[str, Tensor]], None], type[CheckpointError], str]] = {
    "missing": (_missing, MismatchError, r"1 weights are missing \(first: 'blocks.1.ffn.0.bias'\)"),
    "unexpected": (_unexpected, MismatchError, r"1 are unexpected \(first: 'blocks.1.ffn.0.extra'\)"),
    "wrong shape": (_wrong_shape, MismatchError, r"'blocks.1.norm3.weight', found \[7\], expected \[24\]"),
    "half of the action modules": (_half_a_codec, CheckpointError, "action_encoder.layer1.weight"),
    "integers": (_integer, WrongDtypeError, "'blocks.1.norm3.weight' has dtype int8"),
    "foreign": (_foreign, ForeignCheckpointError, "1 tensors, none of Wan, DreamZero or this project"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_weights_are_named(tmp_path: Path, case: str) -> None:
    spoil, error, message = BAD[case]
    tensors = wan_tensors()
    spoil(tensors)
    source = wan_folder(tmp_path / "wan", tensors)
    for call in (lambda: load_transformer(source), lambda: convert(source, tmp_path / "out")):
        with pytest.raises(error, match=message) as caught:
            call()
        assert "wan" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wan"]  # nothing was written


def test_robots(folder: Path, tmp_path: Path) -> None:
    loaded = load_published(folder, components=())
    droid = loaded.robot("oxe_droid")
    assert droid.name == "droid-franka" and droid.statistics is not None
    assert droid.statistics.state.q01[:2] == (-1.0, -2.0) and len(droid.statistics.action.q99) == 8
    with pytest.raises(UnknownEmbodimentError, match=r"no statistics of robot 'toaster'.*newcomer.*oxe_droid"):
        loaded.robot("toaster")
    with pytest.raises(UnknownEmbodimentError, match="'newcomer' has statistics, but nobody described"):
        loaded.robot("newcomer")
    poor = replace(loaded, metadata={"oxe_droid": robot({"joint_position": 7}, {})})
    with pytest.raises(MissingPartError, match=r"oxe_droid.statistics.state: 'gripper_position' is missing"):
        poor.robot("oxe_droid")


def test_a_wrapped_transformer_is_not_saved_as_a_plain_one(tmp_path: Path) -> None:
    odd = randomised(Transformer(replace(CONFIG, layers=1)))
    odd.config = CONFIG  # type: ignore[assignment]
    with pytest.raises(MismatchError, match="the transformer to save"):
        save_published(replace(whole(), transformer=odd), tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- memory

MEASURE = """
import gc, os, sys
import torch
from wam.checkpoints.convert import convert
from wam.checkpoints.load import load_transformer
def memory(what):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))
def call(source):
    return {call}
call({small!r})  # what is imported and allocated once
gc.collect()
before = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
kept = call({large!r})
print(memory("VmHWM") - before)
"""
SHARD = 40_000_000
WIDE = replace(CONFIG, dim=1024, heads=8, layers=4, ffn_dim=4096)
needs_proc = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    """A narrow transformer, a wide one of 87 million float32 in shards of 40 MB, and the bytes of the latter."""
    out, size = tmp_path_factory.mktemp("sources"), 0
    for name, config in (("narrow", replace(WIDE, dim=64, ffn_dim=64)), ("wide", WIDE)):
        size = sparse(out / name, to_wan(skeleton(config).state_dict(), config), "diffusion_pytorch_model", SHARD)
        (out / name / "config.json").write_text(json.dumps({"num_heads": 8}))
    return out / "narrow", out / "wide", size


def growth(sources: tuple[Path, Path, int], call: str) -> int:
    """Bytes by which a call on the wide transformer raises the memory of a process that has done it on the narrow."""
    code = MEASURE.format(call=call, small=str(sources[0]), large=str(sources[1]))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


@needs_proc
def test_loading_holds_the_model_and_one_shard(sources: tuple[Path, Path, int]) -> None:
    model = sources[2] // 2
    grown = growth(sources, "load_transformer(source, dtype=torch.bfloat16)")
    assert model < grown < model + SHARD + 15_000_000


@needs_proc
def test_converting_holds_a_shard_and_a_tensor(sources: tuple[Path, Path, int]) -> None:
    largest = 6 * WIDE.dim**2 * 4  # time_projection in float32
    grown = growth(sources, "convert(source, source + '.out', dtype=torch.bfloat16)")
    shutil.rmtree(f"{sources[1]}.out")  # not sparse
    assert sources[2] > 8 * SHARD and grown < SHARD + 1.5 * largest + 15_000_000
