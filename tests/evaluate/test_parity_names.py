"""Manifests of published files, made here from the modules themselves: right ones pass, wrong ones are found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from wam.checkpoints.component_names import CLIP_VIT_H14, UMT5_XXL, WAN_21_VAE, WAN_22_VAE, Component
from wam.checkpoints.component_sizes import component_skeleton
from wam.checkpoints.names import DREAMZERO_PREFIX, to_wan
from wam.checkpoints.presets import PRESETS, skeleton
from wam.evaluate.parity.run import ParityReport, run_folder

Shapes = dict[str, list[int]]


def shapes(tensors: Mapping[str, Any]) -> Shapes:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def wan(component: Component, prefix: str = "") -> Shapes:
    return shapes(component.to_wan(component_skeleton(component).state_dict(), prefix))


def library(component: Component) -> Shapes:
    return shapes(component_skeleton(component).state_dict())


def dreamzero(preset: str) -> Shapes:
    config = PRESETS[preset].transformer
    return shapes(to_wan(dict(skeleton(config).state_dict()), config, DREAMZERO_PREFIX))


def rows(found: Shapes) -> list[dict[str, Any]]:
    return [{"key": name, "shape": shape} for name, shape in found.items()]


def run(folder: Path, **parts: Shapes) -> ParityReport:
    facts = {"components": {name: {"tensors": rows(found)} for name, found in parts.items()}}
    (folder / "manifest.some.json").write_text(json.dumps(facts))
    return run_folder(folder)


def run_whole(folder: Path, tensors: Shapes) -> ParityReport:
    (folder / "manifest.some.json").write_text(json.dumps({"tensors": rows(tensors)}))
    return run_folder(folder)


def wrong(report: ParityReport) -> list[str]:
    return [check.tensor for check in report.results[0].checks if not check.ok]


def test_components_pass_under_any_label(tmp_path: Path) -> None:
    clip = {**wan(CLIP_VIT_H14), "log_scale": [], "visual.head": [1280, 1024]}
    report = run(tmp_path, a=wan(UMT5_XXL), b=clip, c=wan(WAN_21_VAE), d=library(WAN_22_VAE), e=library(UMT5_XXL))
    assert report.exit_code == 0 and len(report.results[0].checks) == 10


@pytest.mark.parametrize("component", [CLIP_VIT_H14, WAN_21_VAE], ids=lambda component: component.name)
def test_faults_of_components_are_found(tmp_path: Path, component: Component) -> None:
    right = wan(component)
    name = next(iter(right))
    assert wrong(run(tmp_path, x={own: s for own, s in right.items() if own != name})) == ["x: names", "x: way back"]
    assert wrong(run(tmp_path, x={**right, name: [*right[name], 2]})) == ["x: names", "x: way back"]
    assert wrong(run(tmp_path, x={**right, "extra.weight": [2]})) == ["x: is a network we know"]


def test_the_map_from_original_to_library_is_compared(tmp_path: Path) -> None:
    names = {"token_embedding.weight": "shared.weight", "norm.weight": "encoder.final_layer_norm.weight"}
    facts: dict[str, Any] = {"components": {"text": {"tensors": rows(library(UMT5_XXL))}}}
    for expected in (names, {**names, "norm.weight": "shared.weight"}):
        facts["mapping_original_to_diffusers"] = {"text": expected}
        (tmp_path / "manifest.some.json").write_text(json.dumps(facts))
        found = wrong(run_folder(tmp_path))
        assert found == ([] if expected == names else ["text: original to library"])


def test_a_whole_file_and_its_parts(tmp_path: Path) -> None:
    file = dreamzero("dreamzero-5b") | wan(UMT5_XXL, UMT5_XXL.prefix) | wan(WAN_22_VAE, WAN_22_VAE.prefix)
    assert run_whole(tmp_path, file).exit_code == 0
    assert wrong(run_whole(tmp_path, {**file, "backbone.weight": [1]})) == ["every name belongs to a part"]
    assert wrong(run_whole(tmp_path, {**file, f"{WAN_22_VAE.prefix}extra.weight": [1]})) == [
        "vae: is a network we know"
    ]
    only_text = {name: shape for name, shape in file.items() if not name.startswith(DREAMZERO_PREFIX)}
    assert wrong(run_whole(tmp_path, only_text)) == ["transformer: is a network we know"]
