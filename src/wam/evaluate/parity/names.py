"""Golden manifests: names and shapes of whole published files, held against our transformers on the meta device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wam.checkpoints.names import (
    ACTION_MODULES,
    ADAPTERS,
    CODEC,
    DREAMZERO_PREFIX,
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

I2V_14B, TI2V_5B = PRESETS["wan2.1-i2v-14b"].transformer, PRESETS["wan2.2-ti2v-5b"].transformer
TI2V_5B_WITH_IMAGE = PRESETS["dreamzero-5b"].transformer
WHOLE_FILES = {"manifest.dreamzero_14b": I2V_14B, "manifest.dreamzero_5b": TI2V_5B_WITH_IMAGE}
PARTS = {  # transformers inside manifests of several components
    "wan2.1_i2v_14b_480p.transformer": I2V_14B,
    "wan2.2_ti2v_5b.transformer": TI2V_5B,
    "transformer_14b": I2V_14B,
    "transformer_5b": TI2V_5B,
}
ADAPTER_FILES = {"manifest.lora_14b": I2V_14B}


def check_names(case: GoldenCase) -> list[Check]:
    """Every name has its place with its shape, the way back gives the same, and equal weights have equal names.

    The first check of a transformer counts names without a place and wrong shapes.
    """
    if case.name in ADAPTER_FILES:
        return _adapters(case.facts["tensors"], ADAPTER_FILES[case.name])
    if case.name in WHOLE_FILES:
        return _transformer("transformer", case.facts["tensors"], WHOLE_FILES[case.name], DREAMZERO_PREFIX)
    checks = []
    for name, config in PARTS.items():
        if name in case.facts["components"]:
            checks += _transformer(name, case.facts["components"][name]["tensors"], config)
            mapping = case.facts.get("mapping_original_to_diffusers", {}).get(name)
            if mapping is not None:
                checks.append(exact(f"{name}: original to diffusers", _diffusers_names(mapping, config), mapping))
    return checks


def _transformer(
    name: str, rows: Sequence[Mapping[str, Any]], config: TransformerConfig, prefix: str = ""
) -> list[Check]:
    theirs, ours = _shapes(rows), dict(skeleton(config).state_dict())
    foreign = dialect(theirs)
    renamed = from_diffusers(theirs) if foreign == "diffusers" else from_wan(theirs)
    report = compare(renamed, ours, new=() if prefix else (ACTION_MODULES,))
    kept = {own: tensor for own, tensor in ours.items() if own not in report.new}
    back = to_diffusers(kept, config) if foreign == "diffusers" else to_wan(kept, config, prefix)
    original = {key: tensor for key, tensor in theirs.items() if key.startswith(prefix)}
    return [
        Check(f"{name}: names", "exact", _faults(report), 0.0),
        exact(f"{name}: way back", _plain(back), _plain(original)),
    ]


def _diffusers_names(originals: Iterable[str], config: TransformerConfig) -> dict[str, str]:
    """What our adapters make of each original name, by way of our own names."""
    ours = skeleton(config).state_dict()
    translated = {}
    for original in originals:
        own = next(iter(from_wan({original: torch.empty(0)})))
        translated[original] = next(iter(to_diffusers({own: ours[own]}, config)))
    return translated


def _adapters(rows: Sequence[Mapping[str, Any]], config: TransformerConfig) -> list[Check]:
    """Action modules fit as they are; adapters must multiply to the shape of a weight that exists."""
    ours, found = dict(skeleton(config).state_dict()), from_wan(_shapes(rows))
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


def _shapes(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    return {row["key"]: torch.empty(row["shape"], device="meta") for row in rows}


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _faults(report: LoadReport) -> float:
    return float(len(report.missing) + len(report.unexpected) + len(report.wrong_shape))
