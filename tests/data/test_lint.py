"""The linter's parts, other layouts, and what it says when there is nothing to look at."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.clean_set import EPISODES, FPS, FRONT, ROBOT, WRIST, length_of, write_clean
from tests.data.damage import edit_info, edit_list, episodes_file
from tests.data.write_v2 import write_v2, write_v3_images
from wam.data.errors import DatasetError, MissingFileError, UnsupportedVersionError
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.lint import Finding, Options, Survey, gather, lint
from wam.data.lint.alignment import Signals, odd_delays, usual_delay
from wam.data.lint.finding import merged, spans
from wam.data.lint.metadata import is_empty
from wam.data.lint.pictures import longest_run
from wam.data.lint.survey import places
from wam.robot.draft_parts import dimensions, parts_of
from wam.robot.embodiment import Part


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clean(tmp_path_factory.mktemp("clean") / "set")


@pytest.fixture(scope="module")
def survey(clean: Path) -> Survey:
    return gather(clean, Options(embodiment=ROBOT))[0]


# -- layouts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "images"), [("v2.0", False), ("v2.1", False), ("v2.1", True)])
def test_copies_in_other_layouts_are_clean_too(clean: Path, tmp_path: Path, version: str, images: bool) -> None:
    root = write_v2(tmp_path / "copy", LeRobotDataset(clean), version, images=images)
    if version == "v2.0":  # which has no statistics per episode, but those of the data set
        shutil.copy(clean / "meta/stats.json", root / "meta/stats.json")
    report = lint(root, Options(embodiment=ROBOT))
    assert report.findings == ()
    assert report.version == version
    assert report.films == report.all_films == 20


@pytest.mark.parametrize("images", [False, True])
def test_faults_of_an_older_layout_are_named(clean: Path, tmp_path: Path, images: bool) -> None:
    root = write_v2(tmp_path / "copy", LeRobotDataset(clean), "v2.1", images=images)
    lines = (root / "meta/episodes.jsonl").read_text().splitlines()
    (root / "meta/episodes.jsonl").write_text(
        "\n".join([*lines[:4], lines[4].replace('"length": ', '"length": 1'), *lines[5:]])
    )
    lost = next((root / "data").rglob("*_000007.parquet"))
    lost.unlink()
    findings = {(finding.check, finding.episodes) for finding in lint(root).findings}
    assert {("row-count", (4,)), ("missing-file", (7,))} <= findings
    if not images:
        assert ("short-video", (4,)) in findings


Lines = list[Any]


@pytest.fixture(scope="module")
def older(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clean set as v2.1."""
    return write_v2(tmp_path_factory.mktemp("older") / "set", LeRobotDataset(clean), "v2.1")


