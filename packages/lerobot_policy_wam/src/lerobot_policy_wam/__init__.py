"""World Action Models as a LeRobot policy. Importing this registers `--policy.type=wam` and `--env.type=wam_sim`."""

from lerobot_policy_wam.configuration_wam import WamConfig
from lerobot_policy_wam.environment import WamSimConfig
from lerobot_policy_wam.modeling_wam import WamPolicy
from lerobot_policy_wam.processor_wam import make_wam_pre_post_processors

__all__ = ["WamConfig", "WamPolicy", "WamSimConfig", "make_wam_pre_post_processors"]
