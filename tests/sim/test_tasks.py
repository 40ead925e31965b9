"""Names, sentences and splits of the Meta-World tasks."""

from itertools import combinations

import pytest
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from wam.sim import tasks
from wam.sim.sentences import SENTENCES


def test_every_metaworld_environment_is_a_task_in_one_group() -> None:
    listed = [name for names in tasks.DIFFICULTY.values() for name in names]
    assert sorted(f"{name}-v3" for name in listed) == sorted(ALL_V3_ENVIRONMENTS)
    assert [len(names) for names in tasks.DIFFICULTY.values()] == [28, 11, 6, 5]


def test_sets_of_tasks_hold_known_names_only() -> None:
    for names in (tasks.MT10, tasks.HELDOUT_TASKS, tasks.GOAL_MARKER_TASKS, tasks.PRECISE_TASKS):
        assert set(names) <= set(tasks.TASKS)
    assert not set(tasks.GROUPS["ml45-train"]) & set(tasks.HELDOUT_TASKS)
    assert len(tasks.GROUPS["ml45-train"]) == 45


def test_sentences_are_distinct_over_all_tasks() -> None:
    assert set(SENTENCES) == set(tasks.TASKS)
    sentences = [sentence for five in SENTENCES.values() for sentence in five]
    assert len(sentences) == len(set(sentences)) == 250
    for task in tasks.TASKS.values():
        assert len(task.paraphrases) == 3
        assert task.unseen_sentence not in task.training_sentences


def test_splits_share_no_seed() -> None:
    for one, other in combinations(tasks.SPLITS.values(), 2):
        assert not set(range(one.first, one.end)) & set(range(other.first, other.end))


def test_split_refuses_variations_beyond_its_end() -> None:
    val = tasks.SPLITS["val"]
    assert val.seed(0) == val.first
    assert val.seed(len(val) - 1) == val.end - 1
    for index in (-1, len(val)):
        with pytest.raises(ValueError, match=f"initial state {index} asked for, split 'val' has 0 to 99999"):
            val.seed(index)


def test_expand_replaces_groups_and_keeps_each_task_once() -> None:
    assert tasks.expand(["mt10", "reach", "assembly"]) == (*tasks.MT10, "assembly")


def test_unknown_task_is_answered_with_close_matches() -> None:
    with pytest.raises(ValueError, match=r"'draw-open'.*'drawer-open'"):
        tasks.task("draw-open")


def test_every_sentence_asks_for_its_own_task() -> None:
    wrong = {
        sentence: tasks.asked_for(sentence).name
        for name, sentences in SENTENCES.items()
        for sentence in sentences
        if tasks.asked_for(sentence.lower().rstrip(".")).name != name
    }
    assert wrong == {}


@pytest.mark.parametrize(
    ("words", "name"),
    [("drawer-open", "drawer-open"), ("open the drawer!", "drawer-open"), ("please close the window", "window-close")],
)
def test_what_people_type_finds_a_task(words: str, name: str) -> None:
    assert tasks.asked_for(words).name == name


@pytest.mark.parametrize("words", ["make me a coffee please", "drawer-opne", "", "go home"])
def test_what_asks_for_no_task_is_an_error_that_names_the_closest(words: str) -> None:
    with pytest.raises(ValueError, match="the closest are|did you mean|known tasks"):
        tasks.asked_for(words)
