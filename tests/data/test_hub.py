"""A data set is a folder, or a pinned version of a Hub repository; the download itself is replaced here."""

import logging
from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from tests.data.synthetic import read_picture
from wam.data.errors import MissingFileError
from wam.data.hub import resolve_dataset
from wam.data.lerobot_reader import LeRobotDataset

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, dataset_root: Path, tmp_path: Path) -> list[tuple[object, ...]]:
    """Every download is noted, and delivers the session's data set."""
    downloads: list[tuple[object, ...]] = []
    (tmp_path / COMMIT).symlink_to(dataset_root)

    def download(repo: str, *, repo_type: str, revision: str) -> str:
        downloads.append((repo, repo_type, revision))
        return str(tmp_path / COMMIT)

    monkeypatch.setattr("wam.data.hub.snapshot_download", download)
    return downloads


def test_a_commit_on_the_hub(asked: list[object], caplog: pytest.LogCaptureFixture) -> None:
    dataset = LeRobotDataset("someone/arm", revision=COMMIT)
    assert asked == [("someone/arm", "dataset", COMMIT)]
    assert read_picture(dataset.frames(2, "top", [4])[0]) == (4, 2, 0)
    assert not caplog.records


def test_a_tag_is_resolved_and_said(asked: list[object], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert resolve_dataset("someone/arm", "v3.0").name == COMMIT
    assert f"revision 'v3.0' means commit {COMMIT} today" in caplog.text


def test_a_folder_goes_first(asked: list[object], dataset_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dataset_root.parent.parent)
    name = "/".join(dataset_root.parts[-2:])
    assert resolve_dataset(name) == Path(name)
    assert resolve_dataset(dataset_root) == dataset_root
    assert asked == []
    with pytest.raises(ValueError, match=f"revision '{COMMIT}' was given, but this is a folder"):
        resolve_dataset(dataset_root, COMMIT)


def test_a_hub_id_needs_a_revision(asked: list[object]) -> None:
    with pytest.raises(ValueError, match="someone/arm: no such folder; .* give a revision"):
        resolve_dataset("someone/arm")
    assert asked == []


@pytest.mark.parametrize("source", [Path("someone/arm"), "/nowhere/at/all", "arm", "a/b/c", "~/data"])
def test_neither_folder_nor_hub_id(asked: list[object], source: Path | str) -> None:
    with pytest.raises(MissingFileError, match="no such folder, and no Hub id"):
        resolve_dataset(source, COMMIT)
    assert asked == []


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("offline"),
        RepositoryNotFoundError.__new__(RepositoryNotFoundError, "no such repository"),  # wants an HTTP response
        ConnectionError("no route"),
    ],
)
def test_what_the_hub_does_not_deliver(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr("wam.data.hub.snapshot_download", fail)
    with pytest.raises(MissingFileError, match=f"someone/arm at revision '{COMMIT}': the Hub did not deliver it"):
        resolve_dataset("someone/arm", COMMIT)
