"""Pictures on their way to the browser."""

from __future__ import annotations

import base64
import io

from PIL import Image

from wam.evaluate.rollout import Frames

NOTHING = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
"""A picture of one transparent pixel."""


def data_uri(picture: Frames | None) -> str:
    """uint8 (H, W, 3) as PNG, the very pixels; `NOTHING` for None."""
    if picture is None:
        return NOTHING
    target = io.BytesIO()
    Image.fromarray(picture).save(target, format="png", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode("ascii")
