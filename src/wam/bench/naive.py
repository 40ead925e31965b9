"""The closed loop without the savings that cost nothing: what a chunk costs when everything is computed again.

It exists to be measured against the engine, and computes the same numbers. Each saving can be undone by itself:

    history   no cache: all pictures since the episode began go through the video encoder at every chunk, and through
              the network at every pass
    prompt    the sentence goes through the text encoder at every chunk, and its keys are computed at every pass
    levels    the noise level is embedded for every token, although a pass has two or three different ones
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from wam.engine.compiled import compiled
from wam.engine.engine import Actions, Engine
from wam.engine.guidance import batched, in_turn
from wam.engine.looks import canvases_of, state_of
from wam.engine.step_cache import Levels
from wam.model.attention import ANCHOR, Kind, video_layout
from wam.model.kv_cache import KVCache
from wam.model.passes import joined
from wam.model.transformer import Context, Pass, Velocity
from wam.robot.observation import Observation
from wam.world_action_model import VelocityOf

Looks = Sequence[Observation]


@dataclass(frozen=True)
class Undone:
    """Which savings are undone."""

    history: bool = False
    prompt: bool = False
    levels: bool = False


@dataclass(frozen=True)
class _Prompts:
    """Rows that go through the network together. features: (P, Lt, text_dim).  context, cache: None where undone."""

    features: Tensor
    context: Context | None
    cache: KVCache | None


@dataclass(frozen=True)
class _Kept:
    """Of the past, where history is not undone. stream: where the video encoder goes on.  latents: of every chunk."""

    stream: Any
    latents: list[Tensor]
    groups: list[_Prompts]


class NaiveLoop:
    """One episode of one robot, on the parts and by the configuration of an engine. Memory must slide."""

    def __init__(self, engine: Engine, undone: Undone, episode: Sequence[Looks], seed: int) -> None:
        """episode: what was seen before the chunk in question, as `Engine.step` takes it: one look, then chunks."""
        self.engine, self.undone, self.seed = engine, undone, seed
        self.device = engine.model.transformer.patch_embedding.weight.device
        self.network = compiled(engine.model.transformer, engine.config.compile)
        self.pictures = [self._canvases(looks) for looks in episode]
        with torch.inference_mode():
            self._sentence = episode[0][-1].instruction
            self._features = None if undone.prompt else self._read(self._sentence)
            self._kept = None if undone.history else self._watch()

    @torch.inference_mode()
    def prepare(self, looks: Looks) -> Callable[[], Actions]:
        """What decides the chunk after `episode` and these looks, on a memory of its own: call it once."""
        caches = [] if self._kept is None else [self._copy(prompts.cache) for prompts in self._kept.groups]
        return lambda: self._step(looks, caches)

    @torch.inference_mode()
    def _step(self, looks: Looks, caches: Sequence[KVCache]) -> Actions:
        """The actions, (N, A) in robot units."""
        engine, model = self.engine, self.engine.model
        state, pictures = state_of(engine.embodiment, looks[-1]), self._canvases(looks)
        features = self._read(self._sentence) if self._features is None else self._features
        if self._kept is None:
            latents, _ = self._encode([*self.pictures, pictures])
            groups = [_Prompts(rows, self._context(rows), None) for rows in features]
        else:
            newest, _ = engine.tokenizer.encode_next(self._kept.stream, pictures)
            latents = [*self._kept.latents, newest]
            groups = [replace(prompts, cache=cache) for prompts, cache in zip(self._kept.groups, caches, strict=True)]
            for prompts in groups:
                self._remember(prompts, newest, len(latents) - 2)
        velocity = self._guided([self._velocity(prompts, latents) for prompts in groups])
        noise, sampler = model.noise(torch.Generator().manual_seed(self.seed)), engine.config.sampler
        if engine.config.step_cache is not None:
            video, action = (solver.sigmas.tolist() for solver in sampler.solvers())
            velocity = engine.config.step_cache.over(velocity, Levels(video, action))
        imagined = model.denoise(
            velocity,
            noise,
            engine.units.state_to_model(state).to(self.device),
            len(latents) - 1,
            sampler,
            latents[-1][:, :, -1:],
            slot=engine.slot,
        )
        actions: Actions = engine.units.action_to_robot(imagined.action.float().cpu(), state)[0].numpy()
        return actions

    # ---------------------------------------------------------------- what is computed once, or again

    def _read(self, sentence: str) -> list[Tensor]:
        """Features of the prompts, grouped as they go through the network: each alone, or both together."""
        encoder, config = self.engine.text_encoder, self.engine.config
        features = [encoder.encode([self.engine.embodiment.prompt(sentence)])]
        if config.sampler.guidance != 1.0:
            features.append(torch.zeros(1, encoder.text_len, encoder.text_dim))
        features = [rows.to(self.device) for rows in features]
        return [torch.cat(features)] if config.guidance_mode == "batched" else features

    def _canvases(self, looks: Looks) -> Tensor:
        return canvases_of(self.engine.embodiment, looks).to(self.device)

    def _copy(self, cache: KVCache | None) -> KVCache:
        assert cache is not None
        copied = self.engine.model.new_cache(len(cache))
        copied.load(cache)
        return copied

    def _context(self, features: Tensor) -> Context | None:
        return None if self.undone.prompt else self.engine.model.context(features)

    def _encode(self, pictures: Sequence[Tensor]) -> tuple[list[Tensor], Any]:
        """All of them, from the first: the anchor, then chunks; and where the stream of pictures goes on."""
        anchor, stream = self.engine.tokenizer.encode_first(pictures[0])
        latents = [anchor]
        for group in pictures[1:]:
            newest, stream = self.engine.tokenizer.encode_next(stream, group)
            latents.append(newest)
        return latents, stream

    def _watch(self) -> _Kept:
        """What is kept of the episode so far."""
        model = self.engine.model
        latents, stream = self._encode(self.pictures)
        groups = [
            _Prompts(rows, self._context(rows), model.new_cache(len(rows))) for rows in self._read(self._sentence)
        ]
        for prompts in groups:
            for number, seen in enumerate(latents):
                self._remember(prompts, seen, number - 1)
        return _Kept(stream, latents, groups)

    def _remember(self, prompts: _Prompts, latents: Tensor, chunk: int) -> None:
        assert prompts.cache is not None
        context = prompts.context or self.engine.model.context(prompts.features)
        rows = latents.expand(len(prompts.features), *latents.shape[1:])
        self.engine.model.remember(prompts.cache, context, rows, chunk)

    # ---------------------------------------------------------------- passes

    def _guided(self, velocities: Sequence[VelocityOf]) -> VelocityOf:
        sampler = self.engine.config.sampler
        if sampler.guidance == 1.0:
            return velocities[0]
        if self.engine.config.guidance_mode == "batched":
            return batched(velocities[0], sampler.guidance)
        return in_turn(velocities[0], velocities[1], sampler.guidance)

    def _velocity(self, prompts: _Prompts, latents: Sequence[Tensor]) -> VelocityOf:
        model = self.engine.model
        history = None if prompts.cache is not None else self._history(latents)

        def ask(step: int, inputs: Pass) -> Velocity:
            context = prompts.context or model.context(prompts.features)
            if history is not None:
                inputs = joined(_for_rows(history, len(inputs.sigma)), inputs)
            if self.undone.levels:
                inputs = level_per_token(inputs)
            geometry = model.transformer.geometry(inputs.layout, prompts.cache)
            return self.network(inputs, context, prompts.cache, geometry=geometry)

        return ask

    def _history(self, latents: Sequence[Tensor]) -> Pass:
        """Everything seen, as clean tokens of one pass."""
        model, c = self.engine.model, self.engine.model.config.transformer
        clean = model.clean(torch.cat(list(latents), dim=2), ANCHOR)
        numbers = [ANCHOR, *range(len(latents) - 1)]
        layout = video_layout(Kind.CLEAN, numbers, c.frames_per_chunk, *model.config.grid, slot=0)
        return replace(clean, layout=layout)


def _for_rows(inputs: Pass, rows: int) -> Pass:
    """The same in every row."""
    assert inputs.video is not None
    video, sigma = (tensor.expand(rows, *tensor.shape[1:]) for tensor in (inputs.video, inputs.sigma))
    return replace(inputs, video=video, sigma=sigma)


def level_per_token(inputs: Pass) -> Pass:
    """The same pass, with an entry in the list of noise levels for every token."""
    layout = inputs.layout
    slots = torch.arange(len(layout), device=layout.sigma_slot.device)
    return replace(inputs, layout=replace(layout, sigma_slot=slots), sigma=inputs.sigma[:, layout.sigma_slot])
