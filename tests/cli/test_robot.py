"""wam robot: from a data set of any version to a file that the linter accepts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.data.clean_set import write_clean
from tests.data.write_v2 import write_v2, write_v3_images

from wam.cli.main import main
from wam.data.lerobot_reader import LeRobotDataset
from wam.robot.embodiment import load_embodiment


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same episodes as v3.0, v2.1, v2.0 and with pictures inside the tables."""
    root = tmp_path_factory.mktemp("sets")
    source = LeRobotDataset(write_clean(root / "v3.0"))
    copies = {version: write_v2(root / version, source, version) for version in ("v2.1", "v2.0")}
    return {"v3.0": source.root, **copies, "images": write_v3_images(root / "images", source)}


@pytest.mark.parametrize("version", ["v3.0", "v2.1", "v2.0", "images"])
def test_the_draft_of_any_version_passes_the_linter(
    sets: dict[str, Path], version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "arm.yaml"
    main(["robot", "new", "--from-dataset", str(sets[version]), "--out", str(out), "--json"])
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    robot = load_embodiment(out)
    assert said["remarks"]["canvas"].startswith("guess")
    assert [part.name for part in robot.action if part.relative] == ["joints"]
    assert robot.statistics is not None and len(robot.statistics.action.q99) == 4
    assert robot.actions_per_chunk == 4 * robot.video_stride * robot.frames_per_chunk
    if version == "v3.0":
        first = robot
        main(["data", "lint", str(sets[version]), "--embodiment", str(out), "--fast"])  # exit code 1 if it finds errors
        main(["robot", "new", "--from-dataset", str(sets["v2.1"]), "--out", str(out), "--overwrite"])
        assert load_embodiment(out) == first, "two versions of the same episodes gave two robots"


def test_a_file_is_not_overwritten_and_faults_are_named(
    sets: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "arm.yaml"
    out.write_text("mine")
    for options, named in (
        ([], "exists already; give another --out"),
        (["--overwrite", "--cameras", "top"], "no camera 'top'; there are"),
        (["--overwrite", "--action", "nothing"], "no column 'nothing'"),
        (["--overwrite", "--video-stride", "-2"], "field 'video_stride' is -2, expected at least 1"),
        (["--overwrite", "--video-stride", "0"], "field 'video_stride' is 0, expected at least 1"),
        (["--overwrite", "--view", "0", "0"], "field 'view_height' is 0, expected at least 1"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["robot", "new", "--from-dataset", str(sets["v3.0"]), "--out", str(out), *options])
        assert stop.value.code == 1 and named in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_shipped_robots_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["robot", "list", "--json"])
    names = [robot["name"] for robot in json.loads(capsys.readouterr().out)]
    assert {"metaworld-sawyer", "libero-panda", "robosuite-two-arms"} <= set(names)
