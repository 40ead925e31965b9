"""Golden manifests: names and shapes of whole published files, held against our transformers, and against the modules
of transformers and diffusers that do the work of the other components, all on the meta device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from wam.checkpoints.component_names import COMPONENTS, Component, component_of
from wam.checkpoints.component_sizes import component_skeleton
from wam.checkpoints.names import (
    ACTION_MODULES,
    ADAPTERS,
    CODEC,
    DREAMZERO_PREFIX,
    PATCH,
    LoadReport,
    compare,
    dialect,
    from_diffusers,
    from_wan,
    to_diffusers,
    to_wan,
)
from wam.checkpoints.presets import PRESETS, skeleton
from wam.evaluate.parity.golden import Check, GoldenCase, exact
from wam.model.config import TransformerConfig

Shapes = dict[str, Tensor]
CODEC_OUTPUT = "state_encoder.layer2.bias"  # as wide as the transformer


def check_names(case: GoldenCase) -> list[Check]:
    """Every name has its place with its shape, the way back gives the same, and equal weights have equal names.

    The first check of a component counts names without a place and wrong shapes.
    """
    if "components" not in case.facts:
        tensors = _shapes(case.facts["tensors"])
        return _adapters(from_wan(tensors)) if any(".lora_A." in name for name in tensors) else _whole_file(tensors)
    checks = []
    for name, facts in case.facts["components"].items():
        tensors = _shapes(facts["tensors"])
        checks += _part(name, tensors)
        mapping = case.facts.get("mapping_original_to_diffusers", {}).get(name)
        if mapping is not None:
            checks.append(exact(f"{name}: original to library", _library_names(mapping, tensors), mapping))
    return checks


def _whole_file(tensors: Shapes) -> list[Check]:
    """A DreamZero file: the transformer, and the components that it holds, each under its prefix; nothing else."""
    prefixes = {DREAMZERO_PREFIX: "transformer", **{component.prefix: component.folder for component in COMPONENTS}}
    parts = {prefix: {n: x for n, x in tensors.items() if n.startswith(prefix)} for prefix in prefixes}
    homeless = len(tensors) - sum(len(part) for part in parts.values())
    checks = [Check("every name belongs to a part", "exact", float(homeless), 0.0)]
    for prefix, part in parts.items():
        if part or prefix == DREAMZERO_PREFIX:
            checks += _part(prefixes[prefix], part, prefix)
    return checks


def _part(name: str, tensors: Shapes, prefix: str = "") -> list[Check]:
    """A transformer or another component, whichever these names belong to."""
    component, config = component_of(tensors), _transformer_config(tensors, prefix)
    if component is not None:
        return _component(name, tensors, component, prefix)
    if config is not None:
        return _transformer(name, tensors, config, prefix)
    return [Check(f"{name}: is a network we know", "exact", float(len(tensors) or 1), 0.0)]


# ---------------------------------------------------------------- the transformer


def _transformer_config(tensors: Shapes, prefix: str) -> TransformerConfig | None:
    """The preset of these sizes: width, input channels and whether there is an image branch tell them apart."""
    if prefix + PATCH not in tensors:
        return None
    shape = tuple(tensors[prefix + PATCH].shape)
    image = any("img_emb." in name or "image_embedder." in name for name in tensors)
    configs = (preset.transformer for preset in PRESETS.values())
    return next(
        (c for c in configs if (c.dim, c.in_channels) == shape[:2] and image == (c.image_dim is not None)), None
    )


def _transformer(name: str, theirs: Shapes, config: TransformerConfig, prefix: str) -> list[Check]:
    ours, foreign = _transformer_weights(config), dialect(theirs)
    renamed = from_diffusers(theirs) if foreign == "diffusers" else from_wan(theirs)
    report = compare(renamed, ours, new=() if prefix else (ACTION_MODULES,))
    kept = {own: tensor for own, tensor in ours.items() if own not in report.new}
    back = to_diffusers(kept, config) if foreign == "diffusers" else to_wan(kept, config, prefix)
    return _checks(name, report, back, theirs)


@cache
def _transformer_weights(config: TransformerConfig) -> Shapes:
    return dict(skeleton(config).state_dict())


# ---------------------------------------------------------------- the other components


def _component(name: str, theirs: Shapes, component: Component, prefix: str) -> list[Check]:
    ours = _component_weights(component.name)
    report = compare(component.from_any(theirs), component.from_library(ours), unused=component.unused)
    if component.is_wan(component.own(theirs)):
        back, unused = component.to_wan(ours, prefix), {prefix + own for own in report.unused}
    else:
        back, unused = component.from_library(ours), set(report.unused)
        theirs = component.from_library(theirs)
    return _checks(name, report, back, {own: x for own, x in theirs.items() if own not in unused})


@cache
def _component_weights(name: str) -> Shapes:
    component = next(c for c in COMPONENTS if c.name == name)
    return dict(component_skeleton(component).state_dict())


# ---------------------------------------------------------------- both


def _library_names(originals: Iterable[str], theirs: Shapes) -> dict[str, str | list[str]]:
    """What our adapters make of each original name; a list where one tensor becomes several."""
    component, config = component_of(theirs), _transformer_config(theirs, "")
    if component is None and config is None:
        return {}
    if component is not None:
        whole = component.to_wan(_component_weights(component.name))
        found = {name: list(component.from_wan({name: whole[name]})) for name in originals if name in whole}
        return {name: names[0] if len(names) == 1 else names for name, names in found.items()}
    assert config is not None
    ours, translated = _transformer_weights(config), dict[str, str | list[str]]()
    for original in originals:  # by way of our own names
        own = next(iter(from_wan({original: torch.empty(0)})))
        translated[original] = next(iter(to_diffusers({own: ours[own]}, config)))
    return translated


def _checks(name: str, report: LoadReport, back: Shapes, original: Shapes) -> list[Check]:
    return [
        Check(f"{name}: names", "exact", _faults(report), 0.0),
        exact(f"{name}: way back", _plain(back), _plain(original)),
    ]


def _adapters(found: Shapes) -> list[Check]:
    """Action modules fit as they are; adapters must multiply to the shape of a weight that exists."""
    width = found[CODEC_OUTPUT].shape[-1]
    ours = _transformer_weights(next(p.transformer for p in PRESETS.values() if p.transformer.dim == width))
    plain = {name: tensor for name, tensor in found.items() if not ADAPTERS.has(name)}
    modules = {name: tensor for name, tensor in ours.items() if CODEC.match(name)}
    lower = {name: tensor for name, tensor in found.items() if ".lora_A." in name}
    wrong = [
        name
        for name, tensor in lower.items()
        if name.replace(".lora_A.", ".lora_B.") not in found
        or name.replace(".lora_A.", ".") not in ours
        or (found[name.replace(".lora_A.", ".lora_B.")] @ tensor).shape != ours[name.replace(".lora_A.", ".")].shape
    ]
    return [
        Check("action modules: names", "exact", _faults(compare(plain, modules)), 0.0),
        Check("adapters: fit", "exact", float(len(wrong)), 0.0),
        exact("adapters: in pairs", 2 * len(lower), len(found) - len(plain)),
    ]


def _shapes(rows: Sequence[Mapping[str, Any]]) -> Shapes:
    return {row["key"]: torch.empty(row["shape"], device="meta") for row in rows}


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _faults(report: LoadReport) -> float:
    return float(len(report.missing) + len(report.unexpected) + len(report.wrong_shape))
