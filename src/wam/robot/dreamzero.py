"""The robots that DreamZero was released for, as data: views, canvas, keys, prompts."""

from __future__ import annotations

import ast
import html
from dataclasses import dataclass

import ftfy

from wam.robot.preprocess import Layout

STATE_WIDTH, ACTION_WIDTH = 64, 32  # what states and actions are padded to

_DROID_PROMPT = (
    "A multi-view video shows that a robot {p} The video is split into three views: The top view shows the camera view "
    "from the robot's wrist, the bottom-left view shows the camera view from the left exterior camera, and the "
    "bottom-right view shows the camera view from the right exterior camera. During training, one of the two bottom "
    "exterior views may be a black screen (dropped view). The robot {p}"
)
_HUMANOID_PROMPT = (
    "A multi-view video shows that a robot {p} The video is split into four views: The top-left view shows the camera "
    "view from the robot's head, the top-right view shows the camera view from the right hand, the bottom-left view "
    "shows the camera view from the left hand, and the bottom-right view is a black screen (inactive view). "
    "The robot {p}"
)
_YAM_PROMPT = (
    "A multi-view video shows that a robot {p} The video is split into four views: The top-left view shows the top "
    "camera, the top-right view shows the right camera, the bottom-left view shows the left camera, and the "
    "bottom-right view is a black screen. The robot {p}"
)
_HUMAN_PROMPT = "A single view video shows that a human {p}"

_WRIST_ON_TOP: Layout = ((2, 2), (0, 1))
_THREE_OF_FOUR: Layout = ((0, 2), (1, None))


@dataclass(frozen=True)
class ReleasedRobot:
    """tag: the released name. views: camera keys in order. state, action: keys in the order of the vector.

    relative: action keys trained as differences to the state. template: the prompt, {p} is the instruction.
    """

    tag: str
    template: str
    views: tuple[str, ...] = ()
    layout: Layout = ((0,),)
    state: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    relative: tuple[str, ...] = ()

    def prompt(self, instruction: str) -> str:
        """The sentence that the text encoder reads, cleaned as the released tokenizer does."""
        return clean_text(self.template.replace("{p}", spoken(instruction)))


_AGIBOT_STATE = (
    "left_arm_joint_position",
    "right_arm_joint_position",
    "left_effector_position",
    "right_effector_position",
    "head_position",
    "waist_position",
)
_YAM_KEYS = ("left_joint_pos", "left_gripper_pos", "right_joint_pos", "right_gripper_pos")

ROBOTS = {
    robot.tag: robot
    for robot in (
        ReleasedRobot(
            "oxe_droid",
            _DROID_PROMPT,
            views=("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left"),
            layout=_WRIST_ON_TOP,
            state=("joint_position", "gripper_position"),
            action=("joint_position", "gripper_position"),
            relative=("joint_position",),
        ),
        ReleasedRobot(
            "agibot",
            _HUMANOID_PROMPT,
            views=("top_head", "hand_left", "hand_right"),
            layout=_THREE_OF_FOUR,
            state=_AGIBOT_STATE,
            action=(*_AGIBOT_STATE, "robot_velocity"),
            relative=_AGIBOT_STATE,
        ),
        ReleasedRobot(
            "yam",
            _YAM_PROMPT,
            views=("top_camera-images-rgb", "left_camera-images-rgb", "right_camera-images-rgb"),
            layout=_THREE_OF_FOUR,
            state=_YAM_KEYS,
            action=_YAM_KEYS,
            relative=_YAM_KEYS,
        ),
        ReleasedRobot("xdof", _HUMANOID_PROMPT),
        ReleasedRobot("gr1_unified", _HUMAN_PROMPT),
        ReleasedRobot("mecka_hands", _HUMAN_PROMPT),
    )
}


def released_robot(tag: str) -> ReleasedRobot:
    """Raises ValueError naming the robots there are."""
    if tag not in ROBOTS:
        raise ValueError(f"robot {tag!r} is not among those of the released weights: {sorted(ROBOTS)}")
    return ROBOTS[tag]


def spoken(instruction: str) -> str:
    """Lower case; a text that spells a list, such as "['a', 'b']", stands for its first entry."""
    try:
        value = ast.literal_eval(instruction)
    except (ValueError, SyntaxError):
        value = instruction
    first = value[0] if isinstance(value, (list, tuple)) and value else instruction
    return str(first).lower()


def clean_text(text: str) -> str:
    """Repair encodings, unescape HTML twice, one blank for every run of white space (Wan's cleaning)."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())
