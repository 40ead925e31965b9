"""Files that are read back, or were written by hand: what is wrong with them is said with their name."""

from __future__ import annotations

from pathlib import Path

import pytest

from wam.data.errors import DatasetError
from wam.data.files import read_json, read_yaml, write_json


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "naïve", "sizes": [1, 2]})
    assert read_json(tmp_path / "a.json") == read_yaml(tmp_path / "a.json") == {"name": "naïve", "sizes": [1, 2]}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b'{"rows": ', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"", "not JSON"),
        (b"[1]", "found a list, expected"),
    ],
)
def test_what_is_no_json_object_is_named(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: {named}"):
        read_json(path)
    with pytest.raises(DatasetError, match=f"{path}: {named}"):
        read_json(path, DatasetError)


@pytest.mark.parametrize("content", [b"a: [1", b"a:\n\t- 1", b"\xff\xfe\xff"])
def test_what_is_no_yaml_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: not YAML .*; correct the file") as refused:
        read_yaml(path)
    assert "\n" not in str(refused.value)
