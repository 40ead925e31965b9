"""Write a checkpoint folder: all of it or nothing, going on where an interrupted run stopped.

Everything goes to a hidden folder beside the final one, which gets its name at the end. A record in it says what is
being written; a run with another record starts anew.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from wam.checkpoints.card import model_card
from wam.checkpoints.checked import require_fit
from wam.checkpoints.component_names import component_of
from wam.checkpoints.errors import MismatchError, OutputError
from wam.checkpoints.identity import identity
from wam.checkpoints.licence import Licence
from wam.checkpoints.load import PublishedModel
from wam.checkpoints.model_folder import ROBOT
from wam.checkpoints.names import compare
from wam.checkpoints.presets import PRESETS, skeleton
from wam.checkpoints.recognise import CONFIG
from wam.checkpoints.shards import layout, missing_bytes, require_space, write, write_json
from wam.checkpoints.targets import Files, Frozen, Held, Plan, library_fields, plan
from wam.model.config import TransformerConfig
from wam.robot.embodiment import Embodiment

RECORD = "writing.json"
Progress = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True)
class Facts:
    """What a checkpoint says about itself. source: a name, never a path of this machine."""

    source: str
    licence: Licence
    identity: str
    preset: str | None = None
    embodiments: tuple[str, ...] = ()

    def fields(self, config: TransformerConfig) -> dict[str, Any]:
        return {
            "preset": self.preset,
            "source": self.source,
            "licence": asdict(self.licence),
            "identity": self.identity,
            "embodiments": list(self.embodiments),
            "transformer": asdict(config),
        }


@dataclass(frozen=True)
class Beside:
    """Small things that go along. robot: that the weights were adapted to.  tokenizer: writes its files into a folder.
    files: copied to the root.
    """

    metadata: Mapping[str, Any] | None = None
    tokenizer: Callable[[Path], object] | None = None
    robot: Embodiment | None = None
    files: tuple[Path, ...] = ()


def save_published(model: PublishedModel, folder: Path | str, progress: Progress = lambda *_: None) -> None:
    """Write networks in our own format, which loads anywhere: no path of this machine is in it.

    Raises OutputError when the folder exists, DiskSpaceError before anything is written, MismatchError when the
    transformer is not a plain one (merge adapters, and quantise after loading).
    """
    weights = Held(model.transformer.state_dict())
    quantised = [n for n, x in model.transformer.named_parameters() if type(x.data) is not Tensor]
    if quantised:
        raise MismatchError(f"weight {quantised[0]!r} is quantised; save the model first, and quantise after loading")
    require_fit(compare(weights.meta, skeleton(model.config).state_dict()), "the transformer to save")
    networks = {
        "vae": None if model.vae is None else model.vae.vae,
        "text_encoder": None if model.text_encoder is None else model.text_encoder.network,
        "image_encoder": None if model.image_encoder is None else model.image_encoder.network,
    }
    frozen = {part: _frozen(module) for part, module in networks.items() if module is not None}
    tokenizer = None if model.text_encoder is None else cast(Any, model.text_encoder.tokenizer).save_pretrained
    facts = Facts(model.source, model.licence, identity(model.transformer), model.preset, model.robots)
    write_checkpoint(
        Path(folder),
        plan("wam", model.config, weights, frozen),
        model.config,
        facts,
        Beside(model.metadata, tokenizer, model.fitted),
        progress=progress,
    )


def _frozen(module: Any) -> Frozen:
    network = component_of(module.state_dict())
    if network is None:
        raise MismatchError(f"a {type(module).__name__} is none of the networks that Wan's models use")
    return Frozen(network, Held(network.from_library(module.state_dict())), library_fields(module))


# ---------------------------------------------------------------- all of it or nothing


def write_checkpoint(
    out: Path,
    what: Plan,
    config: TransformerConfig,
    facts: Facts,
    beside: Beside,
    *,
    record: Mapping[str, Any] | None = None,
    progress: Progress = lambda *_: None,
) -> None:
    """Write a planned checkpoint to a folder that does not exist yet (or is empty).

    record: names this work. When an interrupted run left the same record, its complete shards are kept; None never
    goes on.
    """
    require_free(out)
    partial = out.with_name(f".{out.name}.partial")
    _start_or_go_on(partial, record)
    layouts = [layout(files.weights.meta, files.stem, files.shard_bytes) for files in what.files]
    total = sum(one.bytes for one in layouts)
    require_space(out, sum(missing_bytes(partial / f.folder, one) for f, one in zip(what.files, layouts, strict=True)))
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    partial.mkdir(parents=True, exist_ok=True)
    if record is not None:
        write_json(partial / RECORD, record)
    for files, one in zip(what.files, layouts, strict=True):
        write(partial / files.folder, files.weights, one, advance)
        if files.fields is not None:
            write_json(partial / files.folder / CONFIG, files.fields)
    _write_small_files(partial, what, config, facts, beside, name=out.name)
    (partial / RECORD).unlink(missing_ok=True)
    if out.is_dir():
        out.rmdir()  # empty
    os.replace(partial, out)


def require_free(out: Path) -> None:
    """Raises OutputError when something is there already."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise OutputError(f"{out}: exists already; remove it, or choose another folder")


def _start_or_go_on(partial: Path, record: Mapping[str, Any] | None) -> None:
    try:
        same = record is not None and json.loads((partial / RECORD).read_text()) == json.loads(json.dumps(record))
    except (OSError, ValueError):
        same = False
    if not same:
        shutil.rmtree(partial, ignore_errors=True)


def _write_small_files(
    folder: Path, what: Plan, config: TransformerConfig, facts: Facts, beside: Beside, *, name: str
) -> None:
    write_json(folder / CONFIG, {**what.fields, **facts.fields(config)})
    if beside.metadata is not None:
        (folder / what.metadata).parent.mkdir(parents=True, exist_ok=True)
        write_json(folder / what.metadata, beside.metadata)
    if beside.robot is not None:
        beside.robot.to_yaml(folder / ROBOT)
    if beside.tokenizer is not None:
        beside.tokenizer(folder / what.tokenizer)
    for file in beside.files:
        shutil.copyfile(file, folder / file.name)
    origin = PRESETS[facts.preset].repository if facts.preset in PRESETS else ""
    card = model_card(
        name=name,
        what=f"Weights of {facts.source}, written by wam.",
        licence=facts.licence,
        identity=facts.identity,
        sizes={files.folder or files.stem: _size(files) for files in what.files},
        robots=facts.embodiments,
        base=origin,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _size(files: Files) -> tuple[int, int, str]:
    meta: Mapping[str, Tensor] = files.weights.meta
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in meta.values()})
    return len(meta), sum(tensor.numel() for tensor in meta.values()), ", ".join(dtypes)
