"""The rungs of the speed ladder: from a loop that computes everything again to the engine with all that it has.

A rung changes a `Way`, how a chunk is decided. Climbing applies one after the other; each is also measured alone, on
the way that saves nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch

from wam.bench.naive import Looks, NaiveLoop, Undone
from wam.checkpoints.model_folder import load_model, tokenizer_of
from wam.encoders.nano_tokenizer import NanoTokenizer
from wam.encoders.text import MiniLMTextEncoder
from wam.engine.config import EngineConfig
from wam.engine.engine import Actions, Engine
from wam.engine.load import resolve
from wam.engine.quantize import Weights, quantize
from wam.engine.session import Session
from wam.engine.step_cache import RELEASED_STEPS, CosineSteps, ErrorBound, FixedSteps, StepCache, StepRule
from wam.flow.sampler import Sampler
from wam.world_action_model import WorldActionModel

NOTHING_SAVED = Undone(history=True, prompt=True, levels=True)


@dataclass(frozen=True)
class Way:
    """How a chunk is decided. undone: savings that are left out; the engine itself runs when there are none.

    weights: their format.  model: another model of the same shape, such as one after its Flash stage; None: the first.
    """

    undone: Undone = field(default_factory=Undone)
    config: EngineConfig = field(default_factory=EngineConfig)
    weights: Weights = "float32"
    model: str | None = None

    def with_sampler(self, **changes: object) -> Way:
        return self.with_config(sampler=replace(self.config.sampler, **changes))  # type: ignore[arg-type]

    def with_config(self, **changes: object) -> Way:
        return replace(self, config=replace(self.config, **changes))  # type: ignore[arg-type]

    def saving(self, name: str) -> Way:
        return replace(self, undone=replace(self.undone, **{name: False}))


def naive(steps: int = 16, guidance: float = 2.0) -> Way:
    """Nothing saved: UniPC, guidance in two passes, float32, eager."""
    sampler = Sampler(steps=steps, solver="unipc", guidance=guidance)
    return Way(NOTHING_SAVED, EngineConfig(sampler, joint_pass=False, guidance_mode="sequential"))


@dataclass(frozen=True)
class Rung:
    """One option.

    lossless: gives the same actions up to rounding.  alone: means something without the others.
    climbs: stays on for the rungs above it; otherwise it is measured alone.
    """

    name: str
    change: Callable[[Way], Way]
    lossless: bool
    alone: bool = True
    climbs: bool = True


def rungs(bound: float = 0.1, cuda: bool = False, flash: str | None = None) -> list[Rung]:
    """In the order in which to climb.

    bound: of the step cache's error.  cuda: narrow arithmetic is fast there.  flash: the model after its Flash stage.
    """
    after_flash = Rung("Flash weights", lambda w: replace(w, model=flash), lossless=False, alone=False)
    return [
        Rung("KV cache", lambda w: w.saving("history"), lossless=True),
        Rung("prompt once", lambda w: w.saving("prompt"), lossless=True),
        Rung("noise levels once", lambda w: w.saving("levels"), lossless=True),
        Rung("guidance in one pass", lambda w: w.with_config(guidance_mode="batched"), lossless=True),
        Rung("remember while denoising", lambda w: w.with_config(joint_pass=True), lossless=True, alone=False),
        Rung("8 of 16 steps", skipping(FixedSteps(RELEASED_STEPS[8]), order=0), lossless=False, climbs=False),
        Rung("cosine steps", skipping(CosineSteps(), order=0), lossless=False, climbs=False),
        Rung("step cache", skipping(ErrorBound(bound)), lossless=False),
        Rung(
            "actions only",
            lambda w: w.with_sampler(solver="euler", video_final=1.0, guidance=1.0),
            lossless=False,
        ),
        Rung(
            "one step", lambda w: w.with_config(step_cache=None).with_sampler(steps=1, solver="euler"), lossless=False
        ),
        *([] if flash is None else [after_flash]),
        Rung("compile", lambda w: w.with_config(compile="whole"), lossless=True),
        Rung("bf16", lambda w: replace(w, weights="bf16"), lossless=False, climbs=cuda),
        Rung("int8 weights", lambda w: replace(w, weights="int8"), lossless=False, climbs=False),
        Rung("int8 dynamic", lambda w: replace(w, weights="int8-dynamic"), lossless=False, climbs=False),
        Rung("fp8 weights", lambda w: replace(w, weights="fp8"), lossless=False, climbs=False),
        Rung("int4 weights", lambda w: replace(w, weights="int4"), lossless=False, climbs=False),
        Rung("nvfp4 weights", lambda w: replace(w, weights="nvfp4"), lossless=False, climbs=False),
    ]


def skipping(rule: StepRule, order: Literal[0, 1] = 1) -> Callable[[Way], Way]:
    """Steps that do not ask the network; order 0 repeats the last velocity, as released."""
    return lambda way: way.with_config(step_cache=StepCache(rule, order=order))


@dataclass(frozen=True)
class Step:
    """A rung with the ways to measure it on. alone, cumulative: None where there is none."""

    rung: Rung | None
    alone: Way | None
    cumulative: Way | None

    @property
    def name(self) -> str:
        return "naive" if self.rung is None else self.rung.name

    @property
    def lossless(self) -> bool:
        return self.rung is None or self.rung.lossless


def climb(start: Way, chosen: Sequence[Rung]) -> list[Step]:
    """The naive way, then every rung on top of those below it."""
    steps, now = [Step(None, start, start)], start
    for rung in chosen:
        alone = rung.change(start) if rung.alone else None
        if rung.climbs:
            now = rung.change(now)
        steps.append(Step(rung, alone, now if rung.climbs else None))
    return steps


# ---------------------------------------------------------------- running a way


class Ready(Protocol):
    """A decision that can be made again and again, from the same past, with the same noise."""

    def prepare(self) -> Callable[[], Actions]:
        """Put everything in place; what comes back is what a robot would wait for."""


class Garage:
    """Engines of one model, made when first needed; ways that differ in options alone share their weights."""

    def __init__(self, checkpoint: str, device: str = "cpu") -> None:
        folder = resolve(checkpoint)
        self.device = device
        self.model = load_model(folder).to(device).eval()
        self.tokenizer = NanoTokenizer.from_pretrained(tokenizer_of(folder)).to(device)
        self.text_encoder = MiniLMTextEncoder(text_len=self.model.config.text_len)
        self._models: dict[tuple[str | None, Weights], WorldActionModel] = {(None, "float32"): self.model}
        self._engines: dict[tuple[str | None, Weights, EngineConfig], Engine] = {}  # what is compiled is an engine's

    def engine(self, way: Way) -> Engine:
        """Raises ValueError or ImportError where this machine cannot run these weights."""
        key = way.model, way.weights, way.config
        if key not in self._engines:
            model = self._weights(way.model, way.weights)
            self._engines[key] = Engine(model, self.tokenizer, self.text_encoder, way.config)
        return self._engines[key]

    def _weights(self, name: str | None, form: Weights) -> WorldActionModel:
        if (name, form) not in self._models:
            model = copy.deepcopy(self.model) if name is None else load_model(resolve(name)).to(self.device).eval()
            quantize(model.transformer, form)
            self._models[name, form] = model
        return self._models[name, form]

    def ready(self, way: Way, episode: Sequence[Looks], seed: int) -> Ready:
        """The decision after the last looks of an episode."""
        if way.undone != Undone():
            return _NaiveReady(NaiveLoop(self.engine(way), way.undone, episode[:-1], seed), episode[-1])
        session = self._past(way.with_config(compile="off"), episode[:-1], seed)
        return _EngineReady(self.engine(way), session, episode[-1])

    def _past(self, way: Way, episode: Sequence[Looks], seed: int) -> Session:
        """A session that has seen all this; never compiled, since these are passes that nobody times."""
        engine = self.engine(way)
        session = engine.open(seed)
        for looks in episode:
            engine.watch(session, looks)
        return session


@dataclass
class _NaiveReady:
    loop: NaiveLoop
    looks: Looks

    def prepare(self) -> Callable[[], Actions]:
        return self.loop.prepare(self.looks)


@dataclass
class _EngineReady:
    engine: Engine
    session: Session
    looks: Looks

    def prepare(self) -> Callable[[], Actions]:
        session = self.session.fork()  # a step changes what it remembers
        return lambda: self.engine.step(session, self.looks).actions


def synchronise(device: str) -> None:
    """Wait until what was asked of the device has been done."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
