"""Every way to damage a data set is named by the linter: the right check, the right episodes, nothing else."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from tests.data.clean_set import ROBOT, write_clean
from tests.data.corruptions import Corruption, corruptions
from wam.data.lint import NAMES, Options, films, lint

ALL = tuple(corruptions())


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clean(tmp_path_factory.mktemp("clean") / "set")


@pytest.fixture(scope="module", autouse=True)
def decode_once() -> Iterator[None]:
    """Videos that a corruption left alone need not be decoded again for every test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(films, "_decode_video", _remembered(films._decode_video))
        yield


def _remembered(decode: Callable[..., dict[films.Place, films.Film]]) -> Callable[..., dict[films.Place, films.Film]]:
    known: dict[Any, dict[films.Place, films.Film]] = {}

    @wraps(decode)
    def once(declared: Any, path: Path, key: str, episodes: Any, seek: bool) -> dict[films.Place, films.Film]:
        places = tuple((e.index, e.length, e.spans[key].start) for e in episodes)
        name = (hashlib.sha256(path.read_bytes()).digest(), key, places, seek, declared.fps)
        if name not in known:
            known[name] = decode(declared, path, key, episodes, seek)
        return known[name]

    return once


def test_the_clean_set_has_no_findings(clean: Path) -> None:
    report = lint(clean, Options(embodiment=ROBOT))
    assert report.findings == ()
    assert report.films == report.all_films == 20
    assert lint(clean, Options(fast=True)).findings == ()


@pytest.mark.parametrize("corruption", ALL, ids=lambda corruption: corruption.name.replace(" ", "-"))
def test_the_linter_names_it(corruption: Corruption, clean: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(clean, tmp_path / "set"))
    corruption.damage(root)
    report = lint(root, Options(embodiment=corruption.robot))
    named = [finding for finding in report.findings if finding.check == corruption.check]
    assert named, f"not found; findings are {report.findings}"
    right = [f for f in named if f.episodes == corruption.episodes and corruption.field in f"{f.field} {f.file}"]
    assert right, f"found in the wrong place: {named}"
    others = {finding.check for finding in report.findings} - {corruption.check} - corruption.also
    assert not others, f"also found {[f for f in report.findings if f.check in others]}"
    for finding in report.findings:
        assert finding.check in NAMES
        assert finding.found and finding.expected and finding.advice


def test_there_are_enough_kinds() -> None:
    assert len({corruption.name for corruption in ALL}) == len(ALL) >= 25
    untested = set(NAMES) - {corruption.check for corruption in ALL} - {"reader"}
    assert not untested, f"no corruption shows these checks: {sorted(untested)}"
