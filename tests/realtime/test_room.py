"""The room can move into a robot's client as it is: it needs Python, numpy and scipy, and nothing of wam."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import wam.realtime

FILES = sorted(Path(wam.realtime.__file__).parent.glob("*.py"))
ALLOWED = {*sys.stdlib_module_names, "numpy", "scipy"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_imports_only_its_neighbours_numpy_and_scipy(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert {name.name.split(".")[0] for name in node.names} <= ALLOWED
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1 or (node.level == 0 and str(node.module).split(".")[0] in ALLOWED)


def test_it_works_from_another_place(tmp_path: Path) -> None:
    """Copied out of wam, in a process that never imports torch."""
    folder = tmp_path / "carried"
    folder.mkdir()
    for file in FILES:
        (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    code = "import sys, carried, carried.smoothing; assert 'torch' not in sys.modules and 'wam' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
