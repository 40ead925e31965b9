"""Let an engine meet every shape before a robot waits for it: whatever is compiled or allocated once, happens here."""

from __future__ import annotations

import numpy as np

from wam.engine.engine import Engine
from wam.robot.embodiment import Embodiment
from wam.robot.observation import Observation


def warm_up(engine: Engine, sessions: int = 1, *, prefixes: bool = False) -> None:
    """Run the first steps of one session, of two together, ... of `sessions` together, on black pictures.

    A compiled network over a long memory is another graph for every state of it (`wam.model.blocks`): as it fills, and
    in every turn of the full one. So it goes once around, and sessions of different age meet.

    prefixes: also with actions that are being executed. Sessions that a robot has are not touched.
    """
    first = [_black(engine.embodiment)]
    later = first * (engine.execute // engine.video_stride)
    executing = [np.zeros((1, engine.embodiment.action_dim), np.float32)] if prefixes else []
    compiled = engine.config.compile != "off" and engine.config.slides
    rounds = 1 + 2 * (engine.model.config.transformer.memory or 0) if compiled else 1
    for count in range(1, sessions + 1):
        opened = [engine.open(seed) for seed in range(count)]
        engine.steps(opened, [first] * count)
        for held in (*[None] * rounds, *executing):
            engine.steps(opened, [later] * count, [held] * count)
        if compiled and count > 1:
            opened[0] = engine.open(count)
            engine.step(opened[0], first)
            for held in (None, *executing):
                engine.steps(opened, [later] * count, [held] * count)
        if prefixes:
            engine.steps([engine.open(seed) for seed in range(count)], [first] * count, executing * count)


def _black(robot: Embodiment) -> Observation:
    picture = np.zeros((robot.view_height, robot.view_width, 3), np.uint8)
    state = np.zeros(robot.state_dim, np.float32)
    return Observation(dict.fromkeys(robot.cameras, picture), state, "wait", 0.0)  # a sentence loads the text encoder
