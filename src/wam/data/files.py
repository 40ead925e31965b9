"""Atomic file writes, so that a reader sees the old content or the new one, and the right to write a folder.

What is read back, or was written by hand, is named when it cannot be read.
"""

import fcntl
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from wam.data.errors import DatasetLockedError

LOCK_NAME = ".writer.lock"


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary neighbour of `path`, flush it to disk, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(temporary)
        move_into_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def move_into_place(source: Path, target: Path) -> None:
    """Flush `source` to disk and rename it to `target` (same file system), replacing what was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _flush(source)
    os.replace(source, target)
    _flush(target.parent)


def _flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as indented JSON, atomically. NaN is refused, since JSON has no such number."""
    text = json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False)
    write_atomic(path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))


def read_json(path: Path, fault: type[ValueError] = ValueError) -> dict[str, Any]:
    """The JSON object in a file. Raises `fault`, naming the file, when there is none in it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise fault(f"{path}: not JSON ({error}); restore it from a copy, or make it anew") from error
    if not isinstance(content, dict):
        raise fault(f"{path}: found a {type(content).__name__}, expected an object with fields; make it anew")
    return content


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises ValueError naming the file, the line and the fault."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())}); correct the file") from error


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write `table` atomically, snappy-compressed as LeRobot does."""
    write_atomic(path, lambda temporary: pq.write_table(table, temporary, compression="snappy", use_dictionary=True))


class FolderLock:
    """The right to write a folder. The system gives it back when the process ends, however it ends.

    Raises:
        DatasetLockedError: another process has it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME
        folder.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._path.stat().st_ino != os.fstat(self._handle).st_ino:
                raise FileNotFoundError(self._path)  # its previous owner removed it just now
        except (BlockingIOError, FileNotFoundError):
            os.close(self._handle)
            raise DatasetLockedError(
                f"{folder}: another process is writing it; wait for it, end it, or choose another folder"
            ) from None

    def release(self) -> None:
        """Give the right back."""
        self._path.unlink(missing_ok=True)
        os.close(self._handle)

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
