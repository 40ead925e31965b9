"""Merging on disk: equal to merging in memory, in every dialect, and never onto another base."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models import tiny_model
from tests.tiny_transformer import CONFIG, tiny_transformer
from torch import Tensor

from wam.checkpoints.errors import CheckpointError, OutputError
from wam.checkpoints.files import open_tensors
from wam.checkpoints.identity import identity
from wam.checkpoints.lora import WrongBaseError, add_lora, merge, save_adapter
from wam.checkpoints.merge_files import RECORD, merge_files
from wam.checkpoints.names import (
    ACTION_MODULES,
    DREAMZERO_PREFIX,
    WRAPPED_PREFIX,
    from_diffusers,
    from_wan,
    to_diffusers,
    to_wan,
)
from wam.checkpoints.shards import layout, write
from wam.cli.main import main
from wam.model.transformer import Transformer
from wam.world_action_model import WorldActionModel

LAYERS = 10 * CONFIG.layers  # q, k, v, o of two attentions and two feed-forward layers
ACTION_TENSORS = 14


@dataclass(frozen=True)
class Trained:
    """A base, an adapter of it on disk, and what merging in memory gives."""

    base: dict[str, Tensor]
    adapter: Path
    merged: dict[str, Tensor]


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    return train(tmp_path / "adapter", torch.float32)


def train(folder: Path, dtype: torch.dtype) -> Trained:
    transformer = tiny_transformer(dtype=dtype)
    before = copied(transformer)
    adapter = add_lora(transformer)
    move(transformer)
    save_adapter(transformer, adapter, folder)
    merge(transformer)
    return Trained(before, folder, copied(transformer))


def copied(transformer: Transformer) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in transformer.state_dict().items()}


def move(transformer: Transformer) -> None:
    g = torch.Generator().manual_seed(5)
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            parameter.data += (0.2 * torch.randn(parameter.shape, generator=g)).to(parameter.dtype)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)


def sharded(folder: Path, tensors: dict[str, Tensor], stem: str = "diffusion_pytorch_model") -> Path:
    plan = layout({name: x.to("meta") for name, x in tensors.items()}, stem, shard_bytes=60_000)
    assert len(plan.shards) > 3
    write(folder, tensors, plan)  # type: ignore[arg-type]
    return folder


def stored(folder: Path, transformer: Transformer) -> None:
    folder.mkdir()
    save_file(dict(transformer.state_dict()), folder / "model.safetensors")


def dreamzero(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return to_wan(tensors, CONFIG, DREAMZERO_PREFIX)


DIALECTS: dict[str, tuple[Callable, Callable]] = {
    "wan": (lambda tensors: to_wan(tensors, CONFIG), from_wan),
    "dreamzero": (dreamzero, from_wan),
    "diffusers": (
        lambda tensors: {
            **to_diffusers(tensors, CONFIG),
            **{n: x for n, x in tensors.items() if ACTION_MODULES.has(n)},
        },
        from_diffusers,
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", DIALECTS)
def test_on_disk_equals_in_memory(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    trained = train(tmp_path / "adapter", dtype)
    theirs, ours = DIALECTS[name]
    base = sharded(tmp_path / "base", theirs(trained.base))
    report = merge_files(base, trained.adapter, tmp_path / "out")
    found = open_tensors(tmp_path / "out")
    assert set(found) == set(theirs(trained.base))
    assert same(ours(found), trained.merged)
    assert (report.merged, report.replaced, report.added) == (LAYERS, ACTION_TENSORS, 0)
    assert report.copied == len(trained.base) - LAYERS - ACTION_TENSORS
    assert report.result == identity(trained.merged) != identity(trained.base)
    assert json.loads((tmp_path / "out" / RECORD).read_text())["base"] == report.base


def test_a_video_model_gets_the_action_modules_in_its_own_dialect(tmp_path: Path, trained: Trained) -> None:
    video = {name: x for name, x in trained.base.items() if not ACTION_MODULES.has(name)}
    base = sharded(tmp_path / "base", to_wan(video, CONFIG))
    report = merge_files(base, trained.adapter, tmp_path / "out")
    assert (report.added, report.replaced) == (ACTION_TENSORS, 0)
    found = open_tensors(tmp_path / "out")
    assert "action_encoder.W1.W" in found and same(from_wan(found), trained.merged)


def test_other_components_and_files_are_carried_along(
    tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A DreamZero file with its text encoder inside, and a folder of components with `transformer/` in it.

    Room for all of it is wanted before anything is written.
    """
    wanted: list[int] = []
    monkeypatch.setattr("wam.checkpoints.merge_files.require_space", lambda out, count: wanted.append(count))
    vae = {"action_head.vae.model.conv1.weight": torch.arange(3.0)}
    base = sharded(tmp_path / "one", {**vae, **dreamzero(trained.base)}, "model")
    (base / "config.json").write_text("{}")
    merge_files(base, trained.adapter, tmp_path / "out1")
    found = open_tensors(tmp_path / "out1")
    assert torch.equal(found["action_head.vae.model.conv1.weight"], torch.arange(3.0))
    assert (tmp_path / "out1" / "config.json").read_text() == "{}"

    folder = tmp_path / "parts"
    sharded(folder / "transformer", trained.base)
    (folder / "vae").mkdir()
    save_file(vae, folder / "vae" / "diffusion_pytorch_model.safetensors")
    (folder / "transformer" / "config.json").write_text('{"a": 1}')
    merge_files(folder, trained.adapter, tmp_path / "out2")
    assert same(dict(open_tensors(tmp_path / "out2" / "transformer")), trained.merged)
    assert same(dict(open_tensors(tmp_path / "out2" / "vae")), vae)
    assert (tmp_path / "out2" / "transformer" / "config.json").read_text() == '{"a": 1}'
    carried = [folder / "vae" / "diffusion_pytorch_model.safetensors", folder / "transformer" / "config.json"]
    weights = sum(weight.nbytes for weight in trained.merged.values())
    assert wanted[-1] >= weights + sum(file.stat().st_size for file in carried)


