"""Golden cases without a network: schedules and solver, levels and losses, pictures, robot numbers, prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wam.encoders.clip import clip_input
from wam.engine.released_loop import NEGATIVE_PROMPT
from wam.evaluate.parity.golden import Check, GoldenCase, absolute, exact, relative
from wam.flow.noise import bump_weight, interpolate, target_velocity, training_timesteps
from wam.flow.released import IDS, ReleasedMode, draw_timestep_ids, released_losses, tie_to_chunks
from wam.flow.solvers import UniPC, unipc_schedule
from wam.robot.canvas import compose
from wam.robot.embodiment import Embodiment, Moments, Part, Statistics, load_embodiment
from wam.robot.preprocess import canvas_to_video, resize_video, to_unit_range
from wam.robot.released import PROMPTED_LIKE, clean_text, released_embodiment, released_prompt
from wam.robot.units import Units

SIGMA, STEP, LOSS, NUMBER = 1e-6, 1e-5, 1e-5, 1e-5
PIXELS_OFF_BY_ONE = 0.005
REFERENCE_DRAWS, DRAWS = 76_800, 400_000
CHUNK = {"frames_per_chunk": 2, "actions_per_chunk": 24}


# ---------------------------------------------------------------- schedules


def check_schedule(case: GoldenCase) -> list[Check]:
    """UniPC's levels and steps, the training schedule with its weights, and the distribution of drawn timesteps."""
    theirs, checks = case.tensors, []
    for steps in sorted(int(name.split(".")[1]) for name in theirs if name.endswith(".velocities")):
        checks += _solver(theirs, steps)
    squeezed = unipc_schedule(16, final=0.8)
    checks.append(absolute("unipc.16.decoupled_sigmas", squeezed, theirs["unipc.16.decoupled_sigmas"], SIGMA))
    cut = (1000 * squeezed[:-1]).long()
    checks.append(exact("unipc.16.decoupled_timesteps", cut, theirs["unipc.16.decoupled_timesteps"]))
    checks += _training_schedule(theirs)
    modes: tuple[ReleasedMode, ...] = ("coupled", "decoupled", "high_noise")
    return checks + [check for mode in modes for check in _drawn(theirs, mode)]


def _solver(theirs: Mapping[str, Tensor], steps: int) -> list[Check]:
    name, sigmas = f"unipc.{steps}", unipc_schedule(steps)
    solver, samples = UniPC(sigmas), [theirs[f"unipc.{steps}.samples"][0]]
    for index, velocity in enumerate(theirs[f"{name}.velocities"]):
        samples.append(solver.step(samples[-1], velocity, index))
    return [
        absolute(f"{name}.sigmas", sigmas, theirs[f"{name}.sigmas"], SIGMA),
        exact(f"{name}.timesteps", (1000 * sigmas[:-1]).long(), theirs[f"{name}.timesteps"]),
        relative(f"{name}.samples", torch.stack(samples), theirs[f"{name}.samples"], STEP),
    ]


def _training_schedule(theirs: Mapping[str, Tensor]) -> list[Check]:
    timesteps, at = training_timesteps(), "train.weight_lookup"
    z, eps, sigma = (theirs[f"train.add_noise.{name}"] for name in ("z", "eps", "timestep"))
    mixed = interpolate(z, eps, sigma[:, None, None] / 1000)
    return [
        relative("train.timesteps", timesteps, theirs["train.timesteps"], SIGMA),
        relative("train.sigmas", timesteps / 1000, theirs["train.sigmas"], SIGMA),
        relative("train.loss_weights", bump_weight(timesteps), theirs["train.loss_weights"], LOSS),
        relative(f"{at}.weight", bump_weight(theirs[f"{at}.timestep"]), theirs[f"{at}.weight"], LOSS),
        relative("train.add_noise.x_t", mixed, theirs["train.add_noise.x_t"], STEP),
        relative("train.add_noise.target", target_velocity(z, eps), theirs["train.add_noise.target"], STEP),
    ]


