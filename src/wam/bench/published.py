"""A chunk of a published model on this machine: the released algorithm, then our savings one after the other.

Weights are random, since speed does not ask for others: so this measures time, and nothing about actions. What runs is
the transformer over a full memory: remember the chunk that was executed, then denoise the next one. Encoders and the
robot are not in it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from wam.bench.against_release import Episode, ReleasedCycle, Setting, show
from wam.bench.released_calls import Prompted
from wam.bench.train_step import timed
from wam.checkpoints.presets import preset
from wam.engine.compiled import Compile, compiled
from wam.engine.quantize import Weights, quantize
from wam.engine.released_loop import ReleasedLoop, ReleasedSampler
from wam.model.transformer import Transformer

DROID_GRID = (22, 40)  # video tokens of a latent frame of three views of 180 x 320, composed to 352 x 640


@dataclass(frozen=True)
class Rung:
    """ours: else the released algorithm.  weights: of the blocks; those below bf16 come last and stay."""

    name: str
    ours: bool = True
    sampler: ReleasedSampler = ReleasedSampler(skip=16)
    compile: Compile = "off"
    weights: Weights = "bf16"


ONE_STEP = ReleasedSampler(steps=1, guidance=1.0, skip=16)
RUNGS = (
    Rung("released algorithm, 16 steps, guidance in turn", ours=False),
    Rung("prompt once, cache in place, noise levels once"),
    Rung("compiled blocks", compile="blocks"),
    Rung("8 of 16 steps", sampler=ReleasedSampler(skip=8), compile="blocks"),
    Rung("5 of 16 steps", sampler=ReleasedSampler(skip=5), compile="blocks"),
    Rung("one step, no guidance", sampler=ONE_STEP, compile="blocks"),
    Rung("fp8, weights and activations", sampler=ONE_STEP, compile="blocks", weights="fp8-dynamic"),
)


@dataclass(frozen=True)
class Timed:
    """seconds: of a chunk, by round."""

    name: str
    seconds: list[float] = field(default_factory=list)
    failure: str | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def setting_of(name: str, device: str, grid: tuple[int, int] = DROID_GRID) -> Setting:
    """Of a preset, in bf16. Raises ValueError naming the presets there are."""
    return Setting(replace(preset(name).transformer, memory=Setting.chunks - 1), grid, device=device)


def random_network(setting: Setting) -> Transformer:
    """Built on the device in bf16 at once: the 14B needs 33 GB, not the 66 of float32."""
    with torch.device("meta"):
        net = Transformer(setting.config)
    net = net.to(setting.dtype).to_empty(device=setting.device)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return net.eval()


def measure(
    setting: Setting,
    rungs: Sequence[Rung],
    rounds: int,
    on_round: Callable[[int, int], None] = lambda done, total: None,
) -> list[Timed]:
    """Rungs of the same weights in turns, after two chunks each that compile and do not count."""
    net, prompts, episode = random_network(setting), [setting.prompted(), setting.prompted()], Episode.of(setting)
    total, done, found = len(rungs) * (rounds + 2), 0, []
    for weights in dict.fromkeys(rung.weights for rung in rungs):
        group = [rung for rung in rungs if rung.weights == weights]
        rows = [Timed(rung.name) for rung in group]
        try:
            if weights != "bf16":
                quantize(net, weights)
            chunks = [_chunk(net, setting, prompts, episode, rung) for rung in group]
            for turn in range(rounds + 2):
                for row, chunk in zip(rows, chunks, strict=True):
                    seconds = timed(chunk, setting.device)
                    if turn > 1:
                        row.seconds.append(seconds)
                    done += 1
                    on_round(done, total)
        except (ValueError, ImportError, RuntimeError) as error:
            rows = [Timed(row.name, failure=str(error).splitlines()[0]) for row in rows]
        found += rows
    return found


def _chunk(
    net: Transformer, setting: Setting, prompts: list[Prompted], episode: Episode, rung: Rung
) -> Callable[[], object]:
    """Remember the last chunk and denoise the next, again and again, over a memory that is full."""
    used = prompts[: 1 if rung.sampler.guidance == 1.0 else 2]
    last = setting.chunks - 2
    if not rung.ours:
        theirs = ReleasedCycle(net, used, setting.grid, episode.first)
        show(theirs, episode.anchor, episode.seen[:-1])
        before = theirs.past

        def again() -> object:
            theirs.past = before
            theirs.remember(episode.seen[-1], last)
            return theirs.denoise(*episode.noise[-1], last + 1)

        return again
    with torch.no_grad():
        contexts = [net.context(prompted.text, prompted.image) for prompted in used]
    ours = ReleasedLoop(net, contexts, setting.grid, rung.sampler, episode.first, compiled(net, rung.compile))
    show(ours, episode.anchor, episode.seen[:-1])

    def chunk() -> object:
        ours.remember(episode.seen[-1], last)
        return ours.denoise(*episode.noise[-1], last + 1)

    return chunk
