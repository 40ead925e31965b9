"""Many episodes: deterministic, resumable, filmed as asked, and clear about what went wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluate.point_robot import POINT, BrokenSource, PointEnv, PointSource
from wam.data.errors import DatasetLockedError
from wam.data.video import count_frames
from wam.evaluate.results import EPISODES, EpisodeRecord, ResultFolderError
from wam.evaluate.rollout import rollout
from wam.evaluate.runner import Episode, Films, Setup, run_episodes
from wam.evaluate.workers import WorkerError

SETUP = Setup(PointEnv, PointSource(), max_env_steps=40, embodiment=POINT)
PLAN = [Episode(task, seed) for task in ("near", "far") for seed in range(3)]


class FarSource:
    """Environments whose goal is out of reach, but for the task "near"."""

    def __call__(self, task: str) -> PointEnv:
        env = PointEnv("near" if task == "near" else "far")
        env.task = task
        return env


def outcome(record: EpisodeRecord) -> tuple[str, int, bool, int, int]:
    return record.task, record.seed, record.success, record.steps, len(record.act_ms)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[EpisodeRecord]]:
    """The plan on two workers, with one film of every task's failures."""
    out = tmp_path_factory.mktemp("run")
    return out, run_episodes(PLAN, SETUP, out, {"a": 1}, workers=2, films=Films(failures=1))


def test_results_do_not_depend_on_processes(finished: tuple[Path, list[EpisodeRecord]]) -> None:
    """Two spawned workers give, in the order of the plan, what each episode gives alone in this process."""
    policy_for = PointSource()()
    for episode, record in zip(PLAN, finished[1], strict=True):
        env = PointEnv(episode.task)
        alone = rollout(env, policy_for(env), episode.seed, max_env_steps=40, embodiment=POINT)
        assert outcome(record) == (episode.task, episode.seed, alone.success, alone.steps, alone.chunks)
    assert {record.success for record in finished[1] if record.task == "far"} == {False}
    assert any(record.success for record in finished[1])


def test_one_film_per_failing_task(finished: tuple[Path, list[EpisodeRecord]]) -> None:
    out, records = finished
    filmed = [record for record in records if record.video]
    assert [record.task for record in filmed if record.task == "far"] == ["far"]
    for record in filmed:
        assert not record.success
        assert record.video == f"videos/{record.task}-{record.seed}-failure.mp4"
        frames = 1 + record.steps // POINT.video_stride + record.steps % POINT.video_stride
        assert count_frames(out / record.video) == frames + 5  # 5 Hz, and a second of standing still
    assert len(list((out / "videos").iterdir())) == len(filmed)


def test_films_of_a_group_come_from_different_tasks(tmp_path: Path) -> None:
    """Three failures of a group of two tasks: at most two of each. Going on with the run does not add to them."""
    plan = [Episode(task, seed) for task in ("far", "farther", "near") for seed in range(4)]
    films = Films(failures=3, groups={"far": "hard", "farther": "hard", "near": "easy"})
    setup = Setup(FarSource(), PointSource(), max_env_steps=16, embodiment=POINT)
    records = run_episodes(plan, setup, tmp_path, {}, films=films)
    filmed = [record.task for record in records if record.video]
    assert filmed[:3] == ["far", "far", "farther"]
    assert set(filmed[3:]) <= {"near"}
    (tmp_path / EPISODES).write_text("".join((tmp_path / EPISODES).read_text().splitlines(keepends=True)[:6]))
    again = run_episodes(plan, setup, tmp_path, {}, films=films)
    assert [record.task for record in again if record.video] == filmed


def test_resuming_runs_only_what_is_missing(finished: tuple[Path, list[EpisodeRecord]], tmp_path: Path) -> None:
    out, records = finished
    lines = (out / EPISODES).read_text().splitlines(keepends=True)
    (tmp_path / "config.json").write_text('{"a": 1}')
    (tmp_path / EPISODES).write_text("".join(lines[:-1]) + lines[-1][:20])
    told: list[EpisodeRecord] = []
    again = run_episodes(PLAN, SETUP, tmp_path, {"a": 1}, workers=1, on_episode=told.append)
    assert [outcome(record) for record in again] == [outcome(record) for record in records]
    assert (tmp_path / EPISODES).read_text().startswith("".join(lines[:-1]))
    assert len(told) == len(PLAN)
    assert [record.act_ms for record in told[:-1]] != []
    nothing_to_do = Setup(PointEnv, BrokenSource(), embodiment=POINT)
    assert run_episodes(PLAN, nothing_to_do, tmp_path, {"a": 1}) == again
    with pytest.raises(ResultFolderError, match="field 'a' is 1, but this run has 2"):
        run_episodes(PLAN, SETUP, tmp_path, {"a": 2})


def test_only_one_run_writes_a_folder_at_a_time(tmp_path: Path) -> None:
    def second(record: EpisodeRecord) -> None:
        run_episodes(PLAN[:1], SETUP, tmp_path, {})

    with pytest.raises(DatasetLockedError, match=f"{tmp_path}: another process is writing it"):
        run_episodes(PLAN[:1], SETUP, tmp_path, {}, on_episode=second)
    (only,) = run_episodes(PLAN[:1], SETUP, tmp_path, {})  # the right was given back
    assert only.key == ("near", 0)


@pytest.mark.parametrize(
    ("task", "setup", "message"),
    [
        ("crash", SETUP, r"(?s)episode 'crash' seed 1 failed.*the arm fell off"),
        ("die", SETUP, r"episode 'die' seed 1: the worker process died with exit code 7"),
        ("near", Setup(PointEnv, BrokenSource()), r"(?s)could not be set up.*no checkpoint there"),
    ],
)
def test_trouble_names_the_episode_and_keeps_the_finished_ones(
    task: str, setup: Setup, message: str, tmp_path: Path
) -> None:
    with pytest.raises(WorkerError, match=message):
        run_episodes([Episode(task, 0), Episode(task, 1)], setup, tmp_path, {})
    kept = (tmp_path / EPISODES).read_text().count("\n") if (tmp_path / EPISODES).exists() else 0
    assert kept == (0 if task == "near" else 1)
