"""New statistics in an embodiment file that somebody wrote: every other line stays as it is, comments included."""

from __future__ import annotations

import yaml

from wam.robot.embodiment import Embodiment, EmbodimentError

WIDTH = 118


def filled_text(text: str, robot: Embodiment, source: str) -> str:
    """The text of an embodiment file with the statistics of `robot` in place of its own, or at its end.

    Args:
        text: of a file that says of the robot all but these statistics.
        robot: with statistics.
        source: the file.

    Raises:
        EmbodimentError: the file is broken, describes another robot, or has no lines that could be replaced.
    """
    Embodiment.from_text(text, source)  # names what is wrong with it
    start, end = _lines(text, source)
    statistics = {"statistics": robot.to_dict()["statistics"]}
    block = yaml.safe_dump(statistics, sort_keys=False, default_flow_style=None, width=WIDTH)
    before = text[:start] if text[:start].endswith("\n") else f"{text[:start]}\n"
    new = before + block + text[end:]
    if Embodiment.from_text(new, source) != robot:
        raise EmbodimentError(
            f"{source}: describes another robot than {robot.name!r} as it was loaded; choose another file to fill"
        )
    return new


def _lines(text: str, source: str) -> tuple[int, int]:
    """Where the lines of `statistics` begin and end; both at the end of the text where there are none."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode) or root.flow_style or root.value[0][0].start_mark.column:
        raise EmbodimentError(f"{source}: fields stand inside a line, expected each at the beginning of one; write so")
    for key, value in root.value:
        if key.value == "statistics":
            newline = text.find("\n", _end(value))
            return key.start_mark.index, len(text) if newline < 0 else newline + 1
    return len(text), len(text)


def _end(node: yaml.Node) -> int:
    """Where the last value of a node ends; a block itself ends behind the comments that follow it."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        return _end(node.value[-1][1])
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return _end(node.value[-1])
    return int(node.end_mark.index)
