"""Where cameras go on the canvas, and how large a cell is, when nobody has said so."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from wam.robot.embodiment import IMAGE_PREFIX, EmbodimentError

WRIST = re.compile(r"wrist|hand|gripper|eye_in", re.IGNORECASE)
MULTIPLES = (32, 16)  # pixels: a tokenizer that shrinks by 8, and patches of 4, or of 2 for small pictures
LARGEST_CELL = 176 * 320  # pixels, as in the released models
SAME_SHAPE = 0.05


@dataclass(frozen=True)
class Layout:
    """names, keys: of the cameras, in one order; canvas: rows of names."""

    names: tuple[str, ...]
    keys: tuple[str, ...]
    canvas: tuple[tuple[str | None, ...], ...]
    remark: str


@dataclass(frozen=True)
class Cell:
    """resized: whether any camera delivers pictures of another size."""

    height: int
    width: int
    resized: bool
    remark: str


def choose_layout(keys: Sequence[str]) -> Layout:
    """Cameras around the robot first, those on it behind: 1; 1 x 2; three as the released models have them; 2 x n."""
    names = dict(zip(_short_names(keys), keys, strict=True))
    on_robot = [name for name in names if WRIST.search(name)]
    ordered = [name for name in names if name not in on_robot] + on_robot
    canvas = _canvas(ordered, on_robot)
    said = {1: "one camera", 2: "guess: two cameras side by side"}
    remark = said.get(len(ordered), f"guess: the places of {len(ordered)} cameras; exchange them if others read better")
    return Layout(tuple(ordered), tuple(names[name] for name in ordered), canvas, remark)


def choose_cell(sizes: Mapping[str, tuple[int, int]], keys: Sequence[str], view: tuple[int, int] | None) -> Cell:
    """Raises EmbodimentError where cameras of different shapes would have to share one shape of cell."""
    shapes = {key: sizes[key][1] / sizes[key][0] for key in keys}
    widest, slimmest = max(shapes, key=shapes.__getitem__), min(shapes, key=shapes.__getitem__)
    if shapes[widest] / shapes[slimmest] - 1 > SAME_SHAPE:
        raise EmbodimentError(
            f"field 'canvas': cameras {widest!r} ({_size(sizes[widest])}) and {slimmest!r} ({_size(sizes[slimmest])}) "
            "have different shapes, and all cells of a canvas have one; choose cameras of one shape with --cameras, or "
            "cut the pictures to one shape first"
        )
    smallest = min((sizes[key] for key in keys), key=lambda size: size[0])
    height, width = _cell(smallest) if view is None else view
    resized = any(sizes[key] != (height, width) for key in keys)
    before = ", ".join(sorted({_size(sizes[key]) for key in keys}))
    kept = f"the cameras' own size, {before}"
    remark = f"{'guess: ' if view is None else ''}pictures of {before} are resized to this" if resized else kept
    return Cell(height, width, resized, remark)


def _canvas(ordered: Sequence[str], on_robot: Sequence[str]) -> tuple[tuple[str | None, ...], ...]:
    if len(ordered) <= 2:
        return (tuple(ordered),)
    if len(ordered) == 3 and len(on_robot) == 1:  # as the released model of DROID: the hand's camera above both others
        around = [name for name in ordered if name not in on_robot]
        return ((on_robot[0], on_robot[0]), tuple(around))
    columns = math.ceil(len(ordered) / 2)
    padded = [*ordered, *[None] * (2 * columns - len(ordered))]
    return (tuple(padded[:columns]), tuple(padded[columns:]))


def _short_names(keys: Sequence[str]) -> list[str]:
    """`observation.images.top` -> `top`; the last word of other keys, where that is clear."""
    last = [key.removeprefix(IMAGE_PREFIX) if key.startswith(IMAGE_PREFIX) else key.rpartition(".")[2] for key in keys]
    return last if len(set(last)) == len(last) else list(keys)


def _cell(size: tuple[int, int]) -> tuple[int, int]:
    """The camera's own size if a tokenizer can take it; else the largest that keeps its shape."""
    height, width = size

    def stretched(cell: tuple[int, int]) -> float:
        return abs(cell[1] / cell[0] / (width / height) - 1)

    for multiple in MULTIPLES:
        sides = (range(multiple, side + 1, multiple) for side in size)
        fits = [(h, w) for h, w in product(*sides) if h * w <= LARGEST_CELL and stretched((h, w)) <= SAME_SHAPE]
        if fits:
            return min(fits, key=lambda cell: (round(stretched(cell), 2), -cell[0] * cell[1]))
    raise EmbodimentError(
        f"field 'view_height': no cell of at most {LARGEST_CELL} pixels with sides in steps of {MULTIPLES[-1]} has the "
        f"shape of pictures of {_size(size)}; give --view HEIGHT WIDTH"
    )


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
