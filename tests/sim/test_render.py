"""The render copy must show what the physics does, quickly and legibly."""

from collections.abc import Iterator

import mujoco
import numpy as np
import numpy.typing as npt
import pytest

from wam.robot.observation import Image
from wam.sim.looks import LOOKS
from wam.sim.metaworld import MetaWorldEnv
from wam.sim.render import light_copy

PIXELS_PER_METRE = 64 / (2 * 3.0 * np.tan(np.radians(8.0)))  # of the top camera, at table height


@pytest.fixture(scope="module")
def push() -> Iterator[MetaWorldEnv]:
    env = MetaWorldEnv("push")
    yield env
    env.close()


def centre(image: Image, like: str) -> npt.NDArray[np.float64]:
    """Column and row of the middle of everything cyan, green or yellow."""
    red, green, blue = np.moveaxis(image.astype(int), -1, 0)
    masks = {
        "cyan": (green - red > 60) & (blue - red > 60),
        "green": (green - red > 90) & (green - blue > 90),
        "yellow": (red - blue > 90) & (green - blue > 90),
    }
    rows, columns = np.nonzero(masks[like])
    assert len(rows) > 0, f"nothing {like} in the picture"
    return np.array([columns.mean(), rows.mean()])


def expected_pixel(position: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Where the top camera, 3 m above (0, 0.68, 0), must see a point."""
    scale = PIXELS_PER_METRE * 3.0 / (3.0 - position[2])
    return np.array([31.5 + scale * position[0], 31.5 - scale * (position[1] - 0.68)])


def test_pictures_have_the_promised_form(push: MetaWorldEnv) -> None:
    images = push.reset(0).images
    assert list(images) == ["top", "side"]
    for image in images.values():
        assert image.shape == (64, 64, 3)
        assert image.dtype == np.uint8
        assert image.std() > 10


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_goal_and_puck_are_where_physics_has_them(push: MetaWorldEnv, seed: int) -> None:
    top = push.reset(seed).images["top"]
    goal, puck = push._env._target_pos, push._env.data.body("obj").xpos
    np.testing.assert_allclose(centre(top, "green"), expected_pixel(goal), atol=1.0)
    np.testing.assert_allclose(centre(top, "yellow"), expected_pixel(puck), atol=2.0)  # a finger may hide a part


def test_hand_moves_in_the_picture_as_in_physics(push: MetaWorldEnv) -> None:
    before = push.reset(4)
    for _ in range(12):
        push.step([1.0, 0.5, 0.0, -1.0])
    after = push.observe()
    moved = centre(after.images["top"], "cyan") - centre(before.images["top"], "cyan")
    metres = after.state - before.state
    assert metres[0] > 0.08
    scale = PIXELS_PER_METRE * 3.0 / 2.8  # the fingers are about 20 cm above the table
    np.testing.assert_allclose(moved, scale * np.array([metres[0], -metres[1]]), atol=1.5)


def test_height_shows_in_the_side_view(push: MetaWorldEnv) -> None:
    before = push.reset(4)
    for _ in range(15):
        push.step([0.0, 0.0, -1.0, -1.0])
    after = push.observe()
    sunk = centre(after.images["side"], "cyan")[1] - centre(before.images["side"], "cyan")[1]
    assert sunk > 5


def test_bodies_that_a_reset_moves_are_followed() -> None:
    env = MetaWorldEnv("drawer-open", cameras=("top",))
    for seed in (1, 2):
        env.reset(seed)
        renderer = env._renderer
        assert renderer is not None
        np.testing.assert_allclose(renderer.data.geom_xpos, env._env.data.geom_xpos, atol=1e-9)
    env.close()


def test_goal_marker_is_drawn_only_where_nothing_else_shows_the_goal() -> None:
    for task, expected in (("pick-place", True), ("window-open", False)):
        env = MetaWorldEnv(task, cameras=("top",))
        top = env.reset(0).images["top"].astype(int)
        assert bool(((top[..., 1] - top[..., 0] > 90) & (top[..., 1] - top[..., 2] > 90)).any()) is expected
        env.close()


def test_copy_is_light_and_the_physics_model_untouched(push: MetaWorldEnv) -> None:
    model = push._env.model
    faces, colours = model.mesh_facenum.copy(), model.geom_rgba.copy()
    light = light_copy(model)
    np.testing.assert_array_equal(model.mesh_facenum, faces)
    np.testing.assert_array_equal(model.geom_rgba, colours)
    drawn = [int(light.geom_dataid[g]) for g in range(light.ngeom) if light.geom_type[g] == mujoco.mjtGeom.mjGEOM_MESH]
    assert sum(light.mesh_facenum[drawn]) < 6000
    assert sum(model.mesh_facenum[drawn]) > 60000


def test_same_state_same_picture_and_every_look_differs() -> None:
    pictures = {}
    for look in LOOKS:
        env = MetaWorldEnv("drawer-open", look=look)  # type: ignore[arg-type]
        images = env.reset(5).images
        pictures[look] = np.concatenate([images["top"], images["side"]], axis=1).astype(int)
        again = env.reset(5).images
        np.testing.assert_array_equal(again["side"], images["side"])
        env.close()
    for look in LOOKS[1:]:
        assert np.abs(pictures[look] - pictures["train"]).mean() > 5, f"look {look!r} hardly changes the picture"


def test_stock_corner_camera_is_upright() -> None:
    env = MetaWorldEnv("button-press-topdown", cameras=("corner2",))
    picture = env.reset(0).images["corner2"].astype(int)
    wooden = (picture[..., 0] - picture[..., 2] > 20) & (picture[..., 0] < 160)
    assert wooden[40:].mean() > 2 * wooden[:24].mean(), "the table must be in the lower part of the picture"
    env.close()


def test_a_moved_camera_leaves_the_stock_one_alone() -> None:
    """Near and far view of the same corner: the near one shows the hand larger, whatever was drawn before."""
    both = MetaWorldEnv("push", cameras=("corner2_near", "corner2"))
    pictures = both.reset(0).images
    both.close()
    for name in pictures:
        alone = MetaWorldEnv("push", cameras=(name,))
        np.testing.assert_array_equal(alone.reset(0).images[name], pictures[name])
        alone.close()
    yellow = {
        name: (image[..., 0] > 150) & (image[..., 2] < 90) & (image[..., 1] > 120) for name, image in pictures.items()
    }
    assert yellow["corner2_near"].sum() > yellow["corner2"].sum() > 0


def test_closed_renderer_says_so() -> None:
    env = MetaWorldEnv("reach", cameras=("top",))
    env.reset(0)
    env.close()
    env.close()
    with pytest.raises(RuntimeError, match="closed"):
        env.observe()
