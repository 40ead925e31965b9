"""Episodes of the nano model in its own process: what a client's actions must equal, and what it needs to say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wam.engine import load_policy
from wam.robot.observation import Observation
from wam.sim.metaworld import MetaWorldEnv

TASK, SEED, NOISE = "drawer-close", 1_000_000, 77  # an initial state that it solves within a few chunks
CHUNK, STRIDE, HZ = 8, 2, 40.0


@dataclass
class Played:
    """looks: at every control step, the last one behind the last action.  actions: (steps, 4)."""

    looks: list[Observation]
    actions: np.ndarray
    success: bool

    def save(self, path: Path) -> None:
        """For a Python that has nothing of wam."""
        np.savez(
            path,
            top=np.stack([look.images["top"] for look in self.looks]),
            side=np.stack([look.images["side"] for look in self.looks]),
            state=np.stack([look.state for look in self.looks]),
            prompt=self.looks[0].instruction,
            actions=self.actions,
            seed=NOISE,
        )


def play(**options: Any) -> Played:
    """One whole episode with an engine of its own. options: of `load_policy`."""
    policy, world = load_policy("nano-metaworld", **options), MetaWorldEnv(TASK)
    policy.reset(NOISE)
    looks = [world.reset(SEED)]
    actions: list[np.ndarray] = []
    seen = looks[:1]
    while not (world.success or world.finished):
        chunk, seen = policy.act(seen), []
        for action in chunk.actions:
            world.step(action)
            actions.append(action)
            looks.append(world.observe())
            if len(actions) % policy.video_stride == 0:
                seen.append(looks[-1])
            if world.success or world.finished:
                break
    world.close()
    return Played(looks, np.array(actions), world.success)
