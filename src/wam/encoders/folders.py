"""Folders of weights in the layout of transformers, checked before transformers opens them."""

from __future__ import annotations

from pathlib import Path


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