def _drawn(theirs: Mapping[str, Tensor], mode: ReleasedMode) -> list[Check]:
    """Kolmogorov-Smirnov distance of our draws to the reference's quantiles, at the 1 % level."""
    generator = torch.Generator().manual_seed(0)
    video, action = draw_timestep_ids(mode, DRAWS // 4, 4, generator=generator, **CHUNK)
    limit = 1.63 * (1 / REFERENCE_DRAWS + 1 / DRAWS) ** 0.5
    drawn = {"video": video[:, 1 :: CHUNK["frames_per_chunk"]], "action": action[:, :: CHUNK["actions_per_chunk"]]}
    return [
        Check(name, "quantile", _distance(ids, theirs[name]), limit)
        for kind, ids in drawn.items()
        for name in (f"sampling.{mode}.{kind}_id_quantiles",)
    ]


def _distance(ids: Tensor, quantiles: Tensor) -> float:
    """Largest distance of the draws' distribution function to the levels 0, 0.01 .. 1 of the reference's quantiles.

    Ids are whole numbers, so the function jumps: a level inside the jump is at distance 0.
    """
    counts = torch.bincount(ids.flatten(), minlength=IDS).double()
    below = torch.cat([torch.zeros(1, dtype=torch.float64), counts.cumsum(0) / counts.sum()])
    levels = torch.linspace(0, 1, len(quantiles), dtype=torch.float64)
    at_least, at_most = below[quantiles.floor().long()], below[quantiles.floor().long() + 1]
    return float(torch.maximum(at_least - levels, levels - at_most).clamp(min=0).max())


# ---------------------------------------------------------------- losses


def check_loss(case: GoldenCase) -> list[Check]:
    """Noisy inputs and losses of given predictions, window by window."""
    checks = []
    for window in sorted({name.split(".")[0] for name in case.tensors}):
        start = len(window) + 1
        checks += _losses(window, {n[start:]: x for n, x in case.tensors.items() if n.startswith(f"{window}.")})
    return checks


def _losses(window: str, theirs: Mapping[str, Tensor]) -> list[Check]:
    schedule = training_timesteps()
    ids, action_ids = theirs["timestep_ids"], theirs["timestep_action_ids"]
    t, t_action = schedule[ids], schedule[action_ids]
    noisy = interpolate(theirs["latents"], theirs["noise"], t[:, None, :, None, None] / 1000)
    noisy_action = interpolate(theirs["actions"], theirs["noise_action"], t_action[:, :, None] / 1000)
    losses = released_losses(
        theirs["video_pred"] - target_velocity(theirs["latents"], theirs["noise"]),
        t,
        theirs["action_pred"] - target_velocity(theirs["actions"], theirs["noise_action"]),
        t_action,
        theirs["action_mask"].bool(),
        theirs["has_real_action"].bool(),
    )
    tied = tie_to_chunks(theirs["drawn_timestep_ids"], CHUNK["frames_per_chunk"])
    return [
        exact(f"{window}.timestep_ids", tied, ids),
        relative(f"{window}.noisy_latents", noisy, theirs["noisy_latents"], STEP),
        relative(f"{window}.noisy_actions", noisy_action, theirs["noisy_actions"], STEP),
        relative(f"{window}.dynamics_loss", losses.video, theirs["dynamics_loss"], LOSS),
        # a video without actions has an action loss of exactly 0
        (relative if theirs["action_loss"] else absolute)(
            f"{window}.action_loss", losses.action, theirs["action_loss"], LOSS
        ),
        relative(f"{window}.total", losses.total, theirs["total"], LOSS),
    ]


# ---------------------------------------------------------------- pictures, numbers, prompts


def check_preprocess(case: GoldenCase) -> list[Check]:
    """What goes into the networks from cameras, joints and sentences, and what comes out as actions."""
    facts, theirs, checks = case.facts, case.tensors, []
    for tag, described in facts["embodiments"].items():
        robot = released_embodiment(tag)
        for number, sizes in enumerate(facts["config"]["resolutions"][tag]):
            checks.append(_canvas(theirs, robot, f"{tag}.{number}", sizes["view_hw"]))
        checks += _vectors(theirs, robot, f"{tag}.0", described)
        checks.append(_prompt(robot, described["prompt"], f"{tag}.prompt"))
        checks.append(exact(f"{tag}.views", list(robot.cameras), described["video_keys"]))
    for tag, prompts in facts["prompts"].items():
        robot = load_embodiment(PROMPTED_LIKE[tag])
        checks += [_prompt(robot, one, f"prompts.{tag}.{i}") for i, one in enumerate(prompts["examples"])]
    checks.append(exact("negative_prompt", clean_text(NEGATIVE_PROMPT), facts["negative_prompt"]))
    return checks + _image_inputs(theirs)


def _canvas(theirs: Mapping[str, Tensor], robot: Embodiment, name: str, size: Sequence[int]) -> Check:
    """Share of pixels that are off by one; a larger difference counts as everything wrong."""
    views = {camera: theirs[f"{name}.raw.{i}"].numpy() for i, camera in enumerate(robot.cameras)}
    canvas = compose(views, replace(robot, view_height=size[0], view_width=size[1]))
    expected = theirs[f"{name}.canvas"].numpy()
    if canvas.shape != expected.shape:
        return Check(f"{name}.canvas", "share", 1.0, PIXELS_OFF_BY_ONE)
    difference = np.abs(canvas.astype(int) - expected.astype(int))
    share = 1.0 if difference.max() > 1 else float((difference > 0).mean())
    return Check(f"{name}.canvas", "share", share, PIXELS_OFF_BY_ONE)


def _vectors(theirs: Mapping[str, Tensor], robot: Embodiment, name: str, described: Mapping[str, Any]) -> list[Check]:
    """States and actions of a policy step and of a training window, there and back."""
    statistics = described["statistics"]
    state, action = (
        Moments(
            **{
                quantile: tuple(value for part in parts for value in statistics[vector][part.name][quantile])
                for quantile in ("q01", "q99")
            }
        )
        for vector, parts in (("state", robot.state), ("action", robot.action))
    )
    units = Units(replace(robot, statistics=Statistics(state, action)))

    def vector(group: str, parts: Sequence[Part]) -> Tensor:
        return torch.cat([theirs[f"{name}.{group}.{part.name}"].double() for part in parts], dim=-1)

    present, anchors = vector("state", robot.state), vector("train_state_anchor", robot.state)
    raw = vector("train_action_raw", robot.action).reshape(len(anchors), -1, robot.action_dim)
    actions = units.action_to_model(raw, anchors).flatten(0, 1)
    outputs = units.action_to_robot(theirs[f"{name}.policy_action_normalised"].double(), present[-1])
    widths = [len(part.dims) for part in robot.action]
    mask = units.action_dims.expand(len(actions), -1)
    packed_state, packed_anchors = (units.state_to_model(values) for values in (present, anchors))
    return [
        relative(f"{name}.state_normalised", packed_state, theirs[f"{name}.state_normalised"], NUMBER),
        relative(f"{name}.train_state_normalised", packed_anchors, theirs[f"{name}.train_state_normalised"], NUMBER),
        relative(f"{name}.train_action_normalised", actions, theirs[f"{name}.train_action_normalised"], NUMBER),
        exact(f"{name}.train_action_mask", mask, theirs[f"{name}.train_action_mask"].bool()),
        *(
            relative(f"{name}.policy_action.{part.name}", value, theirs[f"{name}.policy_action.{part.name}"], NUMBER)
            for part, value in zip(robot.action, torch.split(outputs, widths, dim=-1), strict=True)
        ),
    ]


def _prompt(robot: Embodiment, expected: Mapping[str, str], name: str) -> Check:
    return exact(name, released_prompt(robot, expected["instruction"]), expected["tokenizer_input"])


def _image_inputs(theirs: Mapping[str, Tensor]) -> list[Check]:
    """Pixel values in both precisions, the image encoder's input, and the 5B model's resize of the whole canvas."""
    pixels = torch.arange(256, dtype=torch.uint8)

    def video(name: str) -> Tensor:
        return canvas_to_video(theirs[f"{name}.canvas"].numpy()[None])

    droid, agibot, small = (video(name) for name in ("oxe_droid.0", "agibot.0", "oxe_droid.1"))
    head = theirs["oxe_droid.1.head_resized"]
    clip, even = clip_input(droid[:, :, 0])[0], clip_input(agibot[:, :, 0])[0][:, ::2, ::2]
    return [
        absolute("pixel_table.float32", to_unit_range(pixels), theirs["pixel_table.float32"], SIGMA),
        exact("pixel_table.bf16", to_unit_range(pixels, torch.bfloat16).float(), theirs["pixel_table.bf16"]),
        relative("oxe_droid.0.clip_input", clip, theirs["oxe_droid.0.clip_input"], NUMBER),
        relative("agibot.0.clip_input_even", even, theirs["agibot.0.clip_input_even"], NUMBER),
        relative("oxe_droid.1.head_resized", resize_video(small, *head.shape[1:])[0, :, 0], head, NUMBER),
    ]
