"""Everything that the checks look at: metadata, rows and pictures of one data set, gathered once.

Rows stay in memory in their own types: about 1 GB for ten million rows of 25 numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from wam.data.lint.declared import Declaration, DeclaredEpisode
from wam.data.lint.films import Film, Header, Place
from wam.data.lint.rows import Columns
from wam.data.schema import ACTION, STATE
from wam.data.vectors import places
from wam.robot.draft_parts import GRIPPER
from wam.robot.embodiment import Embodiment, Part

SAMPLE_ROWS = 400_000
"""Rows from which quantiles are taken."""


@dataclass(frozen=True)
class Survey:
    """One data set, looked at.

    Args:
        declared: what the metadata say.
        rows: episode -> columns, as found.
        headers: of every video that exists.
        films: of the episodes and cameras that were decoded.
        embodiment: the robot that the data are meant for, if given.
    """

    declared: Declaration
    rows: Mapping[int, Columns]
    headers: Mapping[Path, Header]
    films: Mapping[Place, Film]
    embodiment: Embodiment | None

    @cached_property
    def episodes(self) -> Mapping[int, DeclaredEpisode]:
        """By number."""
        return {episode.index: episode for episode in self.declared.episodes}

    @cached_property
    def vector_names(self) -> tuple[str, ...]:
        """Columns of floating-point numbers but for the time stamps."""
        columns = self.declared.columns.items()
        return tuple(name for name, c in columns if c.dtype.startswith("float") and name != "timestamp")

    def vectors(self, name: str) -> dict[int, np.ndarray]:
        """A column as (T, D) per episode; episodes in which it is missing or not finite are left out."""
        if name not in self._vectors:
            found = {e: c[name].reshape(len(c[name]), -1) for e, c in self.rows.items() if name in c}
            self._vectors[name] = {e: v.astype(np.float64) for e, v in found.items() if np.isfinite(v).all()}
        return self._vectors[name]

    @cached_property
    def _vectors(self) -> dict[str, dict[int, np.ndarray]]:
        return {}

    def sample(self, name: str) -> np.ndarray:
        """At most about `SAMPLE_ROWS` rows of a column over all episodes, (n, D)."""
        parts = list(self.vectors(name).values())
        step = 1 + sum(map(len, parts)) // SAMPLE_ROWS
        return np.concatenate([part[::step] for part in parts]) if parts else np.zeros((0, self.width(name)))

    def width(self, name: str) -> int:
        """Values per row; 0 for a column that is not declared."""
        return self.declared.columns[name].width if name in self.declared.columns else 0

    def dim_name(self, column: str, dim: int) -> str:
        """`action.gripper`, or `action[3]` where the data set and the embodiment have no name."""
        name = self.dim_names(column)[dim]
        return f"{column}.{name}" if name else f"{column}[{dim}]"

    def dim_names(self, column: str) -> tuple[str, ...]:
        """Names of the dimensions: of the data set, else of the embodiment, else empty."""
        width, names = self.width(column), self.declared.columns[column].names
        if len(names) == width and len(set(names)) == width:
            return names
        own = [""] * width
        for vector, parts in self.parts.items():
            for place in places(parts, vector):
                if place.key == column:
                    own[place.start : place.end] = place.part.dims
        return tuple(own[:width])

    @cached_property
    def parts(self) -> Mapping[str, tuple[Part, ...]]:
        """Parts of the embodiment by the column that they come from unless they say otherwise."""
        return {STATE: self.embodiment.state, ACTION: self.embodiment.action} if self.embodiment else {}

    def grippers(self, column: str) -> tuple[int, ...]:
        """Dimensions of a column that are named like a gripper."""
        if column not in self.declared.columns:
            return ()
        return tuple(dim for dim, name in enumerate(self.dim_names(column)) if GRIPPER.search(name))

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(state dimension, action dimension) that mean the same: by name, else by place where widths agree."""
        if STATE not in self.declared.columns or ACTION not in self.declared.columns:
            return ()
        state, action = self.dim_names(STATE), self.dim_names(ACTION)
        common = [(state.index(name), dim) for dim, name in enumerate(action) if name and name in state]
        named = all(state) and all(action)
        return (
            tuple(common) if common or named or len(state) != len(action) else tuple((d, d) for d in range(len(state)))
        )
