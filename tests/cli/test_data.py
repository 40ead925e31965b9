"""wam data: exit codes, JSON, pages, statistics, recordings and caches, from the command line."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
import yaml
from tests.data.clean_set import ROBOT, write_clean
from tests.data.corruptions import Corruption, corruptions

from wam.cli.data_stats import Stats
from wam.cli.data_stats import main as stats
from wam.cli.main import main
from wam.data.latent_cache import LatentCache
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.text_cache import TextCache
from wam.encoders.nano_tokenizer import NanoTokenizer, NanoTokenizerConfig
from wam.robot.embodiment import load_embodiment


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clean(tmp_path_factory.mktemp("clean") / "arms")


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("robot") / "arm.yaml"
    ROBOT.to_yaml(path)
    return str(path)


def run(*arguments: str | Path, code: int = 0) -> None:
    """`wam data ...` must end with this exit code."""
    if code == 0:
        main(["data", *map(str, arguments)])
        return
    with pytest.raises(SystemExit) as stop:
        main(["data", *map(str, arguments)])
    assert stop.value.code == code


def damaged(clean: Path, tmp_path: Path, *names: str) -> Path:
    root = Path(shutil.copytree(clean, tmp_path / "arms"))
    known: dict[str, Corruption] = {corruption.name: corruption for corruption in corruptions()}
    for name in names:
        known[name].damage(root)
    return root


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return content


# -- lint --------------------------------------------------------------------------------------------------------------


def test_a_clean_set_exits_with_0(clean: Path, robot: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("lint", clean, "--embodiment", robot, "--page", tmp_path / "page.html", "--json")
    report = last_json(capsys)
    assert (report["errors"], report["warnings"], report["findings"], report["films"]) == (0, 0, [], 20)
    page = (tmp_path / "page.html").read_text()
    assert "nothing found" in page
    assert page.count("<img") == 3 * 6
    assert page.count("<svg") == 8
    assert "http://" not in page and "https://" not in page, "the page must not fetch anything"


def test_errors_exit_with_1_and_stand_on_the_page(
    clean: Path, robot: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = damaged(clean, tmp_path, "NaN", "video cut off", "glitch")
    run("lint", root, "--embodiment", robot, "--page", tmp_path / "page.html", "--json", code=1)
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    found = {(finding["check"], tuple(finding["episodes"])) for finding in report["findings"]}
    assert {("not-finite", (6,)), ("broken-video", (4, 5, 6, 7)), ("outlier", (5,))} <= found
    assert "not-finite" in captured.err and "episode 6" in captured.err
    page = (tmp_path / "page.html").read_text()
    assert "not-finite" in page and "repair its values" in page
    assert "not shown" in page, "an episode without a video must not stop the page"
    assert page.count("<img") >= 3 * 3


def test_warnings_alone_exit_with_0(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("lint", damaged(clean, tmp_path, "glitch"), "--fast", "--json")
    report = last_json(capsys)
    assert report["errors"] == 0 and report["warnings"] > 0
    assert (report["films"], report["all_films"]) == (16, 20)


@pytest.mark.parametrize("broken", ["nowhere", "no info", "no robot"])
def test_what_cannot_be_read_exits_with_2(
    broken: str, clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if broken == "nowhere":
        run("lint", tmp_path / "nowhere", code=2)
    elif broken == "no info":
        run("lint", tmp_path, code=2)
    else:
        run("lint", clean, "--embodiment", "no-such-robot", code=2)
    assert "wam data lint: " in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_no_fault_of_the_data(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    run("lint", clean, "--fast", "--page", tmp_path / "file/page.html", code=2)
    said = capsys.readouterr().err
    assert "0 errors" in said and "wam data lint: " in said and "file" in said.splitlines()[-1]


# -- stats -------------------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_the_rows(clean: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = damaged(clean, tmp_path)
    run("stats", root, "--write", "--horizon", "5", "--json")
    content = last_json(capsys)
    dataset = LeRobotDataset(root)
    parts = [dataset.columns(number, ("action", "observation.state")) for number in range(dataset.num_episodes)]
    actions = np.concatenate([part["action"] for part in parts])
    np.testing.assert_allclose(content["columns"]["action"]["q99"], np.quantile(actions, 0.99, axis=0), rtol=1e-5)
    differences = np.concatenate(
        [
            part["action"][row : row + 5] - part["observation.state"][row]
            for part in parts
            for row in range(len(part["action"]) - 4)
        ]
    )
    assert content["relative"]["names"] == ["joint_1", "joint_2", "joint_3", "gripper"]
    np.testing.assert_allclose(content["relative"]["std"], differences.std(0), rtol=1e-5)
    saved = json.loads((root / "meta/wam_stats.json").read_text())
    assert saved["relative"] == content["relative"]
    assert content["written"] == [str(root / "meta/wam_stats.json")]


def test_a_robot_file_is_filled(clean: Path, robot: str, tmp_path: Path) -> None:
    run("stats", clean, "--embodiment", robot, "--fill", tmp_path / "filled.yaml")
    filled = load_embodiment(tmp_path / "filled.yaml")
    assert filled.statistics is not None
    assert len(filled.statistics.action.q99) == 4
    assert 0 <= filled.statistics.state.q01[3] < filled.statistics.state.q99[3] <= 1
    before, after = (yaml.safe_load(Path(path).read_text()) for path in (robot, tmp_path / "filled.yaml"))
    assert {key: value for key, value in after.items() if key != "statistics"} == before


def test_a_file_that_is_there_keeps_all_its_other_lines(clean: Path, robot: str, tmp_path: Path) -> None:
    file, text = tmp_path / "mine.yaml", Path(robot).read_text()
    before, behind = "# my arm, with a remark: keep it\n" + text + "# measured anew now and then\n", "\n# the end\n"
    file.write_text(before + "statistics: null\n" + behind)
    run("stats", clean, "--embodiment", file, "--fill", file)
    filled = file.read_text()
    assert filled.startswith(before + "statistics:\n") and filled.endswith(behind)
    assert load_embodiment(file) == replace(ROBOT, statistics=load_embodiment(file).statistics)
    assert load_embodiment(file).statistics is not None
    run("stats", clean, "--embodiment", file, "--fill", file)
    assert file.read_text() == filled


def test_the_file_of_another_robot_is_not_filled(
    clean: Path, robot: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(Path(robot).read_text().replace("name: arm", "name: other"))
    before = other.read_bytes()
    run("stats", clean, "--embodiment", robot, "--fill", other, code=1)
    assert "other.yaml: describes another robot than 'arm'" in capsys.readouterr().err
    assert other.read_bytes() == before


@pytest.mark.parametrize("fault", ["wrong statistics", "no statistics"])
def test_repaired_statistics_pass_the_linter(
    fault: str, clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = damaged(clean, tmp_path, fault)
    run("stats", root, "--repair")
    run("lint", root, "--fast", "--json")
    assert last_json(capsys)["findings"] == []
    stored = json.loads((root / "meta/stats.json").read_text())
    original = json.loads((clean / "meta/stats.json").read_text())
    assert stored["action"] == original["action"]
    if fault == "wrong statistics":
        assert stored == original, "statistics of pictures and bookkeeping columns must stay"


def test_a_robot_is_needed_to_fill(clean: Path) -> None:
    with pytest.raises(ValueError, match="give one with --embodiment"):
        stats(Stats(str(clean), fill=Path("unused.yaml")))


# -- show --------------------------------------------------------------------------------------------------------------


def test_an_episode_is_shown(clean: Path, robot: str, tmp_path: Path) -> None:
    run("show", clean, "--episode", 3, "--embodiment", robot, "--page", tmp_path / "show.html")
    page = (tmp_path / "show.html").read_text()
    assert "arms, episode 3" in page and "Pick up the cup." in page
    assert page.count("<video") == 1
    assert page.count("<svg") == 9
    run("show", clean, "--episode", 30, code=1)


def test_a_set_without_cameras_has_nothing_to_show(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = damaged(clean, tmp_path)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"] = {name: f for name, f in info["features"].items() if f["dtype"] != "video"}
    (root / "meta/info.json").write_text(json.dumps(info))
    run("show", root, "--page", tmp_path / "show.html", code=1)
    assert "no cameras" in capsys.readouterr().err
    assert not (tmp_path / "show.html").exists()


def test_rerun_that_is_not_installed_is_said_before_any_work(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rerun", None)
    run("show", clean, "--rerun", tmp_path / "x.rrd", "--page", tmp_path / "x.html", code=1)
    assert 'pip install -e ".[viz]"' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(importlib.util.find_spec("rerun") is None, reason="needs rerun-sdk (wam[viz])")
def test_a_recording_is_written(clean: Path, tmp_path: Path) -> None:
    run("show", clean, "--rerun", tmp_path / "x.rrd", "--page", tmp_path / "x.html")
    assert (tmp_path / "x.rrd").stat().st_size > 10_000


# -- encode ------------------------------------------------------------------------------------------------------------


def test_caches_are_written_once(
    clean: Path, robot: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wam.encoders.text.minilm_folder", lambda: tmp_path / "minilm")
    monkeypatch.setattr("wam.encoders.text.MiniLMTextEncoder", OneTokenEncoder)
    (tmp_path / "minilm").mkdir()
    (tmp_path / "minilm/model.safetensors").write_bytes(b"weights")
    torch.manual_seed(0)
    config = NanoTokenizerConfig(z_channels=4, width=(8, 8), depth=(0, 0), canvas_height=48, canvas_width=128)
    NanoTokenizer(config).save_pretrained(tmp_path / "tokenizer")
    arguments = (
        "encode",
        clean,
        "--tokenizer",
        tmp_path / "tokenizer",
        "--embodiment",
        robot,
        "--out",
        tmp_path / "out",
    )
    run(*arguments, "--batch", "-1", code=1)
    assert "batch is -1" in capsys.readouterr().err and not (tmp_path / "out").exists()
    run(*arguments, "--precision", "bf16", "--json")
    first = last_json(capsys)
    cache, text = LatentCache.open(Path(first["latents"]), LeRobotDataset(clean)), TextCache(Path(first["text"]))
    assert cache.latent_shape == (4, 6, 16)
    assert text.encode(["Close the box."]).shape == (1, 3, 2)
    monkeypatch.setattr(OneTokenEncoder, "allowed", False)
    run(*arguments, "--json")
    assert last_json(capsys) == first
    run(*arguments, "--precision", "float32", "--no-text", "--json")
    other = last_json(capsys)
    assert other["latents"] != first["latents"] and other["text"] is None


class OneTokenEncoder:
    """A text encoder that needs no weights."""

    text_len, text_dim, allowed = 3, 2, True

    @classmethod
    def for_prompts(cls, prompts: list[str]) -> Self:
        return cls()

    def encode(self, prompts: list[str]) -> torch.Tensor:
        assert self.allowed, "these prompts were encoded before"
        return torch.tensor([[[len(prompt), 1.0], [0, 0], [0, 0]] for prompt in prompts])
