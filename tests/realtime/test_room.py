"""The robot's side stands alone: `wam_client` needs Python, numpy, msgpack and websockets, and nothing of wam."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import wam.realtime
import wam_client

FILES = sorted(Path(wam_client.__file__).parent.glob("*.py"))
ALLOWED = {*sys.stdlib_module_names, "numpy", "msgpack", "websockets", "wam_client"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_imports_only_its_neighbours_and_three_packages(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 9))):
        if isinstance(node, ast.Import):
            assert {name.name.split(".")[0] for name in node.names} <= ALLOWED
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and str(node.module).split(".")[0] in ALLOWED


def test_it_works_without_wam() -> None:
    names = [f"wam_client.{file.stem}" for file in FILES if file.stem != "__init__"]
    code = f"import sys, {', '.join(names)}; assert not {{'torch', 'scipy', 'wam'}} & set(sys.modules)"
    folder = FILES[0].parents[1]
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(folder)}, check=True, timeout=60)


def test_both_names_are_the_same_thing() -> None:
    for name in wam.realtime.__all__:
        assert getattr(wam.realtime, name) is getattr(wam_client, name)
