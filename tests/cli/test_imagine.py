"""wam imagine: what it writes and says, from a data set and from Meta-World, and what it refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import tyro
from PIL import Image
from tests.engine.robots import tiny_engine
from tests.evaluate.test_imagination import NUMBERS, pictures, write

from wam.cli import imagine
from wam.cli.imagine import Imagine
from wam.data.video import VideoWriter
from wam.engine.wam_policy import WamPolicy


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write(tmp_path_factory.mktemp("data"), NUMBERS).root)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(imagine, "load_policy", lambda *args, **options: WamPolicy(tiny_engine()))
    yield


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    imagine.main(tyro.cli(Imagine, args=[*arguments, "--steps", "2", "--json"]))
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_what_if(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Actions of a file, which nobody executed: pictures without a score."""
    given = np.linspace(-1, 1, 16).reshape(8, 2)
    np.save(tmp_path / "given.npy", given)
    told = run(
        capsys,
        *("--data", data, "--mode", "forward", "--row", "8", "--chunks", "2"),
        *("--actions", str(tmp_path / "given.npy"), "--out", str(tmp_path / "out")),
    )
    assert "psnr" not in told and told["warning"] is None and told["chunks"] == 2
    assert np.allclose(np.load(str(told["actions"])), given, atol=1e-6)
    with Image.open(str(told["strip"])) as picture:
        assert picture.width > 3 * 256 and picture.height > 2 * 256
    with av.open(str(told["film"])) as film:
        assert sum(1 for _ in film.decode(video=0)) == 9 + 10  # a second of standing still
    page = Path(str(told["page"])).read_text()
    assert "push it  (" in page and "given" in page and "nothing to compare with" in page


def test_labels_of_a_video(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = run(capsys, "--data", data, "--mode", "inverse", "--chunks", "0", "--out", str(tmp_path))
    assert told["chunks"] == 5 and isinstance(told["action_rmse"], float) and told["action_unit"] == "std"
    rows = list(csv.reader(Path(str(told["table"])).read_text().splitlines()))
    assert rows[0] == ["seconds", "imagined dx", "imagined dy", "recorded dx", "recorded dy"] and len(rows) == 21
    actions = np.load(str(told["actions"]))
    assert np.allclose(np.array(rows[1:], dtype=float)[:, 1:3], actions, rtol=1e-4, atol=1e-5)
    assert rows[5][0] == "0.4" and [row[3] for row in rows[1:4]] == ["0", "-1", "-2"]


def test_video_has_no_actions_to_write(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = run(capsys, "--data", data, "--mode", "video", "--chunks", "1", "--out", str(tmp_path))
    assert "actions" not in told and isinstance(told["psnr"], float)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mp4", "imagine.html", "strip.png"]


def test_video_of_a_film_that_has_no_actions_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = VideoWriter(tmp_path / "film.mp4", 10, 32, 32)
    film.append(pictures())
    film.close()
    where = ("--data", str(tmp_path / "film.mp4"), "--out", str(tmp_path / "out"))
    told = run(capsys, *where, "--sentence", "push it", "--mode", "video", "--row", "4", "--chunks", "1")
    assert "Actions</h2>" not in Path(str(told["page"])).read_text()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "either --data"),
        (["--data", "x", "--task", "push"], "either --data"),
        (["--data", "x", "--actions", "hold"], "--actions hold is for --mode forward"),
        (["--data", "x", "--video-final", "0.5"], "with --chunks 1"),
        (["--data", "DATA", "--episode", "4"], "--episode is 4, there are episodes 0 to 0"),
        (["--data", "DATA", "--row", "30"], "there are rows 0 to 23"),
        (["--data", "DATA", "--chunks", "-1"], "row 0 and -1 chunks of 4 rows after it asked for"),
        (["--data", "DATA", "--mode", "forward", "--actions", "FILE"], r"holds float64 \(3, 2\), expected \(16, 2\)"),
        (["--data", "DATA", "--mode", "forward", "--actions", "EMPTY"], "empty.npy: not a .npy file of numbers"),
        (["--data", "DATA", "--mode", "forward", "--actions", "MANY"], "many.npz: not a .npy file of numbers"),
        (["--data", "DATA", "--mode", "forward", "--actions", "ONE"], r"holds float64 \(\), expected \(16, 2\)"),
    ],
)
def test_what_does_not_fit_is_named(data: str, tmp_path: Path, arguments: list[str], error: str) -> None:
    np.save(tmp_path / "short.npy", np.zeros((3, 2)))
    np.save(tmp_path / "one.npy", np.float64(1))
    np.savez(tmp_path / "many.npz", actions=np.zeros((16, 2)))
    (tmp_path / "empty.npy").touch()
    files = {"FILE": "short.npy", "ONE": "one.npy", "MANY": "many.npz", "EMPTY": "empty.npy"}
    places = {"DATA": data} | {name: str(tmp_path / file) for name, file in files.items()}
    with pytest.raises(ValueError, match=error):
        imagine.main(tyro.cli(Imagine, args=[places.get(argument, argument) for argument in arguments]))
