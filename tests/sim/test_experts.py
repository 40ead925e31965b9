"""Demonstrations: experts succeed, labels are clean, an episode depends on its number alone."""

import numpy as np
import pytest

from wam.sim.experts import Detour, along, demonstrate, noise_levels, plan_detours, record_episode
from wam.sim.metaworld import MetaWorldEnv
from wam.sim.recording import MAX_ROWS, ROWS_AFTER_SUCCESS
from wam.sim.tasks import SPLITS, TASKS


@pytest.mark.parametrize("task", ["reach", "drawer-close", "window-open"])
def test_expert_succeeds_and_the_episode_ends_soon_after(task: str) -> None:
    env = MetaWorldEnv(task, cameras=())
    for seed in range(3):
        episode = record_episode(env, seed, 0.0, np.random.default_rng(0))
        assert episode is not None, f"{task}: expert failed at seed {seed}"
        success = episode.columns["next.success"]
        assert int(success.sum()) == ROWS_AFTER_SUCCESS + 1
        assert success[-ROWS_AFTER_SUCCESS - 1 :].all()
        assert len(success) <= MAX_ROWS


def test_rows_align_pictures_states_and_actions() -> None:
    env = MetaWorldEnv("reach", cameras=("top",))
    episode = record_episode(env, 3, 0.1, np.random.default_rng(0))
    assert episode is not None
    observation = env.reset(3)
    for row in range(10):
        np.testing.assert_array_equal(episode.images["top"][row], observation.images["top"])
        np.testing.assert_array_equal(episode.columns["observation.state"][row], observation.state)
        np.testing.assert_array_equal(episode.columns["action"][row], env.expert_action())
        env.step(episode.columns["executed_action"][row])
        observation = env.observe()
    env.close()


def test_noise_disturbs_what_is_executed_but_not_the_label_or_the_gripper() -> None:
    env = MetaWorldEnv("push", cameras=())
    noisy = record_episode(env, 0, 0.28, np.random.default_rng(0))
    clean = record_episode(env, 0, 0.0, np.random.default_rng(0))
    assert noisy is not None
    assert clean is not None
    np.testing.assert_array_equal(clean.columns["action"], clean.columns["executed_action"])
    difference = noisy.columns["executed_action"] - noisy.columns["action"]
    assert 0.1 < difference[:, :3].std() < 0.3
    assert not difference[:, 3].any()
    assert np.abs(noisy.columns["action"]).max() <= 1.0
    assert noisy.extra == {"env_task": "push", "seed": 0, "noise": 0.28}


def test_a_detour_loses_the_object_and_the_expert_fetches_it_again() -> None:
    env = MetaWorldEnv("pick-place", cameras=())
    straight = record_episode(env, 0, 0.0, np.random.default_rng(0))
    detour = Detour(start=22, end=34, target=np.array([-0.2, 0.5, 0.25]), gripper=-1.0)
    led_astray = record_episode(env, 0, 0.0, np.random.default_rng(0), lead=along((detour,)))
    assert straight is not None
    assert led_astray is not None
    astray = np.flatnonzero(np.abs(led_astray.columns["executed_action"] - led_astray.columns["action"]).max(1) > 1)
    assert set(astray) <= set(range(22, 34))
    assert len(astray) >= 6
    hand = led_astray.columns["observation.state"]
    assert np.linalg.norm(hand[34, :3] - detour.target) < np.linalg.norm(hand[22, :3] - detour.target) / 2
    assert hand[34, 3] > hand[22, 3] + 0.2, "the gripper was forced open"
    assert len(hand) > len(straight.columns["action"]) + 12


def test_detours_stay_within_the_work_space() -> None:
    rng = np.random.default_rng(0)
    detours = [detour for _ in range(200) for detour in plan_detours(rng)]
    targets = np.stack([detour.target for detour in detours])
    assert (targets > [-0.41, 0.44, 0.06]).all()
    assert (targets < [0.41, 0.86, 0.31]).all()
    assert all(2 <= detour.start < detour.end < 60 for detour in detours)
    assert 0.55 < np.mean([detour.gripper == -1 for detour in detours]) < 0.78


def test_failure_gives_no_episode() -> None:
    env = MetaWorldEnv("peg-insert-side", cameras=())
    assert record_episode(env, 0, 3.0, np.random.default_rng(0)) is None


def test_an_episode_depends_on_its_number_alone() -> None:
    env, other = MetaWorldEnv("push", cameras=()), MetaWorldEnv("push", cameras=())
    demonstrate(env, "val", 4, seed=1)
    one, two = demonstrate(env, "val", 5, seed=1), demonstrate(other, "val", 5, seed=1)
    assert one.episode.extra == two.episode.extra
    assert one.episode.task == two.episode.task
    for name, column in one.episode.columns.items():
        np.testing.assert_array_equal(column, two.episode.columns[name])
    assert SPLITS["val"].first <= int(one.episode.extra["seed"]) < SPLITS["val"].end
    assert one.episode.task in TASKS["push"].training_sentences


def test_failed_rollouts_are_repeated_with_less_noise_on_the_same_variation(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[int, float]] = []

    def record(env: MetaWorldEnv, seed: int, noise: float, *_: object) -> object:
        tried.append((seed, noise))
        return "episode" if seed != 7 else None

    monkeypatch.setattr("wam.sim.experts.record_episode", record)
    env = MetaWorldEnv("reach", cameras=())
    demonstration = demonstrate(env, "train", 7, seed=0)
    same, other = tried[:-1], tried[-1]
    assert [seed for seed, _ in same] == [7] * len(same)
    assert same[-1] == (7, 0.0)
    assert [noise for _, noise in same] == sorted((noise for _, noise in same), reverse=True)
    assert other[0] == 100_007
    assert demonstration.dropped == len(same)


def test_undisturbed_experts_do_what_they_want() -> None:
    env = MetaWorldEnv("drawer-close", cameras=())
    for disturbance in (0.0, 1.0):
        episodes = [demonstrate(env, "train", index, seed=0, disturbance=disturbance).episode for index in range(3)]
        same = [np.array_equal(one.columns["action"], one.columns["executed_action"]) for one in episodes]
        assert all(same) == (disturbance == 0.0)
        assert (max(float(one.extra["noise"]) for one in episodes) > 0) == (disturbance == 1.0)


def test_split_has_room_for_a_tenth_of_its_seeds() -> None:
    with pytest.raises(ValueError, match="episode 10000 of split 'test' asked for, it has 0 to 9999"):
        demonstrate(MetaWorldEnv("reach", cameras=()), "test", 10_000, seed=0)


def test_precise_tasks_are_disturbed_less() -> None:
    assert noise_levels("peg-insert-side") < noise_levels("reach")