@pytest.fixture
def without_films(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults of the metadata are found without looking at pictures."""
    monkeypatch.setattr("wam.data.lint.run.read_films", lambda *_, **__: {})


def edit_lines(root: Path, name: str, change: Callable[[Lines], object]) -> None:
    path = root / f"meta/{name}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("\n".join(json.dumps(line) for line in lines))


@pytest.mark.usefixtures("without_films")
@pytest.mark.parametrize(
    ("name", "change", "found", "lost"),
    [
        ("episodes", lambda lines: lines[3].pop("length"), "line 4: field 'length' is missing", 1),
        ("episodes", lambda lines: lines[3].update(length=-3), "line 4: field 'length' is -3, expected count", 1),
        ("episodes", lambda lines: lines.__setitem__(3, [1, 2]), r"line 4: found [1, 2], expected an object", 1),
        ("episodes", lambda lines: lines[3].update(episode_index=None), "line 4: field 'episode_index' is missing", 1),
        ("tasks", lambda lines: lines[1].pop("task"), "line 2: field 'task' is missing", 0),
        ("tasks", lambda lines: lines.__setitem__(1, None), "line 2: found None, expected an object", 0),
        (
            "episodes_stats",
            lambda lines: [line["stats"]["action"].pop("mean") for line in lines[2:4]],
            "line 3, 'action': field 'mean' is missing; restore the metadata from a copy (1 more lines alike)",
            0,
        ),
        ("episodes_stats", lambda lines: lines[2].update(stats=[1]), "line 3: field 'stats' is [1]", 0),
        (
            "episodes_stats",
            lambda lines: lines[2]["stats"]["action"].update(max=["high"]),
            "line 3, 'action': field 'max' is ['high'], expected numbers",
            0,
        ),
    ],
)
def test_a_line_that_cannot_be_read_becomes_a_finding(
    older: Path, tmp_path: Path, name: str, change: Callable[[Lines], object], found: str, lost: int
) -> None:
    root = Path(shutil.copytree(older, tmp_path / "set"))
    edit_lines(root, name, change)
    report = lint(root, Options(embodiment=ROBOT))
    (broken,) = [finding for finding in report.findings if finding.check == "broken-table"]
    assert broken.file == f"meta/{name}.jsonl" and broken.found.startswith(f"cannot be read: {found}")
    assert report.episodes == 10 - lost
    numbers = [finding.episodes for finding in report.findings if finding.check in ("row-numbers", "offsets")]
    assert not any(numbers), "the other episodes are where they were"


@pytest.mark.usefixtures("without_films")
@pytest.mark.parametrize(
    ("changes", "field", "found"),
    [
        ({"features.note": None}, "features.note", "found None, expected an object"),
        ({"features.note": {"dtype": "float32"}}, "features.note", "field 'shape' is missing"),
        ({"features.note": {"dtype": "video", "shape": [3]}}, "features.note", "expected height, width and channels"),
        ({"chunks_size": 0}, "chunks_size", "field 'chunks_size' is 0, expected positive integer"),
        ({"data_path": "data/{nope}.parquet"}, "data_path", "'data/{nope}.parquet', expected no placeholders but"),
        ({"data_path": 5}, "", ""),
        ({"video_path": "videos/{}"}, "video_path", "'videos/{}', expected no placeholders but"),
    ],
)
def test_a_field_that_means_nothing_becomes_a_finding(
    older: Path, tmp_path: Path, changes: dict[str, object], field: str, found: str
) -> None:
    root = Path(shutil.copytree(older, tmp_path / "set"))
    info = json.loads((root / "meta/info.json").read_text())
    for name, value in changes.items():
        if name.startswith("features."):
            info["features"][name.removeprefix("features.")] = value
        else:
            info[name] = value
    (root / "meta/info.json").write_text(json.dumps(info))
    report = lint(root)
    assert report.count("error") and report.episodes == 10
    for finding in report.findings:
        if finding.check == "broken-field":
            assert finding.field == field and found in finding.found
    assert any(finding.check == "broken-field" for finding in report.findings) == bool(field)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"features": [1]}, r"info.json: field 'features' is \[1\], expected dict"),
        ({"fps": -20}, "info.json: field 'fps' is -20, expected positive number"),
        ({"fps": "fast"}, "info.json: field 'fps' is 'fast', expected positive number"),
    ],
)
def test_what_nothing_can_be_looked_at_without_is_named(
    older: Path, tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    root = Path(shutil.copytree(older, tmp_path / "set"))
    edit_info(root, lambda info: info.update(changes))
    with pytest.raises(DatasetError, match=named):
        lint(root)


def test_v2_may_use_the_placeholders_of_v3(older: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(older, tmp_path / "set"))
    edit_info(
        root, lambda info: info.update(data_path="data/chunk-{chunk_index:03d}/episode_{episode_index:06d}.parquet")
    )
    assert lint(root, Options(embodiment=ROBOT)).findings == ()
    assert len(LeRobotDataset(root).columns(5)["index"]) == length_of(5)


def test_a_sentence_may_hold_a_line_separator(older: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(older, tmp_path / "set"))
    path = root / "meta/tasks.jsonl"
    path.write_text(path.read_text().replace("{", '{"note": "one\u2028two", '), encoding="utf-8")
    assert lint(root, Options(fast=True)).findings == ()


@pytest.mark.parametrize("images", [False, True])
def test_an_episode_without_rows_is_an_error(clean: Path, tmp_path: Path, images: bool) -> None:
    source = LeRobotDataset(clean)
    root = write_v3_images(tmp_path / "set", source) if images else Path(shutil.copytree(clean, tmp_path / "set"))
    last = EPISODES - 1
    edit_list(root / episodes_file(last), lambda rows: rows.append(_without_rows(rows[-1])))
    edit_info(root, lambda info: info.update(total_episodes=EPISODES + 1))
    report = lint(root, Options(embodiment=ROBOT))
    (finding,) = report.findings
    assert (finding.check, finding.severity, finding.episodes) == ("short-episode", "error", (EPISODES,))
    assert (report.films, report.all_films) == (20, 22)


def _without_rows(row: dict[str, Any]) -> dict[str, Any]:
    """An episode behind `row` that ends where it begins."""
    ends = {name: row[name.replace("from_timestamp", "to_timestamp")] for name in row if "from_timestamp" in name}
    places = {"dataset_from_index": row["dataset_to_index"], "dataset_to_index": row["dataset_to_index"]}
    return {**row, **ends, **places, "episode_index": EPISODES, "length": 0}


@pytest.mark.usefixtures("without_films")
def test_numbers_of_episodes_that_are_none_become_a_finding(clean: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(clean, tmp_path / "set"))
    table = pq.read_table(root / episodes_file(5))
    numbers = pa.array([["a"]] * table.num_rows)
    table = table.set_column(table.column_names.index("episode_index"), "episode_index", numbers)
    pq.write_table(table, root / episodes_file(5))
    report = lint(root)
    (broken,) = [finding for finding in report.findings if finding.check == "broken-table"]
    assert broken.file == episodes_file(5) and "field 'episode_index' is ['a'], expected count" in broken.found
    assert report.episodes == EPISODES - table.num_rows


@pytest.mark.usefixtures("without_films")
def test_statistics_that_are_no_numbers_become_a_finding(clean: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(clean, tmp_path / "set"))
    stats = json.loads((root / "meta/stats.json").read_text())
    stats["action"]["std"] = {"arm": 1}
    (root / "meta/stats.json").write_text(json.dumps(stats))
    (finding,) = lint(root).findings
    assert (finding.check, finding.field, finding.found) == ("stats", "action", "std is no list of numbers")


@pytest.mark.parametrize(
    ("name", "gripper"),
    [
        ("left_effector_position", True),
        ("right_effector", True),
        ("finger_left", True),
        ("end_effector_position_x", False),
        ("endeffector_x", False),
        ("joint_1", False),
    ],
)
def test_linter_and_draft_agree_on_grippers(name: str, gripper: bool, survey: Survey) -> None:
    column = replace(survey.declared.columns["action"], names=("a", "b", "c", name))
    declared = replace(survey.declared, columns={**survey.declared.columns, "action": column})
    assert replace(survey, declared=declared, embodiment=None).grippers("action") == ((3,) if gripper else ())
    (drafted,) = parts_of(dimensions("action", 1, (name,), ()), "action")
    assert ("gripper" in drafted.name) == gripper


def test_nothing_to_look_at(tmp_path: Path, clean: Path) -> None:
    with pytest.raises(MissingFileError, match="no LeRobot data set"):
        lint(tmp_path)
    root = Path(shutil.copytree(clean, tmp_path / "set"))
    info = root / "meta/info.json"
    text = info.read_text()
    info.write_text(text.replace('"v3.0"', '"v9.0"'))
    with pytest.raises(UnsupportedVersionError, match=r"'v9.0', expected one of"):
        lint(root)
    info.write_text(text[:50])
    with pytest.raises(MissingFileError, match="not a valid JSON object"):
        lint(root)
    info.write_text(text)
    shutil.rmtree(root / "meta/episodes")
    with pytest.raises(MissingFileError, match="no table of episodes"):
        lint(root)


def test_fast_looks_at_few_films(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wam.data.lint.films.SAMPLE", 3)
    quick, whole = gather(clean, Options(fast=True))[0], gather(clean, Options())[0]
    assert {episode for episode, _ in quick.films} == {0, 4, 9}
    for place, film in quick.films.items():  # reached by a seek, and the same
        np.testing.assert_array_equal(film.tiny, whole.films[place].tiny)
        assert not film.missing


def test_what_passes_must_open(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise MissingFileError("something that no check knows")

    monkeypatch.setattr("wam.data.lint.run.LeRobotDataset", refuse)
    (finding,) = lint(clean).findings
    assert (finding.check, finding.severity, finding.found) == ("reader", "error", "something that no check knows")


# -- delays ------------------------------------------------------------------------------------------------------------


def _signals(delays: list[int], noise: float = 0.0, seed: int = 0) -> Signals:
    """Random smooth states, and pictures that show them `delays` rows late, mixed into eight components."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(3, 8))
    pictures, states = [], []
    for delay in delays:
        steps = rng.normal(size=(120, 3))
        smooth = np.stack([np.convolve(column, np.ones(7) / 7, "same") for column in steps.T], axis=1)
        path = np.cumsum(smooth, axis=0)
        state, shown = path[20:100], path[20 - delay : 100 - delay]
        states.append((state - state.mean(0)) / state.std(0))
        seen = (shown - shown.mean(0)) @ mixing
        pictures.append(seen + noise * rng.normal(size=seen.shape))
    return Signals(tuple(range(len(delays))), tuple(pictures), tuple(states))


@settings(deadline=None, max_examples=30)
@given(delay=st.integers(-6, 6), seed=st.integers(0, 5))
def test_the_delay_of_a_data_set_is_measured(delay: int, seed: int) -> None:
    assert usual_delay(_signals([delay] * 12, 0.1, seed), reach=8) == delay


@pytest.mark.parametrize("delay", [-5, 3, 5])
def test_the_delay_of_one_episode_is_measured_or_nothing_is_said(delay: int) -> None:
    found = []
    for odd in range(12):
        delays = odd_delays(_signals([delay if number == odd else 0 for number in range(12)]), usual=0, reach=8)
        assert delays in ({}, {odd: delay})
        found.append(bool(delays))
    assert sum(found) >= (8 if abs(delay) == 5 else 1)


def test_pictures_that_say_nothing_give_no_verdict() -> None:
    signals = _signals([4] * 12)
    rng = np.random.default_rng(1)
    blind = replace(signals, pictures=tuple(rng.normal(size=p.shape) for p in signals.pictures))
    assert usual_delay(blind, reach=8) == 0
    assert odd_delays(blind, usual=0, reach=8) == {}


# -- small parts -------------------------------------------------------------------------------------------------------


def test_findings_of_many_episodes_become_one() -> None:
    def one(episode: int, check: str = "cut") -> Finding:
        return Finding(check, "error", f"at row {episode}", "nothing", "look", "file", "top", (episode,))

    together = merged([one(4), one(2), one(3), one(9), one(9, "jump"), replace(one(1), severity="warning")])
    assert [(f.check, f.severity, f.episodes) for f in together] == [
        ("cut", "error", (2, 3, 4, 9)),
        ("jump", "error", (9,)),
        ("cut", "warning", (1,)),
    ]
    assert together[0].found == "at row 4 (episode 4; 3 more alike)"
    assert together[0].where == "episodes 2-4, 9, top, file"


@given(st.sets(st.integers(0, 60), min_size=1))
def test_spans_say_all_numbers(numbers: set[int]) -> None:
    said: set[int] = set()
    for part in spans(numbers, most=100).split(", "):
        first, *last = part.split("-")
        said |= set(range(int(first), int((last or [first])[0]) + 1))
    assert said == numbers


@given(st.lists(st.booleans(), max_size=30))
def test_longest_run(flags: list[bool]) -> None:
    length, start = longest_run(np.array(flags, dtype=bool))
    runs = [len(run) for run in "".join("x" if flag else " " for flag in flags).split()]
    assert length == max(runs, default=0)
    assert all(flags[start : start + length])


@pytest.mark.parametrize("sentence", ["", "  ", "TODO", "<task>", "not provided", "N/A", "...", "None."])
def test_empty_instructions(sentence: str) -> None:
    assert is_empty(sentence)


@pytest.mark.parametrize("sentence", ["Pick up the cup.", "抓住杯子", "Test the button by pressing it", "go"])
def test_instructions_that_say_something(sentence: str) -> None:
    assert not is_empty(sentence)


def test_places_of_parts() -> None:
    parts = (Part("arm", ("a", "b"), start=3), Part("hand", ("c",)), Part("base", ("d", "e"), key="other"))
    found = [(place.key, place.start, place.end) for place in places(parts, "action")]
    assert found == [("action", 3, 5), ("action", 5, 6), ("other", 0, 2)]


def test_the_survey_knows_names_and_pairs(survey: Survey) -> None:
    assert survey.declared.fps == FPS
    assert set(survey.declared.cameras) == {FRONT, WRIST}
    assert survey.dim_name("action", 3) == "action.gripper"
    assert survey.grippers("action") == (3,)
    assert survey.pairs == ((0, 0), (1, 1), (2, 2), (3, 3))
