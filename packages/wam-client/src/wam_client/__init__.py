"""The robot's side of `wam serve`."""

from wam_client.wire import Limits, WireError, packb, unpackb

__all__ = ["Limits", "WireError", "packb", "unpackb"]
