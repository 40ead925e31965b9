"""Simulators behind one interface (`worlds`), what acts in them, and what people would ask for.

Meta-World  `metaworld`, `positions` (another kind of action), `tasks`, `sentences`, `looks`
pictures    `render`, `offscreen`
arms        `arms`, `libero`, `robosuite`, `scripts`
teach       `experts` -> `recording`
"""
