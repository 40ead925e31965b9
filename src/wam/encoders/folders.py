"""Weights on disk: folders in the layout of transformers, checked before it opens them, and files that are damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Raises ValueError naming the safetensors file that is read inside when it is cut off, or something else."""
    try:
        yield
    except SafetensorError as error:
        raise ValueError(f"{file}: cannot be read ({error}); copy it again, or remove it and make it anew") from error


def check_folder(folder: Path, what: str) -> Path:
    """The folder, if it holds a configuration and safetensors weights; pickle files are never read.

    Raises ValueError naming the file that is missing.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder / 'config.json'}: not found; expected the {what} in the layout of transformers")
    if not any(folder.glob("*.safetensors")):
        found = sorted(path.name for path in folder.iterdir())
        raise ValueError(f"{folder}: no *.safetensors file for the {what}; found {found}; convert its weights first")
    return folder
