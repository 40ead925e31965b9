"""Reading the metadata of a LeRobot data set of any known format version.

`read_meta` looks up the version in `meta/info.json` and calls the function that knows its layout. Another version is
another entry in `LAYOUTS`: everything above this file sees only `DatasetMeta` and `EpisodeRow`.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wam.data import schema
from wam.data.dataset_meta import DatasetMeta, field
from wam.data.errors import DatasetError, MissingFileError, UnsupportedVersionError
from wam.data.lerobot_v2 import read_v2
from wam.data.lerobot_v3 import read_v3

LAYOUTS: Mapping[str, Callable[[Path, dict[str, Any]], DatasetMeta]] = {
    "v2.0": read_v2,
    "v2.1": read_v2,
    "v3.0": read_v3,
}
"""Format version -> reader of its metadata."""


def read_meta(root: Path) -> DatasetMeta:
    """Read and cross-check the metadata of a data set.

    Raises:
        MissingFileError: no data set, or one without any finished group of files.
        UnsupportedVersionError: a format version without an entry in `LAYOUTS`.
        MissingColumnError, MissingCameraError, RowCountError: contradictions in the metadata.
    """
    path = root / schema.INFO_PATH
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file, so {root} is no LeRobot data set; check the path")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise MissingFileError(f"{path}: not valid JSON ({error}); restore it from a copy") from error
    if not isinstance(info, dict):
        raise DatasetError(f"{path}: found a {type(info).__name__}, expected an object with fields; restore it")
    version = field(info, "codebase_version", path, str)
    if version not in LAYOUTS:
        raise UnsupportedVersionError(
            f"{path}: codebase_version is {version!r}, this reader speaks {sorted(LAYOUTS)}; convert the data set "
            "with the lerobot release that wrote it"
        )
    return LAYOUTS[version](root, info)
