"""The house stands: rooms import only from rooms on floors below, and the core stays small enough for an evening."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
FLOORS = (  # top to bottom; a room here need not exist yet, but a room that exists must be here
    ("cli",),
    ("bench", "serve", "train", "play"),
    ("evaluate",),
    ("realtime", "engine", "sim"),
    ("data", "checkpoints"),
    ("world_action_model",),
    ("robot",),
    ("encoders",),
    ("model", "flow"),
)
HEIGHT = {room: -depth for depth, rooms in enumerate(FLOORS) for room in rooms}
CORE, CORE_LINES = ("model", "flow", "world_action_model"), 2200


def room_of(file: Path, source: Path) -> str | None:
    """The room of a source file: its folder in `wam`, or its own name; None for `wam/__init__.py`."""
    _, *inside = file.relative_to(source).with_suffix("").parts
    return None if inside == ["__init__"] else inside[0]


def imports(file: Path, source: Path) -> Iterator[tuple[int, str]]:
    """(line, room) for every import from `wam` in a file, wherever in the file it stands."""
    package = file.relative_to(source).parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            origin = [*base, *(node.module.split(".") if node.module else [])]
            modules = [".".join([*origin, alias.name]) for alias in node.names]
        else:
            continue
        for name in modules:
            root, *inside = name.split(".")
            if root == "wam" and inside and not inside[0].startswith("__"):
                yield node.lineno, inside[0]


def violations(source: Path, room: str) -> list[str]:
    """What a room imports although it may not: one line each, naming file, line and rooms."""
    found = []
    for file in sorted(source.glob("wam/**/*.py")):
        if room_of(file, source) != room:
            continue
        for line, other in imports(file, source):
            if other == room:
                continue
            where = f"{file.relative_to(source)}:{line}: {room} imports {other}"
            if other not in HEIGHT:
                found.append(f"{where}, which is on no floor")
            elif HEIGHT[other] >= HEIGHT[room]:
                beside = "the same floor" if HEIGHT[other] == HEIGHT[room] else "a floor above"
                found.append(f"{where}, which is on {beside}")
    return found


def rooms(source: Path) -> list[str]:
    return sorted({room for file in source.glob("wam/**/*.py") if (room := room_of(file, source)) is not None})


@pytest.mark.parametrize("room", rooms(SOURCE))
def test_a_room_imports_only_from_floors_below(room: str) -> None:
    assert room in HEIGHT, f"src/wam/{room} is on no floor: give it one in FLOORS and in docs/architecture.md"
    assert violations(SOURCE, room) == []


def test_the_core_can_be_read_in_an_evening() -> None:
    files = [file for file in SOURCE.glob("wam/**/*.py") if room_of(file, SOURCE) in CORE]
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
    assert files and lines < CORE_LINES, f"{', '.join(CORE)} have {lines} lines, fewer than {CORE_LINES} are allowed"


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("model/a.py", "from wam.flow.noise import shifted", "the same floor"),
        ("model/a.py", "import torch\nimport wam.robot.canvas", "a floor above"),
        ("robot/a.py", "def late():\n    from wam import world_action_model", "a floor above"),
        ("robot/a.py", "from ..train import trainer", "a floor above"),
        ("data/a.py", "from .. import checkpoints", "the same floor"),
        ("robot/a.py", "from wam.cellar import wine", "no floor"),
        ("world_action_model.py", "if TYPE_CHECKING:\n    from wam.data.windows import WindowBatch", "a floor above"),
        ("cli/a.py", "from wam.train import build\nfrom wam.model import rope\nfrom wam import __version__", None),
        ("robot/a.py", "from wam.robot.canvas import compose\nfrom . import canvas\nimport wamp.cli", None),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, file: str, text: str, found: str | None) -> None:
    path = tmp_path / "wam" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    broken = violations(tmp_path, rooms(tmp_path)[0])
    assert [found in line for line in broken] == [True] if found else broken == []


def map_of(room: str) -> str:
    """The docstring of a room."""
    source = (SOURCE / "wam" / room / "__init__.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


MAPPED = sorted(
    path.parent.name for path in (SOURCE / "wam").glob("*/__init__.py") if "  `" in map_of(path.parent.name)
)


@pytest.mark.parametrize("room", MAPPED)
def test_the_map_of_a_room_is_that_room(room: str) -> None:
    """Every name in it is a file or a folder there, and no file is left out."""
    folder, named = SOURCE / "wam" / room, {name.rstrip("/") for name in re.findall(r"`(\w+/?)`", map_of(room))}
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert named <= files | {path.name for path in folder.iterdir()} and files <= named


def test_large_rooms_have_maps() -> None:
    assert {"checkpoints", "data", "engine", "evaluate", "train"} <= set(MAPPED)
