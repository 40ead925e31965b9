"""From what a user types to files: folders, presets and repositories, told apart; and what every folder is."""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.checkpoints.tiny import CONFIG, networks, whole

from wam.checkpoints import source as module
from wam.checkpoints.convert import convert
from wam.checkpoints.errors import (
    CheckpointError,
    ForeignCheckpointError,
    MissingPartError,
    SourceNotFoundError,
    TruncatedFileError,
)
from wam.checkpoints.licence import Licence, licence_of
from wam.checkpoints.names import DREAMZERO_PREFIX, to_wan
from wam.checkpoints.recognise import recognise
from wam.checkpoints.save import save_published
from wam.checkpoints.source import FACTS, NEEDED, NEVER, resolve

REPOSITORY = {  # files of the published repositories, and whose they are
    "transformer": [
        "diffusion_pytorch_model-00001-of-00007.safetensors",
        "diffusion_pytorch_model.safetensors.index.json",
        "transformer/diffusion_pytorch_model-00001-of-00014.safetensors",
        "transformer/config.json",
        "model-00003-of-00010.safetensors",
        "model.safetensors.index.json",
        "adapter_model.safetensors",
    ],
    "vae": ["Wan2.1_VAE.pth", "Wan2.2_VAE.pth", "vae/config.json", "vae/diffusion_pytorch_model.safetensors"],
    "text_encoder": [
        "models_t5_umt5-xxl-enc-bf16.pth",
        "google/umt5-xxl/tokenizer.json",
        "tokenizer/spiece.model",
        "text_encoder/model-00001-of-00005.safetensors",
    ],
    "image_encoder": [
        "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
        "image_encoder/model.safetensors",
    ],
    "facts": ["config.json", "README.md", "LICENSE.txt", "experiment_cfg/metadata.json"],
    "never": ["tensorrt/dit.engine", "pytorch_model.bin", "assets/video.mp4", "xlm-roberta-large/tokenizer.json"],
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """A hub that gives the tiny model for every repository and remembers how it was asked."""
    asked: list[dict[str, Any]] = []
    snapshot = tmp_path / "snapshots" / "0a1b2c"
    save_published(whole(), snapshot)
    (snapshot / "README.md").unlink()
    (snapshot / "config.json").write_text(json.dumps({"format": "wam", "transformer": vars(CONFIG)}))

    def download(repository: str, **options: Any) -> str:
        asked.append({"repository": repository, **options})
        return str(snapshot)

    monkeypatch.setattr(module, "snapshot_download", download)
    return asked


# ---------------------------------------------------------------- what a name means


def test_a_folder_is_a_folder(tmp_path: Path) -> None:
    save_published(whole(), tmp_path / "ours")
    found = resolve(tmp_path / "ours")
    assert (found.name, found.found.kind, found.revision) == ("tests/tiny", "wam", None)
    assert set(found.found.pieces) == {"transformer", "vae", "text_encoder", "image_encoder"}


def test_a_preset_is_its_repository(hub: list[dict[str, Any]]) -> None:
    found = resolve("dreamzero-droid")
    assert hub[0]["repository"] == found.name == "GEAR-Dreams/DreamZero-DROID"
    assert found.preset == "dreamzero-droid" and found.revision == "0a1b2c"
    assert found.licence.name == "cc-by-nc-4.0" and found.licence.commercial is False


def test_a_repository_with_its_revision(hub: list[dict[str, Any]]) -> None:
    found = resolve("Wan-AI/Wan2.1-I2V-14B-480P@abc123")
    assert (hub[0]["repository"], hub[0]["revision"]) == ("Wan-AI/Wan2.1-I2V-14B-480P", "abc123")
    assert found.preset == "wan2.1-i2v-14b" and found.licence.name == "apache-2.0"
    resolve("someone/else", revision="def")
    assert (hub[1]["repository"], hub[1]["revision"]) == ("someone/else", "def")


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "image_encoder"])
def test_only_what_is_needed_is_downloaded(hub: list[dict[str, Any]], part: str) -> None:
    resolve("someone/else", components=(part,))
    allowed, ignored = hub[0]["allow_patterns"], hub[0]["ignore_patterns"]

    def taken(file: str) -> bool:
        inside = any(fnmatch.fnmatch(file, pattern) for pattern in allowed)
        return inside and not any(fnmatch.fnmatch(file, pattern) for pattern in ignored)

    for other, files in REPOSITORY.items():
        assert [taken(file) for file in files] == [other in (part, "facts")] * len(files), other


def test_every_component_has_patterns() -> None:
    assert set(NEEDED) == {"transformer", "vae", "text_encoder", "image_encoder"} and FACTS and NEVER


def test_a_shipped_model_is_found() -> None:
    found = resolve("nano-metaworld")
    assert found.found.kind == "nano" and found.licence == Licence("apache-2.0", "README.md")


