"""Closed loops for the ladder: the same episodes for the naive sampler and for every rung that changes the actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wam.bench.naive import Undone
from wam.bench.rungs import Garage, Step, Way
from wam.engine.load import resolve
from wam.engine.wam_policy import WamPolicy
from wam.evaluate.provenance import commit
from wam.evaluate.runner import Episode, Setup, run_episodes
from wam.evaluate.sources import MetaWorldSource, PolicyFor, fingerprint
from wam.robot.embodiment import Embodiment
from wam.sim.tasks import SPLITS


@dataclass(frozen=True)
class WaySource:
    """Loads a policy that decides in a certain way."""

    model: str
    way: Way

    def __call__(self) -> PolicyFor:
        policy = WamPolicy(Garage(self.model).engine(self.way))
        return lambda env: policy


def closed_loops(steps: Sequence[Step]) -> dict[str, Way]:
    """Which rungs need one: the naive sampler, without its recomputations, as they change nothing; and the lossy."""
    found = {}
    for step in steps:
        if step.cumulative is not None and (step.rung is None or not step.lossless):
            found[step.name] = replace(step.cumulative, undone=Undone())
    return found


def add_successes(
    model: str,
    steps: Sequence[Step],
    tasks: Sequence[str],
    episodes: int,
    robot: Embodiment,
    out: Path,
    *,
    workers: int = 1,
    on_episode: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, tuple[int, int]]:
    """How many were solved, of how many, by rung, over the first test states of every task; resumable in `out`."""
    plan = [Episode(task, SPLITS["test"].seed(index)) for task in tasks for index in range(episodes)]
    ways, counted, done = closed_loops(steps), {}, 0
    for name, way in ways.items():

        def count(record: object) -> None:
            nonlocal done
            done += 1
            on_episode(done, len(ways) * len(plan))

        setup = Setup(MetaWorldSource(embodiment=robot), WaySource(model, way), embodiment=robot)
        described = {"model": model, "fingerprint": fingerprint(resolve(model)), "way": repr(way), "commit": commit()}
        folder = out / "episodes" / name.replace(" ", "-")
        records = run_episodes(plan, setup, folder, described, workers=workers, on_episode=count)
        counted[name] = sum(record.success for record in records), len(records)
    return counted
