"""Pictures without a screen: one OpenGL context for one MuJoCo model, drawn by a software rasteriser if need be.

Pictures are drawn at twice their size and box-filtered, which costs less than multisampling and looks the same.
Shadows and reflections are off: they cost fifteen times as much as the rest.
"""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Any

import mujoco
import numpy as np

from wam.robot.observation import Image

SUPERSAMPLE = 2


class RenderingUnavailable(OSError):
    """No OpenGL implementation that can draw without a screen."""


class Offscreen:
    """Draws square pictures of one model.

    model: uploaded once; `vis.quality` and the size of its frame buffer are set for small pictures.
    size: height and width of a picture in pixels.  max_geoms: how many things a scene may hold.
    Raises RenderingUnavailable without EGL or OSMesa.
    """

    def __init__(self, model: mujoco.MjModel, size: int, max_geoms: int = 500) -> None:
        self.model, self.size = model, size
        pixels = size * SUPERSAMPLE
        model.vis.global_.offwidth = model.vis.global_.offheight = pixels
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0  # shadows are off; the stock map alone takes 67 MB
        self._gl = _gl_context(pixels)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self.scene = mujoco.MjvScene(model, maxgeom=max_geoms)
        self.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._buffer = np.empty((pixels, pixels, 3), dtype=np.uint8)
        self._release = weakref.finalize(self, _free, self._gl, self._context)
        atexit.register(self._release)  # before EGL is torn down and could only complain: the last one in goes first

    def look(self, data: mujoco.MjData, option: mujoco.MjvOption, view: mujoco.MjvCamera) -> None:
        """Fill `scene` with what this camera sees; more may be added to it before `draw`."""
        every = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self.model, data, option, None, view, every, self.scene)

    def draw(self) -> Image:
        """The scene as uint8 (size, size, 3), its first row at the bottom, as OpenGL counts."""
        if not self._release.alive:
            raise RuntimeError("this renderer was closed; create a new environment")
        self._gl.make_current()
        pixels = self.size * SUPERSAMPLE
        area = mujoco.MjrRect(0, 0, pixels, pixels)
        mujoco.mjr_render(area, self.scene, self._context)
        mujoco.mjr_readPixels(self._buffer, None, area, self._context)
        return _box_filter(self._buffer)

    def close(self) -> None:
        """Give the OpenGL context back; calling it again does nothing."""
        self._release()
        atexit.unregister(self._release)


def stock_view(model: mujoco.MjModel, camera: str) -> mujoco.MjvCamera:
    """The view of a camera that the scene itself defines."""
    view = mujoco.MjvCamera()
    view.type = mujoco.mjtCamera.mjCAMERA_FIXED
    view.fixedcamid = model.camera(camera).id
    return view


def _box_filter(picture: Image) -> Image:
    """(2H, 2W, 3) -> (H, W, 3), each pixel the mean of four."""
    wide = picture.astype(np.uint16)
    summed = wide[0::2, 0::2] + wide[0::2, 1::2] + wide[1::2, 0::2] + wide[1::2, 1::2]
    return ((summed + 2) >> 2).astype(np.uint8)


def _free(gl: Any, context: mujoco.MjrContext) -> None:
    gl.make_current()
    context.free()
    gl.free()


def _gl_context(pixels: int) -> Any:
    """An off-screen OpenGL context: EGL if this machine has it, else OSMesa."""
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa: draw in the calling thread; pictures this small gain nothing
    reasons = []
    for backend in ("egl", "osmesa"):
        try:
            if backend == "egl":
                from mujoco.egl import GLContext
            else:
                from mujoco.osmesa import GLContext
            return GLContext(pixels, pixels)
        except Exception as error:  # PyOpenGL raises AttributeError, ImportError, RuntimeError or its own GLError
            reasons.append(f"{backend}: {error}")
    raise RenderingUnavailable(
        "cannot draw without a screen; install one of EGL or OSMesa (Debian: apt-get install libegl1 libgl1-mesa-dri "
        f"libosmesa6). Tried {'; '.join(reasons)}"
    )