def test_a_name_that_is_nothing_says_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceNotFoundError, match=r"no file or folder 'wan9'; no preset.*dreamzero-droid.*owner/name"):
        resolve("wan9")
    with pytest.raises(SourceNotFoundError, match="'dreamzero-5b': no weights of it are public"):
        resolve("dreamzero-5b")

    def unreachable(repository: str, **options: Any) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr(module, "snapshot_download", unreachable)
    with pytest.raises(SourceNotFoundError, match=r"no file or folder 'a/b'.*repository a/b cannot be.*no network"):
        resolve("a/b")


# ---------------------------------------------------------------- what a folder is


@pytest.mark.parametrize("to", ["original", "diffusers", "dreamzero"])
def test_every_layout_is_recognised(tmp_path: Path, to: Any) -> None:
    save_published(whole(), tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", to=to, shard_bytes=20_000)
    found = recognise(tmp_path / "theirs")
    assert found.kind == to and found.tokenizer is not None and found.metadata is not None
    assert {part: piece.network and piece.network.name for part, piece in found.pieces.items()} == {
        "transformer": None,
        "vae": "wan2.1-vae",
        "text_encoder": "umt5-xxl",
        "image_encoder": "clip-vit-h-14",
    }


def test_single_files_are_recognised(tmp_path: Path) -> None:
    weights = networks(whole())
    torch.save(weights["vae"], tmp_path / "any name.pth")
    save_file(weights["transformer"], tmp_path / "other.safetensors")
    assert set(recognise(tmp_path / "any name.pth").pieces) == {"vae"}
    assert set(recognise(tmp_path / "other.safetensors").pieces) == {"transformer"}


def test_adapters_alone_are_recognised_and_refused(tmp_path: Path) -> None:
    """What DreamZero's LoRA training saves: matrices and action modules."""
    codec = {n: x for n, x in networks(whole())["transformer"].items() if n.startswith(("action", "state"))}
    prefix = DREAMZERO_PREFIX + "base_model.model."
    tensors = to_wan(codec, CONFIG, prefix)
    tensors[prefix + "blocks.0.self_attn.q.lora_A.default.weight"] = torch.ones(4, 24)
    tensors[prefix + "blocks.0.self_attn.q.lora_B.default.weight"] = torch.ones(24, 4)
    save_file(tensors, tmp_path / "model.safetensors")
    assert recognise(tmp_path).kind == "adapter"
    with pytest.raises(MissingPartError, match="holds a LoRA adapter only; load the base"):
        convert(tmp_path, tmp_path / "out")


def test_a_shard_of_a_file_without_transformer_is_named(tmp_path: Path) -> None:
    save_file({"action_head.vae.model.conv1.weight": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(MissingPartError, match="no transformer"):
        recognise(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda folder: (folder / "config.json").write_text("{"), TruncatedFileError, r"config\.json: no JSON object"),
        (lambda folder: (folder / "config.json").write_text("[]"), ForeignCheckpointError, "found no weights"),
        (lambda folder: None, ForeignCheckpointError, "found no weights"),
    ],
)
def test_folders_without_weights_are_named(
    tmp_path: Path, spoil: Any, error: type[CheckpointError], message: str
) -> None:
    spoil(tmp_path)
    with pytest.raises(error, match=message):
        recognise(tmp_path)


def test_no_class_that_a_config_names_is_touched(tmp_path: Path) -> None:
    """DreamZero's configs name classes to instantiate; here they are text."""
    save_published(whole(), tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", to="dreamzero")
    fields = json.loads((tmp_path / "theirs" / "config.json").read_text())
    fields["action_head_cfg"]["_target_"] = "this.module.cannot.be.imported"
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(fields))
    assert recognise(tmp_path / "theirs").kind == "dreamzero"


# ---------------------------------------------------------------- licences


def test_licences(tmp_path: Path) -> None:
    assert licence_of(tmp_path).name == "unknown" and licence_of(tmp_path).commercial is None
    assert licence_of(tmp_path, "wan2.2-ti2v-5b") == Licence(
        "apache-2.0", "known for wan2.2-ti2v-5b, not stated in the folder"
    )
    (tmp_path / "LICENSE.txt").write_text("   Apache License\n   Version 2.0, January 2004")
    assert licence_of(tmp_path) == Licence("apache-2.0", "LICENSE.txt")
    (tmp_path / "LICENSE.txt").write_text("Terms of our own")
    assert licence_of(tmp_path).name == "see LICENSE.txt"
    (tmp_path / "README.md").write_text("---\nlicense: CC-BY-NC-4.0\ntags: [x]\n---\n# Title")
    assert licence_of(tmp_path, "wan2.2-ti2v-5b").name == "cc-by-nc-4.0"
    assert "not for commercial use" in str(licence_of(tmp_path))
    (tmp_path / "README.md").write_text("---\n: broken: [yaml\n---\n")
    assert licence_of(tmp_path).name == "see LICENSE.txt"
