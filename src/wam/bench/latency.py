"""One episode without end: how long each stage of a chunk takes, time after time, and whether memory stays flat."""

from __future__ import annotations

import io
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wam.encoders.video import FRAMES_PER_LATENT
from wam.engine.engine import Engine
from wam.model.attention import Kind
from wam.model.transformer import Pass, Velocity
from wam.robot.embodiment import Embodiment
from wam.robot.observation import Observation

STAGES = {
    "decode": "pictures from JPEG, as a client sends them",
    "observe": "check, compose the canvas, chroma",
    "prompt": "take in the sentence (only when it changes)",
    "encode": "pictures to latents",
    "remember": "write the latents into the cache (0 in a joint pass)",
    "denoise": "all denoising steps",
    "act": "actions in robot units",
    "chunk": "all of it",
}
"""What is timed, in order; passes of the network come on top, as "pass 1", "pass 2", ..."""
SAMPLES = 200  # how often memory is looked at


@dataclass(frozen=True)
class Percentiles:
    """Of a stage, in milliseconds."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Percentiles:
        return cls(*(1e3 * float(value) for value in np.percentile(np.asarray(seconds), (50, 95, 99))))


@dataclass(frozen=True)
class Memory:
    """Resident memory of the process, in bytes, after the first tenth of the chunks and at the end.

    slope: bytes per chunk of the straight line through what was seen in between.
    """

    start: int
    end: int
    slope: float


@dataclass(frozen=True)
class Latency:
    """stages: by name, see `STAGES`.  step: seconds of the median pass that denoises."""

    chunks: int
    stages: Mapping[str, Percentiles]
    memory: Memory
    step: float | None


def measure(
    engine: Engine,
    pictures: Sequence[Mapping[str, bytes]],
    chunks: int,
    on_chunk: Callable[[int], None] = lambda _: None,
) -> Latency:
    """Run one session over looks whose pictures come around again and again. Needs at least 20 chunks."""
    if chunks < 20:
        raise ValueError(f"chunks is {chunks}, expected at least 20")
    seconds: dict[str, list[float]] = defaultdict(list)
    resident: list[tuple[int, int]] = []
    arriving, session = _arriving(engine.embodiment, pictures), engine.open(seed=0)
    passes = _Passes(engine)
    for number in range(chunks):
        wanted = engine.embodiment.frames_per_chunk * FRAMES_PER_LATENT if session.begun else 1
        raw = [next(arriving) for _ in range(wanted)]
        began = time.perf_counter()
        looks = [decode(look, images) for look, images in raw]
        decoded = time.perf_counter()
        chunk = engine.step(session, looks)
        ended = time.perf_counter()
        if number >= 5:  # the first chunks allocate, and compile
            seconds["decode"].append(decoded - began)
            seconds["chunk"].append(ended - began)
            for stage, spent in {"remember": 0.0, **chunk.seconds, **passes.take()}.items():
                seconds[stage].append(spent)
        passes.clear()
        if number % max(1, chunks // SAMPLES) == 0 or number == chunks - 1:
            resident.append((number, resident_bytes()))
        on_chunk(number + 1)
    passes.close()
    names = [*STAGES, *sorted(name for name in seconds if name not in STAGES)]
    stages = {name: Percentiles.of(seconds[name]) for name in names if seconds.get(name)}
    steps = [one for name, many in seconds.items() if name.startswith("pass") for one in many]
    return Latency(chunks, stages, _flat(resident, chunks), float(np.median(steps)) if steps else None)


def synthetic(robot: Embodiment, count: int = 64, seed: int = 0) -> list[dict[str, bytes]]:
    """JPEG pictures of coarse random blocks, for each camera, that a robot might send."""
    rng, out = np.random.default_rng(seed), []
    for _ in range(count):
        look = {}
        for camera in robot.cameras:
            coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
            buffer = io.BytesIO()
            coarse.resize((robot.view_width, robot.view_height)).save(buffer, format="JPEG", quality=90)
            look[camera] = buffer.getvalue()
        out.append(look)
    return out


def decode(look: Observation, images: Mapping[str, bytes]) -> Observation:
    """An observation with its pictures, from JPEG or PNG."""
    pictures = {camera: np.asarray(Image.open(io.BytesIO(raw)).convert("RGB")) for camera, raw in images.items()}
    return Observation(pictures, look.state, look.instruction, look.timestamp)


def resident_bytes() -> int:
    """Of this process, now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _arriving(
    robot: Embodiment, pictures: Sequence[Mapping[str, bytes]]
) -> Iterator[tuple[Observation, Mapping[str, bytes]]]:
    """Looks without end, with states near the mean and a clock that goes on."""
    rng, number = np.random.default_rng(0), 0
    assert robot.statistics is not None  # a trained robot has them
    mean, std = (np.array(values, np.float32) for values in (robot.statistics.state.mean, robot.statistics.state.std))
    while True:
        state = (mean + 0.3 * std * rng.normal(size=len(mean))).astype(np.float32)
        yield Observation({}, state, "push the button", number / robot.control_hz), pictures[number % len(pictures)]
        number += robot.video_stride


def _flat(resident: Sequence[tuple[int, int]], chunks: int) -> Memory:
    settled = [(number, size) for number, size in resident if number >= chunks // 10]
    numbers, sizes = np.array(settled, dtype=np.float64).T
    slope = float(np.polyfit(numbers, sizes, deg=1)[0]) if len(settled) > 1 else 0.0
    return Memory(settled[0][1], settled[-1][1], slope)


class _Passes:
    """Seconds of every pass of the network that denoises, in order: the engine's network is timed, compiled or not."""

    def __init__(self, engine: Engine) -> None:
        self.seconds: list[float] = []
        self._engine, self._network = engine, engine._network
        engine._network = self._ask

    def take(self) -> dict[str, float]:
        return {f"pass {number}": spent for number, spent in enumerate(self.seconds, start=1)}

    def clear(self) -> None:
        self.seconds = []

    def close(self) -> None:
        self._engine._network = self._network

    def _ask(self, inputs: Pass, *others: Any, **options: Any) -> Velocity:
        began = time.perf_counter()
        answer = self._network(inputs, *others, **options)
        if inputs.layout.count(Kind.ACTION):
            self.seconds.append(time.perf_counter() - began)
        return answer
