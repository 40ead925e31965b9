"""What a DreamZero checkpoint knows of its robots: statistics of states and actions, from `metadata.json`.

    {tag: {"statistics": {"state": {key: {"q01": [...], "q99": [...], ...}}, "action": {...}}, "modalities": {...}}}

The order of the keys in the model's vector comes from the robot's embodiment file; statistics of relative actions are
already those of the differences.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wam.checkpoints.errors import MissingPartError, TruncatedFileError, UnknownEmbodimentError
from wam.robot.embodiment import Embodiment, Moments, Part, Statistics
from wam.robot.released import TAGS, released_embodiment

METADATA = "metadata.json"
Metadata = Mapping[str, Any]


def read_metadata(file: Path) -> Metadata:
    """Raises TruncatedFileError when the file is not a JSON object of robots."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not all("statistics" in robot for robot in content.values()):
            raise ValueError("a robot without field 'statistics'")
    except (ValueError, AttributeError, TypeError) as error:
        raise TruncatedFileError(f"{file}: no statistics of robots ({error}); copy or download it again") from error
    return dict(content)


def read_tags(file: Path | None) -> tuple[str, ...]:
    """The robots of a metadata file, none without a file."""
    return () if file is None else tuple(read_metadata(file))


def robot_of(metadata: Metadata, tag: str, source: str) -> Embodiment:
    """The robot `tag` of a checkpoint, with the statistics of its numbers.

    Raises UnknownEmbodimentError when the checkpoint or this project does not know it, MissingPartError naming a
    statistic that is absent or not a list of numbers.
    """
    if tag not in metadata:
        raise UnknownEmbodimentError(
            f"{source}: has no statistics of robot {tag!r}; it knows {sorted(metadata)}. Choose one of these, or "
            "fine-tune on data of the new robot"
        )
    if tag not in TAGS:
        raise UnknownEmbodimentError(
            f"{source}: robot {tag!r} has statistics, but nobody described its views and the order of its numbers; "
            f"described are {sorted(TAGS)}. Write an embodiment file for it"
        )
    robot, statistics = released_embodiment(tag), metadata[tag]["statistics"]

    def moments(kind: str, parts: Sequence[Part]) -> Moments:
        place = f"{source}: {METADATA}: {tag}.statistics.{kind}"
        return Moments(**{q: _numbers(statistics.get(kind, {}), parts, q, place) for q in ("q01", "q99")})

    return replace(robot, statistics=Statistics(moments("state", robot.state), moments("action", robot.action)))


def _numbers(statistics: Mapping[str, Any], parts: Sequence[Part], quantile: str, place: str) -> tuple[float, ...]:
    """One quantile of all parts, in the order of the vector."""
    numbers: list[float] = []
    for part in parts:
        values = statistics.get(part.name)
        if not isinstance(values, Mapping):
            raise MissingPartError(f"{place}: {part.name!r} is missing; found {sorted(statistics)}")
        found = values.get(quantile)
        if not isinstance(found, list) or not all(isinstance(x, (int, float)) for x in found):
            raise MissingPartError(
                f"{place}.{part.name}: {quantile} is {str(found)[:40]!r}, expected a list of numbers; statistics per "
                "step of the horizon are not supported"
            )
        if len(found) != len(part.dims):
            raise MissingPartError(
                f"{place}.{part.name}: {quantile} has {len(found)} numbers, the robot has {len(part.dims)}"
            )
        numbers += map(float, found)
    return tuple(numbers)
