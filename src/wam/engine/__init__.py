"""A session's step: observe -> encode -> remember -> denoise -> act.

the loop    `engine`, with `session` and `memory` (what a robot has seen), `looks` (what it sends), `config`
from a name `load` -> `wam_policy`;  `policy` is what every policy looks like;  `modes` asks other questions
faster      one file for each saving: `guidance`, `split`, `split_process` (two processes), `joint_pass`,
            `step_cache`, `compiled`, `quantize`; `warm_up`: before a robot waits; `clock`: how long it took
published   `load_released` -> `released_policy` -> `released_loop`, as their own server runs them; `placement` for
            GPUs that cannot hold everything
"""

from wam.engine.config import EngineConfig
from wam.engine.engine import Engine
from wam.engine.load import load_policy
from wam.engine.policy import ActionChunk, Policy
from wam.engine.session import Session
from wam.engine.wam_policy import WamPolicy

__all__ = ["ActionChunk", "Engine", "EngineConfig", "Policy", "Session", "WamPolicy", "load_policy"]
