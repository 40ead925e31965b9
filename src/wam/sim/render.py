"""A fast software renderer for Meta-World: small pictures from a light render-only copy of the physics model.

Software rasterising is vertex-bound: the stock scene has 66,847 triangles, nearly all of them the arm, and 64 x 64
pixels cost as much as 240 x 240. So we never draw the physics model. We draw a copy in which

* every arm link is the convex hull of about sixty of its own extreme vertices,
* multisampling, shadows and reflections are off (pictures are drawn at twice the size and box-filtered instead),
* helper sites, the wall around the table and the robot's base are hidden, the fingers are thicker, and pucks are bright
  yellow (the stock dark red on brown covers one or two pixels),
* a bright green ball marks the goal, for tasks whose goal cannot be read off an object.

The physics model is never edited; whatever a reset moves in it is copied over before every picture.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull

from wam.robot.observation import Image
from wam.sim.offscreen import Offscreen, stock_view

HULL_DIRECTIONS = 60
GOAL_RADIUS = 0.025  # metres: 4 pixels across in the 64 x 64 top view
GOAL_RGBA = (0.05, 1.0, 0.15, 1.0)
PUCK_RGBA = (1.0, 0.9, 0.05, 1.0)

ARM_GROUP = 3
HIDDEN_GROUP = 5  # MuJoCo draws groups 0-2 unless asked otherwise
HIDDEN_BODIES = ("RetainingWall", "controller_box", "pedestal_feet", "pedestal", "torso")
FINGERS = ("leftpad_geom", "rightpad_geom")
FINGER_THICKNESS = 0.008  # half, in metres; the stock fingers are half a pixel thin from above
ARM_BODIES = (
    "right_arm_base_link", "right_l0", "head", "right_l1", "right_l2", "right_l3", "right_l4", "right_l5",
    "right_l6", "right_hand",
)  # fmt: skip


@dataclass(frozen=True)
class Camera:
    """Where a picture is taken from.

    Either a free camera (`lookat` in metres, `distance` in metres, `azimuth` and `elevation` of the viewing direction
    in degrees, `fovy` in degrees) or, when `stock` is set, the camera of that name in the Meta-World scene, moved to
    `position` in metres where one is given.
    `upside_down` turns the picture by 180 degrees: the stock corner cameras hang head first. Without `sees_arm` only
    the gripper is drawn, because from the ceiling the arm would hide the gripper and what it holds.
    """

    lookat: tuple[float, float, float] = (0.0, 0.0, 0.0)
    distance: float = 1.0
    azimuth: float = 90.0
    elevation: float = -90.0
    fovy: float = 16.0
    stock: str | None = None
    position: tuple[float, float, float] | None = None
    upside_down: bool = False
    sees_arm: bool = True


CAMERAS: Mapping[str, Camera] = MappingProxyType(
    {
        "top": Camera(lookat=(0.0, 0.68, 0.0), distance=3.0, azimuth=90.0, elevation=-90.0, fovy=16.0, sees_arm=False),
        "side": Camera(lookat=(-0.01, 0.68, 0.15), distance=3.0, azimuth=135.0, elevation=-15.0, fovy=16.0),
        "corner2": Camera(stock="corner2", upside_down=True),
        # Where published evaluations of Meta-World put it: the stock place shows floor and wall in most pixels.
        "corner2_near": Camera(stock="corner2", position=(0.75, 0.075, 0.7), upside_down=True),
    }
)


class Renderer:
    """Draws the scene of one environment.

    model: the environment's model; it is copied, never changed.
    cameras: names out of `CAMERAS`.
    size: height and width of a picture in pixels.
    repaint: changes the copy before it is uploaded (see `wam.sim.looks`).
    Raises ValueError for an unknown camera, RenderingUnavailable without EGL or OSMesa.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        cameras: tuple[str, ...],
        size: int,
        repaint: Callable[[mujoco.MjModel], None] | None = None,
    ) -> None:
        for name in cameras:
            if name not in CAMERAS:
                raise ValueError(f"unknown camera {name!r}; known cameras are {sorted(CAMERAS)}")
        self.cameras = cameras
        self.size = size
        self.model = light_copy(model)
        if repaint is not None:
            repaint(self.model)
        self._offscreen = Offscreen(self.model, size)
        self.data = mujoco.MjData(self.model)
        self._stock_positions = self.model.cam_pos.copy()
        self._option = mujoco.MjvOption()
        self._option.sitegroup[:] = 0

    def render(self, model: mujoco.MjModel, data: mujoco.MjData, goal: npt.NDArray[Any] | None) -> dict[str, Image]:
        """Pictures of the present state: camera name -> uint8 (size, size, 3).

        model, data: of the environment; goal: xyz in metres of the green ball, or None for no ball.
        """
        self._follow(model, data)
        return {name: self._picture(CAMERAS[name], goal) for name in self.cameras}

    def close(self) -> None:
        """Give the OpenGL context back; calling it again does nothing."""
        self._offscreen.close()

    def _follow(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Bring the copy into the state of the environment. Resets move bodies of the model, so copy those too."""
        self.model.body_pos[:] = model.body_pos
        self.model.body_quat[:] = model.body_quat
        self.data.qpos[:] = data.qpos
        self.data.mocap_pos[:] = data.mocap_pos
        self.data.mocap_quat[:] = data.mocap_quat
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)

    def _picture(self, camera: Camera, goal: npt.NDArray[Any] | None) -> Image:
        if camera.stock is not None:
            view = stock_view(self.model, camera.stock)
            self._place(view.fixedcamid, camera.position)
        else:
            view = mujoco.MjvCamera()
            view.type = mujoco.mjtCamera.mjCAMERA_FREE
            view.lookat[:] = camera.lookat
            view.distance, view.azimuth, view.elevation = camera.distance, camera.azimuth, camera.elevation
            self.model.vis.global_.fovy = camera.fovy
        self._option.geomgroup[ARM_GROUP] = camera.sees_arm
        self._offscreen.look(self.data, self._option, view)
        if goal is not None:
            self._add_goal(goal)
        picture = self._offscreen.draw()
        # OpenGL rows run from bottom to top.
        picture = picture[:, ::-1] if camera.upside_down else picture[::-1]
        return np.ascontiguousarray(picture)

    def _place(self, camera: int, position: tuple[float, float, float] | None) -> None:
        """Put a camera of the scene where it is asked for: several views may share one."""
        self.model.cam_pos[camera] = self._stock_positions[camera] if position is None else position
        mujoco.mj_camlight(self.model, self.data)

    def _add_goal(self, goal: npt.NDArray[Any]) -> None:
        scene = self._offscreen.scene
        ball = scene.geoms[scene.ngeom]
        size, mat = np.full(3, GOAL_RADIUS), np.eye(3).ravel()
        rgba = np.asarray(GOAL_RGBA, dtype=np.float32)
        mujoco.mjv_initGeom(ball, mujoco.mjtGeom.mjGEOM_SPHERE, size, np.asarray(goal, dtype=np.float64), mat, rgba)
        ball.emission = 0.4
        scene.ngeom += 1


def light_copy(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy of `model` that is cheap to draw and easy to read; all ids and joint addresses stay the same."""
    light = copy.deepcopy(model)
    for geom in range(light.ngeom):
        body = light.body(int(light.geom_bodyid[geom])).name
        if body in ARM_BODIES and light.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
            _replace_by_hull(light, int(light.geom_dataid[geom]))
        if body in ARM_BODIES and light.geom_group[geom] < ARM_GROUP:
            light.geom_group[geom] = ARM_GROUP
        if body in HIDDEN_BODIES:
            light.geom_group[geom] = HIDDEN_GROUP
        if light.geom(geom).name in FINGERS:
            light.geom_size[geom, 1] = FINGER_THICKNESS
        if light.geom(geom).name == "objGeom" and light.geom_type[geom] != mujoco.mjtGeom.mjGEOM_MESH:
            _paint_puck(light, geom)
    return light


def _paint_puck(model: mujoco.MjModel, puck: int) -> None:
    """Make a puck or cube yellow: the geom itself, or the wooden one that is drawn in its place."""
    for geom in np.flatnonzero(model.geom_bodyid == model.geom_bodyid[puck]):
        material = int(model.geom_matid[geom])
        if geom == puck or (material >= 0 and model.mat(material).name == "block_wood"):
            model.geom_matid[geom] = -1
            model.geom_rgba[geom] = PUCK_RGBA


def _replace_by_hull(model: mujoco.MjModel, mesh: int) -> None:
    """Overwrite the faces of a mesh, in place, with a flat-shaded convex hull of a few of its vertices."""
    start, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
    vertices = model.mesh_vert[start : start + count].astype(np.float64)
    extreme = np.unique(np.argmax(vertices @ _directions(HULL_DIRECTIONS).T, axis=0))
    corners = vertices[extreme]
    hull = ConvexHull(corners)
    faces = hull.simplices.copy()
    outward = hull.equations[:, :3]
    turned = np.cross(corners[faces[:, 1]] - corners[faces[:, 0]], corners[faces[:, 2]] - corners[faces[:, 0]])
    inside_out = np.einsum("ij,ij->i", turned, outward) < 0
    faces[inside_out] = faces[inside_out][:, ::-1]
    number = len(faces)
    face, normal = int(model.mesh_faceadr[mesh]), int(model.mesh_normaladr[mesh])
    if number > int(model.mesh_facenum[mesh]) or number > int(model.mesh_normalnum[mesh]):
        return  # the mesh is lighter than its hull already
    model.mesh_face[face : face + number] = extreme[faces]
    model.mesh_normal[normal : normal + number] = outward
    model.mesh_facenormal[face : face + number] = np.arange(number)[:, None]
    model.mesh_facenum[mesh] = number


def _directions(count: int) -> npt.NDArray[np.float64]:
    """Unit vectors (count, 3) spread evenly over the sphere (Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    height = 1 - 2 * index / count
    angle = np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
