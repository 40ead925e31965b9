"""A small data set of a robot arm that looks real to the linter: it moves, is seen by two cameras, and is all right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from wam.data.lerobot_writer import LeRobotWriter
from wam.data.schema import ACTION, STATE, Camera, DatasetSpec, EpisodeData, Feature, image_key
from wam.robot.embodiment import Embodiment, Part

HEIGHT, WIDTH, FPS = 48, 64, 20
EPISODES, PER_FILE = 10, 4
NAMES = ("joint_1", "joint_2", "joint_3", "gripper")
CAMERAS = ("front", "wrist")
FRONT, WRIST = map(image_key, CAMERAS)
SENTENCES = ("Pick up the cup.", "Close the box.", "Push the plate to the left.")
SPEC = DatasetSpec(
    fps=FPS,
    robot_type="arm",
    features={
        STATE: Feature("float32", (4,), NAMES),
        ACTION: Feature("float32", (4,), NAMES),
        "next.success": Feature("bool"),
    },
    cameras={name: Camera(HEIGHT, WIDTH) for name in CAMERAS},
)
ROBOT = Embodiment(
    name="arm",
    cameras=CAMERAS,
    canvas=(CAMERAS,),
    view_height=HEIGHT,
    view_width=WIDTH,
    state=(Part("joints", NAMES[:3]), Part("gripper", NAMES[3:], gripper=(1.0, 0.0))),
    action=(Part("joints", NAMES[:3], relative=True), Part("gripper", NAMES[3:], gripper=(1.0, 0.0))),
    control_hz=FPS,
    video_stride=1,
    actions_per_chunk=4,
)


def length_of(episode: int) -> int:
    return 44 + 3 * (episode % 5)


def motion(episode: int) -> np.ndarray:
    """Joints in radians that swing at two speeds, and a gripper that closes half-way: (T, 4)."""
    rng, time = np.random.default_rng(100 + episode), np.arange(length_of(episode) + 1) / FPS
    phase, speed = rng.uniform(0, 2 * np.pi, (2, 3)), rng.uniform(2.5, 6.0, (2, 3))
    joints = 0.6 * np.sin(speed[0] * time[:, None] + phase[0]) + 0.3 * np.sin(2 * speed[1] * time[:, None] + phase[1])
    gripper = 1 / (1 + np.exp(12 * (time - time[-1] * rng.uniform(0.4, 0.6))))
    return np.concatenate([joints, gripper[:, None]], axis=1)


def scene(states: np.ndarray, camera: int) -> np.ndarray:
    """The arm as two round spots on a fixed background of the camera: uint8 (T, H, W, 3)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    ground = (
        np.stack([60 + 1.5 * x, 90 + y, 150 - x], -1) if camera == 0 else np.stack([30 + y, 200 - 2 * y, 60 + x], -1)
    )
    pictures = np.repeat(ground[None].astype(np.float32), len(states), axis=0)
    places = ((states[:, 0], states[:, 1]), (states[:, 1], states[:, 2]))[camera]
    second = ((states[:, 2], states[:, 0]), (states[:, 0], states[:, 2]))[camera]
    for (u, v), colour, radius in ((places, (230, 40, 30), 7.0), (second, (20, 30, 220), 5.0)):
        centre_x, centre_y = 32 + 22 * u[:, None, None], 24 + 16 * v[:, None, None]
        spot = np.exp(-(((x - centre_x) ** 2 + (y - centre_y) ** 2) / radius**2))[..., None]
        pictures += spot * (np.array(colour, np.float32) - pictures)
    bar = (x > 2) & (x < 2 + 12 * states[:, 3, None, None]) & (y < 5)
    pictures[bar] = 250
    return pictures.round().astype(np.uint8)


def clean_episode(episode: int) -> EpisodeData:
    """The action is the next state, missed by a little."""
    states, rng = motion(episode), np.random.default_rng(episode)
    actions = states[1:] + 0.01 * rng.normal(size=states[1:].shape) * [1, 1, 1, 0]
    return EpisodeData(
        images={name: scene(states[:-1], camera) for camera, name in enumerate(CAMERAS)},
        columns={
            STATE: states[:-1].astype(np.float32),
            ACTION: actions.astype(np.float32),
            "next.success": np.arange(len(actions)) >= len(actions) - 4,
        },
        task=SENTENCES[episode % 3],
        extra={"success": 1},
    )


def write_clean(root: Path, change: Callable[[int, EpisodeData], EpisodeData] = lambda _, data: data) -> Path:
    """Write the data set; `change` may alter episodes as a bad recording would."""
    with LeRobotWriter(root, SPEC, episodes_per_file=PER_FILE) as writer:
        for episode in range(EPISODES):
            writer.add_episode(change(episode, clean_episode(episode)))
    return root
