"""Draw docs/pictures/floors.svg: every room of src/wam on its floor, with the rooms that it imports from.

Usage: .venv/bin/python scripts/draw_floors.py
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.test_floors import FLOORS, SOURCE, imports, room_of, rooms  # noqa: E402

PICTURE = ROOT / "docs" / "pictures" / "floors.svg"
PURPOSE = {
    "cli": "one file per verb of the command line",
    "bench": "planner, speed ladder, latency, training step",
    "serve": "one server for every client",
    "train": "the loop, stages, adapters, validation",
    "play": "an episode that a person steers, on a local page",
    "evaluate": "rollouts, intervals, reports, imagined chunks, parity with the release",
    "realtime": "a robot's clock that never waits",
    "engine": "observe, encode, remember, denoise, act",
    "sim": "simulators and scripted experts",
    "data": "LeRobot 2.0 to 3.0, linter, latents, windows, mixtures",
    "checkpoints": "published weights: names, loading, LoRA, convert",
    "world_action_model": "the joint model: loss beside sampler",
    "robot": "what a robot's pictures and numbers mean",
    "encoders": "video tokenizers, text, image",
    "model": "the transformer: tensors in, tensors out",
    "flow": "noise levels, objectives, solvers",
}
SHORT = {"world_action_model": "joint model"}
COLOURS = ("#555b64", "#2c6f9c", "#3f7a3a", "#a33a5b", "#1f7a70", "#27303c", "#b3541e", "#6a4fb0", "#2f4a73")
WIDTH, HEIGHT, GAP, LEFT = 1200, 104, 12, 76


def main() -> None:
    there = set(rooms(SOURCE))
    floors = [kept for floor in FLOORS if (kept := [room for room in floor if room in there])]
    colour = {room: COLOURS[depth] for depth, floor in enumerate(FLOORS) for room in floor}
    height = 70 + len(floors) * (HEIGHT + GAP) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="t"',
        """     font-family="Arial, Helvetica, 'Liberation Sans', sans-serif">""",
        '  <title id="t">The floors of src/wam: each room, and in its chips the rooms that it imports from</title>',
        f'  <rect x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="22" fill="#faf9f6" stroke="#d9d6cf"/>',
        '  <text x="40" y="44" font-size="20" font-weight="700" fill="#23262b">The floors of src/wam</text>',
        f'  <text x="{WIDTH - 40}" y="44" font-size="15" fill="#4c525a" text-anchor="end">chips: the rooms that a room '
        "imports from</text>",
    ]
    for depth, floor in enumerate(floors):
        top = 64 + depth * (HEIGHT + GAP)
        parts.append(f'  <rect x="40" y="{top}" width="{WIDTH - 80}" height="{HEIGHT}" rx="16" fill="#f1efe9"/>')
        parts.append(f'  <text x="58" y="{top + 58}" font-size="15" fill="#8a8d93" text-anchor="middle">'
                     f"{len(floors) - depth}</text>")  # fmt: skip
        each = (WIDTH - 40 - LEFT - GAP - GAP * (len(floor) - 1)) / len(floor)
        for place, room in enumerate(floor):
            parts += box(room, LEFT + place * (each + GAP), top + 8, each, colour)
    PICTURE.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")
    print(PICTURE)


def box(room: str, x: float, y: float, width: float, colour: dict[str, str]) -> list[str]:
    """One room: its name, what it is for, and its chips, made smaller where they would not fit."""
    wanted = imported(room)
    chip_widths = {other: 9 * len(SHORT.get(other, other)) + 20 for other in wanted}
    scale = min(1.0, (width - 36) / max(1, sum(chip_widths.values()) + 6 * len(wanted)))
    lines = [
        f'  <rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{HEIGHT - 16}" rx="12" fill="#ffffff" '
        f'stroke="{colour[room]}" stroke-width="2.5"/>',
        f'  <text x="{x + 18:.0f}" y="{y + 27}" font-size="19" font-weight="700" fill="{colour[room]}" '
        f"font-family=\"'DejaVu Sans Mono', Menlo, monospace\">{room}</text>",
        f'  <text x="{x + 18:.0f}" y="{y + 47}" font-size="14" fill="#4c525a">{escape(PURPOSE[room])}</text>',
        f'  <g transform="translate({x + 18:.0f} {y + 57}) scale({scale:.2f})" font-size="13" font-weight="700" '
        'fill="#ffffff" text-anchor="middle">',
    ]
    left = 0
    for other in wanted:
        chip, middle = chip_widths[other], left + chip_widths[other] / 2
        lines.append(f'    <rect x="{left}" width="{chip}" height="23" rx="11" fill="{colour[other]}"/>')
        lines.append(f'    <text x="{middle:.0f}" y="16">{SHORT.get(other, other)}</text>')
        left += chip + 6
    return [*lines, "  </g>"]


def imported(room: str) -> list[str]:
    """The rooms that a room imports from, from the top down."""
    found = {
        other
        for file in SOURCE.glob("wam/**/*.py")
        if room_of(file, SOURCE) == room
        for _, other in imports(file, SOURCE)
        if other != room
    }
    return [other for floor in FLOORS for other in floor if other in found]


if __name__ == "__main__":
    main()
