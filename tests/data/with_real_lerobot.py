"""Run by the Python of `.venv-lerobot`: the real lerobot package reads our data set, and writes one itself.

python with_real_lerobot.py read ROOT OUT.npz
python with_real_lerobot.py write ROOT
python with_real_lerobot.py convert ROOT            from v2.1 to v3.0, in place
python with_real_lerobot.py windows ROOT ROWS.npy OUT.npz
"""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np

FPS = 40
ROWS = 10
ASKED = {"action": [t / FPS for t in range(8)], "observation.images.top": [0.0, 2 / FPS, 8 / FPS]}


CHUNKS, ACTIONS, STRIDE = 3, 8, 2
WINDOW = {
    "observation.state": [ACTIONS * i / FPS for i in range(CHUNKS)],
    "action": [t / FPS for t in range(CHUNKS * ACTIONS)],
    "observation.images.top": [t / FPS for t in range(0, CHUNKS * ACTIONS + 1, STRIDE)],
    "observation.images.side": [t / FPS for t in range(0, CHUNKS * ACTIONS + 1, STRIDE)],
}
"""One of our training windows in the words of lerobot: state of every chunk, all actions, every frame."""


def lerobot_dataset() -> ModuleType:
    """Imported late, since our own tests read the constants of this file."""
    import lerobot.datasets.lerobot_dataset as module

    return module


def read(root: Path, out: Path) -> None:
    """Open with delta_timestamps, as a policy would, and save what every `ROWS`-th item holds."""
    dataset = lerobot_dataset().LeRobotDataset(
        "local/test", root=root, delta_timestamps=ASKED, video_backend="torchcodec"
    )
    items = [dataset[i] for i in range(0, len(dataset), ROWS)]
    arrays = {key: np.stack([item[key].numpy() for item in items]) for key in items[0] if key != "task"}
    stats = {f"stats/{k}/{name}": value for k, part in dataset.meta.stats.items() for name, value in part.items()}
    np.savez(
        out,
        **arrays,
        **stats,
        task=[item["task"] for item in items],
        rows=len(dataset),
        episodes=dataset.meta.total_episodes,
        lengths=[dataset.meta.episodes[i]["length"] for i in range(dataset.meta.total_episodes)],
        env_task=[dataset.meta.episodes[i]["env_task"] for i in range(dataset.meta.total_episodes)],
        fps=dataset.fps,
    )


def write(root: Path) -> None:
    """Three episodes in lerobot's own way; the red channel of a picture says its row, the green one its episode."""
    picture = {"dtype": "video", "shape": (64, 96, 3), "names": ["height", "width", "channels"]}
    features = {
        "observation.state": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
        "observation.images.front": picture,
    }
    dataset = lerobot_dataset().LeRobotDataset.create(
        "local/test", fps=20, root=root, features=features, robot_type="arm", vcodec="h264"
    )
    for episode in range(3):
        for row in range(12 + episode):
            image = np.full((64, 96, 3), 128, dtype=np.uint8)
            image[..., 0], image[..., 1] = 10 + 10 * row, 20 + 60 * episode
            frame = {
                "observation.state": np.array([row, episode, 0.1], dtype=np.float32),
                "action": np.array([episode, row], dtype=np.float32),
                "observation.images.front": image,
                "task": f"task {episode % 2}",
            }
            dataset.add_frame(frame)
        dataset.save_episode()
    dataset.finalize()


def convert(root: Path) -> None:
    """With the program that lerobot tells people to use; it looks for `root/repo_id`."""
    from lerobot.datasets.v30.convert_dataset_v21_to_v30 import convert_dataset

    convert_dataset(root.name, root=root.parent, push_to_hub=False)


def windows(root: Path, rows: Path, out: Path) -> None:
    """The windows that begin at these rows of the data set; frames as uint8 (n, T, H, W, 3)."""
    dataset = lerobot_dataset().LeRobotDataset(
        "local/test", root=root, delta_timestamps=WINDOW, video_backend="torchcodec"
    )
    items = [dataset[i] for i in np.load(rows).tolist()]
    arrays = {key: np.stack([item[key].numpy() for item in items]) for key in items[0] if key != "task"}
    for camera in ("observation.images.top", "observation.images.side"):
        arrays[camera] = (np.moveaxis(arrays[camera], 2, -1) * 255).round().astype(np.uint8)
    np.savez(out, **arrays, task=[item["task"] for item in items])


if __name__ == "__main__":
    verb, *paths = sys.argv[1:]
    {"read": read, "write": write, "convert": convert, "windows": windows}[verb](*map(Path, paths))
