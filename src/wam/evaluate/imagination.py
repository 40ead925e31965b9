"""What a model makes of a scene in one of its modes, chunk after chunk, beside what really came."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from wam.engine.engine import Engine
from wam.engine.modes import Future, Mode, WorldModel
from wam.evaluate.dreams import psnr
from wam.evaluate.rollout import Frames
from wam.evaluate.scenes import Looks, Numbers, Scene
from wam.flow.sampler import Sampler
from wam.robot.embodiment import Embodiment
from wam.robot.units import Units, as_learned

VIDEO_MODES: tuple[Mode, ...] = ("policy", "video", "forward")
ACTING_MODES: tuple[Mode, ...] = ("policy", "inverse", "action-only")


@dataclass(frozen=True)
class Imagination:
    """The present, then the frames of every chunk, uint8 (T, H, W, 3); actions (C, N, A) in robot units.

    real: as the tokenizer shows it, so that only the dream is judged.  dreamed: None where no video was asked for.
    actions: chosen or given; None where they stayed noise.
    scores: in dB "psnr" of the dream and "psnr_still" of expecting no motion after the present, over all chunks and per
    chunk; "action_rmse", and of two that hold: "hold_last" repeats the action before the present (the mean one where
    there is none), "hold_mean" the mean one, in the unit of `action_unit`.
    """

    mode: Mode
    real: Frames
    dreamed: Frames | None
    actions: Numbers | None
    scores: dict[str, float | list[float]] = field(default_factory=dict)


def imagine(
    engine: Engine,
    scene: Scene,
    mode: Mode,
    *,
    actions: Numbers | None = None,
    sampler: Sampler | None = None,
    real_states: bool = False,
    seed: int = 0,
) -> Imagination:
    """Every chunk after the present of a scene.

    What imagines video goes on from what it imagined; the other modes see the real chunk and go on from there.

    actions: (C, N, A), what if the robot did this (mode forward); else what it really did, and only that is compared.
    real_states: whether the state at the start of a later chunk is the real one, rather than where the actions should
    have led (`Units.state_after`).  seed: of the noise.
    Raises ValueError where mode and scene do not fit.
    """
    given = scene.actions if actions is None else actions
    if mode == "forward" and given is None:
        raise ValueError(f"mode 'forward' needs actions, and {scene.caption!r} has none; give a file of them, or hold")
    session = engine.open(seed)
    for looks in scene.past:
        engine.watch(session, looks)
    world, futures = WorldModel(engine, session), []
    for chunk, looks in enumerate(scene.future):
        futures.append(_ask(world, mode, looks, None if given is None else given[chunk], sampler))
        if chunk + 1 < len(scene.future):
            _go_on(world, futures[-1], mode, looks, real_states)
    present = engine.picture(session)[None]
    real = np.concatenate([present, _real(WorldModel(engine, session), scene)])
    dreams = mode in VIDEO_MODES and all(future.video is not None for future in futures)
    dreamed = np.concatenate([present, world.pictures(futures)]) if dreams else None
    chosen = [future.actions for future in futures if future.actions is not None]
    done = np.stack(chosen) if chosen else None
    scores: dict[str, float | list[float]] = {}
    if dreamed is not None and (mode != "forward" or actions is None):
        scores |= video_scores(real, dreamed, len(futures))
    if done is not None and scene.actions is not None and mode in ACTING_MODES:
        scores |= action_scores(engine.embodiment, scene, done)
    return Imagination(mode, real, dreamed, done, scores)


def held(scene: Scene, robot: Embodiment) -> Numbers:
    """The action before the present, over and over: (C, N, A); the mean one where there is none."""
    shape = (len(scene.future), robot.actions_per_chunk, robot.action_dim)
    return np.broadcast_to(mean_action(scene, robot) if scene.before is None else scene.before, shape).copy()


def mean_action(scene: Scene, robot: Embodiment) -> Numbers:
    """(A,), what is zeros to the model in the present state."""
    width = robot.action_width or robot.action_dim
    state = torch.from_numpy(np.asarray(scene.past[-1][-1].state, dtype=np.float32))
    mean: Numbers = Units(robot).action_to_robot(torch.zeros(1, width), state)[0].numpy()
    return mean


def video_scores(real: Frames, dreamed: Frames, chunks: int) -> dict[str, float | list[float]]:
    """PSNR in dB of a dream and of no motion; frame 0 is the present, which nobody imagines."""
    scores: dict[str, float | list[float]] = {}
    for name, frames in (("psnr", dreamed), ("psnr_still", np.broadcast_to(real[:1], real.shape))):
        parts = zip(np.split(frames[1:], chunks), np.split(real[1:], chunks), strict=True)
        scores[name] = round(psnr(frames[1:], real[1:]), 3)
        scores[f"{name}_per_chunk"] = [round(psnr(*part), 3) for part in parts]
    return scores


def action_scores(robot: Embodiment, scene: Scene, done: Numbers) -> dict[str, float | list[float]]:
    """Root-mean-square errors against the recorded actions; see `Imagination`."""
    assert scene.actions is not None
    mean = np.broadcast_to(mean_action(scene, robot), done.shape)
    guesses = {"action_rmse": done, "hold_last": held(scene, robot), "hold_mean": mean}
    return {name: round(_rmse(robot, guess, scene.actions), 4) for name, guess in guesses.items()}


def action_unit(robot: Embodiment) -> str:
    """What errors of actions are measured in: the standard deviation of each dimension, where it is known."""
    return "std" if robot.statistics is not None and robot.statistics.action.std else "half of q01 .. q99"


def _rmse(robot: Embodiment, guess: Numbers, wanted: Numbers) -> float:
    assert robot.statistics is not None, "checked by Units"
    known = robot.statistics.action
    unit = np.array(known.std) if known.std else (np.array(known.q99) - np.array(known.q01)) / 2
    unit = np.where(unit > 1e-3, unit, 1.0)  # a dimension that never moves keeps its own unit
    state = torch.zeros(len(guess), robot.state_dim)  # the same for both, so it does not matter which
    pair = (torch.from_numpy(np.ascontiguousarray(actions, dtype=np.float32)) for actions in (guess, wanted))
    first, second = (as_learned(robot, actions, state).numpy() for actions in pair)
    return float(np.sqrt(np.mean(((first - second) / unit) ** 2)))


def _ask(world: WorldModel, mode: Mode, looks: Looks, actions: Numbers | None, sampler: Sampler | None) -> Future:
    if mode == "forward":
        assert actions is not None
        return world.forward(actions, sampler)
    if mode == "inverse":
        return world.inverse(world.latents(looks), sampler)
    return {"policy": world.policy, "video": world.video, "action-only": world.action_only}[mode](sampler)


def _go_on(world: WorldModel, future: Future, mode: Mode, looks: Looks, real_states: bool) -> None:
    if mode == "inverse" or future.video is None:
        world.see(looks)
    else:
        world.suppose(future, looks[-1].state if real_states else None)


def _real(witness: WorldModel, scene: Scene) -> Frames:
    """The real chunks, through the tokenizer and back."""
    start, seen = WorldModel(witness.engine, witness.session), []
    for looks in scene.future:
        seen.append(Future(witness.latents(looks), None))
        witness.see(looks)
    return start.pictures(seen)
