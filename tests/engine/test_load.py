"""Where a policy's weights come from, and where they go before anything is made of them."""

from __future__ import annotations

import fnmatch
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import wam.checkpoints.source as hub
from wam.checkpoints.errors import SourceNotFoundError
from wam.checkpoints.model_folder import SHIPPED
from wam.engine import load
from wam.engine.load import load_policy, resolve
from wam.engine.split_process import partner_of


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str | None]]:
    """A Hub that has the shipped models as me/NAME, and gives of them what is asked for."""
    asked: list[tuple[str, str | None]] = []

    def download(repository: str, revision: str | None, allow_patterns: list[str], **options: Any) -> str:
        asked.append((repository, revision))
        whole, snapshot = SHIPPED / repository.removeprefix("me/"), tmp_path / "snapshots" / "0a1b2c"
        for file in whole.rglob("*"):
            name = str(file.relative_to(whole))
            if file.is_file() and any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, snapshot / name)
        return str(snapshot)

    monkeypatch.setattr(hub, "snapshot_download", download)
    return asked


@pytest.mark.parametrize("name", ["nano-mt50", "nano-metaworld-flash"])
def test_a_model_on_the_hub_comes_whole(fetched: list[tuple[str, str | None]], name: str) -> None:
    folder = resolve(f"me/{name}@v1")
    assert fetched == [(f"me/{name}", "v1")]
    assert {file.name for file in folder.iterdir()} == {file.name for file in (SHIPPED / name).iterdir()}


def test_a_policy_from_the_hub_acts_as_the_one_that_was_put_there(fetched: list[tuple[str, str | None]]) -> None:
    theirs, ours = load_policy("me/nano-metaworld").engine.model, load_policy("nano-metaworld").engine.model
    for (name, found), expected in zip(theirs.state_dict().items(), ours.state_dict().values(), strict=True):
        assert torch.equal(found, expected), name


def test_what_is_nowhere_says_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder, no shipped model .*'nano-metaworld'.* no Hub id"):
        resolve("wan9")
    monkeypatch.chdir(tmp_path)
    Path("robots").mkdir()
    Path("robots/kitchen.yaml").touch()  # looks like a Hub id, and is a file
    with pytest.raises(FileNotFoundError, match="no such folder"):
        resolve("robots/kitchen.yaml")

    def unreachable(repository: str, **options: Any) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    with pytest.raises(SourceNotFoundError, match="no file or folder 'runs/typo'.*no network"):
        resolve("runs/typo")


def test_weights_are_on_the_device_before_they_are_made_smaller_or_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for a GPU here: nothing computes on it, but it is not the CPU."""
    seen = []
    monkeypatch.setattr(load, "quantize", lambda network, weights: seen.append(("quantize", _device(network))))
    monkeypatch.setattr("wam.engine.engine.compiled", lambda network, what: seen.append(("compiled", _device(network))))
    engine = load_policy("nano-metaworld", weights="int8", compile="whole", device="meta").engine
    assert seen == [("quantize", "meta"), ("compiled", "meta")]
    assert isinstance(engine.tokenizer, torch.nn.Module) and _device(engine.tokenizer) == "meta"


def test_the_partner_of_a_gpu_is_the_next_one() -> None:
    assert [partner_of(device) for device in ("cpu", "cuda", "cuda:0")] == ["cpu", "cuda:1", "cuda:1"]
    with pytest.raises(ValueError, match="device='cuda:3': split guidance leads from"):
        partner_of("cuda:3")


def _device(network: torch.nn.Module) -> str:
    return next(network.parameters()).device.type
