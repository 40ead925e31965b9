"""What a filter leaves out is never in a window, and neither is anything behind a cut."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.synthetic import EMBODIMENT, CellTokenizer, episode_data, length_of, read_latent, write_dataset
from wam.data.errors import DatasetError, MissingColumnError, MissingFileError
from wam.data.filters import DatasetFilter, kept_spans
from wam.data.instructions import Instructions, read_instructions
from wam.data.latent_cache import LatentCache, encode_dataset
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.stats import robot_statistics
from wam.data.window_sampler import WindowSampler
from wam.data.windows import EpisodeSelection, WindowIndex, WindowSource, WindowSpec

ALL = EpisodeSelection(split="all")
N = 8


def spans(dataset: LeRobotDataset, keep: DatasetFilter, task: np.ndarray | None = None) -> list[tuple[int, ...]]:
    instructions = read_instructions(dataset, set(range(dataset.num_episodes)))
    if task is not None:
        silent = np.array([sentence.strip().lower() in keep.no_language for sentence in dataset.meta.tasks])
        instructions = Instructions(dataset.meta.tasks, task[:, None], (~silent[task]).astype(np.int64))
    found = kept_spans(dataset, keep, instructions)
    return [tuple(map(int, span)) for span in zip(found.episode, found.start, found.end, strict=True)]


def whole(episodes: object) -> list[tuple[int, ...]]:
    return [(i, 0, length_of(i)) for i in episodes]  # type: ignore[attr-defined]


def row_file(folder: Path, content: object) -> Path:
    path = folder / "rows.json"
    path.write_text(json.dumps(content))
    return path


def test_without_a_filter_everything_is_kept(dataset: LeRobotDataset) -> None:
    assert spans(dataset, DatasetFilter()) == whole(range(7))


def test_episodes_by_number(dataset: LeRobotDataset) -> None:
    assert spans(dataset, DatasetFilter(episodes=(5, 2, 3), without=(3,))) == whole([2, 5])
    discarding = LeRobotDataset(dataset.root, check=False)
    discarding.meta = replace(dataset.meta, discarded=(0, 6))
    assert spans(discarding, DatasetFilter(without=(1,))) == whole([2, 3, 4, 5])


def test_ranges_of_rows_to_keep(dataset: LeRobotDataset, tmp_path: Path) -> None:
    rows = row_file(tmp_path, {"1": [[3, 12], [20, 37]], "4": [[0, 30]], "5": []})
    assert spans(dataset, DatasetFilter(rows=rows)) == [(1, 3, 12), (1, 20, 37), (4, 0, 30)]


def test_ranges_by_the_name_of_the_recording(dataset: LeRobotDataset, tmp_path: Path) -> None:
    """As in the file for DROID, `<folder>--<file>`; here the additional columns are env_task and seed."""
    rows = row_file(tmp_path, {"thing-v3--2": [[5, 9]], "thing-v3--99": [[0, 1]]})
    assert spans(dataset, DatasetFilter(rows=rows, rows_key="{env_task}--{seed}")) == [(2, 5, 9)]


def test_steps_to_drop(dataset: LeRobotDataset, tmp_path: Path) -> None:
    lines = [{"episode_index": 1, "step_indices": [0, 1, 10, 36]}, {"episode_index": 3, "step_indices": []}]
    path = tmp_path / "step_filter.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    found = spans(dataset, DatasetFilter(rows=path, episodes=(0, 1, 3)))
    assert found == [(0, 0, 30), (1, 2, 10), (1, 11, 36), (3, 0, 51)]


def test_successful_episodes(dataset: LeRobotDataset) -> None:
    assert spans(dataset, DatasetFilter(success="next.success")) == whole(range(7))
    assert spans(dataset, DatasetFilter(success="noise")) == whole(range(1, 7))  # 0.25 * episode
    assert spans(dataset, DatasetFilter(success="seed", episodes=(0, 3))) == whole([3])
    with pytest.raises(
        MissingColumnError, match="no 'is_good' that says whether.*'env_task', 'noise', 'seed'.*next.succ"
    ):
        spans(dataset, DatasetFilter(success="is_good"))
    with pytest.raises(DatasetError, match="episode 0: field 'env_task' is 'thing-v3', expected a truth value"):
        spans(dataset, DatasetFilter(success="env_task"))


def test_rows_without_an_instruction(dataset: LeRobotDataset) -> None:
    silent = LeRobotDataset(dataset.root, check=False)
    silent.meta = replace(dataset.meta, tasks=("do thing", " ", "Not provided"))
    task = np.zeros(dataset.num_rows, dtype=np.int64)
    task[10:20], task[30:67] = 1, 2  # rows 10 to 19 of episode 0, all of episode 1
    keep = DatasetFilter(language=True, episodes=(0, 1, 2))
    assert spans(silent, keep, task) == [(0, 0, 10), (0, 20, 30), (2, 0, 44)]
    assert spans(silent, replace(keep, language=False), task)[:3] == [(0, 0, 10), (0, 10, 20), (0, 20, 30)]


def test_faults_are_named(dataset: LeRobotDataset, tmp_path: Path) -> None:
    for content, message in (
        ({"0": [[0, 31]]}, r"rows.json: episode '0': rows 0 to 31 \(exclusive\), the episode has 30 rows"),
        ({"0": [[9, 3]]}, "rows.json: episode '0': rows 9 to 3"),
        ({"0": ["all"]}, "rows.json: episode '0': found 'all', expected"),
        ({"left--right": []}, "names no episode of this data set: it has e.g. 'left--right', expected e.g. '0'"),
        ([1], "found a list, expected an object"),
    ):
        with pytest.raises(DatasetError, match=message):
            spans(dataset, DatasetFilter(rows=row_file(tmp_path, content)))
    (tmp_path / "bad.jsonl").write_text('{"episode": 3}')
    with pytest.raises(DatasetError, match=r"bad.jsonl: not the format.*episode_index"):
        spans(dataset, DatasetFilter(rows=tmp_path / "bad.jsonl"))
    with pytest.raises(MissingFileError, match=r"none.json: no such file"):
        spans(dataset, DatasetFilter(rows=tmp_path / "none.json"))
    with pytest.raises(MissingColumnError, match=r"needs 'file_path', the table of episodes has \['env_task'"):
        spans(dataset, DatasetFilter(rows=row_file(tmp_path, {}), rows_key="{file_path}"))
    with pytest.raises(DatasetError, match="without names episode 7, .* has 0 to 6"):
        spans(dataset, DatasetFilter(without=(7,)))
    with pytest.raises(DatasetError, match="leaves none of 7 episodes"):
        spans(dataset, DatasetFilter(episodes=(1,), without=(1,)))
    with pytest.raises(ValueError, match=r"expected a .json \(keep\)"):
        DatasetFilter(rows=tmp_path / "rows.csv")


# -- windows -------------------------------------------------------------------------------------------------------


def source(dataset: LeRobotDataset, cache: LatentCache, spec: WindowSpec, keep: DatasetFilter) -> WindowSource:
    return WindowSource(dataset, cache, spec, ALL, keep)


def shown(windows: WindowSource, index: WindowIndex) -> list[set[tuple[int, int]]]:
    """Rows that each window shows anywhere, padding included: through its frames, its actions and its states."""
    batch = windows.collate(index)
    seen = []
    for b in range(len(index.row)):
        frames = [frame for latent in np.moveaxis(batch.video[b].numpy(), 1, 0) for frame in read_latent(latent, 0)]
        frames += read_latent(batch.anchor[b, :, 0], 0)
        vectors = np.concatenate([batch.state[b, :, :2], -batch.action[b, :, :2]])
        seen.append({(e, row) for row, e, _ in frames} | {(int(e), int(row)) for row, e in vectors})
    return seen


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_windows_stay_inside_what_is_kept(
    dataset: LeRobotDataset, cache: LatentCache, tmp_path: Path, data: st.DataObject
) -> None:
    """Any ranges, any shape of windows: only rows of one range are shown, and every window with a chunk is drawn."""
    ranges = {}
    for episode in range(3):
        cuts = data.draw(st.lists(st.integers(0, length_of(episode)), max_size=4, unique=True))
        cuts = sorted(cuts)
        ranges[str(episode)] = list(zip(cuts[::2], cuts[1::2], strict=False))
    ranges["6"] = [(0, length_of(6))]
    shape = data.draw(st.sampled_from([{}, {"min_chunks": 2}, {"whole_chunks": True}, {"gap_probability": 0.5}]))
    spec = WindowSpec(chunks=data.draw(st.integers(2, 4)), **shape)
    windows = source(dataset, cache, spec, DatasetFilter(rows=row_file(tmp_path, ranges)))
    index = windows.windows(np.arange(len(windows)), np.random.default_rng(0))
    for number, rows in enumerate(shown(windows, index)):
        episode, row = int(index.episode[number]), int(index.row[number])
        start, end = next((a, b) for a, b in ranges[str(episode)] if a <= row < b)
        assert {e for e, _ in rows} == {episode}
        assert start <= min(row for _, row in rows) <= max(row for _, row in rows) < end
    for episode, parts in ranges.items():
        drawn = set(index.row[index.episode == int(episode)].tolist())
        for start, end in parts:
            inner = end < length_of(int(episode)) or spec.whole_chunks
            needed = spec.min_chunks * N + 1 if inner else (spec.min_chunks - 1) * N + 1
            assert {row for row in drawn if start <= row < end} == set(range(start, end - needed + 1))


def test_windows_stop_where_the_instruction_changes(tmp_path: Path) -> None:
    """Recorded as one episode, two instructions; the window has the sentence of its own part."""
    root = write_dataset(tmp_path / "set", 2, length=40)
    change_instruction(root, episode=1, row=21, task_index=0)
    dataset = LeRobotDataset(root)
    cache = encode_dataset(dataset, CellTokenizer(), EMBODIMENT, tmp_path / "cache")
    windows = source(dataset, cache, WindowSpec(chunks=4), DatasetFilter(episodes=(1,)))
    index = windows.windows(np.arange(len(windows)), np.random.default_rng(0))
    assert index.row.tolist() == [*range(21 - N), *range(21, 40)]
    sentences = windows.collate(index).text_id.numpy()
    np.testing.assert_array_equal(sentences, np.where(index.row < 21, 1, 0))
    for row, rows in zip(index.row, shown(windows, index), strict=True):
        assert all((seen < 21) == (row < 21) for _, seen in rows)


def change_instruction(root: Path, episode: int, row: int, task_index: int) -> None:
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    tasks = table["task_index"].to_numpy().copy()
    tasks[(table["episode_index"].to_numpy() == episode) & (table["frame_index"].to_numpy() >= row)] = task_index
    pq.write_table(table.set_column(table.column_names.index("task_index"), "task_index", pa.array(tasks)), path)


def test_statistics_count_what_is_kept(dataset: LeRobotDataset, cache: LatentCache, tmp_path: Path) -> None:
    rows = row_file(tmp_path, {"1": [[3, 12], [20, 37]], "4": [[0, 30]]})
    windows = source(dataset, cache, WindowSpec(chunks=2), DatasetFilter(rows=rows))
    found = robot_statistics(EMBODIMENT, windows.labelled_rows())
    one, four = (episode_data(i).columns["action"].astype(float) for i in (1, 4))
    kept = np.concatenate([one[3:12], one[20:37], four])
    np.testing.assert_allclose(found.action.mean, kept.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.action.q99, np.quantile(kept, 0.99, axis=0), rtol=1e-5)


def test_an_episode_left_out_by_number_may_be_broken(
    dataset: LeRobotDataset, cache: LatentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = LeRobotDataset.columns

    def failing(self: LeRobotDataset, index: int, names: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
        if index == 4:
            raise DatasetError("episode 4 is broken")
        return columns(self, index, names)

    monkeypatch.setattr(LeRobotDataset, "columns", failing)
    with pytest.raises(DatasetError, match="episode 4 is broken"):
        source(dataset, cache, WindowSpec(chunks=2), DatasetFilter())
    windows = source(dataset, cache, WindowSpec(chunks=2), DatasetFilter(without=(4,)))
    assert windows.episodes.tolist() == [0, 1, 2, 3, 5, 6]
    batch = windows.collate(next(WindowSampler(windows, 64)))
    assert all(set(np.unique(-batch.action[b, :, 1])) == {int(batch.episode[b])} for b in range(64))
