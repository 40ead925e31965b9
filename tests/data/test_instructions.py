"""Several wordings of an instruction: those that say something are drawn, seeded; where any changes, windows end."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.synthetic import length_of
from tests.data.write_v2 import write_v2
from wam.data.errors import DatasetError, MissingColumnError
from wam.data.filters import DatasetFilter, kept_spans
from wam.data.instructions import TASK, read_instructions
from wam.data.latent_cache import LatentCache
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.window_sampler import WindowSampler
from wam.data.windows import EpisodeSelection, WindowSource, WindowSpec

THREE = ("language_instruction", "language_instruction_2", "language_instruction_3")
SAID = {
    0: ("pick the cup", "grasp the mug", "take it"),
    1: ("open the drawer", "", "Not provided"),
    2: ("", " not provided", "close the lid"),
    3: ("", "", ""),
}
"""Wordings by episode; the others say what episode 0 does."""
EVERY = set(range(7))


@pytest.fixture(scope="module")
def droid(dataset: LeRobotDataset, tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    """A v2.1 copy with the columns of DROID: text, and numbers of tasks."""
    root = write_v2(tmp_path_factory.mktemp("droid") / "set", dataset)
    for episode in dataset.meta.episodes:
        path = next(root.glob(f"data/*/episode_{episode.index:06d}.parquet"))
        table = pq.read_table(path)
        for column, sentence in zip(THREE, SAID.get(episode.index, SAID[0]), strict=True):
            cells = [sentence or None] * table.num_rows
            table = table.append_column(column, pa.array(cells, pa.string()))
        annotation = np.full(table.num_rows, (episode.index + 1) % 3)
        pq.write_table(table.append_column("annotation", pa.array(annotation)), path)
    info = root / "meta/info.json"
    text = '"features": {' + ", ".join(f'"{name}": {{"dtype": "string", "shape": [1]}}' for name in THREE)
    text += ', "annotation": {"dtype": "int64", "shape": [1]}, '
    info.write_text(info.read_text().replace('"features": {', text, 1))
    return LeRobotDataset(root)


def test_one_column_is_the_table_of_tasks(dataset: LeRobotDataset) -> None:
    found = read_instructions(dataset, EVERY)
    assert found.sentences == dataset.meta.tasks
    tasks = np.concatenate([dataset.columns(i, (TASK,))[TASK] for i in range(7)])
    np.testing.assert_array_equal(found.number[:, 0], tasks)
    assert found.spoken.min() == found.spoken.max() == 1
    rng = np.random.default_rng(0)
    assert found.draw(np.arange(5), rng) is None
    assert rng.random() == np.random.default_rng(0).random(), "drawing nothing must not change what is drawn after it"


def test_wordings_are_read_and_those_that_say_nothing_come_last(droid: LeRobotDataset) -> None:
    found = read_instructions(droid, EVERY, THREE)
    for index in range(7):
        row = droid.episode(index).dataset_from_index + 11
        said = [found.sentences[number] for number in found.number[row]]
        meant = [
            sentence for sentence in SAID.get(index, SAID[0]) if sentence.strip().lower() not in ("", "not provided")
        ]
        assert said[: len(meant)] == meant
        assert found.spoken[row] == len(meant)
    assert "" in found.sentences and len(found.sentences) == len(set(found.sentences))
    some = read_instructions(droid, {1}, THREE)
    assert set(some.sentences) == set(SAID[1]), "nothing of the other episodes is read"


def test_numbers_of_tasks_and_text_go_together(droid: LeRobotDataset) -> None:
    found = read_instructions(droid, EVERY, ("annotation", THREE[0]))
    for index in (0, 1, 4):
        number, text = found.number[droid.episode(index).dataset_from_index]
        assert found.sentences[number] == droid.meta.tasks[(index + 1) % 3]
        assert found.sentences[text] == SAID.get(index, SAID[0])[0]


def windows(droid: LeRobotDataset, cache: LatentCache, keep: DatasetFilter | None = None) -> WindowSource:
    own = LatentCache(cache.folder, cache.key, droid.meta.fingerprint, cache.video_stride, cache.anchor, cache.group)
    return WindowSource(droid, own, WindowSpec(chunks=2), EpisodeSelection("all"), keep, instructions=THREE)


def test_windows_draw_a_wording_that_says_something(droid: LeRobotDataset, cache: LatentCache) -> None:
    source = windows(droid, cache)
    sampler = WindowSampler(source, 16, seed=1)
    seen: dict[int, list[str]] = {}
    for _ in range(6 * sampler.batches_per_epoch):
        batch = source.collate(next(sampler))
        for episode, text in zip(batch.episode.tolist(), batch.text_id.tolist(), strict=True):
            seen.setdefault(episode, []).append(source.sentences[text])
    assert set(seen[1]) == {"open the drawer"} and set(seen[2]) == {"close the lid"} and set(seen[3]) == {""}
    for episode in (0, 4, 5, 6):
        shares = {sentence: seen[episode].count(sentence) / len(seen[episode]) for sentence in SAID[0]}
        assert set(seen[episode]) == set(SAID[0]) and min(shares.values()) > 0.2


def test_the_draw_is_seeded_and_resumes(droid: LeRobotDataset, cache: LatentCache) -> None:
    source = windows(droid, cache)

    def texts(sampler: WindowSampler, count: int) -> list[list[int]]:
        return [source.collate(next(sampler)).text_id.tolist() for _ in range(count)]

    first = WindowSampler(source, 16, seed=1)
    before, state, after = texts(first, 5), first.state_dict(), texts(first, 5)
    assert texts(WindowSampler(source, 16, seed=1), 10) == before + after
    assert texts(WindowSampler(source, 16, seed=2), 10) != before + after
    resumed = WindowSampler(source, 16, seed=1)
    resumed.load_state_dict(state)
    assert texts(resumed, 5) == after
    ranks = [WindowSampler(source, 8, seed=1, rank=rank, world_size=2) for rank in (0, 1)]
    together = list(zip(*(texts(rank, 5) for rank in ranks), strict=True))
    assert [[text for pair in zip(*parts, strict=True) for text in pair] for parts in together] == before


def test_rows_that_say_nothing_in_any_wording_can_be_left_out(droid: LeRobotDataset, cache: LatentCache) -> None:
    assert windows(droid, cache, DatasetFilter(language=True)).episodes.tolist() == [0, 1, 2, 4, 5, 6]


def test_a_change_of_any_wording_is_a_cut(droid: LeRobotDataset) -> None:
    instructions = read_instructions(droid, EVERY, THREE)
    instructions.number[droid.episode(0).dataset_from_index + 12 :, 2] += 1
    spans = kept_spans(droid, DatasetFilter(episodes=(0,)), instructions)
    assert list(zip(spans.start.tolist(), spans.end.tolist(), strict=True)) == [(0, 12), (12, length_of(0))]


def test_what_is_no_instruction_is_named(droid: LeRobotDataset) -> None:
    for columns, error, message in (
        (("absent",), MissingColumnError, "no column 'absent'"),
        (("action",), DatasetError, "column 'action' of episode 0 is float32"),
        (("frame_index",), DatasetError, "column 'frame_index' .* 0 to 29; expected text, or numbers of the 3 tasks"),
        ((), DatasetError, "no column of instructions is named"),
    ):
        with pytest.raises(error, match=message):
            read_instructions(droid, EVERY, columns)


def test_text_is_read_by_episode(dataset: LeRobotDataset, droid: LeRobotDataset, tmp_path: Path) -> None:
    numbers, texts = droid.texts(1, THREE[0])
    assert [texts[number] for number in numbers] == ["open the drawer"] * length_of(1)
    with pytest.raises(MissingColumnError, match=r"column 'action' holds .*, expected text"):
        dataset.texts(1, "action")


def test_tasks_of_one_sentence_are_one(dataset: LeRobotDataset, tmp_path: Path) -> None:
    """A table of tasks that was merged badly: rows of both numbers say the same, and the others keep their sentence."""
    root = write_v2(tmp_path / "set", dataset)
    table = root / "meta/tasks.jsonl"
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    assert len(lines) == 3
    last = dataset.meta.tasks[2]
    lines[1]["task"] = lines[0]["task"]
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    merged = LeRobotDataset(root)
    found, before = (read_instructions(data, EVERY) for data in (merged, dataset))
    assert found.sentences == (lines[0]["task"], last)
    expected = np.array([0, 0, 1])[before.number[:, 0]]
    np.testing.assert_array_equal(found.number[:, 0], expected)
