"""A session's step: observe -> encode -> remember -> denoise -> act."""

from wam.engine.load import load_policy
from wam.engine.policy import ActionChunk, Policy
from wam.engine.wam_policy import LoopConfig, WamPolicy

__all__ = ["ActionChunk", "LoopConfig", "Policy", "WamPolicy", "load_policy"]