def test_a_pickle_of_tensors_becomes_safetensors(tmp_path: Path, trained: Trained) -> None:
    torch.save(to_wan(trained.base, CONFIG), tmp_path / "weights.pth")
    merge_files(tmp_path / "weights.pth", trained.adapter, tmp_path / "out")
    assert same(from_wan(load_file(tmp_path / "out" / "weights.safetensors")), trained.merged)


def test_a_world_action_model_through_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "notes.txt").write_text("kept")
    adapter = add_lora(model.transformer)
    move(model.transformer)
    save_adapter(model.transformer, adapter, tmp_path / "adapter")
    merge(model.transformer)
    main(["merge-lora", *(str(tmp_path / name) for name in ("base", "adapter", "out")), "--json"])
    line = json.loads(capsys.readouterr().out)
    assert (line["merged"], line["replaced"]) == (10 * len(model.transformer.blocks), ACTION_TENSORS)
    loaded = WorldActionModel.from_pretrained(tmp_path / "out")
    assert same(copied(loaded.transformer), copied(model.transformer))
    assert (tmp_path / "out" / "notes.txt").read_text() == "kept"


def test_another_base_is_refused_and_nothing_is_left(
    tmp_path: Path, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(tmp_path / "base", tiny_transformer(seed=1))
    with pytest.raises(WrongBaseError, match="load the adapter on the checkpoint that it was trained on"):
        merge_files(tmp_path / "base", trained.adapter, tmp_path / "out")
    with pytest.raises(SystemExit) as stop:
        main(["merge-lora", *(str(tmp_path / name) for name in ("base", "adapter", "out"))])
    assert stop.value.code == 1 and "identity" in capsys.readouterr().err
    stored(tmp_path / "wide", tiny_transformer(replace(CONFIG, dim=96)))
    with pytest.raises(WrongBaseError, match=r"wrong shape \(first: .*3 blocks of width 48"):
        merge_files(tmp_path / "wide", trained.adapter, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base", "wide"]


def test_what_is_in_the_way_stays(tmp_path: Path, trained: Trained) -> None:
    stored(tmp_path / "base", tiny_transformer())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        merge_files(tmp_path / "base", trained.adapter, tmp_path / "out")
    assert (tmp_path / "out" / "precious.txt").read_text() == "mine"
    (tmp_path / "out" / "precious.txt").unlink()
    merge_files(tmp_path / "base", trained.adapter, tmp_path / "out")


def test_unusable_bases_are_named(tmp_path: Path, trained: Trained) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="none of Wan, DreamZero or this project"):
        merge_files(tmp_path / "other.safetensors", trained.adapter, tmp_path / "out")
    small = {name: x.to(torch.float8_e4m3fn) for name, x in trained.base.items()}
    save_file(small, tmp_path / "small.safetensors")
    with pytest.raises(CheckpointError, match="float8_e4m3fn; merge into the float32 or bfloat16"):
        merge_files(tmp_path / "small.safetensors", trained.adapter, tmp_path / "out")


def test_bases_that_are_none_are_named(tmp_path: Path, trained: Trained) -> None:
    with pytest.raises(CheckpointError, match="holds an adapter; give the weights"):
        merge_files(trained.adapter, trained.adapter, tmp_path / "out")
    lower = {"blocks.0.ffn.0.lora_A.weight": torch.ones(4, 48), "blocks.0.ffn.0.lora_B.weight": torch.ones(64, 4)}
    save_file({**trained.base, **lower}, tmp_path / "both.safetensors")
    with pytest.raises(CheckpointError, match="carries an adapter itself"):
        merge_files(tmp_path / "both.safetensors", trained.adapter, tmp_path / "out")


def test_our_own_format_states_the_new_identity(tmp_path: Path, trained: Trained) -> None:
    sharded(tmp_path / "base" / "transformer", trained.base)
    known = identity(trained.base)
    (tmp_path / "base" / "config.json").write_text(json.dumps({"format": "wam", "identity": known}))
    (tmp_path / "base" / "README.md").write_text(f"Identity: `{known}`")
    report = merge_files(tmp_path / "base", trained.adapter, tmp_path / "out")
    assert report.base == known != report.result
    assert json.loads((tmp_path / "out" / "config.json").read_text())["identity"] == report.result
    assert report.result in (tmp_path / "out" / "README.md").read_text()
    assert same(dict(open_tensors(tmp_path / "out" / "transformer")), trained.merged)


def test_a_released_adapter_merges(tmp_path: Path) -> None:
    transformer = tiny_transformer()
    before = copied(transformer)
    add_lora(transformer)
    move(transformer)
    trainable = {name: x.detach() for name, x in transformer.named_parameters() if x.requires_grad}
    (tmp_path / "adapter").mkdir()
    save_file(to_wan(trainable, CONFIG, DREAMZERO_PREFIX + WRAPPED_PREFIX), tmp_path / "adapter" / "model.safetensors")
    merge(transformer)
    base = sharded(tmp_path / "base", to_wan(before, CONFIG))
    merge_files(base, tmp_path / "adapter", tmp_path / "out", alpha=4.0)
    assert same(from_wan(open_tensors(tmp_path / "out")), copied(transformer))
