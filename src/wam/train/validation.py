"""What a training run says about itself on held-out episodes: losses per noise level, and errors of imagined actions.

The same windows and the same noise every time, so that two validations differ by the model alone. The result is plain
numbers, the value of "validation" in a row of log.jsonl; what a model or a data set does not have is left out:

    {"seconds": 3.1,
     "video": .., "action": ..,             mean over the data sets, at noise levels drawn as in training
     "data": {"mt10": {                     one entry per data set of the run
        "embodiment": "metaworld-sawyer",   whose it is
        "windows": 32,
        "video": .., "action": ..,          at noise levels drawn as in training
        "video_at": {"0.1": .., "1.0": ..}, at fixed levels, video and actions at the same one; without loss weight
        "action_at": {"0.1": .., ..},
        "action_at_video_noise": {..},      the same with the video at pure noise, where training has such chunks
        "action_error": {                   see `wam.train.open_loop`; by network calls of the sampler
           "1": {"all": .., "dims": {"delta_x": .., ..}}, "4": {..}},
        "hold_mean": {"all": .., "dims": {..}}, "hold_last": {..}}},
     "embodiments": {"metaworld-sawyer": {  the means over its data sets, and roots of mean squares of "all"
        "video": .., "action": .., "action_error": {"1": .., "4": ..}, "hold_mean": .., "hold_last": ..}},
     "dream": {"psnr": .., "psnr_still": ..}}   of the pictures beside it, see `wam.train.samples`
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wam.data.mixture import Member, Mixture
from wam.data.windows import WindowBatch, WindowIndex
from wam.encoders.text import Prompts
from wam.flow.noise import NoiseConfig, loss_weight
from wam.flow.sampler import Sampler
from wam.train.config import ValidationConfig
from wam.train.open_loop import action_errors, without_gap
from wam.world_action_model import WorldActionModel

Score = dict[str, Any]
SMALLEST_WEIGHT = 1e-3  # a noise level that counts less in training is not measured


def validate(
    model: WorldActionModel,
    held_out: Mixture,
    prompts: Tensor | Prompts,
    config: ValidationConfig | None = None,
    batch: int = 32,
    seed: int = 0,
) -> Score:
    """Score every data set; see the module text for what comes back.

    prompts: (n, Lt, text_dim) features by `text_id`.  batch: windows that the network sees at once.
    """
    began, config = time.perf_counter(), config or ValidationConfig()
    data: Score = {}
    for place, member in enumerate(held_out.members):
        data[member.name] = score(model, held_out, place, prompts, config, batch, seed)
    spent = round(time.perf_counter() - began, 3)
    return {"seconds": spent, **_means(list(data.values())), "data": data, "embodiments": _by_embodiment(data)}


@torch.no_grad()
def score(
    model: WorldActionModel,
    held_out: Mixture,
    place: int,
    prompts: Tensor | Prompts,
    config: ValidationConfig,
    batch: int = 32,
    seed: int = 0,
) -> Score:
    """One data set: the entry of "data"."""
    member, device = held_out.members[place], next(model.parameters()).device
    index = _chosen(member, config.windows, seed)

    def parts(chosen: WindowIndex) -> Iterator[tuple[WindowIndex, WindowBatch, Tensor]]:
        for start in range(0, len(chosen.row), batch):
            part = chosen.part(slice(start, start + batch))
            windows = held_out.collate(place, part)
            yield part, windows.to(device), prompts[windows.text_id].to(device)

    whole = [(windows, text) for _, windows, text in parts(index)]
    result: Score = {"embodiment": _robot_name(member), "windows": len(index.row)}
    result |= losses(model, whole, seed)
    result |= losses_at_levels(model, whole, config.levels, seed)
    if member.units is None or not config.steps:
        return result
    sums = None
    samplers = {str(steps): _sampler(steps, model.config.noise) for steps in config.steps}
    for part, _, text in parts(without_gap(index, member.source.spec.chunks)):
        errors = action_errors(model, held_out, place, part, text, samplers, seed)
        sums = errors if sums is None else {name: sums[name] + errors[name] for name in errors}
    assert sums is not None
    roots = {name: total.roots(member.units.embodiment.action_names) for name, total in sums.items()}
    return result | {
        "action_error": {name: roots[name] for name in samplers},
        "hold_mean": roots["hold_mean"],
        "hold_last": roots["hold_last"],
    }


# -------------------------------------------------------------------------------- losses

Parts = Sequence[tuple[WindowBatch, Tensor]]  # windows and their prompt features, on the model's device


def losses(
    model: WorldActionModel, parts: Parts, seed: int, levels: tuple[float, float] | None = None
) -> dict[str, float]:
    """Loss of video and of actions over all parts; none for what has nothing to learn from.

    levels: of (video, actions), instead of those that training would draw; then no action is given.
    """
    generator, drawn = torch.Generator().manual_seed(seed), []
    for windows, _ in parts:
        draws = model.draw(windows, [generator] * len(windows.has_action))
        if levels is not None:
            video, action = (torch.full_like(draws.video_level, level) for level in levels)
            draws = replace(draws, video_level=video, action_level=action, prefix=torch.zeros_like(draws.prefix))
        drawn.append((draws, model.counts(windows, draws)))
    totals = {name: sum(int(getattr(counts, name)) for _, counts in drawn) for name in ("video", "action")}
    sums = {"video": 0.0, "action": 0.0}
    for (windows, text), (draws, counts) in zip(parts, drawn, strict=True):
        part = model(windows, text, draws)
        for name in sums:
            sums[name] += getattr(part, name).item() * int(getattr(counts, name))
    known = {"video": model.config.dream and totals["video"] > 0, "action": totals["action"] > 0}
    return {name: sums[name] / totals[name] for name in sums if known[name]}


def losses_at_levels(model: WorldActionModel, parts: Parts, levels: Sequence[float], seed: int) -> Score:
    """Losses at fixed noise levels, without the weight that training gives a level: "video_at", "action_at" and so on.

    Both modalities stand at the same level, as along the sampler's way; where training draws them apart, the actions
    are also measured beside a video that is pure noise.
    """
    noise, result = model.config.noise, Score()
    apart = noise.mode != "coupled" and model.config.dream
    for level in levels:
        weight = loss_weight(noise, torch.tensor(level)).item()
        if weight < SMALLEST_WEIGHT:
            continue
        found = {f"{name}_at": value for name, value in losses(model, parts, seed, (level, level)).items()}
        if apart and "action_at" in found:
            alone = found["action_at"] if level == 1 else losses(model, parts, seed, (1.0, level))["action"]
            found["action_at_video_noise"] = alone
        for name, value in found.items():
            result.setdefault(name, {})[str(level)] = value / weight
    return result


# -------------------------------------------------------------------------------- what is measured, and means


def _chosen(member: Member, windows: int, seed: int) -> WindowIndex:
    """The windows of a data set that are looked at, the same ones every time."""
    rng = np.random.default_rng(seed)
    count = len(member.source)
    return member.source.windows(np.sort(rng.choice(count, size=min(windows, count), replace=False)), rng)


def _sampler(steps: int, noise: NoiseConfig) -> Sampler:
    """A model of the Flash stage leaves its video at pure noise."""
    return Sampler(steps=steps, video_final=1.0 if noise.mode == "flash" else 0.0)


def _robot_name(member: Member) -> str:
    return member.name if member.embodiment is None else member.embodiment.name


def _means(scores: Sequence[Score]) -> dict[str, float]:
    """Mean losses over those data sets that have them."""
    found = {name: [score[name] for score in scores if name in score] for name in ("video", "action")}
    return {name: sum(values) / len(values) for name, values in found.items() if values}


def _by_embodiment(data: Score) -> Score:
    """What the data sets of each robot have in common."""
    result = Score()
    for robot in dict.fromkeys(score["embodiment"] for score in data.values()):
        scores = [score for score in data.values() if score["embodiment"] == robot]
        acting = [score for score in scores if "action_error" in score]
        result[robot] = {**_means(scores)}
        if acting:
            steps = acting[0]["action_error"]
            errors = {n: _root_mean_square([score["action_error"][n]["all"] for score in acting]) for n in steps}
            holds = {n: _root_mean_square([score[n]["all"] for score in acting]) for n in ("hold_mean", "hold_last")}
            result[robot] |= {"action_error": errors, **holds}
    return result


def _root_mean_square(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
