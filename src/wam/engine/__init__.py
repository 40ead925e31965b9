"""A session's step: observe -> encode -> remember -> denoise -> act."""

from wam.engine.config import EngineConfig
from wam.engine.engine import Engine
from wam.engine.load import load_policy
from wam.engine.policy import ActionChunk, Policy
from wam.engine.session import Session
from wam.engine.wam_policy import WamPolicy

__all__ = ["ActionChunk", "Engine", "EngineConfig", "Policy", "Session", "WamPolicy", "load_policy"]
