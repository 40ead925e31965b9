"""robosuite and LIBERO as environments: seeds, secrecy, conventions, errors. Needs the extra `arms`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from wam.robot.canvas import compose
from wam.robot.embodiment import load_embodiment
from wam.sim.arms import ArmsEnv
from wam.sim.tasks import SPLITS
from wam.sim.worlds import WORLDS, View

pytest.importorskip("robosuite", reason="pip install 'wam[arms]'")

SOUP = "libero_object/pick_up_the_alphabet_soup_and_place_it_in_the_basket"


def opened(world: str, task: str, cameras: tuple[str, ...] = (), size: int = 32) -> ArmsEnv:
    env = WORLDS[world].open(task, View(cameras, size, 1))  # type: ignore[index]
    assert isinstance(env, ArmsEnv)
    return env


@pytest.fixture(scope="module")
def lift() -> Iterator[ArmsEnv]:
    env = opened("robosuite", "Lift", ("agentview", "robot0_eye_in_hand"))
    yield env
    env.close()


@pytest.fixture(scope="module")
def soup() -> Iterator[ArmsEnv]:
    env = opened("libero", "libero_object/0", ("image", "wrist_image", "agentview"))
    yield env
    env.close()


def physics(env: ArmsEnv) -> np.ndarray:
    data = env.scene.env.sim.data._data
    return np.concatenate([data.qpos, data.qvel])


def play(env: ArmsEnv, seed: int, steps: int) -> np.ndarray:
    """The states at the reset and after some expert steps, (2, D)."""
    pictures, env.cameras = env.cameras, ()
    env.reset(seed)
    first = physics(env)
    for _ in range(steps):
        env.step(env.expert_action())
    env.cameras = pictures
    return np.stack([first, physics(env)])


def solved(env: ArmsEnv, seed: int) -> bool:
    pictures, env.cameras = env.cameras, ()
    env.reset(seed)
    while not env.success and not env.finished:
        env.step(env.expert_action())
    env.cameras = pictures
    return env.success


def test_a_seed_is_one_episode_bit_for_bit_whatever_came_before(lift: ArmsEnv) -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr]
    first, other = play(lift, 7, 12), play(lift, 8, 40)  # which ends with a closed hand
    assert not np.array_equal(first[0], other[0])
    np.testing.assert_array_equal(play(lift, 7, 12), first)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # type: ignore[arg-type]


def test_the_expert_lifts_the_cube(lift: ArmsEnv) -> None:
    assert [solved(lift, seed) for seed in range(3)] == [True] * 3


def test_an_observation_is_what_the_embodiment_says(lift: ArmsEnv) -> None:
    robot = load_embodiment("robosuite-arm")
    look = lift.reset(3)
    assert look.state.shape == (robot.state_dim,) and look.state.dtype == np.float32
    raw = lift.scene.env._get_observations()
    np.testing.assert_allclose(look.state[:3], raw["robot0_eef_pos"], atol=1e-6)
    assert not np.isin(raw["cube_pos"].astype(np.float32), look.state).any(), "the state tells where the cube is"
    assert compose(look.images, robot).shape == (128, 256, 3)
    assert all(picture.std() > 10 for picture in look.images.values())
    lift.step(np.zeros(7))
    assert lift.observe().timestamp == pytest.approx(0.05)


def test_what_is_wrong_with_an_argument_is_named(lift: ArmsEnv) -> None:
    lift.reset(0)
    for action, named in ((np.zeros(4), r"shape \(4,\), expected \(7,\)"), (np.full(7, np.nan), "finite")):
        with pytest.raises(ValueError, match=named):
            lift.step(action)
    for task, named in (
        ("Lyft", r"unknown robosuite task 'Lyft'; did you mean one of \['Lift'"),
        ("Lift/Sawyer", "unknown arm 'Sawyer'"),
        ("TwoArmLift/Panda", "1 arms; it has 2"),
    ):
        with pytest.raises(ValueError, match=named):
            WORLDS["robosuite"].expand([task])
    with pytest.raises(ValueError, match="unknown camera 'top'"):
        ArmsEnv(lift.scene, ("top",))
    with pytest.raises(ValueError, match="have one look"):
        WORLDS["robosuite"].open("Lift", View((), 32, 1, look="lights"))
    with pytest.raises(ValueError, match="take tasks of one robot together"):
        WORLDS["robosuite"].robot(["Lift", "TwoArmLift"])


def test_tasks_of_libero_by_suite_number_and_name() -> None:
    expand = WORLDS["libero"].expand
    assert len(expand(["libero_object", "libero_object/3"])) == 10
    assert expand(["libero_object/0", SOUP]) == (SOUP,)
    for name, named in (("libero_objekt", "did you mean 'libero_object'"), ("libero_goal/10", "no task '10'")):
        with pytest.raises(ValueError, match=named):
            expand([name])


@pytest.mark.slow
def test_two_arms_lift_the_pot_and_libero_is_solved(soup: ArmsEnv) -> None:
    pot = opened("robosuite", "TwoArmLift")
    assert [solved(pot, seed) for seed in range(3)] == [True] * 3
    pot.close()
    assert [solved(soup, seed) for seed in range(2)] == [True] * 2


@pytest.mark.slow
def test_libero_follows_its_conventions(soup: ArmsEnv) -> None:
    """Mirrored pictures, instruction from the name, the benchmark's own states for testing, things at rest."""
    assert soup.scene.sentence == "pick up the alphabet soup and place it in the basket"
    first = SPLITS["test"].first
    drawn, given = play(soup, 0, 0)[0], play(soup, first, 0)[0]
    np.testing.assert_allclose(play(soup, first + 50, 5)[0], given, atol=1e-9)  # fifty states, then the first again
    assert not np.array_equal(drawn, given)
    np.testing.assert_array_equal(play(soup, 0, 5)[0], drawn)
    look = soup.reset(first)
    assert np.abs(soup.scene.env.sim.data._data.qvel[:7]).max() < 0.05
    np.testing.assert_array_equal(look.images["image"], look.images["agentview"])
    offscreen, option = soup._offscreen, soup._option
    assert offscreen is not None
    from wam.sim.offscreen import stock_view

    offscreen.look(soup.scene.env.sim.data._data, option, stock_view(offscreen.model, "agentview"))
    np.testing.assert_array_equal(look.images["image"], offscreen.draw()[::-1, ::-1])
    assert look.state.shape == (load_embodiment("libero-panda").state_dim,)
