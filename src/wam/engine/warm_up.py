"""Let an engine meet every shape before a robot waits for it: whatever is compiled or allocated once, happens here."""

from __future__ import annotations

import numpy as np

from wam.engine.engine import Engine
from wam.robot.embodiment import Embodiment
from wam.robot.observation import Observation


def warm_up(engine: Engine, sessions: int = 1, *, prefixes: bool = False) -> None:
    """Run the first steps of one session, of two together, ... of `sessions` together, on black pictures.

    prefixes: also with actions that are being executed. Sessions that a robot has are not touched.
    """
    looks = _black(engine.embodiment)
    executing = [np.zeros((1, engine.embodiment.action_dim), np.float32)] if prefixes else []
    for count in range(1, sessions + 1):
        opened = [engine.open(seed) for seed in range(count)]
        for number, held in enumerate([None, None, *executing]):
            seen = [looks] if number == 0 else [looks] * (engine.execute // engine.video_stride)
            engine.steps(opened, [seen] * count, [held] * count)
        if prefixes:
            engine.steps([engine.open(seed) for seed in range(count)], [[looks]] * count, executing * count)


def _black(robot: Embodiment) -> Observation:
    picture = np.zeros((robot.view_height, robot.view_width, 3), np.uint8)
    state = np.zeros(robot.state_dim, np.float32)
    return Observation(dict.fromkeys(robot.cameras, picture), state, "wait", 0.0)  # a sentence loads the text encoder
