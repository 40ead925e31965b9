"""Tables: the right numbers in the right rows, and paired differences with a verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.evaluate.test_results import record
from wam.evaluate import compare, summary
from wam.evaluate.compare import compare_folders
from wam.evaluate.provenance import Provenance
from wam.evaluate.results import EpisodeRecord, ResultFolder, ResultFolderError
from wam.evaluate.statistics import mean, wilson
from wam.evaluate.summary import Summary, policy_name, summarise

PUBLISHED = Path(__file__).parents[2] / "docs/results/nano-mt50"
MADE = Provenance("wam eval", "unknown", "a machine", "2026-01-01T00:00:00+00:00")
GROUPS = {"reach": "easy", "close": "easy", "push": "hard"}
CONFIG = {"policy": "wam", "checkpoint": "runs/mt10", "split": "test", "look": "train", "wording": "canonical"}


def episodes(successes: dict[str, int], n: int, commit: str = "c0ffee") -> list[EpisodeRecord]:
    return [record(task, seed, seed < k, commit) for task, k in successes.items() for seed in range(n)]


@pytest.fixture
def found() -> Summary:
    records = episodes({"push": 2, "reach": 10, "close": 8}, 10)
    return summarise(records, GROUPS, CONFIG, MADE, planned=40)


def test_means_weigh_tasks_alike(found: Summary) -> None:
    assert [task.task for task in found.tasks] == ["push", "reach", "close"]
    assert [(g.group, g.tasks, g.successes, g.n) for g in found.groups] == [("easy", 2, 18, 20), ("hard", 1, 2, 10)]
    assert found.groups[0].rate == mean([wilson(10, 10), wilson(8, 10)])
    assert found.over_tasks.value == pytest.approx(2 / 3)
    assert found.over_groups.value == pytest.approx((0.9 + 0.2) / 2)
    assert (found.successes, found.n) == (20, 30)


def test_unequal_numbers_of_episodes_do_not_tilt_the_mean() -> None:
    uneven = episodes({"reach": 0}, 90) + episodes({"push": 10}, 10)
    assert summarise(uneven, GROUPS, CONFIG, MADE).over_tasks.value == 0.5


def test_names_of_policies() -> None:
    assert policy_name({"policy": "expert"}) == "expert"
    assert policy_name({"policy": "wam", "checkpoint": "runs/mt10/model"}) == "mt10"
    assert policy_name({"policy": "wam", "checkpoint": "nano-metaworld"}) == "nano-metaworld"
    assert policy_name({"policy": "wam", "checkpoint": "runs/mt10", "label": "one step"}) == "one step"


def test_timing_counts_chunks(found: Summary) -> None:
    """Two per episode; the first, of 9 ms, is kept apart."""
    assert found.timing.chunks == 30
    assert found.timing.first_ms == pytest.approx(9.0)
    assert found.timing.mean_ms == pytest.approx(6.0)
    assert found.timing.chunks_per_second == pytest.approx(1000 / 6)
    assert found.timing.stage_ms == {"act": pytest.approx(6.0)}


def test_every_form_carries_the_numbers(found: Summary, tmp_path: Path) -> None:
    text = summary.markdown(found)
    assert "| push | hard | 2/10 | 20.0 | 5.7-51.0 | 20 |" in text
    assert "| **mean over tasks** | all | 20/30 | **66.7** |" in text
    assert "UNFINISHED: 30 of 40 episodes" in text
    assert "`wam eval`, commit c0ffee" in text
    console = Console(record=True, width=120)
    console.print(summary.rich_table(found))
    shown = console.export_text()
    assert "mt10 on 3 tasks, test split" in shown
    assert "5.7-51.0" in shown
    found.write(tmp_path / "summary.json")
    stored = json.loads((tmp_path / "summary.json").read_text())
    assert stored["tasks"][0]["successes"] == 2
    assert stored["provenance"]["machine"] == "a machine"
    assert stored["over_tasks"]["low"] < 2 / 3 < stored["over_tasks"]["high"]


def test_all_commits_are_named_and_strangers_have_a_group() -> None:
    records = episodes({"reach": 1}, 2) + episodes({"juggle": 1}, 2, commit="decade")
    found = summarise(records, GROUPS, CONFIG, MADE)
    assert found.provenance.commit == "c0ffee, decade"
    assert [group.group for group in found.groups] == ["easy", "other"]
    with pytest.raises(ValueError, match="no finished episode"):
        summarise([], GROUPS, CONFIG, MADE)


def write_folder(root: Path, records: list[EpisodeRecord], **changes: str) -> Path:
    folder = ResultFolder.open(root, {**CONFIG, **changes})
    for line in records:
        folder.append(line)
    return root


def test_a_clear_difference(tmp_path: Path) -> None:
    a = write_folder(tmp_path / "a", episodes({"reach": 45, "push": 30}, 50), label="big")
    b = write_folder(tmp_path / "b", episodes({"reach": 25, "push": 31}, 50), label="small")
    (found,) = compare_folders([a, b])
    assert found.over_tasks.value == pytest.approx((0.4 - 0.02) / 2)
    assert found.distinguishable
    assert found.verdict.startswith("big is better than small by 19.0 points [")
    assert [task.paired.distinguishable for task in found.tasks] == [True, False]
    assert compare.markdown(found).count("not distinguishable") == 1
    (mirrored,) = compare_folders([b, a])
    assert mirrored.verdict == found.verdict


def test_an_unclear_difference_says_so(tmp_path: Path) -> None:
    a = write_folder(tmp_path / "a", episodes({"reach": 5}, 10))
    b = write_folder(tmp_path / "b", episodes({"reach": 4}, 10))
    (found,) = compare_folders([a, b])
    assert not found.distinguishable
    assert "not distinguishable: +10.0 points" in found.verdict
    assert (found.a, found.b) == (str(a), str(b))  # one checkpoint, two folders
    console = Console(record=True, width=80)
    console.print(compare.rich_table(found))
    assert "≈" in console.export_text()


def test_only_common_episodes_count_and_the_rest_is_counted(tmp_path: Path) -> None:
    a = write_folder(tmp_path / "a", episodes({"reach": 5, "push": 1}, 10))
    b = write_folder(tmp_path / "b", episodes({"reach": 5}, 8))
    (found,) = compare_folders([a, b])
    assert found.n == 8
    assert found.left_out == 12
    assert "12 episodes that only one of them has were left out" in compare.markdown(found)


def test_an_episode_that_stands_twice_is_compared_once() -> None:
    a, b = episodes({"reach": 2}, 3), episodes({"reach": 1}, 3)
    found = compare.compare([*a, *a[:2]], b, "a", "b")
    assert (found.n, found.left_out, found.tasks[0].paired.n) == (3, 0, 3)


def test_published_results_can_be_compared_again() -> None:
    """Folders of the repository, which hold the lines and the summary alone; numbers are those of their summaries."""
    roots = [PUBLISHED / name for name in ("fair-10", "helped-10")]
    (found,) = compare_folders(roots)
    solved = [json.loads((root / "summary.json").read_text())["successes"] for root in roots]
    assert [sum(task.successes_a for task in found.tasks), sum(task.successes_b for task in found.tasks)] == solved
    assert (found.a, found.b, found.n, found.left_out, len(found.tasks)) == ("fair", "helped", 500, 0, 50)


def test_three_policies_make_three_pairs(tmp_path: Path) -> None:
    roots = [write_folder(tmp_path / name, episodes({"reach": 5}, 9), label=name) for name in "abc"]
    assert [(c.a, c.b) for c in compare_folders(roots)] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    a = write_folder(tmp_path / "a", episodes({"reach": 5}, 9))
    dark = write_folder(tmp_path / "dark", episodes({"reach": 5}, 9), look="lights")
    other = write_folder(tmp_path / "other", episodes({"push": 5}, 9))
    with pytest.raises(ResultFolderError, match=r"field 'look' is 'lights'.*has 'train'"):
        compare_folders([a, dark])
    with pytest.raises(ResultFolderError, match=r"no episode .* in common"):
        compare_folders([a, other])
    with pytest.raises(ResultFolderError, match="at least two"):
        compare_folders([a])


def test_provenance_names_this_code_and_machine() -> None:
    here = Provenance.here("wam eval runs/x")
    assert here.command == "wam eval runs/x"
    assert "cores" in here.machine
    assert "torch" in here.machine
    assert here.commit
    assert here.date.endswith("+00:00")
