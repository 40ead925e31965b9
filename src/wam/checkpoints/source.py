"""From what a user types to files on this machine: a folder, a preset, or a repository of the Hugging Face hub.

resolve("runs/droid")                      a folder or file
resolve("dreamzero-droid")                 a preset: its repository, downloaded once
resolve("Wan-AI/Wan2.1-I2V-14B-480P")      a repository; "...@main" or "...@<commit>" pins its revision
resolve("nano-metaworld")                  a model that comes with the package
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from wam.checkpoints.errors import MissingPartError, SourceNotFoundError
from wam.checkpoints.licence import Licence, licence_of
from wam.checkpoints.model_folder import SHIPPED
from wam.checkpoints.presets import PRESETS
from wam.checkpoints.recognise import PARTS, Recognised, recognise

REPOSITORY = re.compile(r"^[\w.-]+/[\w.-]+$")
# What is downloaded, per component, whichever layout the repository has; "*" also crosses folders.
FACTS = (
    *("config.json", "README.md", "LICENSE*", "metadata.json", "experiment_cfg/metadata.json"),
    *("adapter_config.json", "wam_adapter.json", "training.json", "robot.yaml"),
)
NEEDED: Mapping[str, tuple[str, ...]] = {
    "transformer": ("transformer/*", "diffusion_pytorch_model*", "model*.safetensors*", "adapter_model*.safetensors"),
    "vae": ("vae/*", "Wan2.?_VAE.*"),
    "text_encoder": ("text_encoder/*", "tokenizer/*", "google/umt5-xxl/*", "models_t5*"),
    "image_encoder": ("image_encoder/*", "models_clip*"),
}
NEVER = ("*.bin", "*.msgpack", "*.onnx", "*.engine", "*.trt", "tensorrt/*", "*.fp16.safetensors")


@dataclass(frozen=True)
class Source:
    """Weights on this machine.

    asked: what the user typed.  name: for people and for configs, without any path of this machine.
    preset: the one that was asked for, or that the folder says it is; None when neither says so.
    revision: the commit of the repository, None for a folder.
    """

    asked: str
    name: str
    found: Recognised
    licence: Licence
    preset: str | None = None
    revision: str | None = None

    @property
    def folder(self) -> Path:
        path = self.found.path
        return path if path.is_dir() else path.parent


def require_parts(place: Source, parts: Collection[str], so: str) -> None:
    """Raises MissingPartError naming the first of these parts that the weights lack. so: what follows from that."""
    missing = [part for part in parts if part not in place.found.pieces]
    if missing:
        raise MissingPartError(f"{place.asked}: has no {missing[0]}, so it cannot {so}; see wam inspect")


def resolve(
    source: str | Path,
    *,
    components: Collection[str] = PARTS,
    revision: str | None = None,
) -> Source:
    """Find weights; download what is needed of a repository, and only that.

    components: of a repository, which to download. Folders are taken as they are.

    Raises SourceNotFoundError naming everything that was tried; `CheckpointError` when the files are not usable.
    """
    asked, tried = str(source), []
    if Path(asked).exists():
        return _local(asked, Path(asked))
    tried.append(f"no file or folder {asked!r}")
    name, _, pinned = asked.partition("@")
    revision = revision or pinned or None
    if name in PRESETS:
        if not PRESETS[name].repository:
            raise SourceNotFoundError(f"preset {name!r}: no weights of it are public; give the folder of yours")
        return _hub(asked, PRESETS[name].repository, revision, components, tried)
    tried.append(f"no preset of that name (presets are {sorted(PRESETS)})")
    shipped = sorted(folder.name for folder in SHIPPED.glob("*/"))
    if asked in shipped:
        return _local(asked, SHIPPED / asked)
    tried.append(f"no model that comes with the package (these are {shipped})")
    if not REPOSITORY.match(name):
        raise SourceNotFoundError(
            f"{asked}: {'; '.join(tried)}; and it is no id of a repository on the hub, which would be owner/name"
        )
    return _hub(asked, name, revision, components, tried)


def _local(asked: str, path: Path) -> Source:
    found = recognise(path)
    stated = found.fields.get("preset")
    preset = stated if isinstance(stated, str) and stated in PRESETS else None
    folder = path if path.is_dir() else path.parent
    return Source(asked, _name(found.fields, path), found, licence_of(folder, preset), preset)


def _name(fields: Mapping[str, Any], path: Path) -> str:
    """The source that the folder itself names, else the folder's own name: never a path of this machine."""
    stated = fields.get("source")
    return stated if isinstance(stated, str) else path.resolve().name


def _hub(asked: str, repository: str, revision: str | None, components: Collection[str], tried: list[str]) -> Source:
    patterns = [*FACTS, *(pattern for part in components for pattern in NEEDED[part])]
    try:
        folder = Path(
            snapshot_download(repository, revision=revision, allow_patterns=patterns, ignore_patterns=list(NEVER))
        )
    except Exception as error:  # the hub's own types and its transport's, which differ between its versions
        at = "" if revision is None else f" at revision {revision}"
        reason = str(error).strip().split("\n")[0]
        raise SourceNotFoundError(
            f"{asked}: {'; '.join([*tried, ''])}and the repository {repository}{at} cannot be downloaded ({reason}). "
            "Check the name and the network, or download it elsewhere and give the folder"
        ) from error
    found = recognise(folder)
    preset = next((name for name, entry in PRESETS.items() if name == asked or entry.repository == repository), None)
    commit = folder.name if folder.parent.name == "snapshots" else revision
    return Source(asked, repository, found, licence_of(folder, preset), preset, commit)
